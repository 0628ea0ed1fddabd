"""Labels that are probably incorrect, by confident learning. Reads no files.

Northcutt, Jiang and Chuang 2021, "Confident learning: estimating uncertainty in dataset labels". An
image counts as one of class j if its probability of j is at least the mean probability of j among
the images labelled j, or at least 0.8: about half of the images of a class lie below its mean, even
where a network is sure of all of them. Images that count as another class than their label are
suspicious. The predictions must be out-of-sample: a network that was trained on an incorrect label
may have memorised it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CONFIDENT = 0.8  # a probability that always counts


@dataclass(frozen=True)
class SuspiciousLabel:
    """A row of the predictions whose label is probably incorrect.

    `suggested` is the class that it counts as. `probability` is that of the suggested class,
    `own_probability` that of its label.
    """

    row: int
    label: int
    suggested: int
    probability: float
    own_probability: float


@dataclass(frozen=True)
class LabelIssues:
    """The suspicious labels, most suspicious first, and the estimated fraction of incorrect labels.

    Most suspicious is the smallest normalised margin: the label's probability minus the suggested
    class's.
    """

    suspicious: tuple[SuspiciousLabel, ...]
    rate: float


def find_label_issues(probabilities: Floats, labels: Ints) -> LabelIssues:
    """Find suspicious labels from out-of-sample predictions.

    `probabilities` are float64 (N, C), `labels` int64 (N,) in [0, C). Raises ValueError for shapes
    that do not match, and for no images.
    """
    count, classes = probabilities.shape
    if labels.shape != (count,) or not count:
        raise ValueError(f"labels: got shape {labels.shape}, expected ({count},), at least one")
    sizes = np.bincount(labels, minlength=classes)
    own = probabilities[np.arange(count), labels]
    thresholds = np.full(classes, np.inf)  # a class without images is never counted
    occurs = sizes > 0
    means = np.bincount(labels, own, classes)[occurs] / sizes[occurs]
    thresholds[occurs] = np.minimum(means, CONFIDENT)

    confident = np.where(probabilities >= thresholds, probabilities, -1)
    counted = np.flatnonzero(confident.max(1) >= 0)
    guesses = confident.argmax(1)
    joint = np.zeros((classes, classes))
    np.add.at(joint, (labels[counted], guesses[counted]), 1)
    # Each row is scaled to the number of its labels; a row without counts has no known errors.
    rows = joint.sum(1)
    correct = np.where(rows > 0, joint.diagonal() / np.maximum(rows, 1), 1)
    rate = float(((1 - correct) * sizes).sum() / count)

    found = counted[guesses[counted] != labels[counted]]
    margins = own[found] - probabilities[found, guesses[found]]
    suspicious = tuple(
        SuspiciousLabel(
            int(row),
            int(labels[row]),
            int(guesses[row]),
            float(probabilities[row, guesses[row]]),
            float(own[row]),
        )
        for row in found[np.argsort(margins, kind="stable")]
    )
    return LabelIssues(suspicious, rate)
