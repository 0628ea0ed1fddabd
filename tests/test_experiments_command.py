"""What the commands share, and run directories that cannot be resumed."""

import importlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_type_hints

import made_up
import pytest
import tyro
from tiny import CLASSES, write_set

from jobs import part1, part2, part3
from pipeline.data.prepare import BadImagesError
from pipeline.data.sources import SourceError
from pipeline.errors import UserError
from pipeline.evaluation.run_config import RunConfig, TrainingConfig
from pipeline.experiments import command
from pipeline.loading.batches import Decode
from pipeline.loading.dataset import open_dataset
from pipeline.recipes.recipe import Recipe, Stage

JOBS = {"part1": part1, "part2": part2, "part3": part3}


@dataclass(frozen=True)
class Options:
    """Options of every kind."""

    runs: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Run directories."""
    data: Path = Path("data/part1.beton")
    """A file with a default."""
    clean: Path | None = None
    """A file without one."""
    force: bool = False
    """A flag."""
    names: tuple[str, ...] = ("a", "b")
    """Some names."""


@pytest.fixture
def parse(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Options]:
    def parse(*words: str, flags: tuple[Any, ...] = ()) -> Options:
        monkeypatch.setattr(sys, "argv", ["job", *words])
        return command.parse(Options, *flags)

    return parse


def test_relative_paths_are_the_callers_and_defaults_the_checkouts(
    parse: Callable[..., Options], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller, checkout = tmp_path / "caller", tmp_path / "checkout"
    (caller / "mine").mkdir(parents=True)
    (checkout / "runs").mkdir(parents=True)
    monkeypatch.chdir(checkout)
    monkeypatch.setenv("INKRUN_CALLER", str(caller))
    assert parse() == Options()
    assert parse("--clean", "None", "--data", "new/SET") == Options(data=caller / "new/SET")
    assert parse("--data=/a.zip", "--clean=b.zip") == Options((), Path("/a.zip"), caller / "b.zip")
    # Of paths without an option's name, those in the caller's folder come first.
    assert parse("mine", "runs", "none").runs == (caller / "mine", Path("runs"), Path("none"))


def test_a_tilde_is_the_users_home_in_every_path(
    parse: Callable[..., Options], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shell expands it in `--data ~/x`, not in `--data=~/x`."""
    home = tmp_path / "home"
    (home / "runs").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("INKRUN_CALLER", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    found = parse("~/runs", "~/none", "--data=~/a.zip", "--clean=~")
    assert found == Options((home / "runs", home / "none"), home / "a.zip", home)
    assert parse("--data=a~/~b").data == tmp_path / "a~/~b"
    with pytest.raises(SystemExit):
        parse("--data=~nosuchuser/a")


def test_paths_stay_as_given_when_a_job_is_started_directly(
    parse: Callable[..., Options], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("INKRUN_CALLER", raising=False)
    given = ("runs/part1/latest", "--data", "a.beton", "--clean", "../b.beton")
    assert parse(*given) == Options((Path(given[0]),), Path("a.beton"), Path("../b.beton"))


PATHS = {  # by command: all options that are paths
    "evaluate": ["run", "source"],
    "part1": ["data", "runs", "resume", "auxiliary"],
    "emnist": ["data", "runs", "resume"],
    "fashion": ["data", "runs", "resume"],
    "cifar10": ["data", "runs", "resume"],
    "classify": ["data", "runs", "resume"],
    "part2": ["digits", "mnist", "runs", "resume"],
    "part3": ["data", "test", "clean", "part2", "witness", "runs", "resume"],
    "prep": ["source", "out"],
    "report": ["folders", "runs", "out"],
    "synth": ["out", "table", "compare", "grid"],
    "bench.all": ["source", "runs", "compare"],
    "bench.convergence": ["source", "runs"],
    "bench.device": ["data", "runs"],
    "bench.diagnosis": ["source"],
    "bench.part1": ["source"],
    "bench.prep": ["source", "runs"],
    "bench.scaling": ["runs"],
    "bench.throughput": ["source", "runs"],
}


@pytest.mark.parametrize("job", PATHS)
def test_every_path_option_of_every_command_is_the_callers(
    job: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = importlib.import_module(f"jobs.{job}").Config
    hints = get_type_hints(options)
    assert [name for name, hint in hints.items() if "Path" in str(hint)] == PATHS[job]
    for name in PATHS[job]:
        (tmp_path / name).mkdir()
    positional = [name for name in PATHS[job] if name in ("run", "folders")]
    named = [f"--{name}={name}" for name in PATHS[job] if name not in positional]
    monkeypatch.setenv("INKRUN_CALLER", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["job", *positional, *named])
    config = command.parse(options)
    for name in PATHS[job]:
        assert getattr(config, name) in (tmp_path / name, (tmp_path / name,))


def test_flags_of_tyro_are_passed_on(
    parse: Callable[..., Options], capsys: pytest.CaptureFixture[str]
) -> None:
    assert not parse("--no-force").force
    with pytest.raises(SystemExit):
        parse("--no-force", flags=(tyro.conf.FlagCreatePairsOff,))
    assert "--no-force" in capsys.readouterr().err


def test_only_the_main_process_prints_mistakes(
    parse: Callable[..., Options],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for rank, prints in (("0", True), ("1", False)):
        monkeypatch.setenv("RANK", rank)
        with pytest.raises(SystemExit) as done:
            parse("--unknown")
        assert done.value.code == 2
        assert bool("".join(capsys.readouterr())) == prints


def test_options_are_json_values() -> None:
    options = command.options_of(Options(data=Path("a"), names=("c",)))
    expected = {"runs": [], "data": "a", "clean": None, "force": False, "names": ["c"]}
    assert json.loads(json.dumps(options)) == expected


@pytest.mark.parametrize(
    ("error", "lines"),
    [
        (SourceError("x.zip: not a zip"), ["job: x.zip: not a zip"]),
        (UserError("seeds: got 0"), ["job: seeds: got 0"]),
        (
            BadImagesError("2 bad images", [("1\n.png", "empty"), ("2.png", "cut")]),
            ["1\\n.png: empty", "2.png: cut", "job: 2 bad images"],
        ),
    ],
)
def test_mistakes_are_one_line_and_exit_status_2(
    error: Exception,
    lines: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(options: Options) -> None:
        assert options.force
        raise error

    monkeypatch.setattr(sys, "argv", ["job", "--force"])
    assert command.main("job", Options, run) == 2
    assert capsys.readouterr().err.splitlines() == lines


def test_data_that_is_missing_or_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no.beton is not there; make it: ./launch.sh prep mnist"):
        command.open_data(tmp_path / "no.beton", "mnist")
    for name, classes, validation in (("a", CLASSES, 3), ("b", CLASSES[:2], 0)):
        write_set(tmp_path / f"{name}.beton", classes=classes, validation=validation)
    with (
        command.open_data(tmp_path / "a.beton", "a") as first,
        command.open_data(tmp_path / "b.beton", "b") as second,
    ):
        assert command.evaluation_split("data", first) == "validation"
        with pytest.raises(UserError, match=r"data: .*b\.beton has neither a test nor a val"):
            command.evaluation_split("data", second)
        command.check_classes("data", first, first)
        with pytest.raises(UserError, match=r"data: .*b\.beton has the classes 1, A; expected"):
            command.check_classes("data", second, first)


def of_one_training(job: str) -> dict[str, Any]:
    """The config.json of one training of a job."""
    options = command.options_of(JOBS[job].Config())
    made = made_up.config(job=job, options=options, classes=CLASSES)
    value: dict[str, Any] = json.loads(json.dumps(made))
    return value


def of_several(job: str) -> dict[str, Any]:
    """The config.json of a run directory of several trainings."""
    options = command.options_of(JOBS[job].Config())
    return {"job": job, "options": options, "classes": CLASSES, "provenance": {}}


ALIEN: dict[str, Any] = {"model": "of another program"}
DAMAGED = "config.json: damaged: Object missing required field `"
ONE = "got one training of part3, expected the whole run directory"


@pytest.mark.parametrize(
    ("part", "written", "reason"),
    [
        ("part1", ALIEN, "got a run directory of None, expected part1"),
        ("part2", ALIEN, "got a run directory of None, expected part2"),
        ("part3", ALIEN, "got a run directory of None, expected part3"),
        ("part1", {"job": "part1"}, DAMAGED),
        ("part2", {"job": "part2"}, DAMAGED),
        ("part3", {"job": "part3"}, DAMAGED),
        ("part1", of_one_training("part2"), "got a run directory of part2, expected part1"),
        ("part2", of_one_training("part1"), "got a run directory of part1, expected part2"),
        ("part3", of_several("part2"), "got a run directory of part2, expected part3"),
        ("part1", of_several("part1"), DAMAGED),
        ("part2", of_one_training("part2"), ONE.replace("part3", "part2")),
        ("part3", of_one_training("part3"), ONE),
        ("part2", of_several("part2") | {"options": {"seeds": "x"}}, "damaged: Expected `int |"),
        ("part3", of_several("part3") | {"options": {"arms": 1}}, "damaged: Expected `array |"),
        ("part3", [], "got a list, expected an object"),
    ],
)
def test_a_foreign_run_directory_is_refused_in_one_line(
    part: str,
    written: object,
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text(json.dumps(written))
    monkeypatch.setattr(sys, "argv", [part, "--resume", str(run)])
    assert JOBS[part].main() == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith(f"{part}: {run}")
    assert reason in line
    assert [path.name for path in run.iterdir()] == ["config.json"]


@pytest.mark.parametrize("part", JOBS)
def test_every_part_resumes_with_the_same_options(
    part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is resumed as far as its data, which are missing."""
    single = part == "part1"
    config = of_one_training(part) if single else of_several(part)
    config["options"] |= {"digits" if part == "part2" else "data": "gone.beton", "seed": 7}
    if single:
        config["data"] = "gone.beton"
    (tmp_path / "config.json").write_text(json.dumps(config))
    monkeypatch.chdir(tmp_path)
    accepted = ["--runs", "elsewhere", "--decode", "loader", "--precision", "no"]
    accepted += ["--track", "tensorboard"] if single else []
    monkeypatch.setattr(sys, "argv", [part, "--resume", ".", *accepted])
    assert JOBS[part].main() == 2
    assert "gone.beton is not there" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", [part, "--resume", ".", "--seed", "7"])
    assert JOBS[part].main() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"{part}: seed: a resumed run has its own options; leave it out"


def test_options_given_beside_resume_replace_the_saved_ones(tmp_path: Path) -> None:
    saved = of_several("part3")
    saved["options"] |= {"seed": 7, "decode": "loader", "clean": "c.beton", "arms": ["simple"]}
    saved["options"]["precision"] = "no"
    (tmp_path / "config.json").write_text(json.dumps(saved))
    cases: tuple[tuple[Decode, Decode], ...] = (("auto", "loader"), ("device", "device"))
    for given, decode in cases:
        config = part3.Config(resume=tmp_path, decode=given, runs=Path("elsewhere"))
        resumed = command.resumed(config, tmp_path, "part3")
        assert (resumed.seed, resumed.arms, resumed.clean) == (7, ("simple",), Path("c.beton"))
        assert (resumed.decode, resumed.runs) == (decode, Path("elsewhere"))
        assert resumed.precision == "no"
    config = part3.Config(resume=tmp_path, precision="bf16")
    assert command.resumed(config, tmp_path, "part3").precision == "bf16"


def test_a_resumed_run_keeps_its_precision(tmp_path: Path) -> None:
    training = TrainingConfig("small", Recipe((Stage(16, 1, 1e-3),)))
    with open_dataset(write_set(tmp_path / "tiny.beton")) as file:
        saved = RunConfig.of("test", training, file, {"precision": "no"})
    assert command.resumed_precision("auto", saved, tmp_path) == "no"
    assert command.resumed_precision("bf16", saved, tmp_path) == "bf16"
    assert command.resumed_precision("auto", replace(saved, options={}), tmp_path) == "auto"
    with pytest.raises(UserError, match=r"config\.json: damaged: precision"):
        command.resumed_precision("auto", replace(saved, options={"precision": "half"}), tmp_path)
