"""The page of part 3, for every kind of label noise."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up import config, result
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console
from test_html import Parsed

from pipeline.analysis.label_noise import diagnose, rank_labels
from pipeline.analysis.noise_models import KINDS, transition
from pipeline.analysis.noise_robust import (
    METHODS,
    LabelledDataset,
    LabelledSplit,
    LabelNoiseResult,
    Score,
    methods_for,
    recovery,
)
from pipeline.errors import UserError
from pipeline.evaluation.run_config import ExperimentConfig
from pipeline.loading.dataset import Provenance
from pipeline.reporting.pages import part3

CLASSES = ("T-shirt/top", "Trouser", "Bag", "Ankle boot")
PROVENANCE: Provenance = {"kind": "real", "source": "fashion-mnist", "digest": "sha256:0"}
SYNTHETIC: Provenance = {"kind": "synthetic", "source": "inkrun's generator", "digest": "sha256:1"}
ENVIRONMENT = {"processor": "a slide rule", "device": "cpu", "precision": "no"}
TRAINING = result(epochs=10, accuracy=0.1234, loss=2.1987, samples=1200)
SHARES = {"naive": 0.0018, "backwards": 0.741, "forward": 0.867, "complementary": 0.85}


def predictions(kind: str, witness: bool) -> tuple[NDArray[np.float64], NDArray[np.int64], Any]:
    """Probabilities of a trained network, given labels, probabilities of a reference model."""
    rng = np.random.default_rng(0)
    true = rng.integers(0, len(CLASSES), 1200)
    rows = np.array([[0.7, 0, 0.3, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    if kind != "class-dependent":
        rows = transition(kind, 0.3, len(CLASSES), [1, 2, 3, 0])
    labels = np.array([rng.choice(len(CLASSES), p=rows[one]) for one in true])
    own = 0.94 * np.eye(len(CLASSES)) + 0.015
    return rows[true] * 0.98 + 0.005, labels, own[true] if witness else None


def write_run(folder: Path, kind: str, witness: bool = False, seeds: int = 3) -> dict[str, Any]:
    """Write a run directory; return its result.json."""
    probabilities, labels, reference = predictions(kind, witness)
    diagnosis = diagnose(probabilities, labels, CLASSES, reference)
    methods = methods_for(diagnosis.kind)
    shares = {w: [SHARES.get(w, 0.926) + 0.001 * n for n in range(seeds)] for w in methods}
    scores = {w: [Score(share, 0.9 * share) for share in own] for w, own in shares.items()}
    trained = [f"{way}-{seed}" for way in methods if way != "backwards" for seed in range(seeds)]
    provenance, file = PROVENANCE, "data/fashion-mnist.beton"
    written = LabelNoiseResult(
        provenance=provenance,
        test=LabelledSplit(file, 10_000, provenance, "test"),
        clean=LabelledDataset(file, 54_000, SYNTHETIC),
        classes=CLASSES,
        pictures=53_998,
        held_out=len(labels),
        arms={"simple": Score(0.0018, 0.0017), "constant": Score(0.0321, 0.0319)},
        left_out=("runs/part2/latest/digits knows other classes",),
        witness="runs/part2/latest/pretrained-0" if witness else None,
        look=rank_labels(probabilities, labels),
        diagnosis=diagnosis,
        recovery=recovery(scores),
        trainings=dict.fromkeys(("simple", "constant", *trained), TRAINING),
        seconds_in_all=60.0,
    )
    options = {"data": "data/fashion wrong.beton", "arms": ["simple", "constant"], "clean": None}
    whole = ExperimentConfig("part3", options, CLASSES, provenance)
    folder.mkdir(parents=True)
    for name, value in (("result", written), ("config", whole)):
        (folder / f"{name}.json").write_text(json.dumps(asdict(value)))
    for name in written.trainings:
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps(config(job="part3")))
        (folder / name / "environment.json").write_text(json.dumps(ENVIRONMENT))
    Figure(figsize=(1, 1)).savefig(folder / "folders.png")
    loaded: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return loaded


def words_of(folder: Path) -> str:
    text = part3.page_of([folder]).html()
    return " ".join(" ".join(" ".join(some) for some in Parsed(text).words.values()).split())


@pytest.mark.parametrize(
    ("kind", "witness"),
    [*((kind, False) for kind in KINDS), ("permutation", True), ("wrong", True)],
)
def test_the_page_has_the_result(tmp_path: Path, kind: str, witness: bool) -> None:
    result = write_run(tmp_path / "run", kind, witness)
    found, words = result["diagnosis"], words_of(tmp_path / "run")
    assert found["kind"] == (kind if witness or kind != "permutation" else "clean")
    for sentence in (found["verdict"], found["assumption"], *result["left_out"]):
        assert sentence in words
    for one in found["evidence"]:
        assert one["kind"] in words
        assert f"{one['log_likelihood']:.4f}".replace("-", "−") in words
    for means in (result["recovery"]["estimates"], result["recovery"]["balanced"]):
        for estimate in means.values():
            assert f"{100 * estimate['mean']:.2f} %" in words
    for pair in result["recovery"]["pairs"]:
        assert pair["words"] in words
    for accuracy in (0.0018, 0.0321, 0.0031, 0.0099, 0.1234):  # own, published, as given
        assert f"{100 * accuracy:.2f} %" in words
    assert ("pretrained-0, was trained on other labels" in words) == witness
    assert ("There was no reference model" in words) != witness


def test_the_answer_comes_first_with_the_provenance(tmp_path: Path) -> None:
    result = write_run(tmp_path / "run", "wrong")
    page = part3.page_of([tmp_path / "run"])
    assert page.answer.startswith(result["diagnosis"]["verdict"])
    assert (
        "Accuracy on 10,000 images with correct labels: 86.80 % (86.55 to 87.05) when"
        in page.answer
    )
    assert page.answer.endswith(
        "corrected loss, 0.28 % with the ordinary loss, 92.70 % when trained on correct labels."
    )
    badges = [(one["kind"], one["source"]) for one in page.provenance]
    assert badges == [("real", "fashion-mnist"), ("synthetic", "inkrun's generator")]


def test_class_dependent_noise_has_a_marked_matrix_with_intervals(tmp_path: Path) -> None:
    result = write_run(tmp_path / "run", "class-dependent")
    found, words = result["diagnosis"], words_of(tmp_path / "run")
    assert found["kind"] == "class-dependent"
    assert found["verdict"] in words
    (entry,) = found["entries"]
    assert (entry["true"], entry["label"]) == (0, 2)
    low, high = entry["between"]
    assert f"{100 * entry['rate']:.1f} % {100 * low:.1f} to {100 * high:.1f} %" in words
    assert f"{100 * entry['rate']:.0f} ({100 * low:.0f} to {100 * high:.0f}) *" in words
    assert "Frames mark the entries that stand out." in words
    assert "one class labelled as another" in words
    assert "when trained on its labels with a corrected loss" in words
    (table,) = [t for t in part3.closing_tables(tmp_path / "run") if "stand out" in str(t.title)]
    assert table.row_count == 1


def test_a_result_of_an_earlier_version_is_shown(tmp_path: Path) -> None:
    result = write_run(tmp_path / "run", "clean")
    for name in ("intervals", "entries", "others", "indistinct", "limits"):
        del result["diagnosis"][name]
    (tmp_path / "run" / "result.json").write_text(json.dumps(result))
    words = words_of(tmp_path / "run")
    assert result["diagnosis"]["verdict"] in words
    assert "Limits of detection" not in words
    assert "95 % intervals: given labels" not in words
    assert part3.closing_tables(tmp_path / "run")


def test_without_a_correction_the_answer_has_the_other_methods(tmp_path: Path) -> None:
    result = write_run(tmp_path / "run", "random")
    answer = part3.page_of([tmp_path / "run"]).answer
    assert answer.startswith(result["diagnosis"]["verdict"])
    assert "corrected" not in answer
    assert "Accuracy on 10,000 images with correct labels: 0.28 % with the ordinary loss" in answer


def test_one_seed_has_no_interval(tmp_path: Path) -> None:
    result = write_run(tmp_path / "run", "wrong", seeds=1)
    words = words_of(tmp_path / "run")
    assert "correct labels: 86.70 % when trained" in words
    assert all(pair["words"] in words for pair in result["recovery"]["pairs"])


def test_accuracy_far_below_chance_is_called_information(tmp_path: Path) -> None:
    result = write_run(tmp_path / "run", "wrong")
    assert "An accuracy far below chance is information" in words_of(tmp_path / "run")
    for arm in result["arms"].values():
        arm["accuracy"] = 0.95
    (tmp_path / "run" / "result.json").write_text(json.dumps(result))
    assert "An accuracy far below" not in words_of(tmp_path / "run")


def test_the_command_can_be_pasted(tmp_path: Path) -> None:
    write_run(tmp_path / "run", "wrong")
    words = words_of(tmp_path / "run")
    command = "./launch.sh train part3 --data 'data/fashion wrong.beton' --arms simple constant"
    assert command in words
    assert f"./launch.sh evaluate {tmp_path}/run/forward-2 --source data/" in words


def test_the_latest_of_several_is_shown(tmp_path: Path) -> None:
    write_run(tmp_path / "2026-01-01", "random")
    result = write_run(tmp_path / "2026-01-02", "wrong")
    (tmp_path / "latest").symlink_to("2026-01-02")
    paths = [tmp_path / name for name in ("2026-01-02", "2026-01-01", "latest")]
    text = part3.page_of(paths).html()
    assert result["diagnosis"]["verdict"] in text
    assert f"Not shown: {tmp_path}/2026-01-01, an earlier run." in text
    assert text.count("Not shown") == 1


def test_unfinished_runs_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="part3: got no run directories"):
        part3.page_of([])
    with pytest.raises(UserError, match=r"it has no config\.json"):
        part3.page_of([tmp_path])
    write_run(tmp_path / "run", "wrong")
    with pytest.raises(UserError, match="got one training of part3"):
        part3.page_of([tmp_path / "run" / "naive-0"])
    (tmp_path / "run" / "result.json").unlink()
    with pytest.raises(UserError, match="got an unfinished run"):
        part3.page_of([tmp_path / "run"])


def test_the_closing_tables_fit_a_terminal(tmp_path: Path) -> None:
    write_run(tmp_path / "run", "wrong")
    console = Console(width=80, record=True, quiet=False)
    with console.capture() as capture:
        for table in part3.closing_tables(tmp_path / "run"):
            console.print(table)
    text = capture.get()
    for words in ("simple CNN, one-cycle", "0.31 %", METHODS["complementary"], "wrong"):
        assert words in text
    assert "86.80 % (86.55 to 87.05)" in text
    assert "…" not in text
