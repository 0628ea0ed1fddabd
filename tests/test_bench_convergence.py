"""The benchmark of times to accuracy: equal samples, its worker, and the command itself.

All data are synthetic or drawn here, so no accuracy means anything.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import forked
import numpy as np
import pytest
from tiny import write_set

from beton.reader import Reader
from pipeline.benchmarks.convergence import command, parts
from pipeline.benchmarks.convergence.command import Options, plan_of
from pipeline.benchmarks.convergence.data import (
    DataPlan,
    canvas_difference,
    check_writers,
    prepare_part,
    write_pages,
)
from pipeline.benchmarks.convergence.outcome import Arm
from pipeline.benchmarks.convergence.parts import PARTS
from pipeline.benchmarks.convergence.pillow import PillowLoader
from pipeline.benchmarks.convergence.worker import Config, train
from pipeline.benchmarks.results import read_results
from pipeline.errors import UserError
from pipeline.loading.dataset import open_dataset, split_indices
from pipeline.recipes.presets import HANDWRITING
from pipeline.recipes.recipe import Recipe, Stage
from pipeline.training.datamodule import DataModule
from pipeline.training.distributed import Processes, join_processes

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    with join_processes() as joined:
        yield joined


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Reader]:
    with open_dataset(write_set(tmp_path / "data.beton")) as opened:
        yield opened


@pytest.fixture
def auxiliary(tmp_path: Path) -> Iterator[Reader]:
    path = write_set(tmp_path / "auxiliary.beton", train=5, validation=0, digest="sha256:other")
    with open_dataset(path) as opened:
        yield opened


# From 90 pixels to 30, no page pixel straddles an edge: Pillow's box filter is exact to rounding.
@pytest.mark.parametrize(("size", "largest", "mean"), [(20, 1.01 / 255, 0.5 / 255), (17, 1, 0.1)])
def test_both_loaders_show_the_same_samples(
    processes: Processes,
    file: Reader,
    auxiliary: Reader,
    tmp_path: Path,
    size: int,
    largest: float,
    mean: float,
) -> None:
    for one in (file, auxiliary):
        write_pages(one, np.arange(len(one)), tmp_path / "pages" / one.path.stem, colour=True)
    stage = Stage(size, 1, 1e-3, augmentation=HANDWRITING)
    recipe = Recipe((stage,), batch_size=8, micro_batch=6, window=2 / 3, auxiliary=0.5, seed=3)
    data = DataModule(processes, recipe, file, auxiliary=auxiliary)
    other = replace(data, make_loader=partial(PillowLoader, tmp_path / "pages", 1))
    with data.train_loader(stage) as ours, other.train_loader(stage) as pillow:
        for epoch, start in ((0, 0), (1, 0), (3, 2)):
            seen = []
            pairs = zip(ours.batches(epoch, start), pillow.batches(epoch, start), strict=True)
            for own, theirs in pairs:
                for a, b in zip(own, theirs, strict=True):
                    assert (a.ids == b.ids).all()
                    assert (a.labels == b.labels).all()
                    assert a.images.std() > 0
                    assert (a.images - b.images).abs().max() <= largest
                    assert (a.images - b.images).abs().mean() <= mean
                    seen += a.ids[a.ids < len(file)].tolist()
            if start == 0:
                assert sorted(seen) == split_indices(file, "train").tolist()
        assert pillow.seconds_waited > 0


def test_pages_of_their_own_size_are_equal(
    processes: Processes, file: Reader, tmp_path: Path
) -> None:
    train = split_indices(file, "train")
    write_pages(file, train, tmp_path / "pages" / "data", colour=False)
    stage = Stage(90, 1, 1e-3)
    recipe = Recipe((stage,), batch_size=len(train), window=None)
    data = DataModule(processes, recipe, file)
    other = replace(data, make_loader=partial(PillowLoader, tmp_path / "pages", 1))
    with data.train_loader(stage) as ours, other.train_loader(stage) as pillow:
        ((a,), (b,)) = (next(loader.batches(0)) for loader in (ours, pillow))
        assert bool((a.images == b.images).all())


@pytest.mark.parametrize(("size", "exact"), [(20, True), (17, False)])
def test_the_difference_of_canvases_is_measured(
    file: Reader, tmp_path: Path, size: int, exact: bool
) -> None:
    ids = split_indices(file, "train")
    write_pages(file, ids, tmp_path / "pages", colour=True)
    stage = Stage(size, 1, 1e-3)
    preset = replace(PARTS["1"].ours, recipe=Recipe((stage,), window=2 / 3))
    part = replace(PARTS["1"], ours=preset)
    largest, mean = canvas_difference(file, ids, part, tmp_path / "pages")
    assert mean <= largest
    assert (largest <= 1) == exact


def test_pages_of_several_sizes_are_refused(tmp_path: Path) -> None:
    sizes = iter(range(20, 200))
    path = write_set(
        tmp_path / "several.beton", draw=lambda *_: np.zeros((next(sizes), 40), np.uint8)
    )
    with open_dataset(path) as file, pytest.raises(UserError, match="got pages of 32 sizes"):
        write_pages(file, split_indices(file, "train"), tmp_path / "pages", colour=False)


def test_a_writer_of_training_and_validation_is_an_error(tmp_path: Path) -> None:
    def writer(_name: str, number: int) -> int:
        return number % 10  # 8 training pages: writers 0 to 7; validation: 8, 9, 0

    path = write_set(tmp_path / "data.beton", writer=writer)
    with open_dataset(path) as file, pytest.raises(UserError, match="got 1 writers of both"):
        check_writers(file, PARTS["1"])
    path = write_set(tmp_path / "other.beton", writer=lambda _name, number: number)
    with open_dataset(path) as file:
        check_writers(file, PARTS["1"])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (Options(seeds=0), "seeds: got 0, expected 1 or more"),
        (Options(held_out=0), "held_out: got 0, expected 1 or more"),
        (Options(limit=0), "limit: got 0, expected more than 0 seconds"),
        (Options(limit=float("nan")), "limit: got nan, expected more than 0 seconds"),
        (Options(source=Path("x.zip")), "source: got 4 parts, expected one: --part 1"),
    ],
)
def test_impossible_options_are_refused(options: Options, expected: str) -> None:
    with pytest.raises(UserError) as caught:
        plan_of(options)
    assert str(caught.value) == expected


def test_all_parts_have_recipes_that_can_run() -> None:
    for part in PARTS.values():
        for arm in part.arms:
            whole, quick = (part.recipe(arm, 5_000, 7, quick) for quick in (False, True))
            assert whole.seed == quick.seed == 7
            assert quick.epochs <= whole.epochs
        assert list(part.targets) == sorted(part.targets)
    assert PARTS["1"].recipe(Arm("inkrun", "pillow"), 1_116, 0, quick=False).epochs == 16


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "1"
    lines: list[str] = []
    data = prepare_part(PARTS["1"], DataPlan(None, 40, 200, 4, quick=True), folder, lines.append)
    assert lines == ["part 1: synthetic data: synthetic: 186 images, 62 classes, 3 writers"]
    assert (data.trained, data.validated) == (124, 62)
    assert data.provenance["kind"] == "synthetic"
    assert data.largest_difference > 0 < data.mean_difference < 1
    return folder


@pytest.mark.parametrize("loader", ["inkrun", "pillow"])
def test_a_worker_trains_to_the_end(prepared: Path, loader: str) -> None:
    one = train(Config("1", "inkrun", loader, 5, prepared, limit=1e9, quick=True))
    assert (one.seed, one.whole, len(one.points), one.epochs) == (5, True, 2, 2)
    assert [point.images for point in one.points] == [192, 384]
    assert (one.images, one.epoch_images) == (384, 192)
    assert 0 < one.points[0].seconds < one.points[1].seconds <= one.seconds
    assert 0 < one.loader_share < 1


def test_a_worker_out_of_time_has_a_speed(prepared: Path) -> None:
    one = train(Config("1", "published", "pillow", 0, prepared, limit=0, quick=True))
    assert (one.points, one.whole) == ((), False)
    assert (one.images, one.epoch_images) == (24, 32)  # the fourth step ended after the limit
    assert one.seconds_per_epoch == pytest.approx(one.seconds * 32 / 24)
    assert one.start_up > 0


def test_the_command_writes_results_and_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(parts, "ARMS", parts.ARMS[:1])  # the others take too long for a test
    run = command.run(Options(quick=True, limit=1e4), tmp_path)
    result = read_results(run).convergence
    assert result is not None
    assert (result.seeds, result.quick) == (1, True)
    (part,) = result.parts
    ((one,),) = (arm.trainings for arm in part.arms)
    assert one.whole
    assert 0 < one.start_up < 1e3
    assert "A quick run" in capsys.readouterr().out
    assert (run / "convergence-1.png").stat().st_size > 1_000
    done = forked.run(["jobs/report.py", run, "--out", tmp_path], ROOT)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "bench.html").read_text()
    for words in ("Time to accuracy", "inkrun&#x27;s recipe", "synthetic data", "A quick run"):
        assert words in text
    assert "./launch.sh bench convergence " in text


def test_a_mistake_is_one_line() -> None:
    done = forked.run(["jobs/bench/convergence.py", "--seeds", "0"], ROOT)
    assert done.returncode == 2
    assert done.stderr == "bench convergence: seeds: got 0, expected 1 or more\n"
