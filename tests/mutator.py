"""Randomly changed run directories: each command ends with a result or with an error in one line.

    python tests/mutator.py --cases 20000 --seed 1

changes one file of a run directory at a time and does what evaluate, predict, report, summary, the
app and --resume do. It prints the outcomes. A case is a function of its seed and number, so
`--first N --cases 1` repeats it. A run directory is finished, interrupted, or interrupted and of an
earlier version, with a state.pt; its digests are as they were (sealed), made anew (sealed again, as
a stranger can) or missing (bare). Simulated: the damage, and the commands, which run in this
process.
"""

import argparse
import faulthandler
import json
import math
import os
import resource
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from rich.console import Console
from tiny import page, write_set

from beton.errors import BetonError
from jobs.tools import summary
from pipeline.app import runs
from pipeline.errors import UserError
from pipeline.evaluation.evaluate import load_model
from pipeline.evaluation.run_config import CheckpointSchedule, TrainingConfig
from pipeline.evaluation.run_dir import RunDir, read_run
from pipeline.loading.dataset import open_dataset
from pipeline.pictures.errors import PictureError
from pipeline.pictures.predictor import Predictor
from pipeline.recipes.recipe import Recipe, Stage
from pipeline.reporting.pages import training
from pipeline.runtime.files import DIGESTS, read_json, seal
from pipeline.runtime.storage import Folder
from pipeline.runtime.trees import unpack
from pipeline.training.checkpoint import Checkpoints
from pipeline.training.distributed import Processes, join_processes
from pipeline.training.runner import initial_network, run_training, write_config
from pipeline.training.trainer import Trainer

Random = np.random.Generator
SECONDS = 60  # time limit of a case
MEMORY = 16 << 30  # limit of the address space: an allocation of a damaged size fails
CPU = torch.device("cpu")
RECIPE = Recipe((Stage(16, 2, 5e-3),), batch_size=8, average=0.9)
REFUSED = (UserError, BetonError, OSError, PictureError, FloatingPointError)
NESTED: Any = json.loads("[" * 500 + "]" * 500)
VALUES: list[Any] = [
    *(None, True, [], {}, [[]], {"a": 1}, "", "a", "none", "auto", "../../etc/passwd", "/dev/zero"),
    *("\x1b[31m\n", "\ud800", "é" * 5000, 0, 1, -1, 2, 3, 0.5, -0.5, 1e-30, 1e30, 1e308),
    *(math.inf, -math.inf, math.nan, 255, 2**16, 2**31, 2**63, 2**64, 10**400, NESTED),
]


class Enough(Exception):  # noqa: N818
    """The end of a resumed training after one step."""


# What commands do with a run directory. Each returns numbers that damage must not change.


def evaluate(run: Path, data: Path) -> Any:
    trained = load_model(run)
    with open_dataset(data) as file:
        trained.check(file, "validation", data)
        predictions, _ = trained.predict(file, "validation", CPU, "no")
    return predictions.logits.tolist()


def predict(run: Path, _data: Path) -> Any:
    predictor = Predictor(load_model(run), device=CPU, precision="no")
    return [one.top for one in predictor.predict(predictor.prepare(page("A", 100)))]


def report(run: Path, _data: Path) -> Any:
    finished = read_run(run)
    text = training.page_of([run]).html()
    assert text.startswith("<!")
    return [finished.losses, [asdict(epoch) for epoch in finished.history]]


def summarise(run: Path, _data: Path) -> Any:
    title, subject = summary.subject_of(summary.Config(of=str(run), precision="no"))
    assert run.name in title
    return [tuple(layer) for layer in subject.layers()]


def list_runs(run: Path, _data: Path) -> Any:
    return [runs.about(run), runs.choices([run])[0][0]]


def resume(run: Path, _data: Path) -> Any:
    read_json(run, "config.json")
    config = RunDir(run).config()
    planned = config.training
    with open_dataset(Path(config.data)) as file, processes_of() as processes:
        checkpoints = Checkpoints(run / "checkpoints", **asdict(planned.checkpoints))
        network = initial_network(planned, file)
        trainer = Trainer(processes, network, planned.recipe, file, checkpoints=checkpoints)
        start = trainer.step

        def on_step(_: int) -> None:
            raise Enough

        trainer.on_step = on_step
        trainer._checkpoints = None
        with suppress(Enough):
            trainer.run()
    # A whole checkpoint, of which there are two, has these numbers.
    return [start, float(sum(p.double().sum() for p in network.parameters()))]


COMMANDS: dict[str, Sequence[Callable[[Path, Path], Any]]] = {
    "finished": (evaluate, predict, report, summarise, list_runs),
    "interrupted": (resume, resume, summarise),
    "earlier": (resume,),
}
_processes: list[Processes] = []


@contextmanager
def processes_of() -> Iterator[Processes]:
    """Join the processes once: accelerate keeps them for this process anyway."""
    if not _processes:
        with join_processes("no") as processes:
            _processes.append(processes)
    yield _processes[0]


# Kinds of damage: each function returns the changed bytes of a file.


def flip_bits(random: Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(random.integers(1, 4)):
        changed[random.integers(len(changed))] ^= 1 << int(random.integers(8))
    return bytes(changed)


def set_bytes(random: Random, data: bytes) -> bytes:
    start = int(random.integers(len(data)))
    length = int(random.integers(1, 64))
    new = [b"\0" * length, random.bytes(length), data[:length], b""][random.integers(4)]
    return data[:start] + new + data[start + length :]


def cut(random: Random, data: bytes) -> bytes:
    return data[: random.integers(len(data))]


def change_json(random: Random, data: bytes) -> bytes:
    """Replace, remove, rename or add a value at a random place of each changed line."""
    lines = data.decode().splitlines() if data.count(b"\n{") else [data.decode()]
    number = int(random.integers(len(lines)))
    tree = {"": json.loads(lines[number])}
    inner: Any = tree
    while True:
        keys = [*inner] if isinstance(inner, dict) else [*range(len(inner))]
        key = keys[random.integers(len(keys))]
        if not isinstance(inner[key], dict | list) or not inner[key] or random.random() < 0.1:
            break
        inner = inner[key]
    action = random.integers(8)
    if action == 0 and inner is not tree:
        del inner[key]
    elif action == 1 and isinstance(inner, dict) and inner is not tree:
        inner["x" * int(random.integers(3))] = inner.pop(key)
    elif action == 2 and isinstance(inner, list):
        inner += [inner[key]] * int(random.integers(1, 200))
    else:
        inner[key] = VALUES[random.integers(len(VALUES))]
    lines[number] = json.dumps(tree[""])
    return "\n".join(lines).encode()


def change_tensors(random: Random, data: bytes) -> bytes:
    """Change kind, shape, values or the name of a tensor."""
    tensors = safetensors.torch.load(data)
    name = [*tensors][random.integers(len(tensors))]
    one = tensors.pop(name)
    kinds = [torch.float16, torch.float64, torch.int64, torch.uint8, torch.bool, torch.bfloat16]
    match random.integers(8):
        case 0:
            one = one.to(kinds[random.integers(len(kinds))])
        case 1:
            one = one.reshape(-1)
        case 2:
            one = one[None].clone()
        case 3:
            one = one.new_zeros(tuple(random.integers(0, 4, random.integers(4)).tolist()))
        case 4:
            one = torch.full_like(one, [-1, 0, 2**31, 100][random.integers(4)])
        case 5 if one.is_floating_point():
            one = one.clone()
            one.view(-1)[random.integers(max(one.numel(), 1)) :] = math.nan
        case 6:
            name += "x"
        case _:
            return safetensors.torch.save(tensors)
    return safetensors.torch.save({**tensors, name: one})


@dataclass(frozen=True)
class Sound:
    """An undamaged run directory: its files, and what each command finds in it."""

    files: dict[Path, bytes]
    found: dict[str, list[Any]]


def make_runs(folder: Path) -> tuple[Path, dict[str, Sound]]:
    """Train the run directories; return the dataset and both."""
    data = write_set(folder / "tiny.beton")
    schedule = CheckpointSchedule(every_steps=3, keep=2)
    planned = TrainingConfig("plain", RECIPE, checkpoints=schedule)
    finished, interrupted = RunDir(folder / "finished"), RunDir(folder / "interrupted")
    with open_dataset(data) as file, processes_of() as processes:
        write_config(finished, "classify", planned, file, {"precision": "no"})
        run_training(processes, finished, planned, file, Console(quiet=True))
        shutil.copytree(finished.path, interrupted.path, symlinks=True)
    for path in interrupted.path.iterdir():
        if path.name not in ("config.json", "view.json", "checkpoints"):
            path.unlink()
    shutil.rmtree(interrupted.path / "checkpoints")
    train_in_part(interrupted.path, planned, data)
    earlier = shutil.copytree(interrupted.path, folder / "earlier", symlinks=True)
    for path in (earlier / "checkpoints").glob("step-*"):
        tensors = safetensors.torch.load_file(path / "state.safetensors")
        state = unpack(json.loads((path / "state.json").read_text()), tensors)
        torch.save(state, path / "state.pt")
        for name in ("state.json", "state.safetensors", DIGESTS):
            (path / name).unlink()
    sounds = {}
    for run in (finished.path, interrupted.path, earlier):
        read = (".json", ".jsonl", ".safetensors", ".pt", "")
        unread = ("environment.json", "scores.json", "best")
        paths = [p for p in run.rglob("*") if p.is_file() and p.suffix in read]
        kept = {p.relative_to(run): p.read_bytes() for p in paths if p.name not in unread}
        if run == finished.path:
            kept = {path: text for path, text in kept.items() if "checkpoints" not in path.parts}
        found = {
            command.__name__: [command(run, data)] for command in dict.fromkeys(COMMANDS[run.name])
        }
        if run != finished.path:
            last = sorted((run / "checkpoints").glob("step-*"))[-1]
            shutil.move(last, folder / "last")
            found["resume"].append(resume(run, data))
            shutil.move(folder / "last", last)
        sounds[run.name] = Sound(kept, found)
    return data, sounds


def train_in_part(run: Path, planned: TrainingConfig, data: Path) -> None:
    with open_dataset(data) as file, processes_of() as processes:
        checkpoints = Checkpoints(run / "checkpoints", every_steps=3, keep=2)
        network = initial_network(planned, file)
        trainer = Trainer(processes, network, planned.recipe, file, checkpoints=checkpoints)

        def on_step(_: int) -> None:
            if trainer.step == 7:
                raise Enough

        trainer.on_step = on_step
        with suppress(Enough):
            trainer.run()


def run_case(seed: int, number: int, folder: Path, data: Path, sounds: dict[str, Sound]) -> str:
    """Change a file and run a command; return the outcome, or raise an error for a wrong one."""
    random = np.random.default_rng([seed, number])
    name = [*COMMANDS][random.choice(3, p=[0.4, 0.4, 0.2])]
    kind = ["sealed", "sealed again", "bare"][random.integers(3)] if name != "earlier" else "bare"
    sound, run = sounds[name], folder / name
    # A resumed training reads the last of two checkpoints, and the other one after damage.
    last = max(path.parent for path in sound.files)
    paths = [path for path in sorted(sound.files) for _ in range(3 if path.parent == last else 1)]
    path = paths[random.integers(len(paths))]
    before = sound.files[path]
    structured = {".safetensors": change_tensors, ".json": change_json, ".jsonl": change_json}
    kinds = [flip_bits, set_bytes, cut, *[structured.get(path.suffix, flip_bits)] * 4]
    after = kinds[random.integers(len(kinds))](random, before)
    digests = run / path.parent / DIGESTS
    sealed = digests.read_bytes() if digests.exists() else None
    (run / path).write_bytes(after)
    if sealed is not None and kind == "bare":
        digests.unlink(missing_ok=True)
    elif sealed is not None and kind == "sealed again" and path.name != DIGESTS:
        with Folder(digests.parent) as opened:
            seal(opened)
    command = [*COMMANDS[name]][random.integers(len(COMMANDS[name]))]
    printed = StringIO()
    try:
        with redirect_stderr(printed):
            found = command(run, data)
        outcome = "as before" if found in sound.found[command.__name__] else "another result"
    except REFUSED as error:
        outcome = "refused in several lines" if "\n" in str(error) else "refused"
    finally:
        (run / path).write_bytes(before)
        if sealed is not None:
            digests.write_bytes(sealed)
    listed = sealed is not None and f"  {path.name}\n".encode() in sealed
    unnoticed = outcome == "another result" and listed and kind == "sealed" and after != before
    assert outcome != "refused in several lines", f"{path}: {command.__name__}"
    assert not unnoticed, f"{path}: {command.__name__}: a change under a digest is unnoticed"
    return f"{name}, {kind}: {outcome}"


def run_cases(seed: int, first: int, cases: int, folder: Path, keep_going: bool) -> Counter[str]:
    """Run cases; the file `folder`/case has the number of the current case."""
    data, sounds = make_runs(folder)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    outcomes: Counter[str] = Counter()
    for number in range(first, first + cases):
        (folder / "case").write_text(str(number))
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        try:
            outcomes[run_case(seed, number, folder, data, sounds)] += 1
        except Exception:
            print(f"case {number} of seed {seed}:", file=sys.stderr)
            if not keep_going:
                raise
            traceback.print_exc()
            outcomes["failed"] += 1
    faulthandler.cancel_dump_traceback_later()
    return outcomes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--keep-going", action="store_true", help="count failures, do not stop")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    faulthandler.enable()
    os.environ["MPLBACKEND"] = "Agg"
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        done = run_cases(options.seed, options.first, options.cases, folder, options.keep_going)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps(dict(sorted(done.items())), indent=1))
    seconds = time.monotonic() - started
    print(f"{sum(done.values())} cases, {seconds:.0f} s, {memory >> 10} MiB", file=sys.stderr)
    return 1 if done["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
