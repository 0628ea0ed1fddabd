"""The benchmark of times to accuracy: equal samples, extrapolation, and the command itself.

All data are synthetic or drawn here, so no accuracy means anything.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import forked
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import write_set

from beton.reader import Reader
from pipeline.benchmarks.convergence import command, parts
from pipeline.benchmarks.convergence.command import Options, plan_of
from pipeline.benchmarks.convergence.data import (
    DataPlan,
    Prepared,
    canvas_difference,
    check_writers,
    prepare_part,
    write_pages,
)
from pipeline.benchmarks.convergence.outcome import (
    Arm,
    ArmResult,
    PartResult,
    Point,
    Training,
)
from pipeline.benchmarks.convergence.parts import PARTS
from pipeline.benchmarks.convergence.pillow import PillowLoader
from pipeline.benchmarks.convergence.run import Bench
from pipeline.benchmarks.convergence.tables import time_rows
from pipeline.benchmarks.convergence.times import epochs_to, reached, time_to
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


def training(accuracies: list[float], epochs: int, seed: int = 0, pace: float = 2.0) -> Training:
    """Return a training whose epochs take `pace` seconds, cut short after half an epoch more."""
    points = tuple(Point(pace * n, 100 * n, a) for n, a in enumerate(accuracies, 1))
    rest = 0.5 if len(points) < epochs else 0.0
    done = len(points) + rest
    return Training(seed, 3.0, pace * done, 0.1, round(100 * done), 100, epochs, points)


ACCURACIES = st.lists(st.floats(0, 1), max_size=6)


@given(ACCURACIES, st.floats(0.01, 1))
def test_a_target_is_reached_by_the_first_epoch_at_or_above_it(
    accuracies: list[float], target: float
) -> None:
    epochs = epochs_to(training(accuracies, 9), target)
    if epochs is None:
        assert all(accuracy < target for accuracy in accuracies)
    else:
        assert accuracies[epochs - 1] >= target
        assert all(accuracy < target for accuracy in accuracies[: epochs - 1])


@given(ACCURACIES, ACCURACIES, st.floats(0.01, 1), st.none() | st.floats(0, 1))
def test_only_what_was_not_measured_is_extrapolated(
    own: list[float], other: list[float], target: float, published: float | None
) -> None:
    short, twin = training(own, 6), training(other, 6, pace=7)
    time = time_to(short, twin, target, published)
    if any(accuracy >= target for accuracy in own):
        assert time.state == "measured"
        assert time.images in [point.images for point in short.points]
    elif short.whole:
        assert time.state == "not reached"
    elif (epochs := epochs_to(twin, target)) is not None:
        assert time.state == "extrapolated"
        assert time.seconds == pytest.approx(2.0 * epochs)
        assert time.images == 100 * epochs
    elif twin.whole or (published is not None and published < target):
        assert time.state == "not reached"
    else:
        assert time.state == ("unknown" if published is None else "extrapolated")
        assert published is None or time.seconds == pytest.approx(2.0 * 6)
    assert (time.seconds is None) == (time.state in ("not reached", "unknown"))
    assert time.seconds is None or time.in_all == time.seconds + 3.0


def part_of(*arms: ArmResult, below_ceiling: float | None = None) -> PartResult:
    return PartResult("1", "a part", {}, 100, 10, 1.0, 1.0, 0.0, 0.0, (0.8,), below_ceiling, arms)


def test_arms_are_compared_seed_by_seed() -> None:
    ours = ArmResult(
        Arm("inkrun", "inkrun"),
        "small",
        48,
        None,
        (training([0.5, 0.9], 2), training([0.8, 0.9], 2, seed=1)),
    )
    slow = tuple(training([], 2, seed=one, pace=20.0) for one in (0, 1))
    pillow = ArmResult(Arm("inkrun", "pillow"), "small", 48, None, slow)
    part = part_of(ours, pillow)
    (own,), (other,) = reached(part, ours), reached(part, pillow)
    assert [time.seconds for time in own.times] == [4.0, 2.0]
    assert (own.factor, own.extrapolated) == (None, False)
    assert [time.seconds for time in other.times] == [40.0, 20.0]
    assert other.extrapolated
    assert other.factor is not None
    assert other.factor.value == pytest.approx(10)
    mean = own.estimate(start_up=True)
    assert mean is not None
    assert mean.mean == pytest.approx(6.0)


def test_the_ceiling_is_that_of_each_seed() -> None:
    ceiling = ArmResult(
        Arm("ceiling", "inkrun"),
        "plain",
        28,
        None,
        (training([0.98], 1), training([0.9], 1, seed=1)),
    )
    ours = ArmResult(
        Arm("inkrun", "inkrun"),
        "plain",
        28,
        None,
        (training([0.96], 1), training([0.89], 1, seed=1)),
    )
    one, below = reached(part_of(ceiling, ours, below_ceiling=0.015), ours)
    assert one.target == "80 %"
    assert below.target == "1.5 points below the ceiling"
    assert [time.state for time in below.times] == ["not reached", "measured"]


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
    assert PARTS["1"].recipe(Arm("inkrun", "pillow"), 1_116, 0, quick=False).epochs == 12


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


def test_a_limit_leaves_out_what_does_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    nothing = Prepared({}, 124, 62, 1.0, 1.0, 0.0, 0.0)
    monkeypatch.setattr("pipeline.benchmarks.convergence.run.prepare_part", lambda *_: nothing)
    plan = plan_of(Options(quick=True, limit=1e-9))
    result = Bench(plan, tmp_path, lines.append).run()
    assert [arm.trainings for arm in result.parts[0].arms] == [()] * 4
    assert sum("left out: the time limit has passed" in line for line in lines) == 4
    assert [*time_rows(result.parts[0])] == []
