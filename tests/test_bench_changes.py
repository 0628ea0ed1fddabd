"""`bench --compare`: every subject, what two results differ in, and what they cannot be asked."""

import io
import json
import math
from pathlib import Path

import forked
import pytest
from rich.console import Console

from pipeline.benchmarks.changes import changes, compare, verdict
from pipeline.benchmarks.convergence.outcome import (
    Arm,
    ArmResult,
    Convergence,
    PartResult,
    Point,
    Training,
)
from pipeline.benchmarks.convergence.times import with_times
from pipeline.benchmarks.device.results import DecodingFigures, DeviceResult, TrainingFigures
from pipeline.benchmarks.harness import Series
from pipeline.benchmarks.prep.results import DECODES, DatasetFigures, PrepResult, WriterFigures
from pipeline.benchmarks.results import (
    Figures,
    Results,
    Throughput,
    WorkloadResult,
    new_run,
    write_results,
)
from pipeline.benchmarks.scaling.results import DataFigures, Scaling, StepFigures
from pipeline.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
BASE = (10.0, 11.0, 12.0)  # rates of a reference in three rounds


def times(factor: float) -> tuple[float, ...]:
    """Return rates that are about `factor` times those of the reference."""
    return tuple(factor * rate * noise for rate, noise in zip(BASE, (1, 1.01, 0.99), strict=True))


def throughput(factor: float) -> Results:
    def one(peer: str, rates: tuple[float, ...]) -> Figures:
        return Figures(peer, peer, True, rates, BASE, 1.0, None, 1.0, 1, 1, 0.0, 0.0, 0.0)

    figures = one("inkrun", BASE), one("pillow", times(factor))
    work = WorkloadResult("pages", "Pages", 3, figures)
    return Results(throughput=Throughput(3, 1, (0, 0), (work,), ()))


def device(factor: float) -> Results:
    rates = times(factor)
    decoding = DecodingFigures("device", 28, rates, BASE, 1e-6, 1e-6, 1.0, None)
    training = TrainingFigures("fast", "small", 48, "device", rates, BASE, 0.1, None)
    return Results(
        device=DeviceResult("cpu", "", "no", 3, 1, 4, (0, 0), (decoding,), (training,), ())
    )


def scaling(factor: float) -> Results:
    rates = times(factor)
    steps = StepFigures(2, 16, rates, BASE, (), 1.0, 0.0, 0.0, 0.0)
    data = DataFigures("pages", 9, 10, 0.1, rates, BASE, 0.1, 1, 1)
    return Results(scaling=Scaling(3, 2, 1, (0, 0), (steps,), None, (), (), (data,)))


def prep(factor: float) -> Results:
    figures = WriterFigures(DECODES, 3, None, BASE), WriterFigures("ours", 3, 9.0, times(factor))
    return Results(prep=PrepResult(3, 1, (0, 0), (DatasetFigures("pages", 3, 9, figures, ()),), ()))


def convergence(factor: float) -> Results:
    """Return two arms; a third seed of the slow one is cut short, so its time is extrapolated."""

    def arm(loader: str, seconds: tuple[float, ...], cut: int) -> ArmResult:
        trainings = tuple(
            Training(
                seed, 1.0, each, 0.1, 10, 10, 1, () if seed == cut else (Point(each, 10, 1.0),)
            )
            for seed, each in enumerate(seconds)
        )
        return ArmResult(Arm("inkrun", loader), "small", 48, None, trainings, ())

    arms = arm("inkrun", BASE, -1), arm("pillow", times(factor), 2)
    part = PartResult("1", "a part", {}, 1, 1, 1.0, 1.0, 0.0, 0.0, (0.8,), None, arms)
    return Results(convergence=Convergence(3, 9.0, False, (0, 0), (with_times(part),), ()))


SUBJECTS = {one.__name__: one for one in (throughput, device, scaling, prep, convergence)}


def written(folder: Path, results: Results, **options: object) -> Path:
    path = new_run(folder, options, ({"kind": "synthetic"},))
    write_results(path, results)
    return path


def printed(first: Path, second: Path) -> str:
    shown = io.StringIO()
    compare(first, second, Console(width=250, file=shown))
    return shown.getvalue()


@pytest.mark.parametrize("name", SUBJECTS)
def test_every_subject_is_compared(name: str, tmp_path: Path) -> None:
    """The second benchmark is twice as fast, or takes twice as long, in all but its reference."""
    first, second = (written(tmp_path, SUBJECTS[name](factor)) for factor in (3.0, 6.0))
    before, after = ({s.name: s for s in SUBJECTS[name](f).series()} for f in (3.0, 6.0))
    found = {one.after.name: one for one in changes(before, after)}
    assert len(found) == 2
    for one in found.values():
        if one.after.values == BASE:  # the reference itself
            assert verdict(one.value) == "within noise"
            continue
        assert one.value.value == pytest.approx(2)
        assert one.factor is not None
        assert one.factor.value == pytest.approx(0.5 if name == "throughput" else 2)
        assert one.factor.interval is not None
        rounds = 2 if name == "convergence" else 3  # an extrapolated time is none
        assert len(one.after.values) == len(one.after.factors) == rounds
        if rounds == 3:
            assert verdict(one.factor) == ("less" if name == "throughput" else "more")
    text = printed(first, second)
    assert f"{name}: " in text
    assert "2.00" in text
    assert "different" not in text
    beyond = 2 if name in ("device", "scaling") else 1
    assert text.count(f"changed beyond noise in {beyond} of") == 2
    itself = printed(first, first)
    assert itself.count("changed beyond noise in 0 of") == 2


def test_two_subjects_are_not_compared(tmp_path: Path) -> None:
    first, second = written(tmp_path, device(1.0)), written(tmp_path, prep(1.0))
    done = forked.run(["jobs/bench/all.py", "--compare", first, second], ROOT)
    expected = "bench: compare: got benchmarks of device and of prep, expected one subject\n"
    assert (done.returncode, done.stderr) == (2, expected)
    empty = written(tmp_path, Results())
    with pytest.raises(UserError, match="a benchmark without results"):
        printed(empty, first)


def test_machines_options_and_data_that_differ_are_one_line_each(tmp_path: Path) -> None:
    """The second machine is simulated: its description has more cores and another numpy."""
    first = written(tmp_path, prep(1.0), rounds=3, peers=["a"], runs="a", data={"size": 1})
    second = written(tmp_path, prep(1.0), rounds=5, peers=[], runs="b", data={"size": 2})
    machine = json.loads((second / "machine.json").read_text())
    cores, numpy = machine["cores"], machine["packages"]["numpy"]
    machine["cores"], machine["packages"]["numpy"] = 999, "0.1"
    (second / "machine.json").write_text(json.dumps(machine))
    config = json.loads((second / "config.json").read_text())
    config["provenance"] = [{"kind": "real"}]
    (second / "config.json").write_text(json.dumps(config))
    lines = [line for line in printed(first, second).splitlines() if "different" in line]
    assert lines == [
        f"different machines: cores: {cores}, then 999; packages.numpy: {numpy}, then 0.1",
        "different options: data.size: 1, then 2; peers: ['a'], then not given; rounds: 3, then 5",
        "different data: origin: [{'kind': 'synthetic'}], then [{'kind': 'real'}]",
    ]


def test_what_only_one_has_measured_is_named(tmp_path: Path) -> None:
    other = scaling(1.0)
    assert other.scaling is not None
    first = written(tmp_path, other)
    less = Results(scaling=Scaling(3, 2, 1, (0, 0), (), None, (), (), other.scaling.data))
    second = written(tmp_path, less)
    text = printed(first, second)
    assert f"only measured in {first}: 2 processes, 16 rows each" in text
    assert f"only measured in {second}" not in text
    nothing = Results(scaling=Scaling(3, 2, 1, (0, 0), (), None, (), (), ()))
    with pytest.raises(UserError, match="measured nothing in common"):
        printed(first, written(tmp_path, nothing))


def test_a_change_of_a_ratio_needs_both() -> None:
    with_ratio = Series("a", "s", (1.0, 2.0), (3.0, 4.0))
    without = Series("a", "s", (2.0, 4.0))
    (one,) = changes({"a": with_ratio}, {"a": without})
    assert one.factor is None
    assert math.isclose(one.value.value, 2)
