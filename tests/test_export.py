"""Exported networks against their run, and what goes wrong with exports elsewhere."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import forked
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from trained_runs import NAMES, colour_run, ink_run

from jobs import evaluate as evaluate_job
from jobs.tools import export as job
from pipeline.errors import UserError
from pipeline.evaluation.evaluate import TrainedModel, load_model
from pipeline.evaluation.run_data import open_run_data
from pipeline.export.check import Reference, largest_difference, reference
from pipeline.export.program import Program, exportable
from pipeline.loading.writer_scale import typical_scale

pytest.importorskip("onnxscript")
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

JOB = Path(__file__).resolve().parents[1] / "jobs" / "tools" / "export.py"
Export = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def ink(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ink_run(tmp_path_factory.mktemp("ink"))


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return colour_run(tmp_path_factory.mktemp("colours"))


@pytest.fixture
def export(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Export:
    """Run the job in this process; return its status and what it printed."""

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["export.py", *map(str, words)])
        return (job.main(), *capsys.readouterr())

    return run


def expectation(trained: TrainedModel) -> Reference:
    with open_run_data(trained.config) as file:
        return reference(trained, Program(trained, 1.0), file)


def test_an_onnx_file_computes_the_run_for_any_batch(ink: Path, tmp_path: Path) -> None:
    run = forked.run([JOB, ink, "--to", "onnx", "--out", tmp_path / "out"], tmp_path)
    assert (run.returncode, run.stderr) == (0, "")
    assert "largest difference from the run's logits: " in run.stdout
    assert "on 16 images of its split validation" in run.stdout
    assert {path.name for path in (tmp_path / "out").iterdir()} == {".inkrun", "model.onnx"}
    moved = shutil.move(tmp_path / "out" / "model.onnx", tmp_path / "alone.onnx")  # all in one file
    session = onnxruntime.InferenceSession(moved, providers=["CPUExecutionProvider"])
    (pages,), (logits,) = session.get_inputs(), session.get_outputs()
    assert (pages.name, pages.type, logits.name, logits.type) == (
        "pages",
        "tensor(uint8)",
        "logits",
        "tensor(float)",
    )
    assert isinstance(pages.shape[0], str)
    assert pages.shape[1:] == [1, 32, 43]
    expected = expectation(load_model(ink))
    for rows in (1, 2, 16):
        got = session.run(None, {"pages": expected.pages[:rows]})[0]
        np.testing.assert_allclose(got, expected.logits[:rows], atol=1e-5)
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["classes"]) == list(NAMES)
    assert metadata["height"] == "32"
    assert str(tmp_path) not in Path(moved).read_bytes().decode("latin1")


def test_a_pt2_file_of_a_colour_run(colours: Path, export: Export, tmp_path: Path) -> None:
    status, out, _ = export(colours, "--to", "pt2", "--out", tmp_path / "out")
    assert status == 0
    assert "mean over 2 views" in out
    assert "RGB" in out
    extra = {"description.json": ""}
    loaded = torch.export.load(tmp_path / "out" / "model.pt2", extra_files=extra).module()
    expected = expectation(load_model(colours))
    assert expected.pages.shape[1] == 3
    got = loaded(torch.from_numpy(expected.pages[:5])).detach().numpy()
    np.testing.assert_allclose(got, expected.logits[:5], atol=1e-5)
    assert json.loads(extra["description.json"])["classes"] == ["red", "green", "blue"]


def in_train_mode(program: Program) -> None:
    program.network.train()


def at_another_scale(program: Program) -> None:
    program.scale = 0.7


@pytest.mark.parametrize("fault", [in_train_mode, at_another_scale])
def test_a_program_that_computes_something_else_is_not_written(
    ink: Path,
    export: Export,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: Callable[[Program], None],
) -> None:
    whole = Program.export

    def broken(program: Program) -> torch.export.ExportedProgram:
        fault(program)
        return whole(program)

    monkeypatch.setattr(Program, "export", broken)
    status, out, err = export(ink, "--to", "pt2", "--out", tmp_path / "out")
    assert (status, out) == (2, "")
    assert "expected at most 1e-04; nothing is written" in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda logits: logits + 2e-4, "differ"),
        (lambda logits: logits * np.nan, "differ"),
        (lambda logits: logits.astype(np.float64), "float64"),
        (lambda logits: logits[:1], "shape"),
        (lambda logits: logits.argmax(1), "int64"),
    ],
)
def test_differences_are_seen(
    change: Callable[[np.ndarray], np.ndarray],
    message: str,
) -> None:
    pages = np.arange(80, dtype=np.uint8).reshape(80, 1, 1, 1)
    logits = np.repeat(pages[:, 0, 0], 3, axis=1).astype(np.float32)
    expected = Reference("validation", pages, logits, np.zeros(80, np.int64), 0.5)

    def run(some: np.ndarray) -> np.ndarray:
        return np.repeat(some[:, 0, 0], 3, axis=1).astype(np.float32)

    assert largest_difference(run, expected, "x") == 0
    with pytest.raises(UserError, match=message):
        largest_difference(lambda some: change(run(some)), expected, "x")


def test_the_program_is_the_runs_path_from_page_to_logits(ink: Path) -> None:
    trained = load_model(ink)
    recipe = replace(trained.config.recipe, views=3, mirrored=True, hand=0.4)
    trained = replace(trained, config=replace(trained.config, recipe=recipe))
    with open_run_data(trained.config) as file:
        program = Program(trained, typical_scale(file, recipe.hand, trained.view.proportion))
        expected = reference(trained, program, file)
    assert program.scale != 1
    with torch.no_grad():
        got = program(torch.from_numpy(expected.pages)).numpy()
    np.testing.assert_allclose(got, expected.logits, atol=1e-5)
    assert expected.pages.max() == 255
    assert len(np.unique(expected.pages)) > 1


class Pooled(nn.Module):
    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.pool = nn.AdaptiveMaxPool2d(size)

    def forward(self, images: Tensor) -> Tensor:
        pooled: Tensor = self.pool(images)
        return pooled


@pytest.mark.parametrize("shape", [(8, 12), (9, 14), (30, 17), (3, 5)])
def test_adaptive_pooling_becomes_windows(shape: tuple[int, int]) -> None:
    network, images = Pooled((8, 12)), torch.rand(2, 3, *shape)
    other = exportable(network)
    assert not any(isinstance(layer, nn.AdaptiveMaxPool2d) for layer in other.modules())
    assert isinstance(network.pool, nn.AdaptiveMaxPool2d)
    assert torch.equal(other(images), network(images))


def test_a_model_repository_is_read_as_a_run(
    ink: Path, export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    data = load_model(ink).config.data
    assert export(ink, "--to", "hub", "--out", tmp_path / "hub")[0] == 0
    assert export(ink, "--to", "hub", "--out", tmp_path / "hub")[0] == 0  # replaces its own
    card = (tmp_path / "hub" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: inkrun\n")
    assert ("`test.json`" in card) == (tmp_path / "hub" / "test.json").exists()
    for part in ("synthetic data: tiny", "95 % interval", "Intended use", "Limits", r"`a\nb`"):
        assert part in card
    assert "The data are synthetic" in card
    for path in (tmp_path / "hub").iterdir():
        assert str(ink.parent).encode() not in path.read_bytes()
    words = ["evaluate.py", str(tmp_path / "hub"), "--source", data, "--split", "validation"]
    monkeypatch.setattr(sys, "argv", [*words, "--json", "--precision", "no"])
    assert evaluate_job.main() == 0
    scores = json.loads(capsys.readouterr().out)["scores"]
    stored = json.loads((tmp_path / "hub" / "result.json").read_text())
    assert scores["accuracy"] == stored["accuracy"]
    status, _, err = export(tmp_path / "hub", "--to", "pt2", "--out", tmp_path / "pt2")
    assert (status, err.count("\n")) == (2, 1)
    assert "the run's dataset tiny.beton has no path in an export" in err


def test_a_space_has_all_that_the_app_needs(ink: Path, export: Export, tmp_path: Path) -> None:
    assert export(ink, "--to", "space", "--out", tmp_path / "space")[0] == 0
    folder = tmp_path / "space"
    readme = (folder / "README.md").read_text()
    for line in ("sdk: gradio", "app_file: app.py"):
        assert f"\n{line}\n" in readme
    requirements = (folder / "requirements.txt").read_text().splitlines()
    assert any(line.startswith("gradio>=") for line in requirements)
    assert all(">=" in line and "<" in line for line in requirements)
    assert {path.name for path in (folder / "model").iterdir()} >= {"README.md", "config.json"}
    # The folder's own code loads the folder's own model.
    script = "import pipeline; from pipeline.evaluation.evaluate import load_model; "
    script += "import pathlib; print(pipeline.__file__, load_model(pathlib.Path('model')).classes)"
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, env={"PATH": ""}, capture_output=True, text=True
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert str(folder) in run.stdout
    assert compile((folder / "app.py").read_text(), "app.py", "exec")


def test_other_folders_are_refused(ink: Path, export: Export, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("x")
    status, _, err = export(ink, "--to", "hub", "--out", tmp_path)
    assert (status, err.count("\n")) == (2, 1)
    assert "got a folder that it did not write, expected a new folder for export --to hub" in err
    assert export(tmp_path, "--to", "hub")[0] == 2
