"""The benchmark of scaling: its model, its files, its parts of a step, and small real runs."""

import itertools
import json
import math
import mmap
from dataclasses import replace
from pathlib import Path
from typing import Literal

import forked
import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from beton.loader import Loader
from beton.ops import Pixels, Scalar
from beton.reader import Reader
from pipeline.benchmarks.page import page_of
from pipeline.benchmarks.results import read_results
from pipeline.benchmarks.scaling import command, data, model, processes, tables
from pipeline.benchmarks.scaling.data_worker import Task, anonymous_memory
from pipeline.benchmarks.scaling.page import plot_data, plot_efficiency
from pipeline.benchmarks.scaling.process_worker import SIZES, Outcome, Steps, split
from pipeline.benchmarks.scaling.repeated import write_repeated
from pipeline.benchmarks.scaling.results import DataFigures, Model, Scaling, StepFigures
from pipeline.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
MODEL = Model(0.05, 0.003, 2e-4, 1e9, 1_200_000, 0.1)


def figures_of(exact: Model, rows: int) -> StepFigures:
    """Return the steps of two processes that behave exactly like a model."""
    compute = exact.fixed + exact.per_row * rows
    stalls = compute * exact.jitter * model.expected_maximum(2)
    exchange = 2 * exact.latency + exact.gradient_bytes / exact.bandwidth
    return StepFigures(2, rows, (1.0,), (), (), compute, exchange, 0.0, stalls)


positive = st.floats(1e-6, 1)


@given(positive, positive, positive, st.floats(1e6, 1e12), st.floats(0, 1))
def test_a_model_is_found_again(
    fixed: float, per_row: float, latency: float, bandwidth: float, jitter: float
) -> None:
    """The steps and all-reduces are those of a model, without noise."""
    exact = Model(fixed, per_row, latency, bandwidth, 1_200_000, jitter)
    steps = [figures_of(exact, rows) for rows in (16, 64)]
    reduced = [(size, 2 * latency + size / bandwidth) for size in SIZES]
    found = model.fit(steps, reduced, exact.gradient_bytes)
    (check,) = model.checks(found, [figures_of(exact, 128)])
    assert check.error == pytest.approx(0, abs=1e-3)


def test_many_processes_are_slower_than_as_many_alone() -> None:
    found = {(one.kind, one.processes): one for one in model.predictions(MODEL)}
    assert {count for _, count in found} == {8, 64, 512}
    for kind in ("weak", "strong"):
        falling = [found[kind, count].efficiency for count in (8, 64, 512)]
        assert 1 > falling[0] > falling[1] > falling[2] > 0
    ideal = replace(MODEL, fixed=0.0, latency=0.0, bandwidth=math.inf, jitter=0.0)
    assert [one.efficiency for one in model.predictions(ideal)] == pytest.approx([1.0] * 6)


def test_the_expected_maximum_is_that_of_normal_variables() -> None:
    assert model.expected_maximum(1) == pytest.approx(0, abs=1e-3)
    assert model.expected_maximum(2) == pytest.approx(1 / math.sqrt(math.pi), abs=1e-3)
    drawn = np.random.default_rng(0).standard_normal((20_000, 64)).max(axis=1).mean()
    assert model.expected_maximum(64) == pytest.approx(drawn, abs=0.02)


def test_a_line_needs_two_points() -> None:
    with pytest.raises(ValueError, match="two different"):
        model.fit([figures_of(MODEL, 16)], [(1, 1.0), (2, 2.0)], 1)


def test_a_wait_for_the_slowest_is_no_exchange() -> None:
    """Two processes, two steps: 3 and 1 s of waiting for one of them, 0.5 and 0.25 s after that."""
    times = torch.tensor([[[0.0, 10.0], [3.5, 11.25]], [[3.0, 11.0], [3.5, 11.25]]])
    all_reduce, stalls = split(times.double())
    assert all_reduce == pytest.approx((0.5 + 0.25) / 2)
    assert stalls == pytest.approx((3.0 + 1.0) / 4)


def outcome(rates: dict[int, float]) -> Outcome:
    steps = tuple(Steps(rows, rate, 0.1, 0.01, 0.0, 0.02) for rows, rate in rates.items())
    return Outcome(steps, tuple((size, 1e-3) for size in SIZES), 100)


def test_two_processes_are_compared_at_the_same_rows_in_all_and_each() -> None:
    one, two = outcome({16: 100.0, 32: 200.0}), outcome({16: 150.0, 32: 180.0})
    measured = processes.combine({1: [one, one], 2: [two, two]})
    found = {(figures.processes, figures.rows): figures for figures in measured.figures}
    strong, weak = found[2, 16].factor("strong"), found[2, 16].factor("weak")
    assert strong is not None
    assert weak is not None
    assert (strong.value, weak.value) == pytest.approx((0.75, 1.5))
    assert found[2, 32].factor("strong") is None  # one process never had 64 rows
    parts = sum(found[2, 32].share(part) for part in tables.PARTS)
    assert parts == pytest.approx(1)


def test_a_failed_process_is_one_line(tmp_path: Path) -> None:
    plan = processes.Plan(tmp_path / "none.beton", (2,), 1, 1, 1)
    with pytest.raises(UserError, match=r"1 processes failed: \w+: .*none.beton"):
        processes.launch(1, plan, tmp_path)


def test_the_reason_is_that_of_a_process() -> None:
    printed = "[rank1]: ValueError: bad rows\na.b.ChildFailedError: \n=====\n"
    assert processes.reason_of(printed) == "ValueError: bad rows"
    assert processes.reason_of("one\nKilled\n") == "Killed"
    assert processes.reason_of("") == "no reason given"


images = [np.arange(30, dtype=np.uint8).reshape(6, 5) // 3 + value for value in (7, 80, 200)]


@pytest.mark.parametrize("mode", ["raw", "runs", "auto"])
def test_a_file_repeats_its_images(mode: str, tmp_path: Path) -> None:
    path = write_repeated(tmp_path / "a.beton", images, [3, 1, 2], 50, mode)
    fields = {"image": Pixels(), "label": Scalar()}
    with Reader(path) as file, Loader(file, 50, fields, order="sequential", threads=0) as loader:
        file.verify()
        assert file.manifest is not None
        assert file.manifest.fields["image"] == {"type": "InkField", "mode": mode}
        (batch,) = loader
        for number in range(50):
            assert (batch["image"][number] == images[number % 3]).all()
            assert batch["label"][number] == [3, 1, 2][number % 3]
        assert len({*file.column("image").take().starts.tolist()}) == 50  # each at its own place


def test_anonymous_memory_grows_with_arrays_and_not_with_mapped_files(tmp_path: Path) -> None:
    size = 64 << 20
    (tmp_path / "a").write_bytes(bytes(size))
    before = anonymous_memory()
    mapped = np.memmap(tmp_path / "a", np.uint8, "r")
    assert mapped.sum() == 0
    assert anonymous_memory() - before < size / 2
    # New memory of the kernel's: an array could have a place that an earlier test's left free.
    with mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as fresh:
        for start in range(0, size, mmap.PAGESIZE):
            fresh[start] = 1
        assert anonymous_memory() - before > size / 2


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("a folder")
    options = ["--only", "data", "--rounds", "1", "--pages", "3", "--samples", "600", "--quick"]
    done = forked.run(["jobs/bench/scaling.py", *options, "--runs", str(folder)], ROOT)
    assert done.returncode == 0, done.stderr
    assert "seconds to open 600 digits, raw" in done.stdout
    return folder / "bench" / "latest"


def test_files_of_all_sizes_are_measured(run: Path) -> None:
    result = read_results(run).scaling
    assert result is not None
    kinds = [(kind, [*found]) for kind, found in itertools.groupby(result.data, lambda d: d.kind)]
    assert [(kind, len(found)) for kind, found in kinds] == [
        ("pages", 3),
        ("digits, runs", 2),
        ("digits, raw", 2),
    ]
    assert [one.samples for one in kinds[0][1]] == [3, 30, 300]
    for one in result.data:
        assert min(one.rates) > 0
        assert 0 < one.opened < 60
        assert 1e6 < one.anonymous < 1e9
        assert 0 < one.order_share < 1
    html = page_of([run]).html()
    assert "./launch.sh bench scaling --quick --only data --rounds 1 --pages 3" in html
    assert "of a step" not in html  # nothing of processes
    assert html.count("<svg") == 1
    assert (run / "scaling-data.png").stat().st_size > 1_000
    assert not (run / "scaling-efficiency.png").exists()
    axes = plot_data(result).axes[0]
    lines = [line for line in axes.lines if line.get_linestyle() == "-"]
    for line, (_, found) in zip(lines, kinds, strict=True):
        points = [[one.samples, one.rate] for one in found]
        assert np.asarray(line.get_xydata()).tolist() == points


def test_the_page_calls_a_prediction_one(run: Path, tmp_path: Path) -> None:
    """The figures of the processes are made up."""
    measured = processes.combine(
        {1: [outcome({16: 100.0, 32: 200.0})] * 2, 2: [outcome({16: 150.0, 32: 180.0})] * 2}
    )
    result = Scaling(
        *(2, 2, 4, (0.1, 0.2), measured.figures, MODEL),
        tuple(model.checks(MODEL, measured.figures[-1:])),
        tuple(model.predictions(MODEL)),
        (),
    )
    written = json.loads((run / "results.json").read_text())
    folder = tmp_path / "made up"
    folder.mkdir()
    for name in ("config.json", "machine.json"):
        (folder / name).write_text((run / name).read_text())
    (folder / "results.json").write_bytes(
        msgspec.json.encode({**written, "scaling": msgspec.to_builtins(result)})
    )
    html = page_of([folder]).html()
    assert "Predicted, not measured" in html
    assert html.count("<svg") == 1
    axes = plot_efficiency(result, MODEL).axes[0]
    lines = {str(line.get_label()): line for line in axes.lines}
    two = [one for one in result.training if one.processes == 2]
    for one in two:
        drawn = lines[f"measured: {one.rows} rows each"]
        ((count, efficiency),) = np.asarray(drawn.get_xydata()).tolist()
        assert (count, efficiency) == (2, pytest.approx(100 * one.efficiency))
        assert one.efficiency == pytest.approx(1 - one.share("all_reduce") - one.share("stalls"))
    predicted = [line for label, line in lines.items() if label.startswith("predicted: ")]
    (line,) = predicted
    assert len(lines) == len(two) + 1
    assert line.get_linestyle() == "--"
    assert line.get_markerfacecolor() == "white"
    expected = [one.efficiency for one in result.predictions if one.kind == "weak"]
    drawn_ones = np.asarray(line.get_ydata())[1:].tolist()
    assert drawn_ones == pytest.approx([100 * each for each in expected])
    assert "not met: two processes over one with the same cores: got 0.75" in html
    assert "The machine was busy" not in html


def test_bars_say_whether_they_are_met() -> None:
    def of(kind: str, rate: float, memory: int, opened: float) -> DataFigures:
        return DataFigures(kind, 100, 10, opened, (rate,), (1.0,), 0.1, memory, 100)

    files = of("pages", 0.95, 105, 0.1), of("digits, raw", 0.5, 200, 2.0)
    lines = [*tables.bar_lines(Scaling(1, 2, 1, (0, 0), (), None, (), (), files))]
    assert [line.partition(":")[0] for line in lines] == ["met", "met", "not met", "not met"]
    files = of("pages", 0.85, 115, 0.1), of("digits, raw", 0.9, 200, 0.5)
    lines = [*tables.bar_lines(Scaling(1, 2, 1, (0, 0), (), None, (), (), files))]
    assert [line.partition(":")[0] for line in lines] == ["not met", "not met", "met", "met"]


def test_an_impossible_gain_says_nothing() -> None:
    slowed = StepFigures(2, 16, (13.0,), (1.0,), (), 1.0, 0.0, 0.0, 0.0)
    (line,) = tables.bar_lines(Scaling(1, 2, 1, (9, 9), (slowed,), None, (), (), ()))
    assert tables.SLOW in line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (command.Options(rounds=0), "rounds: got 0"),
        (command.Options(samples=-1), "samples: got -1"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: command.Options, message: str) -> None:
    with pytest.raises(UserError, match=message):
        command.check(options)


@pytest.mark.parametrize("only", [None, "data", "processes"])
def test_one_half_can_be_measured_alone(
    only: Literal["data", "processes"] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[str] = []

    def measure_processes(*_: object) -> processes.Measured:
        measured.append("processes")
        return processes.Measured((), (), 0)

    def measure_data(*_: object) -> list[DataFigures]:
        measured.append("data")
        return []

    monkeypatch.setattr(processes, "measure", measure_processes)
    monkeypatch.setattr(data, "measure", measure_data)
    monkeypatch.setattr(command, "write_pages", lambda path, _count: path.write_bytes(b"") or path)
    command.measure(command.Options(quick=True, only=only), tmp_path, print)
    assert measured == ([only] if only else ["processes", "data"])


def test_two_real_processes_train(tmp_path: Path) -> None:
    """Accelerate's launcher starts both, as it does for `launch.sh train --processes 2`."""
    pages = command.write_pages(tmp_path / "train.beton", 16)
    plan = processes.Plan(pages, (4, 8), 1, 1, 2)
    found = processes.launch(2, plan, tmp_path)
    assert [one.rows for one in found.steps] == [4, 8]
    for one in found.steps:
        assert one.rate > 0
        assert min(one.compute, one.all_reduce) > 0
        assert min(one.loader, one.stalls) >= 0
    assert [size for size, _ in found.reduced] == [*SIZES]
    assert found.gradient_bytes > 100_000


def test_a_worker_that_cannot_open_its_file_is_one_line(tmp_path: Path) -> None:
    with (
        data.DataWorker(Task(str(tmp_path / "none"), 0, 4, 1)) as worker,
        pytest.raises(UserError, match="failed with status 1"),
    ):
        worker.opened()
