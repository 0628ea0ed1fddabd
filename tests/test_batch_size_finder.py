"""The micro-batch that fits, found with a network that allocates more than a limit allows."""

import os
import resource
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import forked
import pytest
import torch
from tiny import CLASSES, write_set
from torch import Tensor, nn

from beton.reader import Reader
from pipeline.errors import UserError
from pipeline.loading.dataset import open_dataset
from pipeline.models import networks
from pipeline.models.blocks import Network, Shape
from pipeline.recipes.recipe import Recipe, Stage
from pipeline.runtime import hardware
from pipeline.training import batch_size_finder
from pipeline.training.batch_size_finder import Trial, find_micro_batch, in_children
from pipeline.training.distributed import Processes, join_processes

ROW = 512 << 20  # bytes that the greedy network allocates per image: much more than threads do
RECIPE = Recipe((Stage(16, 1, 0.1, optimizer="SGD"),), batch_size=16)


class Greedy(nn.Module):
    """Allocates memory and never touches it, so that the machine keeps it."""

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


def greedy(classes: int, _shape: Shape) -> Network:
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
def greedy_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network of the tests is not known in a child process, so the trials are in this one."""
    monkeypatch.setitem(networks.NETWORKS, "greedy", greedy)

    def here(trial: Trial, sizes: Sequence[int]) -> int:
        return trial.largest(sizes, lambda _: None)

    monkeypatch.setattr(batch_size_finder, "in_children", here)


def network_that(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    broken = Network(nn.Flatten(), Fails(error), nn.Linear(16 * 16, len(CLASSES)))
    monkeypatch.setitem(networks.NETWORKS, "fails", lambda *_: broken)


def limit(monkeypatch: pytest.MonkeyPatch, rows: float) -> None:
    """Leave memory for this many rows and a half."""
    free = int((rows + 0.5) * ROW / batch_size_finder.MEMORY_FRACTION)
    monkeypatch.setattr(batch_size_finder, "free_memory", lambda _: free)


@pytest.mark.parametrize(("room", "rows"), [(1, 1), (3, 2), (15, 8), (16, 16), (99, 16)])
def test_it_finds_the_largest_size_that_fits(
    room: int, rows: int, launch: Processes, file: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(monkeypatch, room)
    assert find_micro_batch(launch, "greedy", RECIPE, file) == rows


def test_odd_sizes_lose_a_row_for_mixing_in_pairs(
    launch: Processes, file: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(monkeypatch, 7)
    assert find_micro_batch(launch, "greedy", replace(RECIPE, batch_size=14), file) == 6


def test_no_room_for_one_row_is_an_error(
    launch: Processes, file: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(monkeypatch, 0.1)
    with pytest.raises(UserError, match="memory has no room for one 16×16 image"):
        find_micro_batch(launch, "greedy", RECIPE, file)


def test_other_errors_are_not_taken_for_full_memory(
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
def test_every_message_of_full_memory_is_recognised(
    error: Exception, launch: Processes, file: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    network_that(monkeypatch, error)
    assert find_micro_batch(launch, "fails", RECIPE, file) == 2


@pytest.mark.parametrize("room", [9.0, 0.1])
def test_the_limit_is_lifted_afterwards(
    room: float, launch: Processes, file: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    limit(monkeypatch, room)
    with nullcontext() if room > 1 else pytest.raises(UserError):
        find_micro_batch(launch, "greedy", RECIPE, file)
    assert resource.getrlimit(resource.RLIMIT_AS) == before


def test_the_stage_with_the_largest_images_decides(
    launch: Processes, file: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    class Watching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(tuple(x.shape))
            return x

    def watching(classes: int, _shape: Shape) -> Network:
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


def test_free_memory_is_less_than_all() -> None:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < hardware.free_memory(torch.device("cpu")) < total


class Deadly(Trial):
    """A trial whose sizes above two end the process, as native code does without memory."""

    def largest(self, sizes: Sequence[int], on_size: Callable[[int], None]) -> int:  # type: ignore[override]
        for size in sizes:
            on_size(size)
            if self.network == "unknown":
                raise UserError("network: unknown")
            if size > self.classes:
                os.kill(os.getpid(), signal.SIGSEGV)
            return size
        raise AssertionError("no sizes")


def deadly(most: int, network: str = "small") -> Deadly:
    stage = Stage(16, 1, 0.1)
    return Deadly(network, most, stage, (1, 16, 16), (16, 16), 8, 0, "no", "cpu", 1)


def test_a_size_that_ends_the_child_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_size_finder, "get_context", lambda _: forked.CONTEXT)
    assert in_children(deadly(2), [8, 2, 0]) == 2
    with pytest.raises(UserError, match="network: unknown"):
        in_children(deadly(9, "unknown"), [8, 0])


def test_a_child_finds_the_size_of_a_real_network() -> None:
    trial = Trial("small", 4, Stage(16, 1, 0.1), (1, 16, 16), (16, 16), 8, 1, "no", "cpu", 1)
    assert in_children(trial, [8, 4, 2, 1, 0]) == 8
