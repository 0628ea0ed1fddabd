"""A stop of two processes in mid-epoch and a resume change nothing, bit for bit."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import run_together
from job_started import ENVIRONMENT
from killable import make_trainer
from safetensors.torch import load_file
from tiny import write_set
from torch import Tensor

from pipeline.loading.dataset import open_dataset
from pipeline.training.checkpoint import Checkpoints
from pipeline.training.distributed import join_processes

# Trains to the end, or until SIGTERM reaches one of the processes after a step.
SCRIPT = f"""
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from killable import make_trainer
from pipeline.loading.dataset import open_dataset
from pipeline.runtime.files import write_tensors
from pipeline.runtime.signals import Stopped
from pipeline.training.checkpoint import Checkpoints
from pipeline.training.distributed import join_processes
import torch

data, folder, every, stop = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
torch.set_num_threads(1)
with open_dataset(data) as file, join_processes("no") as processes:
    trainer = make_trainer(processes, file, Checkpoints(folder / "checkpoints", every_steps=every))

    def on_step(images):
        if processes.rank == 1 and trainer.step == stop:
            os.kill(os.getpid(), signal.SIGTERM)

    trainer.on_step = on_step
    try:
        trainer.run()
    except Stopped:
        pass
    found = {{f"network.{{n}}": w for n, w in trainer.network.state_dict().items()}}
    found |= {{f"average.{{n}}": w for n, w in trainer.eval_model.state_dict().items()}}
    found["losses"] = torch.tensor(trainer.losses, dtype=torch.float64)
    found["metrics"] = torch.tensor(
        [(e.train_loss, e.train_accuracy, e.gradient_norm, e.loss) for e in trainer.history]
    )
    write_tensors(folder / f"{{processes.rank}}.safetensors", found)
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("set") / "tiny.beton")


def train(tmp_path: Path, data: Path, name: str, every: int = 0, stop: int = 0) -> Path:
    script, folder = tmp_path / "script.py", tmp_path / name
    script.write_text(SCRIPT)
    folder.mkdir(exist_ok=True)
    done = run_together(2, [script, data, folder, str(every), str(stop)], tmp_path, ENVIRONMENT)
    assert [one.returncode for one in done] == [0, 0], done[0].stderr + done[1].stderr
    return folder


def equal(one: Path, other: Path) -> bool:
    """Whether both processes have the same weights, statistics, losses and metrics."""
    for rank in (0, 1):
        ours, theirs = (load_file(folder / f"{rank}.safetensors") for folder in (one, other))
        assert ours.keys() == theirs.keys()
        if not all(torch.equal(ours[name], theirs[name]) for name in ours):
            return False
    return True


def test_a_stop_in_mid_epoch_and_saving_change_nothing(data: Path, tmp_path: Path) -> None:
    whole = train(tmp_path, data, "whole")
    stopped = train(tmp_path, data, "stopped", every=1, stop=5)
    last = Checkpoints(stopped / "checkpoints").last(torch.device("cpu"))
    assert last is not None
    weights, state = last
    assert state["batch"] > 0  # in mid-epoch
    first, second = state["local"]
    assert not torch.equal(first, second)  # each has its own statistics, and the weights the means
    means = (first + second) / 2
    values = torch.cat([weights[name].flatten() for name in weights if "running_mean" in name])
    assert torch.isin(values, means).all()
    assert not equal(whole, stopped)
    assert equal(whole, train(tmp_path, data, "stopped", every=1))


class EarlierCheckpoints(Checkpoints):
    """Checkpoints as earlier versions saved them: means over the processes, and no loss scale."""

    def last(self, device: torch.device) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        found = super().last(device)
        if found is not None:
            _, state = found
            state["sums"] = state.pop("local")[0, :3]
            del state["scaler"]
        return found


def test_a_checkpoint_of_an_earlier_version_is_resumed(data: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    with open_dataset(data) as file, join_processes("no") as processes:
        whole = make_trainer(processes, file, Checkpoints(kept, every_steps=1, keep=99))
        whole.run()
        for path in Checkpoints(kept).all()[6:]:
            shutil.rmtree(path)
        (kept / "best").unlink()
        resumed = make_trainer(processes, file, EarlierCheckpoints(kept))
        assert resumed.step == 6  # in mid-epoch
        resumed.run()
    ours, theirs = (one.eval_model.state_dict() for one in (whole, resumed))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    for one, other in zip(whole.history, resumed.history, strict=True):
        assert (one.train_loss, one.gradient_norm) == (other.train_loss, other.gradient_norm)
