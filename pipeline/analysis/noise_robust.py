"""Ways to learn the truth from wrong labels, and which of them was shown to be better.

Numbers in, numbers and sentences out, no files. Each method is a loss on the mislabelled set but
for the ceiling, which learns from right labels: more cannot be had. All are tested on right labels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.analysis.diagnosis import Diagnosis
from pipeline.analysis.label_noise import LabelRanks
from pipeline.analysis.stats import (
    ACCURACY,
    UNIT_INTERVAL,
    Comparison,
    Estimate,
    compare,
    describe_difference,
    estimate,
)
from pipeline.evaluation.predict import Predictions
from pipeline.evaluation.run_dir import TrainingResult
from pipeline.recipes.losses import Loss

METHODS = {
    "naive": "naive",
    "backwards": "naive, read backwards",
    "forward": "forward-corrected",
    "complementary": "complementary surrogate",
    "ceiling": "right labels",
}


def methods_for(kind: str) -> tuple[str, ...]:
    """Return the methods that suit a verdict; naive is the first.

    To read answers backwards, or to learn what a picture is not, is for labels that are all wrong.
    The corrected loss is the naive one where labels are clean, and learns nothing where they say
    nothing.
    """
    match kind:
        case "wrong":
            return tuple(METHODS)
        case "clean" | "random":
            return ("naive", "ceiling")
        case _:
            return ("naive", "forward", "ceiling")


def loss_of(method: str, forward: Sequence[Sequence[float]]) -> Loss | None:
    """Return the loss of a method, None for one that is no training of its own.

    `forward` are the rows of p(given label | true class) to correct by (Patrini et al. 2017). The
    surrogate is that of Chou et al. 2020 (see `pipeline.losses`).
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
    """Return what answers give each class: float64 (N, C), rows that add up to 1."""
    array: NDArray[np.float64] = predictions.logits.double().softmax(dim=1).numpy()
    return array


def accuracy_of(predictions: Predictions, backwards: bool = False) -> float:
    """Return the share of the labels that are the first choice of answers, or the last."""
    if backwards:
        predictions = predictions._replace(logits=-predictions.logits)
    return predictions.accuracy


@dataclass(frozen=True)
class MethodComparison:
    """The accuracies of two methods compared seed by seed, and that in a sentence."""

    first: str
    second: str
    comparison: Comparison
    words: str


@dataclass(frozen=True)
class Recovery:
    """What methods came to: shares of right answers by seed, their means, and the differences."""

    accuracies: Mapping[str, Sequence[float]]
    estimates: Mapping[str, Estimate]
    pairs: tuple[MethodComparison, ...]


def recovery(accuracies: Mapping[str, Sequence[float]]) -> Recovery:
    """Compare methods by their accuracies: forward, or else ceiling, with every other.

    Raises ValueError for methods with different numbers of seeds, or none.
    """
    methods = [method for method in METHODS if method in accuracies]
    first = "forward" if "forward" in methods else "ceiling"
    pairs = []
    for other in methods:
        if other != first:
            comparison = compare(accuracies[first], accuracies[other])
            words = describe_difference(comparison, METHODS[first], METHODS[other], ACCURACY)
            pairs.append(MethodComparison(first, other, comparison, words))
    return Recovery(
        {method: tuple(accuracies[method]) for method in methods},
        {method: estimate(accuracies[method], UNIT_INTERVAL) for method in methods},
        tuple(pairs),
    )


@dataclass(frozen=True)
class LabelledDataset:
    """A dataset with correct labels: its file, the number of images used, and its origin."""

    file: str
    pictures: int
    provenance: dict[str, Any]


@dataclass(frozen=True)
class LabelledSplit(LabelledDataset):
    """One split of a dataset with correct labels."""

    split: str


@dataclass(frozen=True)
class ArmScore:
    """The accuracy of one published training on the test set, from 0 to 1."""

    accuracy: float


@dataclass(frozen=True)
class LabelNoiseResult:
    """The result.json of part 3.

    `pictures` training images and `held_out` validation images bear the labels in question.
    `arms` and `trainings` are by the names of their folders. `left_out` says what was not done and
    why; `witness` is the run directory of the reference model, None if there was none.
    """

    provenance: dict[str, Any]
    test: LabelledSplit
    clean: LabelledDataset
    classes: tuple[str, ...]
    pictures: int
    held_out: int
    arms: dict[str, ArmScore]
    left_out: tuple[str, ...]
    witness: str | None
    look: LabelRanks
    diagnosis: Diagnosis
    recovery: Recovery
    trainings: dict[str, TrainingResult]
    seconds_in_all: float
