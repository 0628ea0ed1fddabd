"""Predictions for writers who wrote each class equally often, against what defines them."""

import json
import math
from pathlib import Path
from typing import Any

import forked
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_evaluate import JOB
from test_evaluate import run as run
from test_evaluate import trained as trained
from tiny import CLASSES, write_set

from beton.reader import Reader
from pipeline.errors import UserError
from pipeline.evaluation.equal_counts import contradictions, with_equal_counts
from pipeline.evaluation.evaluate import TrainedModel, evaluate
from pipeline.evaluation.predict import Predictions
from pipeline.reporting.console import evaluation_table

seeds = st.integers(0, 2**32 - 1)
UNKNOWN = "1 of 7 images have no writer; equal counts leave their predictions unchanged"


def predictions(logits: torch.Tensor, labels: torch.Tensor | None = None) -> Predictions:
    none = torch.zeros(len(logits), dtype=torch.int64)
    return Predictions(torch.arange(len(logits)), none if labels is None else labels, logits)


@given(st.integers(1, 40), st.integers(1, 9), st.floats(0.1, 8), seeds)
def test_rows_and_columns_of_each_writer(n: int, c: int, spread: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    logits = torch.from_numpy(random.normal(0, spread, (n, 12))).float()
    columns = torch.from_numpy(random.permutation(12)[:c])
    writers = random.integers(-1, 3, n)
    changed = with_equal_counts(predictions(logits), writers, columns).logits
    assert torch.equal(changed[writers < 0], logits[writers < 0])
    for writer in {*writers[writers >= 0].tolist()}:
        rows = torch.from_numpy(writers == writer)
        probabilities = changed[rows].double().exp()
        torch.testing.assert_close(probabilities.sum(1), torch.ones(int(rows.sum())).double())
        expected = torch.full((c,), int(rows.sum()) / c).double()
        torch.testing.assert_close(probabilities[:, columns].sum(0), expected, rtol=1e-5, atol=1e-6)
        # Nearest by relative entropy: a factor for each page times a factor for each class.
        factors = (changed - logits)[rows][:, columns].double()
        factors = factors - factors[:, :1] - factors[:1] + factors[0, 0]
        torch.testing.assert_close(factors, torch.zeros_like(factors), rtol=0, atol=1e-3)


@given(
    st.integers(1, 80), st.integers(1, 70), st.sampled_from(["same", "one", "even", "some"]), seeds
)
def test_a_network_may_be_confident(n: int, c: int, kind: str, seed: int) -> None:
    """Where it contradicts equal counts, alternate scaling would take millions of rounds."""
    random = np.random.default_rng(seed)
    logits = np.zeros((n, c), np.float32)
    match kind:
        case "same":
            logits[:, 0] = 1e4
        case "one":
            logits[np.arange(n), random.integers(0, c, n)] = 1e4
        case "even":
            logits[np.arange(n), np.arange(n) % c] = 1e4
        case "some":
            logits[:] = random.integers(0, 2, (n, c)) * 1e4
    sure = predictions(torch.from_numpy(logits))
    changed = with_equal_counts(sure, np.zeros(n, np.int64), torch.arange(c)).logits
    sums = changed.double().softmax(1).sum(0)
    torch.testing.assert_close(sums, torch.full((c,), n / c).double(), rtol=1e-5, atol=0)
    if kind == "even" and n == c:
        assert torch.equal(changed.argmax(1), sure.logits.argmax(1))


@pytest.mark.parametrize("row", [[0.0, math.nan], [0.0, math.inf], [-math.inf, -math.inf]])
def test_predictions_that_are_no_probabilities_are_refused(row: list[float]) -> None:
    with pytest.raises(UserError, match="NaN or infinity"):
        with_equal_counts(predictions(torch.tensor([row])), np.zeros(1, np.int64), torch.arange(2))


def test_a_mean_over_views_may_have_probabilities_of_0() -> None:
    logits = torch.tensor([[0.0, -math.inf], [0.0, -math.inf]])
    changed = with_equal_counts(predictions(logits), np.zeros(2, np.int64), torch.arange(2))
    torch.testing.assert_close(changed.logits, torch.full((2, 2), math.log(0.5)))


def test_writers_belong_to_samples_and_not_to_rows() -> None:
    random = np.random.default_rng(0)
    writers = np.array([0, 1, 0, 1, 1, 0, 0, 1])
    given_ids = torch.tensor([1, 2, 4, 5, 6, 7])
    logits = torch.from_numpy(random.normal(0, 2, (6, 3))).float()
    some = predictions(logits)._replace(ids=given_ids)
    changed = with_equal_counts(some, writers, torch.arange(3)).logits
    for writer in (0, 1):
        rows = torch.from_numpy(writers[given_ids] == writer)
        alone = with_equal_counts(predictions(logits[rows]), np.zeros(8, np.int64), torch.arange(3))
        torch.testing.assert_close(changed[rows], alone.logits)
    labels = torch.tensor([0, 0, 1, 1, 2, 2])  # of the writers 1, 0, 1, 0, 0, 1
    assert contradictions(some._replace(labels=labels), writers, 3) == []


def test_the_last_free_class_is_found() -> None:
    """Two pages look like a small o; the one that does so less is the digit 0."""
    logits = torch.tensor([[2.0, 3.0, -5.0], [1.0, 3.0, -5.0], [-5.0, -5.0, 9.0]])
    changed = with_equal_counts(predictions(logits), np.zeros(3, np.int64), torch.arange(3))
    assert logits.argmax(1).tolist() == [1, 1, 2]
    assert changed.logits.argmax(1).tolist() == [0, 1, 2]


def test_even_predictions_stay_as_they_are() -> None:
    logits = torch.tensor([[4.0, 0.0], [0.0, 4.0]])
    changed = with_equal_counts(predictions(logits), np.zeros(2, np.int64), torch.arange(2))
    torch.testing.assert_close(changed.logits, logits.log_softmax(1))


def test_classes_that_were_not_written_are_excluded() -> None:
    logits = torch.tensor([[9.0, 1.0, 0.0], [9.0, 0.0, 1.0]])
    changed = with_equal_counts(predictions(logits), np.zeros(2, np.int64), torch.tensor([1, 2]))
    assert changed.logits.argmax(1).tolist() == [1, 2]
    assert changed.logits[:, 0].tolist() == [-math.inf, -math.inf]


def test_writers_are_counted_by_their_labels() -> None:
    labels = torch.tensor([0, 1, 0, 0, 1, 1, 0])
    writers = np.array([0, 0, 1, 1, 1, 1, -1])
    found = predictions(torch.zeros(7, 2), labels)
    assert contradictions(found, writers, 2) == [UNKNOWN]
    writers[5] = 0
    for classes in (2, 3):
        unknown, uneven = contradictions(found, writers, classes)
        assert unknown == UNKNOWN
        assert uneven.startswith(f"2 of 2 writers did not write each of the {classes} classes")


def test_the_job_adds_what_equal_counts_give(run: Path, tmp_path: Path) -> None:
    source = write_set(tmp_path / "tiny.beton", writer=lambda _name, number: number)
    done = forked.run([JOB, run, "--source", source, "--equal-counts", "--json"], tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["equal_counts"]["accuracy"] == 1
    assert found["equal_counts"]["samples"] == 11 * len(CLASSES)
    assert found["warnings"] == []


def test_a_false_assumption_is_reported(trained: TrainedModel, tmp_path: Path) -> None:
    one_each = write_set(tmp_path / "one.beton", writer=lambda name, _number: CLASSES.index(name))
    found = evaluate(trained, one_each, equal_counts=True, precision="no")
    assert found.equal_counts is not None
    assert found.equal_counts.accuracy < found.scores.accuracy == 1
    (warning,) = found.warnings
    assert warning.startswith("4 of 4 writers did not write each of the 4 classes equally often")
    cells = [*evaluation_table(found).columns[0].cells]
    assert "accuracy if each writer wrote each class equally often" in cells
    assert evaluate(trained, one_each, precision="no").equal_counts is None


def test_pages_without_writers_have_no_equal_counts(trained: TrainedModel, tmp_path: Path) -> None:
    source = write_set(tmp_path / "tiny.beton")
    with pytest.raises(UserError, match=r"tiny\.beton: got no writers, expected some"):
        evaluate(trained, source, equal_counts=True)


def test_images_without_a_writer_are_counted(trained: TrainedModel, tmp_path: Path) -> None:
    some = write_set(tmp_path / "some.beton", writer=lambda _, number: number if number else -1)
    found = evaluate(trained, some, equal_counts=True, precision="no")
    (warning,) = found.warnings
    assert warning.startswith("4 of 44 images have no writer")
    none = write_set(tmp_path / "none.beton", writer=lambda _, number: 0 if number < 8 else -1)
    with pytest.raises(UserError, match="got no writers"):
        evaluate(trained, none, split="validation", equal_counts=True)


def test_only_the_classes_of_the_source_were_written(
    trained: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its classes are m and 1; the network, which says A and a to all, knows four."""

    def predict(_self: TrainedModel, file: Reader, *_: Any, **__: Any) -> Any:
        labels = torch.from_numpy(file.column("label").metadata.astype(np.int64))
        logits = torch.zeros(len(labels), 4)
        logits[:, 1:3] = 9.0
        logits[:, 3] = (labels == 0).float()
        alone = Predictions(torch.arange(len(labels)), labels, logits)
        return alone._replace(logits=-logits), alone

    monkeypatch.setattr(TrainedModel, "predict", predict)
    source = write_set(
        tmp_path / "some.beton", classes=("m", "1"), writer=lambda _name, number: number
    )
    found = evaluate(trained, source, equal_counts=True, precision="no")
    assert found.equal_counts is not None
    assert (found.scores.accuracy, found.equal_counts.accuracy) == (0, 1)
