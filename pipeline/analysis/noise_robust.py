"""Methods of training on incorrect labels, and the comparison of their accuracies.

Each method is a loss on the mislabelled dataset; the ceiling is trained on correct labels instead.
All are tested on correct labels. Reads no files.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.analysis import stats
from pipeline.analysis.diagnosis import Diagnosis
from pipeline.analysis.label_noise import LabelRanks
from pipeline.analysis.stats import ACCURACY, Comparison, Estimate
from pipeline.evaluation.predict import Predictions
from pipeline.evaluation.run_dir import TrainingResult
from pipeline.loading.dataset import Provenance
from pipeline.recipes.losses import Loss

METHODS = {
    "naive": "naive",
    "backwards": "naive, argmin",
    "forward": "forward-corrected",
    "complementary": "complementary surrogate",
    "ceiling": "correct labels",
}


def methods_for(kind: str) -> tuple[str, ...]:
    """Return the methods that suit a verdict; naive is the first.

    Argmin and the complementary loss suit labels that are all incorrect. The corrected loss equals
    the naive one for clean labels, and has no gradient for random ones.
    """
    match kind:
        case "wrong":
            return tuple(METHODS)
        case "clean" | "random":
            return ("naive", "ceiling")
        case _:
            return ("naive", "forward", "ceiling")


def loss_of(method: str, forward: Sequence[Sequence[float]]) -> Loss | None:
    """Return the loss of a method, None for a method without a training of its own.

    `forward` are the rows of p(given label | true class) for the forward correction (Patrini et al.
    2017). The surrogate is that of Chou et al. 2020 (see `pipeline.recipes.losses`).
    """
    match method:
        case "forward":
            return Loss("forward", transition=forward)
        case "complementary":
            return Loss("complementary")
        case "backwards":
            return None
        case _:
            return Loss()


def probabilities_of(predictions: Predictions) -> NDArray[np.float64]:
    """Return the probabilities of predictions: float64 (N, C), with rows that sum to 1."""
    return np.asarray(predictions.logits.double().softmax(dim=1))


@dataclass(frozen=True)
class Score:
    """The accuracy of one training on the test set, and its mean over the classes, from 0 to 1.

    `balanced_accuracy` is None in results that were written without it.
    """

    accuracy: float
    balanced_accuracy: float | None = None


def score_of(predictions: Predictions, backwards: bool = False) -> Score:
    """Return the score of argmax, or of argmin if `backwards`."""
    if backwards:
        predictions = predictions._replace(logits=-predictions.logits)
    return Score(predictions.accuracy, predictions.balanced_accuracy)


@dataclass(frozen=True)
class MethodComparison:
    """The accuracies of two methods compared seed by seed; `words` describes the comparison."""

    first: str
    second: str
    comparison: Comparison
    words: str


@dataclass(frozen=True)
class Recovery:
    """The accuracies of methods by seed, their means, and comparisons with the first method.

    `balanced` are the means of balanced accuracy, empty in results that were written without them.
    """

    accuracies: Mapping[str, Sequence[float]]
    estimates: Mapping[str, Estimate]
    pairs: tuple[MethodComparison, ...]
    balanced: Mapping[str, Estimate] = field(default_factory=dict)


def recovery(scores: Mapping[str, Sequence[Score]]) -> Recovery:
    """Compare forward, or else ceiling, with every other method by their accuracies, by seed.

    Raises ValueError for methods with different numbers of seeds, or none.
    """
    methods = [method for method in METHODS if method in scores]
    accuracies = {method: tuple(one.accuracy for one in scores[method]) for method in methods}
    balanced = {
        method: [b for one in scores[method] if (b := one.balanced_accuracy) is not None]
        for method in methods
    }
    first = "forward" if "forward" in methods else "ceiling"
    pairs = []
    for other in methods:
        if other != first:
            comparison = stats.compare(accuracies[first], accuracies[other])
            words = stats.describe_difference(comparison, METHODS[first], METHODS[other], ACCURACY)
            pairs.append(MethodComparison(first, other, comparison, words))
    return Recovery(
        accuracies,
        {method: stats.estimate(accuracies[method], stats.UNIT_INTERVAL) for method in methods},
        tuple(pairs),
        {
            method: stats.estimate(values, stats.UNIT_INTERVAL)
            for method, values in balanced.items()
            if values
        },
    )


@dataclass(frozen=True)
class LabelledDataset:
    """A dataset with correct labels: its file, the number of images used, and its origin."""

    file: str
    pictures: int
    provenance: Provenance


@dataclass(frozen=True)
class LabelledSplit(LabelledDataset):
    """One split of a dataset with correct labels."""

    split: str


@dataclass(frozen=True)
class LabelNoiseResult:
    """The result.json of part 3.

    `pictures` training images and `held_out` validation images have the labels in question.
    `arms` and `trainings` are by the names of their folders. `left_out` lists omitted parts with
    reasons; `witness` is the run directory of the reference model, None without one.
    """

    provenance: Provenance
    test: LabelledSplit
    clean: LabelledDataset
    classes: tuple[str, ...]
    pictures: int
    held_out: int
    arms: dict[str, Score]
    left_out: tuple[str, ...]
    witness: str | None
    look: LabelRanks
    diagnosis: Diagnosis
    recovery: Recovery
    trainings: dict[str, TrainingResult]
    seconds_in_all: float
