"""How many rows fit: a made-up network asks for memory that a made-up limit does not have."""

import os
import resource
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import CLASSES, write_set
from torch import Tensor, nn

from beton.reader import Reader
from pipeline.errors import UserError
from pipeline.loading.dataset import open_dataset
from pipeline.models import networks
from pipeline.models.networks import Network
from pipeline.recipes.recipe import Recipe, Stage
from pipeline.training import batch_size_finder
from pipeline.training.batch_size_finder import find_micro_batch
from pipeline.training.distributed import Processes, join_processes

ROW = 512 << 20  # bytes that the greedy network asks for, a picture: much more than threads do
RECIPE = Recipe((Stage(16, 1, 0.1, optimizer="SGD"),), batch_size=16)


class Greedy(nn.Module):
    """Asks for memory and never touches it, so that the machine has it all the while."""

    def forward(self, x: Tensor) -> Tensor:
        torch.empty(len(x) * ROW, dtype=torch.uint8)
        return x


class Fails(nn.Module):
    """Fails for more than two rows."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 2:
            raise self.error
        return x


def greedy(classes: int) -> Network:
    return Network(nn.Flatten(), Greedy(), nn.Linear(16 * 16, classes))


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Reader]:
    with open_dataset(write_set(tmp_path / "tiny.beton")) as opened:
        yield opened


@pytest.fixture(scope="module")
def launch() -> Iterator[Processes]:
    with join_processes("no") as processes:
        yield processes


@pytest.fixture(autouse=True)
def made_up_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(networks.NETWORKS, "greedy", greedy)


def network_that(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    broken = Network(nn.Flatten(), Fails(error), nn.Linear(16 * 16, len(CLASSES)))
    monkeypatch.setitem(networks.NETWORKS, "fails", lambda _: broken)


def limit(monkeypatch: pytest.MonkeyPatch, rows: float) -> None:
    """Let there be room for so many rows, and a bit."""
    free = int((rows + 0.5) * ROW / batch_size_finder.MEMORY_FRACTION)
    monkeypatch.setattr(batch_size_finder, "free_bytes", lambda: free)


@pytest.mark.parametrize(("room", "rows"), [(1, 1), (3, 2), (15, 8), (16, 16), (99, 16)])
def test_it_finds_the_largest_half_of_a_half_that_fits(
    room: int, rows: int, launch: Processes, file: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(monkeypatch, room)
    assert find_micro_batch(launch, "greedy", RECIPE, file) == rows


def test_odd_halves_are_made_even_to_be_mixed_in_pairs(
    launch: Processes, file: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(monkeypatch, 7)
    assert find_micro_batch(launch, "greedy", replace(RECIPE, batch_size=14), file) == 6


def test_not_even_one_fits(
    launch: Processes, file: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(monkeypatch, 0.1)
    with pytest.raises(UserError, match="memory has no room for one 16×16 image"):
        find_micro_batch(launch, "greedy", RECIPE, file)


def test_an_error_of_another_kind_is_not_taken_for_full_memory(
    launch: Processes, file: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    network_that(monkeypatch, RuntimeError("something else"))
    with pytest.raises(RuntimeError, match="something else"):
        find_micro_batch(launch, "fails", RECIPE, file)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("could not create a primitive"),
        RuntimeError("CUDA out of memory. Tried to allocate"),
    ],
)
def test_full_memory_in_anybodys_words(
    error: Exception, launch: Processes, file: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    network_that(monkeypatch, error)
    assert find_micro_batch(launch, "fails", RECIPE, file) == 2


@pytest.mark.parametrize("room", [9.0, 0.1])
def test_the_limit_is_gone_afterwards(
    room: float, launch: Processes, file: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    limit(monkeypatch, room)
    with nullcontext() if room > 1 else pytest.raises(UserError):
        find_micro_batch(launch, "greedy", RECIPE, file)
    assert resource.getrlimit(resource.RLIMIT_AS) == before


def test_the_stage_with_the_largest_pictures_decides(
    launch: Processes, file: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    class Watching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(tuple(x.shape))
            return x

    def watching(classes: int) -> Network:
        return Network(
            Watching(), nn.AdaptiveAvgPool2d(1), nn.Sequential(nn.Flatten(), nn.Linear(1, classes))
        )

    monkeypatch.setitem(networks.NETWORKS, "watching", watching)
    stages = (Stage(16, 1, 0.1), Stage(24, 1, 0.1), Stage(20, 1, 0.1))
    assert find_micro_batch(launch, "watching", Recipe(stages, batch_size=8), file) == 8
    assert set(seen) == {(8, 1, 24, 24)}
    seen.clear()
    find_micro_batch(launch, "watching", Recipe(stages, batch_size=8, window=None), file)
    assert set(seen) == {(8, 1, 24, 32)}  # whole pages of 90×120


def test_there_is_less_free_than_there_is() -> None:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < batch_size_finder.free_bytes() < total
