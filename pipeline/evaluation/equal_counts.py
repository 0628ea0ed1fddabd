"""Predictions for writers who wrote each character equally often, as on a form."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.evaluation.predict import Predictions

TOLERANCE = 1e-6  # of a class's expected number of pages, relative
MOST_ITERATIONS = 10_000


def with_equal_counts(
    predictions: Predictions, writers: NDArray[np.int64], class_ids: Tensor
) -> Predictions:
    """Change predictions so that each writer is expected to have written each class equally often.

    `writers` int64 (samples of the file,) is the writer of each sample, -1 if unknown; predictions
    for unknown writers are not changed. `class_ids` int64 (c,) are the columns of the classes that
    were written; the others get no probability. No label is used.

    Of all probabilities whose rows sum to 1 and whose columns have equal sums, these are nearest to
    the network's, by relative entropy (Sinkhorn 1967, "Diagonal equivalence to matrices with
    prescribed row and column sums").
    """
    logits = predictions.logits.clone()
    own = writers[predictions.ids.numpy()]
    for writer in np.unique(own):
        if writer >= 0:
            rows = torch.from_numpy(own == writer)
            changed = torch.full_like(logits[rows], -math.inf)
            changed[:, class_ids] = _balanced(logits[rows][:, class_ids]).float()
            logits[rows] = changed
    return predictions._replace(logits=logits)


def uneven_writers(
    predictions: Predictions, writers: NDArray[np.int64], classes: int
) -> tuple[int, int]:
    """Return how many writers did not write each class equally often, by label, and how many did.

    Labels are from 0 to `classes`; pages of unknown writers do not count.
    """
    own = writers[predictions.ids.numpy()]
    counts = [
        np.bincount(predictions.labels.numpy()[own == writer], minlength=classes)
        for writer in np.unique(own)
        if writer >= 0
    ]
    uneven = sum(bool(np.ptp(count)) for count in counts)
    return uneven, len(counts) - uneven


def _balanced(logits: Tensor) -> Tensor:
    """Return log probabilities (n, c), float64, with columns that sum to n / c."""
    log = logits.double().log_softmax(dim=1)
    expected = math.log(len(log) / log.shape[1])
    for _ in range(MOST_ITERATIONS):
        excess = log.logsumexp(dim=0) - expected
        if float(excess.abs().max()) < TOLERANCE:
            break
        log = (log - excess).log_softmax(dim=1)
    return log
