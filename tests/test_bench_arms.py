"""All arms of `bench convergence`: their turns, their time limit, and the command for real.

The real trainings are of shapes drawn here, which any network learns, so no accuracy means
anything.
"""

import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from types import SimpleNamespace

import forked
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from raw_data import idx_pair, make_zip

from pipeline.benchmarks.convergence import run
from pipeline.benchmarks.convergence.command import Options, plan_of
from pipeline.benchmarks.convergence.data import Prepared
from pipeline.benchmarks.convergence.outcome import Arm, Convergence, Training
from pipeline.benchmarks.convergence.page import answer, left_out_sections
from pipeline.benchmarks.convergence.parts import ARMS, PARTS, Part
from pipeline.benchmarks.convergence.run import Bench
from pipeline.benchmarks.convergence.tables import time_rows
from pipeline.benchmarks.results import read_results

ROOT = Path(__file__).resolve().parents[1]
T_TWO_SEEDS = 12.706204736  # the 97.5 % quantile of Student's t with one degree of freedom
PREPARED = Prepared({}, 124, 62, 1.0, 1.0, 0.0, 0.0)


class SimulatedBench(Bench):
    """A benchmark whose preparations and trainings only move a clock. `launched` has each one."""

    def __init__(
        self, plan: run.Plan, patch: pytest.MonkeyPatch, draw: Callable[[float], float]
    ) -> None:
        self.now, self.longest = 0.0, 0.0  # seconds: since the start, of what cannot be cut short
        self.launched: list[tuple[str, int, Arm]] = []
        self.starts: list[float] = []
        self._draw = draw
        patch.setattr(run, "time", SimpleNamespace(monotonic=lambda: self.now))
        patch.setattr(run, "prepare_part", self._prepare)
        super().__init__(plan, Path("none"), lambda _: None)

    def _prepare(self, *_: object) -> Prepared:
        self._take(self._draw(20))
        return PREPARED

    def _launch(
        self, _label: str, part: Part, arm: Arm, seed: int, _folder: Path, limit: float
    ) -> Training:
        start_up, steps, validation = self._draw(9), self._draw(3), self._draw(2)
        self.launched.append((part.name, seed, arm))
        shortest = start_up + steps
        self._take(shortest + validation)
        self.now += max(0.0, min(self._draw(100), limit - shortest))
        return Training(seed, start_up, steps, 0.0, 10, 20, 2, ())

    def _take(self, seconds: float) -> None:
        self.starts.append(self.now)
        self.now += seconds
        self.longest = max(self.longest, seconds)


@given(st.floats(0.1, 500), st.integers(1, 4), st.randoms(use_true_random=False))
def test_the_limit_bounds_the_whole_benchmark(limit: float, seeds: int, random: Random) -> None:
    with pytest.MonkeyPatch.context() as patch:
        plan = plan_of(Options(seeds=seeds, limit=limit))
        bench = SimulatedBench(plan, patch, lambda most: random.uniform(0, most))
        result = bench.run()
    assert all(start < limit for start in bench.starts)
    assert bench.now <= limit + bench.longest + 1e-6
    assert len(result.parts) + len(result.left_out) == len(PARTS)
    done = {
        (part.name, one.seed, arm.arm)
        for part in result.parts
        for arm in part.arms
        for one in arm.trainings
    }
    assert done == {*bench.launched}


def test_arms_take_turns_seed_by_seed() -> None:
    with pytest.MonkeyPatch.context() as patch:
        plan = plan_of(Options(part=("1", "fashion"), seeds=3, limit=1e9))
        bench = SimulatedBench(plan, patch, lambda _: 1.0)
        result = bench.run()
    expected = [(part, seed, arm) for part in ("1", "fashion") for seed in range(3) for arm in ARMS]
    assert bench.launched == expected
    for part in result.parts:
        assert [[one.seed for one in arm.trainings] for arm in part.arms] == [[0, 1, 2]] * 4


def test_a_part_without_time_is_left_out() -> None:
    with pytest.MonkeyPatch.context() as patch:
        plan = plan_of(Options(part=("1", "fashion"), limit=1))
        result = SimulatedBench(plan, patch, lambda _: 2.0).run()
    (part,) = result.parts
    assert [arm.trainings for arm in part.arms] == [()] * 4
    assert [*time_rows(part)] == []
    assert result.left_out == (PARTS["fashion"].title,)
    assert "no time for a training" in answer(result)
    (section,) = left_out_sections(result)
    assert section.blocks == [f"{PARTS['fashion'].title}: the time limit had passed."]


@pytest.fixture(scope="module")
def clothes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an archive like Fashion-MNIST's, whose ten classes are a block at ten places."""
    files: dict[str, bytes] = {}
    for name, count in (("train", 3_200), ("t10k", 10)):
        labels = np.arange(count) % 10
        images = np.zeros((count, 28, 28), np.uint8)
        for image, label in zip(images, labels.tolist(), strict=True):
            row, column = divmod(label, 5)
            image[14 * row : 14 * row + 14, 5 * column + 1 : 5 * column + 6] = 255
        images[:, 0, 0], images[:, 27, 27] = np.arange(count) % 256, np.arange(count) // 256
        files |= idx_pair(name, images, labels.tolist(), packed=False)
    return make_zip(tmp_path_factory.mktemp("raw") / "clothes.zip", files)


def bench(folder: Path, clothes: Path, *options: str) -> tuple[Convergence, str]:
    """Run the command on the clothes; return its results and what it printed."""
    words = ["jobs/bench/convergence.py", "--quick", "--part", "fashion", "--source", str(clothes)]
    done = forked.run([*words, *options, "--runs", str(folder)], ROOT)
    assert done.returncode == 0, done.stderr
    result = read_results(folder / "bench" / "latest").convergence
    assert result is not None
    return result, done.stdout


@pytest.fixture(scope="module")
def two_seeds(
    clothes: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Convergence, str, Path]:
    folder = tmp_path_factory.mktemp("a folder")
    return *bench(folder, clothes, "--seeds", "2", "--limit", "10000"), folder / "bench" / "latest"


def test_all_four_arms_train_with_paired_seeds(two_seeds: tuple[Convergence, str, Path]) -> None:
    result, _, _ = two_seeds
    (part,) = result.parts
    assert [arm.arm for arm in part.arms] == [*ARMS]
    assert part.largest_difference == 0
    differing = 0
    for recipe in ("inkrun", "published"):
        ours, pillow = part.find(recipe, "inkrun"), part.find(recipe, "pillow")
        assert ours is not None
        assert pillow is not None
        curves = []
        for own, theirs in zip(ours.trainings, pillow.trainings, strict=True):
            assert own.whole
            # Both loaders show the same canvases in the same order: only their speed differs.
            curves.append([(point.images, point.accuracy) for point in own.points])
            assert curves[-1] == [(point.images, point.accuracy) for point in theirs.points]
        assert [one.seed for one in ours.trainings] == [0, 1]
        differing += curves[0] != curves[1]
    assert differing  # the seeds start with other random weights


def test_the_figures_are_those_of_a_hand_computation(
    two_seeds: tuple[Convergence, str, Path],
) -> None:
    """Mean, 95 % t interval and minimum of two seeds, in the results and in the printed table."""
    result, printed, _ = two_seeds
    (part,) = result.parts
    rows = {(row[0], row[1]): row for row in time_rows(part)}
    compared = 0
    for arm in part.arms:
        for target, one in zip(part.targets, arm.reached, strict=True):
            found = [
                next((p.seconds for p in t.points if p.accuracy >= target), None)
                for t in arm.trainings
            ]
            assert [time.seconds for time in one.times] == found
            states = ["not reached" if seconds is None else "measured" for seconds in found]
            assert [time.state for time in one.times] == states
            if None in found:
                continue
            first, second = (seconds or 0.0 for seconds in found)
            mean, half = (first + second) / 2, T_TWO_SEEDS * abs(first - second) / 2
            estimated = one.estimate(start_up=False)
            assert estimated is not None
            assert estimated.interval is not None
            assert estimated.mean == pytest.approx(mean)
            assert estimated.interval.low == pytest.approx(max(0.0, mean - half))
            assert estimated.interval.high == pytest.approx(mean + half)
            cell = f"{mean:,.1f} ({max(0.0, mean - half):,.1f} to {mean + half:,.1f})"
            row = rows[arm.arm.name, one.target]
            assert row[2:5] == ["2 of 2", cell, f"{min(first, second):,.1f}"]
            assert cell in printed
            compared += 1
    assert compared >= 8  # the published recipe reaches all targets, on both loaders


def test_the_page_shows_intervals(two_seeds: tuple[Convergence, str, Path], tmp_path: Path) -> None:
    result, _, path = two_seeds
    done = forked.run(["jobs/report.py", path, "--out", tmp_path], ROOT)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "bench.html").read_text()
    for row in time_rows(result.parts[0]):
        assert all(cell.replace("'", "&#x27;") in text for cell in row)


def test_a_small_limit_ends_a_long_benchmark(clothes: Path, tmp_path: Path) -> None:
    """Fifty seeds of four arms would take many minutes."""
    limit, start = 4, time.monotonic()
    result, printed = bench(tmp_path, clothes, "--seeds", "50", "--limit", str(limit))
    taken = time.monotonic() - start
    (part,) = result.parts
    trained = [one for arm in part.arms for one in arm.trainings]
    longest = max((one.start_up + one.seconds for one in trained), default=0.0)
    assert len(trained) < 20
    assert printed.count("left out: the time limit has passed") == 200 - len(trained)
    assert taken < limit + longest + part.prepared + part.written + 20  # starting and reporting
