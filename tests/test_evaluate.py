import io
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import forked
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from raw_data import make_zip
from rich.console import Console
from safetensors.torch import load_file
from tiny import CLASSES, page, write_set

from beton.errors import BetonError
from beton.reader import Reader
from jobs import evaluate as job
from pipeline.data.pixels.options import PixelOptions
from pipeline.data.prepare import prepare
from pipeline.data.sources import SourceError, open_source
from pipeline.errors import UserError
from pipeline.evaluation.evaluate import TrainedModel, evaluate, load_model
from pipeline.evaluation.metrics import Scores, score
from pipeline.evaluation.predict import Predictions
from pipeline.evaluation.run_config import DatasetRef, TrainingConfig
from pipeline.evaluation.run_dir import RunDir
from pipeline.loading.batches import DeviceLoader
from pipeline.loading.dataset import PixelRules, open_dataset, split_indices
from pipeline.recipes.recipe import Recipe, Stage
from pipeline.runtime import launch
from pipeline.runtime.files import write_tensors
from pipeline.training.distributed import join_processes
from pipeline.training.runner import run_training, write_config

JOB = Path(__file__).resolve().parents[1] / "jobs" / "evaluate.py"
UNSEEN = range(100, 105)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    recipe = Recipe((Stage(16, 25, 5e-3),), batch_size=8)
    run = RunDir(folder / "run")
    with open_dataset(write_set(folder / "tiny.beton")) as file, join_processes("no") as processes:
        write_config(run, "test", TrainingConfig("small", recipe), file, {})
        run_training(processes, run, TrainingConfig("small", recipe), file, Console(quiet=True))
    return run.path


@pytest.fixture(scope="module")
def trained(run: Path) -> TrainedModel:
    return load_model(run)


def pages(classes: tuple[str, ...] = CLASSES) -> dict[str, bytes]:
    """A folder per class of pages that were not trained on."""
    files = {}
    for name in classes:
        for number in UNSEEN:
            png = io.BytesIO()
            Image.fromarray(page(name, number)).save(png, "PNG")
            files[f"set/{name}/{number}.png"] = png.getvalue()
    return files


def test_unseen_images(trained: TrainedModel, tmp_path: Path) -> None:
    found = evaluate(trained, make_zip(tmp_path / "test.zip", pages()), precision="no")
    assert found.scores.accuracy == 1
    assert found.scores.samples == len(CLASSES) * len(UNSEEN)
    assert {(one.name, one.samples, one.f1) for one in found.scores.per_class} == {
        (name, len(UNSEEN), 1.0) for name in CLASSES
    }
    assert found.provenance["source"] == "test.zip"
    assert not found.seen


@pytest.mark.parametrize(("width", "height"), [(120, 90), (90, 90), (180, 90)])
def test_pages_of_other_proportions_are_not_stretched(
    width: int, height: int, trained: TrainedModel, tmp_path: Path
) -> None:
    def draw(name: str, number: int) -> NDArray[np.uint8]:
        sheet = np.full((height, width), 255, np.uint8)
        sheet[20:60, 10 + number : 50 + number] = CLASSES.index(name)
        return sheet

    path = write_set(tmp_path / "square.beton", draw=draw)
    with open_dataset(path) as file:
        view = trained.view_of(file)
        with DeviceLoader(
            file, split_indices(file, "all"), view, 2, device=torch.device("cpu")
        ) as loader:
            ink = next(iter(loader.micro_batches())).images[0, 0]
    (rows,), (columns,) = (ink.sum(side).gt(1).nonzero(as_tuple=True) for side in (1, 0))
    assert len(rows) == len(columns) > 3


def in_colour(files: dict[str, bytes]) -> dict[str, bytes]:
    """The same pages with some colours beside the ink."""
    rng = np.random.default_rng(0)
    found = {}
    for name, data in files.items():
        colours = np.array(Image.open(io.BytesIO(data)).convert("RGB"))
        colours[:12] = np.repeat(rng.integers(0, 256, (1, 12, 3)), 10, 1)
        png = io.BytesIO()
        Image.fromarray(colours).save(png, "PNG")
        found[name] = png.getvalue()
    return found


def test_colours_are_made_grey_for_a_network_of_grey_images(
    trained: TrainedModel, tmp_path: Path
) -> None:
    found = evaluate(trained, make_zip(tmp_path / "test.zip", in_colour(pages())), precision="no")
    assert found.scores.samples == len(CLASSES) * len(UNSEEN)
    assert "all 20 images are in colour; they are made grey, as in the training" in found.warnings
    plain = evaluate(trained, make_zip(tmp_path / "grey.zip", pages()), precision="no")
    assert not any("colour" in warning for warning in plain.warnings)


def test_grey_images_are_repeated_for_a_network_of_colours(
    trained: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = PixelRules(polarity="each", fit="crop", colour="rgb")
    of_colours = replace(trained, config=replace(trained.config, pixels=rules))

    def predict(_self: TrainedModel, file: Reader, *_: Any, **__: Any) -> Any:
        images = [file.column("image").decode(row) for row in range(len(file))]
        assert all((image == image[..., :1]).all() for image in images)
        labels = torch.from_numpy(file.column("label").metadata.astype(np.int64))
        logits = torch.nn.functional.one_hot(labels).float()
        return Predictions(torch.arange(len(file)), labels, logits), None

    monkeypatch.setattr(TrainedModel, "predict", predict)
    found = evaluate(of_colours, make_zip(tmp_path / "test.zip", pages()), precision="no")
    assert "all 20 images are grey; in colour, their grey levels are repeated" in found.warnings


def test_a_prepared_file_of_another_colour_is_refused(
    trained: TrainedModel, tmp_path: Path
) -> None:
    source = open_source(make_zip(tmp_path / "test.zip", in_colour(pages())))
    prepare(source, tmp_path / "c.beton", pixels=PixelOptions(colour="rgb"))
    message = (
        r"c\.beton: got images that are stored in colour, expected them grey, as in the training"
    )
    with pytest.raises(UserError, match=message):
        evaluate(trained, tmp_path / "c.beton")
    rules = replace(trained.config.pixels, colour="rgb")
    of_colours = replace(trained, config=replace(trained.config, pixels=rules))
    grey = write_set(tmp_path / "grey.beton")
    with pytest.raises(UserError, match="stored grey, expected them in colour, as in the training"):
        evaluate(of_colours, grey)


def test_some_of_the_classes_in_another_order(trained: TrainedModel, tmp_path: Path) -> None:
    source = write_set(tmp_path / "some.beton", classes=("m", "1"), digest="sha256:other")
    found = evaluate(trained, source, precision="no")
    assert found.scores.accuracy == 1
    assert [one.samples for one in found.scores.per_class] == [11, 0, 0, 11]


def test_the_training_dataset_split_by_split(trained: TrainedModel, tmp_path: Path) -> None:
    source = write_set(tmp_path / "tiny.beton")
    counts = {s: evaluate(trained, source, split=s).scores.samples for s in ("all", "train")}
    assert counts == {"all": 44, "train": 32}
    assert evaluate(trained, source, split="validation").seen
    with pytest.raises(UserError, match=r"tiny\.beton: no images in its split 'test'"):
        evaluate(trained, source, split="test")


def test_pages_of_a_single_class(trained: TrainedModel, tmp_path: Path) -> None:
    source = make_zip(tmp_path / "test.zip", pages(CLASSES[:1]))
    assert evaluate(trained, source, precision="no").scores.samples == len(UNSEEN)


@pytest.mark.parametrize("name", ["config.json", "view.json", "model.safetensors"])
def test_damaged_runs_are_reported_in_a_line(name: str, run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / name).write_bytes((run / name).read_bytes()[:-9])
    with pytest.raises(UserError, match=f"{name}: damaged: ") as error:
        load_model(tmp_path / "run")
    assert "\n" not in str(error.value)


def test_a_class_that_it_was_not_trained_on(trained: TrainedModel, tmp_path: Path) -> None:
    files = pages() | {"set/ß/1.png": next(iter(pages().values()))}
    with pytest.raises(UserError, match="not trained on: ß; expected some of 1, A, a, m"):
        evaluate(trained, make_zip(tmp_path / "test.zip", files))


def test_invalid_sources_and_run_directories(trained: TrainedModel, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such file or folder"):
        evaluate(trained, tmp_path / "missing.zip")
    (tmp_path / "bad.beton").write_bytes(b"bad")
    with pytest.raises(BetonError, match=r"bad\.beton"):
        evaluate(trained, tmp_path / "bad.beton")
    with pytest.raises(UserError, match=r"not a run directory: it has no view\.json"):
        load_model(tmp_path)


def test_weights_that_do_not_fit_this_version(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "old")
    weights = load_file(run / "model.safetensors")
    weights["head.2.bias"] = weights["head.2.bias"][:-1].clone()
    write_tensors(tmp_path / "old" / "model.safetensors", weights)
    with pytest.raises(UserError, match="old: its weights do not fit this version's network") as e:
        load_model(tmp_path / "old")
    assert "\n" not in str(e.value)


def test_a_run_has_seen_its_auxiliary_dataset_too(trained: TrainedModel, tmp_path: Path) -> None:
    source = write_set(tmp_path / "other.beton", digest="sha256:other")
    assert not evaluate(trained, source, precision="no").seen
    provenance = {"kind": "synthetic", "source": "x", "digest": "sha256:other"}
    auxiliary = DatasetRef("other.beton", "f00", 44, provenance)
    both = replace(trained, config=replace(trained.config, auxiliary=auxiliary))
    assert evaluate(both, source, precision="no").seen


def test_the_job_prints_json_for_programs(run: Path, tmp_path: Path) -> None:
    source = make_zip(tmp_path / "test.zip", pages())
    done = forked.run([JOB, run, "--source", source, "--json"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["scores"]["accuracy"] == 1
    assert done.stderr == ""


@pytest.fixture
def score_here(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run the job in this process; return its exit status, stdout and stderr."""
    monkeypatch.setattr(launch, "use_cores", lambda: 1)

    def score_here(source: Path | str, *options: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["evaluate", str(run), "--source", str(source), *options])
        return job.main(), *capsys.readouterr()

    return score_here


def test_images_that_cannot_be_decoded_are_named_and_counted(
    score_here: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    source = make_zip(tmp_path / "[red].zip", pages() | {"set/1/7.png": b"no picture"})
    status, out, err = score_here(source)
    assert (status, out) == (2, "")
    first, second = err.splitlines()
    assert first.startswith("set/1/7.png: ")
    assert second == (
        f"evaluate: {source}: 1 of 21 images cannot be decoded; --skip-bad leaves them out"
    )
    status, out, _ = score_here(source, "--skip-bad", "--json")
    printed = json.loads(out)
    assert (status, printed["scores"]["samples"], printed["seen"]) == (0, 20, False)
    ((name, _reason),) = printed["skipped"]
    assert name == "set/1/7.png"
    status, out, _ = score_here(source, "--skip-bad")
    assert status == 0
    assert "1 images that cannot be decoded: set/1/7.png" in out
    assert "[red].zip" in out


@pytest.mark.parametrize("given", ["latest", ".", "2026", "latest/.", "../part1"])
def test_runs_are_named_from_within_their_folder(
    given: str,
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """launch.sh starts the job in the checkout; a folder of runs stands for its latest."""
    folder = tmp_path / "runs" / "part1"
    shutil.copytree(run, folder / "2026")
    (folder / "latest").symlink_to("2026")
    source = write_set(tmp_path / "tiny.beton")
    monkeypatch.setattr(launch, "use_cores", lambda: 1)
    monkeypatch.setenv("INKRUN_CALLER", str(folder))
    monkeypatch.setattr(sys, "argv", ["evaluate", given, f"--source={source}", "--json"])
    assert job.main() == 0
    assert json.loads(capsys.readouterr().out)["scores"]["accuracy"] == 1


def test_a_file_that_is_prepared_takes_no_options_of_raw_images(
    score_here: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    source = write_set(tmp_path / "tiny.beton")
    for option in ("--class-from=folder:0", "--polarity=light", "--allow-blank"):
        assert score_here(source, option) == (
            2,
            "",
            f"evaluate: {source}: is prepared already; leave out the options of raw images\n",
        )


def test_what_preparation_doubts_is_printed(
    score_here: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    info = {"layout": {"warnings": ["classes are folders"]}, "survey": {"warnings": ["3 inverted"]}}
    status, out, _ = score_here(write_set(tmp_path / "tiny.beton", info=info), "--json")
    assert (status, json.loads(out)["warnings"]) == (0, ["classes are folders", "3 inverted"])
    status, out, _ = score_here(tmp_path / "tiny.beton")
    assert "classes are folders" in out
    assert "3 inverted" in out


def test_the_job_prints_tables_and_errors(
    score_here: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    status, out, _ = score_here(write_set(tmp_path / "tiny.beton"))
    assert status == 0
    assert "100.0 %" in out
    assert "synthetic data: tiny" in out
    assert "warning" in out
    assert score_here("nowhere") == (2, "", "evaluate: nowhere: no such file or folder\n")


def scores_of(predicted: list[int], labels: list[int], classes: tuple[str, ...]) -> Scores:
    logits = torch.nn.functional.one_hot(torch.tensor(predicted), len(classes)).float()
    return score(logits, torch.tensor(labels), classes)


def test_scores_by_hand() -> None:
    got = scores_of([0, 1, 1, 1, 0], [0, 0, 0, 1, 2], ("a", "A", "7"))
    assert got.samples == 5
    assert got.accuracy == 2 / 5
    assert got.accuracy_ignoring_case == 4 / 5
    assert got.matrix == ((1, 2, 0), (0, 1, 0), (1, 0, 0))
    assert [(c.true, c.predicted, c.count) for c in got.confusions] == [
        ("a", "A", 2),
        ("7", "a", 1),
    ]
    first, second, third = got.per_class
    assert (first.name, first.samples) == ("a", 3)
    assert (first.precision, first.recall) == pytest.approx((1 / 2, 1 / 3))
    assert (second.precision, second.recall) == pytest.approx((1 / 3, 1))
    assert (third.precision, third.recall, third.f1) == (0, 0, 0)
    expected = torch.tensor([1.0, 0, 0]).log_softmax(0)
    assert got.loss == pytest.approx(-float(2 * expected[0] + 3 * expected[1]) / 5)


def test_classes_without_case_have_no_accuracy_ignoring_case() -> None:
    assert scores_of([0, 1], [0, 1], ("0", "1")).accuracy_ignoring_case is None
    with pytest.raises(ValueError, match="no samples"):
        score(torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64), ("0", "1"))


def test_predictions_of_some_of_the_samples() -> None:
    whole = Predictions(torch.arange(3, 8), torch.arange(5) % 2, torch.eye(5))
    some = whole.select(torch.tensor([4, 7]))
    assert some.ids.tolist() == [4, 7]
    assert some.labels.tolist() == [1, 0]
    assert torch.equal(some.logits, torch.eye(5)[[1, 4]])
