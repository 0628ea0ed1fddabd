"""Reports of a real training, through the job and launch.sh, and the trackers."""

import sys
from dataclasses import replace
from pathlib import Path

import made_up
import pytest
from test_html import Parsed
from test_launch import Checkout
from tiny import write_set

from jobs import part1, report
from pipeline.errors import UserError
from pipeline.evaluation.run_dir import RunDir
from pipeline.experiments import classify
from pipeline.experiments.options import Part1Options
from pipeline.training import distributed


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("set") / "tiny.beton", train=4, validation=2)


def settings(data: Path, runs: Path) -> Part1Options:
    return Part1Options(data=data, runs=runs, size=16, epochs=1, batch_size=8, precision="no")


@pytest.fixture(scope="module")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one short run of part 1."""
    path = tmp_path_factory.mktemp("runs")
    classify.run("part1", settings(data, path))
    return path


def run_report(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object
) -> tuple[int, str, str]:
    """Run the job; return its status and output."""
    monkeypatch.setattr(sys, "argv", ["report", *map(str, arguments)])
    status = report.main()
    return status, *capsys.readouterr()


def test_the_latest_run_becomes_a_page(
    runs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "not there" / "yet"
    status, output, error = run_report(capsys, monkeypatch, "--runs", runs, "--out", out)
    assert (status, error) == (0, "")
    assert output.startswith(f"{out / 'part1.html'}: Recipe fast classifies ")
    assert [path.name for path in out.iterdir()] == ["part1.html"]
    page = Parsed((out / "part1.html").read_text())
    assert len(page.all("img")) == 3
    assert len(page.all("svg")) == 5
    assert any("synthetic data: tiny" in words for words in page.words["li"])


def test_given_folders_are_used_and_not_changed(
    runs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (run,) = (path for path in (runs / "part1").iterdir() if not path.is_symlink())
    before = sorted(run.iterdir())
    nothing = tmp_path / "nothing"
    status, *_ = run_report(capsys, monkeypatch, run, "--runs", nothing, "--out", tmp_path)
    assert status == 0
    assert str(run) in (tmp_path / "part1.html").read_text()
    assert sorted(run.iterdir()) == before


def test_every_part_has_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given: dict[str, list[Path]] = {}

    class Blank:
        def __init__(self, part: str) -> None:
            self.part, self.answer = part, f"answer of {part}"

        def write(self, path: Path) -> None:
            path.write_text(self.part)

    for part in report.PAGES:
        folder = tmp_path / "runs" / part / "then"
        folder.mkdir(parents=True)
        RunDir(folder).write_json("config.json", {"job": part, "data": "data/leaves.beton"})
        RunDir(folder).link_latest()

        def blank(paths: list[Path], part: str = part) -> Blank:
            given[part] = paths
            return Blank(part)

        monkeypatch.setitem(report.PAGES, part, blank)
    out = tmp_path / "out"
    status, output, _ = run_report(capsys, monkeypatch, "--runs", tmp_path / "runs", "--out", out)
    assert status == 0
    pages = {part: out / f"{part if part != 'classify' else 'leaves'}.html" for part in given}
    parts = ["bench", "cifar10", "emnist", "fashion", "classify"]
    parts += ["part1", "part2", "part3", "sweep"]
    assert [*pages] == parts
    assert all(page.read_text() == part for part, page in pages.items())
    assert given == {part: [tmp_path / "runs" / part / "latest"] for part in given}
    assert output.splitlines() == [f"{page}: answer of {part}" for part, page in pages.items()]


def test_other_folders_are_rejected_in_one_line(
    runs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    RunDir(other).write_json("config.json", {"job": "part9"})
    strange = tmp_path / "strange"
    strange.mkdir()
    RunDir(strange).write_json("config.json", {"model": "of another program"})
    one = tmp_path / "then" / "scratch-0"
    one.mkdir(parents=True)
    RunDir(one).write_json("config.json", made_up.config(job="part2"))
    two = tmp_path / "then" / "naive-0"
    two.mkdir()
    RunDir(two).write_json("config.json", made_up.config(job="part3"))
    out = tmp_path / "out"
    for arguments, says in (
        (["--runs", tmp_path], f"report: {tmp_path}: it has no runs; train first"),
        ([tmp_path / "gone"], f"report: {tmp_path / 'gone'}: not a run directory"),
        ([other], f"report: {other}: got a run of part9, expected one of part1, part2, part3"),
        ([runs / "part1" / "latest", tmp_path], f"report: {tmp_path}: not a run directory"),
        ([strange], f"report: {strange}: got a run of None, expected one of part1, part2, part3"),
        ([one], f"report: {one}: got one training of part2, expected the whole run directory"),
        ([two], f"report: {two}: got one training of part3, expected the whole run directory"),
    ):
        status, output, error = run_report(capsys, monkeypatch, *arguments, "--out", out)
        assert (status, output) == (2, "")
        assert error.startswith(says)
        assert error.count("\n") == 1
    assert not out.exists()


def test_launch_sh_starts_it_with_the_callers_paths(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    (checkout.root / "jobs" / "report.py").touch()
    (checkout.root / "runs" / "part1" / "then").mkdir(parents=True)
    assert checkout("report", "runs/part1/then", "--out", "pages").returncode == 0
    assert checkout.calls()[-1] == "jobs/report.py runs/part1/then --out pages"
    assert "report [RUN…]" in checkout("--help").stdout


def test_launch_sh_installs_the_trackers(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    assert checkout("setup", "track").returncode == 0
    assert checkout.calls()[-1].endswith(" -e .[track]")


@pytest.mark.parametrize("tracker", ["tensorboard", "wandb"])
def test_a_tracker_that_is_not_installed(
    tracker: str,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(distributed, "find_spec", lambda _: None)
    options = ["--data", str(data), "--runs", str(tmp_path / "runs"), "--track", tracker]
    monkeypatch.setattr(sys, "argv", ["part1", *options])
    assert part1.main() == 2
    output, error = capsys.readouterr()
    assert output == ""
    assert error == f"part1: track: {tracker} is not installed: ./launch.sh setup track\n"
    assert not (tmp_path / "runs").exists()
    with pytest.raises(UserError), distributed.join_processes(track=tracker):
        pass


def test_tensorboard_shows_what_the_run_keeps(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra `track`")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    classify.run("part1", replace(settings(data, tmp_path), track="tensorboard", epochs=2))
    run = RunDir(tmp_path / "part1" / "latest")
    (file,) = run.path.resolve().glob("inkrun/events.*")
    events = EventAccumulator(str(file))
    events.Reload()
    kept = run.epochs()
    for figure in ("loss", "accuracy", "train_loss", "learning_rate"):
        shown = [(event.step, event.value) for event in events.Scalars(figure)]
        assert shown == [
            (2 * (epoch.epoch + 1), pytest.approx(getattr(epoch, figure))) for epoch in kept
        ]
