import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import killable
import numpy as np
import pytest
import torch
from forked import CONTEXT
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from safetensors.torch import load_file
from tiny import CLASSES, page, write_set
from torch import Tensor, nn

from beton import writer
from beton.errors import BetonError
from beton.fields import IntField
from beton.reader import Reader
from pipeline.errors import DivergedError, UserError
from pipeline.evaluation.predict import predict
from pipeline.evaluation.run_config import TrainingConfig
from pipeline.evaluation.run_dir import RunDir
from pipeline.loading.augment import Augmentation
from pipeline.loading.batches import Decode, DeviceLoader
from pipeline.loading.dataset import View, open_dataset, split_indices
from pipeline.models import networks
from pipeline.recipes.mixup import Mixing
from pipeline.recipes.recipe import Recipe, Stage
from pipeline.runtime import launch
from pipeline.runtime.hardware import precision_for
from pipeline.runtime.signals import Stopped
from pipeline.training.checkpoint import Checkpoints
from pipeline.training.distributed import join_processes
from pipeline.training.optim.muon import Muon
from pipeline.training.runner import run_training, write_config
from pipeline.training.trainer import Trainer

CPU = torch.device("cpu")
Factory = pytest.TempPathFactory
AUGMENTATION = Augmentation(rotation=5, zoom=0.05, shear=0.1, translation=0.05)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    with open_dataset(write_set(tmp_path_factory.mktemp("set") / "tiny.beton")) as reader:
        yield reader


def recipe(seed: int = 0, **changed: Any) -> Recipe:
    stage = replace(Stage(16, 2, 5e-3, augmentation=AUGMENTATION), **changed)
    return Recipe((stage,), batch_size=8, seed=seed)


def train(file: Reader, recipe: Recipe, **options: Any) -> Trainer:
    network = networks.build("small", len(CLASSES), recipe.seed)
    with join_processes("no") as processes:
        training = Trainer(processes, network, recipe, file, **options)
        training.run()
    return training


def weights(training: Trainer) -> Mapping[str, Tensor]:
    return training.network.state_dict()


def test_training_learns(file: Reader) -> None:
    steps: list[int] = []
    network = networks.build("small", len(CLASSES), 0)
    with join_processes("no") as processes:
        training = Trainer(processes, network, recipe(epochs=30), file)
        training.on_step = steps.append
        epochs = list(training)
    assert training.history == epochs
    assert [epoch.epoch for epoch in epochs] == list(range(30))
    assert epochs[-1].accuracy == 1
    assert epochs[-1].train_accuracy > 0.9
    assert epochs[-1].train_loss < epochs[0].train_loss
    assert sum(steps) == training.images == 30 * 32
    assert training.images_left == 0
    assert len(training.losses) == training.step == 30 * 4
    scores = training.scores(CLASSES)
    assert scores is not None
    assert (scores.accuracy, scores.samples) == (epochs[-1].accuracy, 3 * len(CLASSES))
    assert scores.loss == pytest.approx(epochs[-1].loss)
    figures = training.performance()
    assert 0 <= figures["loader_share"] <= 1
    assert figures["seconds_training"] == epochs[-1].seconds


def test_the_same_seed_gives_the_same_weights(file: Reader) -> None:
    one, same, other = (weights(train(file, recipe(seed))) for seed in (3, 3, 4))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_stages_follow_each_other(file: Reader) -> None:
    first, second = recipe(epochs=2).stages[0], recipe(size=24, epochs=1).stages[0]
    training = train(file, Recipe((first, second), batch_size=8))
    assert [(one.epoch, one.stage) for one in training.history] == [(0, 0), (1, 0), (2, 1)]
    assert training.view.size == 24


def test_learning_rates_rise_and_fall(file: Reader) -> None:
    training = train(file, recipe(epochs=8))
    rates = [epoch.learning_rate for epoch in training.history]
    top = rates.index(max(rates))
    assert 0 < top < 4
    assert rates == sorted(rates[:top]) + sorted(rates[top:], reverse=True)


def killed_and_resumed(data: Path, folder: Path, kills: Sequence[int]) -> dict[str, Tensor]:
    """Train in processes that are killed after these steps; return the final weights."""
    folder.mkdir()
    for kill_at in (*kills, None):
        process = CONTEXT.Process(target=killable.train, args=(data, folder, kill_at))
        process.start()
        process.join()
        assert process.exitcode == (0 if kill_at is None else -signal.SIGKILL)
    return load_file(folder / "final.safetensors")


@settings(max_examples=3)
@given(kills=st.lists(st.integers(1, killable.STEPS), min_size=2, max_size=2).map(sorted))
def test_a_training_killed_twice_ends_with_the_same_weights(
    kills: list[int], uninterrupted: tuple[Path, dict[str, Tensor]], tmp_path_factory: Factory
) -> None:
    data, expected = uninterrupted
    found = killed_and_resumed(data, tmp_path_factory.mktemp("killed") / "run", kills)
    # It resumed from the last checkpoint: one every third step and at the end of each epoch.
    first = int(found.pop("first"))
    assert kills[1] - 3 <= first < kills[1]
    assert found.keys() == expected.keys()
    assert [name for name in found if not torch.equal(found[name], expected[name])] == []


def test_a_finished_training_can_be_resumed(uninterrupted: tuple[Path, dict[str, Tensor]]) -> None:
    data, _ = uninterrupted
    with open_dataset(data) as file, join_processes("no") as processes:
        checkpoints = Checkpoints(data.parent / "run" / "checkpoints")
        training = killable.make_trainer(processes, file, checkpoints)
        assert list(training) == []
        assert training.images_left == 0
        assert training.predictions is not None
        scores = training.scores(CLASSES)
        assert scores is not None
        assert scores.accuracy == training.history[-1].accuracy


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: Factory) -> tuple[Path, dict[str, Tensor]]:
    """A dataset, and the final weights and metrics of an uninterrupted training on it."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    data = write_set(folder / "tiny.beton")
    expected = killed_and_resumed(data, folder / "run", ())
    assert expected.pop("first") == 0
    return data, expected


def test_a_checkpoint_of_other_data_is_refused(
    uninterrupted: tuple[Path, dict[str, Tensor]], tmp_path: Path
) -> None:
    other = write_set(tmp_path / "other.beton", train=12)
    checkpoints = Checkpoints(uninterrupted[0].parent / "run" / "checkpoints")
    with (
        open_dataset(other) as file,
        join_processes("no") as processes,
        pytest.raises(UserError, match="checkpoint: got 4 batches per epoch, expected 6"),
    ):
        killable.make_trainer(processes, file, checkpoints)


class NoBatchNorm(nn.Sequential):
    """A network without batch statistics, which depend on the micro-batches."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, 2), nn.ReLU())
        self.body = nn.Flatten()
        self.head = nn.Linear(392, len(CLASSES))


@pytest.mark.parametrize("size", [2, 4, 6])
def test_micro_batches_add_up_to_the_batch(file: Reader, size: int) -> None:
    found = []
    for micro_batch in (None, size):
        torch.manual_seed(0)
        plan = replace(recipe(mixing=Mixing(mixup=0.5), clip=0.5), micro_batch=micro_batch)
        with join_processes("no") as processes:
            training = Trainer(processes, NoBatchNorm(), plan, file)
            training.run()
        found.append((weights(training), training.losses))
    (whole, losses), (parts, others) = found
    assert losses == pytest.approx(others, rel=1e-4)
    for name in whole:
        torch.testing.assert_close(parts[name], whole[name], rtol=1e-3, atol=1e-5)


def test_frozen_layers_stay_and_the_others_move(file: Reader) -> None:
    before = networks.build("small", len(CLASSES), 0).state_dict()
    after = weights(train(file, recipe(frozen=2, learning_rate=1e-2)))
    moved = {n for n in after if n.endswith("weight") and not torch.equal(before[n], after[n])}
    assert moved == {"head.2.weight"}


def test_the_eval_model_is_the_average_of_the_weights(file: Reader) -> None:
    training = train(file, replace(recipe(epochs=4), average=0.9))
    eval_model, network = training.eval_model.state_dict(), weights(training)
    assert eval_model.keys() == network.keys()
    assert not torch.equal(eval_model["head.2.weight"], network["head.2.weight"])
    ids = split_indices(file, "validation")
    with DeviceLoader(file, ids, training.view, 4, device=CPU) as batches:
        predictions = predict(training.eval_model, batches)
    assert training.predictions is not None
    torch.testing.assert_close(predictions.logits, training.predictions.logits)


def test_a_stage_can_compute_in_float32(file: Reader) -> None:
    found = []
    for mixed in (True, False):
        dtypes: list[torch.dtype] = []
        network = networks.build("small", len(CLASSES), 0)
        with join_processes("bf16") as processes:
            training = Trainer(processes, network, recipe(epochs=1, mixed_precision=mixed), file)
            network.body.register_forward_hook(
                lambda _module, _in, out, dtypes=dtypes: dtypes.append(out.dtype)
            )
            training.run()
        found.append(set(dtypes))
    assert found == [{torch.bfloat16}, {torch.float32}]


def test_whole_pages_are_not_augmented(file: Reader) -> None:
    view = View.of(file, 48, None)
    assert (view.whole, view.canvas, view.shape) == (True, (48, 64), (48, 64))
    with DeviceLoader(file, split_indices(file, "all"), view, 4, device=CPU) as batches:
        first = next(iter(batches.micro_batches()))
    assert first.images.shape == (4, 1, 48, 64)
    with pytest.raises(UserError, match="whole pages are shown unchanged"):
        replace(recipe(), window=None)


def test_divergence_stops_training_and_names_step_and_samples(file: Reader) -> None:
    with pytest.raises(DivergedError, match="diverged at step 1, in epoch 1: ") as found:
        train(file, recipe(learning_rate=1e30, schedule="constant", warm_up=0, weight_decay=0))
    ids = found.value.ids
    train_ids, view = split_indices(file, "train"), View.of(file, 16, 1.0)
    with DeviceLoader(file, train_ids, view, 8, device=CPU, augmentation=AUGMENTATION) as batches:
        (second,) = next(batches.batches(0, start=1))
        assert list(ids) == batches.ids(0, 1).tolist() == second.ids.tolist()
    assert found.value.checkpoint is None
    assert ", ".join(map(str, ids)) in str(found.value)
    assert (found.value.auxiliary_ids, "auxiliary" in str(found.value)) == ((), False)


def test_divergence_names_the_samples_of_both_datasets(file: Reader) -> None:
    plan = recipe(learning_rate=1e30, schedule="constant", warm_up=0, weight_decay=0)
    with pytest.raises(DivergedError, match="; of the auxiliary dataset: ") as found:
        train(file, replace(plan, auxiliary=0.5), auxiliary=file)
    assert len(found.value.ids) == len(found.value.auxiliary_ids) == 4
    assert max(*found.value.ids, *found.value.auxiliary_ids) < len(file)


@pytest.mark.parametrize("ruined", [2, 8])  # of eight steps
def test_weights_that_are_not_finite_are_divergence_and_never_saved(
    ruined: int, file: Reader, tmp_path: Path
) -> None:
    def ruin(_images: int) -> None:
        if training.step == ruined:
            next(network.head.parameters()).detach().fill_(math.inf)

    network = networks.build("small", len(CLASSES), 0)
    with join_processes("no") as processes:
        checkpoints = Checkpoints(tmp_path, every_steps=1)
        training = Trainer(processes, network, recipe(), file, checkpoints=checkpoints)
        training.on_step = ruin
        with pytest.raises(DivergedError, match=f"diverged at step {ruined - 1}, ") as found:
            training.run()
    saved = found.value.checkpoint
    assert saved is not None
    assert saved == checkpoints.all()[-1] == tmp_path / f"step-{ruined - 1:08d}"
    assert all(w.isfinite().all() for w in load_file(saved / "model.safetensors").values())


def test_predictions_that_are_not_finite_are_divergence(file: Reader, tmp_path: Path) -> None:
    """Finite weights may still overflow; here, the statistics of batches are not finite."""

    def ruin(_images: int) -> None:
        if training.step == 7:  # in the second of two epochs
            for name, buffer in network.named_buffers():
                if name.endswith("running_mean"):
                    buffer.fill_(math.nan)

    network = networks.build("small", len(CLASSES), 0)
    with join_processes("no") as processes:
        checkpoints = Checkpoints(tmp_path)
        training = Trainer(processes, network, recipe(), file, checkpoints=checkpoints)
        training.on_step = ruin
        words = "diverged at step 7, in epoch 2: predictions after it are not finite"
        with pytest.raises(DivergedError, match=words) as found:
            training.run()
    assert found.value.checkpoint == tmp_path / "step-00000004"
    assert [path.name for path in checkpoints.all()] == ["step-00000004"]
    assert len(training.history) == 1


def test_an_interrupted_epoch_has_the_metrics_of_a_whole_one(file: Reader, tmp_path: Path) -> None:
    def stop(_images: int) -> None:
        if training.step == 5:  # not at the end of an epoch
            os.kill(os.getpid(), signal.SIGTERM)

    with join_processes("no") as processes:
        network = networks.build("small", len(CLASSES), 0)
        training = Trainer(processes, network, recipe(), file, checkpoints=Checkpoints(tmp_path))
        training.on_step = stop
        with pytest.raises(Stopped, match="after step"):
            training.run()
    assert training.step % training.batches_per_epoch
    whole = train(file, recipe())
    resumed = train(file, recipe(), checkpoints=Checkpoints(tmp_path))
    for one, other in zip(whole.history, resumed.history, strict=True):
        assert replace(one, seconds=0) == replace(other, seconds=0)


@pytest.mark.parametrize("part", [False, True])
def test_a_signal_in_the_last_validation_stops_the_trainings_after_it(
    part: bool, file: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def validate(self: Trainer, *arguments: Any) -> Any:
        if self.step == 8:
            os.kill(os.getpid(), signal.SIGTERM)
        return validated(self, *arguments)

    validated = Trainer._validate
    monkeypatch.setattr(Trainer, "_validate", validate)
    run, config = RunDir(tmp_path / "run"), TrainingConfig("small", recipe())
    with join_processes("no") as processes:
        write_config(run, "test", config, file, {})
        with pytest.raises(Stopped) if part else nullcontext() as found:
            whole = tmp_path if part else None
            run_training(processes, run, config, file, Console(quiet=True), whole=whole)
    assert run.finished
    if found is not None:
        assert (found.value.run, found.value.signal) == (tmp_path, signal.SIGTERM)


def test_only_muon_steps_in_low_precision(file: Reader) -> None:
    seen: dict[str, list[bool]] = {}

    class Watched(Muon):
        def step(self, closure: None = None) -> None:  # type: ignore[override]
            seen.setdefault("Muon", []).append(torch.is_autocast_enabled("cpu"))
            super().step(closure)

    class Other(torch.optim.AdamW):
        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            seen.setdefault("AdamW", []).append(torch.is_autocast_enabled("cpu"))
            super().step(closure)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.training.optim.Muon", Watched)
        patch.setattr("torch.optim.AdamW", Other)
        for name in ("Muon", "AdamW"):
            with join_processes("bf16") as processes:
                network = networks.build("small", len(CLASSES), 0)
                Trainer(processes, network, recipe(epochs=1, optimizer=name), file).run()
    assert {name: set(steps) for name, steps in seen.items()} == {"Muon": {True}, "AdamW": {False}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 4}, "size: got 4, expected 16 to 4096"),
        ({"epochs": 0}, "epochs: got 0, expected 1 to"),
        ({"learning_rate": float("nan")}, "learning_rate: got nan"),
        ({"frozen": 3}, "frozen: got 3, expected 0 to 2"),
        ({"schedule": "step"}, "schedule: got 'step', expected one of one-cycle, cosine, linear"),
        ({"learning_rate": (1.0, 1.0, 1.0, 1.0)}, "learning_rate: got .*, expected one, two or"),
    ],
)
def test_invalid_stages_are_rejected(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        recipe(**change)


def test_invalid_recipes_are_rejected(file: Reader) -> None:
    with pytest.raises(UserError, match="got no stages"):
        Recipe(())
    with pytest.raises(UserError, match="batch_size: got 33, expected at most 32"):
        train(file, Recipe(recipe().stages, batch_size=33))
    with pytest.raises(UserError, match="precision: got 'fp16' on a CPU"):
        precision_for(CPU, "fp16")


def loader(file: Reader, decode: Decode, batch: int = 4, **options: Any) -> DeviceLoader:
    view = View.of(file, 48, window=0.8)
    return DeviceLoader(
        file, split_indices(file, "all"), view, batch, device=CPU, decode=decode, **options
    )


def test_both_decodes_give_the_same_images_within_a_grey_level(file: Reader) -> None:
    for augmentation in (None, AUGMENTATION):
        with (
            loader(file, "loader", augmentation=augmentation) as one,
            loader(file, "device", augmentation=augmentation) as two,
        ):
            for left, right in zip(one.micro_batches(1), two.micro_batches(1), strict=True):
                assert (left.ids == right.ids).all()
                assert torch.equal(left.labels, right.labels)
                torch.testing.assert_close(left.images, right.images, atol=1 / 255, rtol=0)


def test_ink_is_one_and_paper_zero_at_the_scale_of_the_page(file: Reader) -> None:
    with loader(file, "loader") as batches:
        inputs = next(iter(batches.micro_batches()))
    assert inputs.images.shape == (4, 1, 48, 48)
    scale = 48 / (0.8 * page("A", 0).shape[0])
    for image, label in zip(inputs.images, inputs.labels.tolist(), strict=True):
        ink = (page(CLASSES[label], 0) == 0).sum() * scale**2
        assert image.amin() >= 0
        assert image.amax() <= 1 + 1e-6
        assert float(image.sum()) == pytest.approx(ink, rel=0.02)


def test_training_shuffles_and_drops_the_incomplete_batch(file: Reader) -> None:
    with loader(file, "loader", batch=10, augmentation=AUGMENTATION) as batches:
        epochs = [
            np.concatenate([b.ids for b in batches.micro_batches(epoch)]) for epoch in (0, 0, 1)
        ]
    assert len(epochs[0]) == 40
    assert len(set(epochs[0])) == 40
    assert (epochs[0] == epochs[1]).all()
    assert (epochs[0] != epochs[2]).any()


@pytest.mark.parametrize("batch", [1, 7, 44, 100])
def test_predictions_do_not_depend_on_the_batch_size(file: Reader, batch: int) -> None:
    network = networks.build("small", len(CLASSES), 0).eval()
    with loader(file, "loader", batch=batch) as batches:
        predictions = predict(network, batches)
    assert predictions.ids.tolist() == list(range(len(file)))
    assert predictions.labels.tolist() == file.column("label").metadata.tolist()
    with loader(file, "loader", batch=len(file)) as batches, torch.no_grad():
        expected = network(next(iter(batches.micro_batches())).images)
    torch.testing.assert_close(predictions.logits, expected, atol=1e-4, rtol=1e-4)


def test_a_file_that_prep_did_not_write_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "other.beton"
    writer.write(path, {"label": IntField()}, [(1,)])
    with pytest.raises(BetonError, match=r"other\.beton: not a file that prep writes"):
        open_dataset(path)


CORES = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("arguments", "threads", "local_processes", "expected"),
    [
        ([], None, "1", CORES),
        ([], None, str(10**6), 1),
        ([], "1", "1", 1),
        ([], "2", str(10**6), 2),
        (["--num_cpu_threads_per_process=1"], None, "1", 1),
    ],
)
def test_processes_share_the_cores_unless_the_user_sets_the_threads(
    arguments: list[str],
    threads: str | None,
    local_processes: str,
    expected: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = torch.get_num_threads()
    environment = {"OMP_NUM_THREADS": threads} if threads else {}
    command = [sys.executable, "-c", "print(flush=True); input()", *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe) as launcher:
        assert launcher.stdout is not None
        launcher.stdout.readline()
        monkeypatch.setattr(os, "getppid", lambda: launcher.pid)
        monkeypatch.setenv("LOCAL_WORLD_SIZE", local_processes)
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
        monkeypatch.setenv("OMP_NUM_THREADS", threads or "1")  # as accelerate's launcher does
        torch.set_num_threads(int(threads or "1"))  # as torch does on import
        try:
            assert launch.use_cores() == expected
        finally:
            torch.set_num_threads(before)
            launcher.communicate(b"\n")


def test_without_a_launcher_the_environment_sets_the_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = torch.get_num_threads()
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    assert launch.use_cores() == 1
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert launch.use_cores() == CORES
    torch.set_num_threads(before)
