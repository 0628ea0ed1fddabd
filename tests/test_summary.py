"""summary: the layers of a network, and the memory of a training step."""

import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import write_set
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from jobs.tools import summary as job
from pipeline.errors import UserError
from pipeline.evaluation.run_config import TrainingConfig
from pipeline.evaluation.run_dir import RunDir
from pipeline.inspection.step_memory import measure_step
from pipeline.inspection.summary import Subject, memory_of
from pipeline.loading.dataset import View, open_dataset
from pipeline.models import networks
from pipeline.models.described import described
from pipeline.models.layers import layer_table
from pipeline.recipes.recipe import Recipe, Stage
from pipeline.training import optim
from pipeline.training.runner import write_config

STAGE = Stage(16, 1, 1e-3)
EXERCISE = "conv3-100/2p1,relu,conv3-200/2p1,relu,conv3-400/2p1,relu"


def test_three_filters_of_five_by_five_on_32_by_32() -> None:
    """A published exercise: the output, the weights, and the input that keeps 32 by 32."""
    (row,) = layer_table(described("conv5-3", (1, 32, 32)), (1, 32, 32))
    assert (row.output, row.parameters) == ((3, 28, 28), 75)
    (row,) = layer_table(described("conv5-3", (1, 36, 36)), (1, 36, 36))
    assert row.output == (3, 32, 32)


def test_three_convolutions_of_stride_2_on_200_by_300() -> None:
    """A published exercise: 902,700 weights; the activations it charges, and those stored."""
    subject = Subject(EXERCISE, 10, (3, 200, 300), 50, STAGE)
    rows = [row for row in subject.layers() if row.kind == "Conv2d"]
    assert [row.parameters for row in rows] == [2_700, 180_000, 720_000]
    assert [row.output for row in rows] == [(100, 100, 150), (200, 50, 75), (400, 25, 38)]
    memory = memory_of(subject)
    assert memory.parameters == memory.gradients == 4 * 902_700 == 3_610_800
    stored = 100 * 100 * 150 + 200 * 50 * 75 + 400 * 25 * 38
    assert stored == 2_630_000
    assert memory.activations_of_one == 4 * stored
    assert memory.activations == 50 * 4 * stored
    assert memory.images == 50 * 4 * 3 * 200 * 300
    # The exercise has a copy of each output for each input channel, and a last side of 37.
    inputs, outputs = (3, 100, 200), (1_500_000, 750_000, 400 * 25 * 37)
    charged = [(one + 1) * values for one, values in zip(inputs, outputs, strict=True)]
    assert charged == [6_000_000, 75_750_000, 74_370_000]
    assert 4 * sum(charged) == pytest.approx(624.5e6, rel=1e-3)


def stored_of_one(text: str) -> int:
    return memory_of(Subject(text, 10, (3, 200, 300), 2, STAGE)).activations_of_one


def test_pooling_shrinks_what_follows_and_stores_its_places() -> None:
    strided = EXERCISE.replace("100/2p1,relu", "100/2p1,relu,maxpool2")
    first, places = 4 * 1_500_000, 8 * 100 * 50 * 75  # the places are int64
    rest = 4 * (100 * 50 * 75 + 200 * 25 * 38 + 400 * 13 * 19)
    assert stored_of_one(strided) == first + places + rest > stored_of_one(EXERCISE)
    plain = EXERCISE.replace("/2", "")
    assert stored_of_one(plain) == 4 * (100 + 200 + 400) * 200 * 300
    assert stored_of_one(plain.replace("relu", "relu,maxpool2")) < 0.6 * stored_of_one(plain)


def saved_in_reality(network: nn.Module, batch: Tensor) -> int:
    """The bytes that autograd saves of a real forward pass, each storage once."""
    known = [*network.parameters(), *network.buffers(), batch]
    pointers = {one.untyped_storage().data_ptr() for one in known}
    sizes: dict[int, int] = {}
    kept = []

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept.append(storage)
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        network(batch)
    return sum(size for pointer, size in sizes.items() if pointer not in pointers)


@pytest.mark.parametrize("name", [name for name in networks.NETWORKS if name != "baseline"])
def test_the_estimate_is_what_a_real_step_stores(name: str) -> None:
    side = max(32, networks.SMALLEST.get(name, 16))
    subject = Subject(name, 7, (1, side, side), 3, replace(STAGE, optimizer="AdamW"))
    memory = memory_of(subject)
    network = subject.build().train().to(memory_format=torch.channels_last)
    batch = torch.rand(3, 1, side, side).to(memory_format=torch.channels_last)
    assert memory.activations == saved_in_reality(network, batch)
    assert memory.parameters == 4 * sum(one.numel() for one in network.parameters())
    optimizer = optim.build(network, subject.stage)
    network(batch).sum().backward()
    optimizer.step()
    state = [one for values in optimizer.state.values() for one in values.values()]
    assert memory.optimizer == sum(one.nbytes for one in state)


def test_frozen_layers_have_no_gradients_and_store_fewer_activations() -> None:
    memory, frozen = (
        memory_of(Subject("small", 4, (1, 32, 32), 8, replace(STAGE, frozen=number)))
        for number in (0, 2)
    )
    head = 4 * (160 * 4 + 4)
    assert frozen.gradients == head < memory.gradients == memory.parameters == frozen.parameters
    assert frozen.activations < memory.activations


def test_precision_halves_the_activations() -> None:
    single, half = (
        memory_of(Subject("small", 4, (1, 32, 32), 64, STAGE, precision=precision))
        for precision in ("no", "bf16")
    )
    assert 0.45 < half.activations / single.activations < 0.75
    assert half.parameters == single.parameters


def test_a_real_step_takes_at_least_the_estimate() -> None:
    subject = Subject("conv3-32p1,relu,conv3-32p1,relu", 10, (1, 64, 64), 64, STAGE)
    memory, used = memory_of(subject), measure_step(subject)
    assert used is not None
    assert memory.activations == 2 * 64 * 32 * 64 * 64 * 4
    assert 0.9 * memory.total < used < 4 * memory.total


class Shared(nn.Module):
    """A layer that is used twice, a parameter of its own, and arithmetic without a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.twice = nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.scale = nn.Parameter(torch.ones(4, 1, 1))
        self.tied = nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.tied.weight = self.twice.weight
        self.up = nn.ConvTranspose2d(4, 2, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.twice(self.twice(x).permute(0, 1, 3, 2))  # not contiguous
        x = nn.functional.conv2d(self.tied(x), self.twice.weight, padding=1, groups=2)
        result: Tensor = self.up(self.scale * x)
        return result


def test_shared_weights_count_once_and_grouped_arithmetic_counts_right() -> None:
    network = Shared()
    rows = layer_table(network, (4, 10, 10))
    assert sum(row.parameters for row in rows) == sum(one.numel() for one in network.parameters())
    grouped = 4 * 100 * 2 * 9  # outputs × weights of each
    assert [(row.name, row.parameters, row.multiply_adds) for row in rows] == [
        ("twice", 76, grouped),
        ("twice", 0, grouped),
        ("tied", 4, grouped),
        ("up", 34, 4 * 100 * 2 * 4),
        ("", 4, grouped),
    ]
    assert not any(one.is_meta for one in network.parameters())
    assert all(not module._forward_hooks for module in network.modules())


@pytest.mark.parametrize(
    ("text", "shape", "message"),
    [
        ("conv3", (1, 8, 8), "network: got 'conv3', expected the name of a network, or layers"),
        ("", (1, 8, 8), "network: got ''"),
        ("conv0-3", (1, 8, 8), "network: got 'conv0-3', expected numbers from 1 on"),
        ("conv5-3/0", (1, 32, 32), "network: got 'conv5-3/0', expected numbers from 1 on"),
        ("conv5-3,maxpool9", (1, 8, 8), "input: got 1×8×8, which is too small for the layers"),
    ],
)
def test_layers_that_cannot_be(text: str, shape: tuple[int, int, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        described(text, shape)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The run directory of a training whose dataset is gone; it has a view.json."""
    folder = tmp_path_factory.mktemp("gone")
    data = write_set(folder / "tiny.beton")
    recipe = Recipe((STAGE, replace(STAGE, size=24)), batch_size=8)
    path = folder / "run"
    with open_dataset(data) as file:
        write_config(RunDir(path), "part1", TrainingConfig("small", recipe), file, {})
        view = View.of(file, 24, recipe.window)
    RunDir(path).write_json("view.json", vars(view))
    data.unlink()
    yield path
    shutil.rmtree(folder)


def printed(words: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["summary", *words, "--precision", "no"])
    return job.main()


def test_a_run_whose_dataset_is_gone_has_a_summary(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(job, "measure_step", lambda _: 123_400_000)
    assert printed([str(run), "--batch-size", "5"], monkeypatch) == 0
    out = capsys.readouterr().out
    assert re.search(r"stem\.0\.0 *│ Conv2d *│ 16 × 12 × 12 ", out)
    assert "5 images at a time" in out
    assert "a real step used 123.4 MB: peak resident memory" in out
    assert printed([str(run), "--stage", "1"], monkeypatch) == 2
    error = capsys.readouterr().err
    assert "is gone, and it has no view.json of this stage" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name: got none, expected NAME or RUN, or --network with --input"),
        (["part2"], "part2: got a job of several trainings"),
        (["part1", "--input", "1x2x3", "--network", "small"], "input: expected --network with it"),
        (["--input", "3x20", "--network", "small"], "input: got '3x20', expected channels x"),
        (["--input", "1x99x99", "--network", "small", "--batch-size", "0"], "batch_size: got 0"),
        (["runs/nothing"], "name: got 'runs/nothing', expected part1"),
        (["other/model"], "its config.json is of another program"),
        (["roots"], "data/roots.beton is not there"),
        (["part1", "--recipe", "photos"], "recipe: got 'photos', expected one of fast"),
    ],
)
def test_mistakes_are_one_line(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other/model").mkdir(parents=True)
    (tmp_path / "other/model/config.json").write_text('{"architectures": []}')
    assert printed(words, monkeypatch) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_step_that_does_not_fit_is_not_taken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--network", "conv3-8p1,relu", "--input", "1x2000x2000", "--batch-size", "100000"]
    assert printed(words, monkeypatch) == 0
    assert "a real step was not taken" in capsys.readouterr().out
