"""Predictions for writers who wrote each class equally often, as on a form."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import UserError
from pipeline.evaluation.predict import Predictions

TOLERANCE = 1e-6  # of a class's expected number of pages, relative
LEAST = -200.0  # the least log probability of a class, so that numbers stay in range
MOST_STEPS = 500


def with_equal_counts(
    predictions: Predictions, writers: NDArray[np.int64], class_ids: Tensor
) -> Predictions:
    """Change predictions so that each writer is expected to have written each class equally often.

    `writers` int64 (samples of the file,) is the writer of each sample, -1 if unknown; predictions
    for unknown writers are not changed. `class_ids` int64 (c,) are the columns of the classes that
    were written; the others get no probability. No label is used.

    Of all probabilities whose rows sum to 1 and whose columns have equal sums, these are nearest to
    the network's, by relative entropy (Sinkhorn 1967, "Diagonal equivalence to matrices with
    prescribed row and column sums"). Raises UserError for predictions that are no probabilities.
    """
    logits = predictions.logits.clone()
    if not bool(logits.logsumexp(dim=1).isfinite().all()):
        raise UserError("equal counts: got logits of NaN or infinity")
    own = writers[predictions.ids.numpy()]
    for writer in np.unique(own):
        if writer >= 0:
            rows = torch.from_numpy(own == writer)
            changed = torch.full_like(logits[rows], -math.inf)
            changed[:, class_ids] = _balanced(logits[rows][:, class_ids]).float()
            logits[rows] = changed
    return predictions._replace(logits=logits)


def contradictions(predictions: Predictions, writers: NDArray[np.int64], classes: int) -> list[str]:
    """Return what contradicts equal counts: images without a writer, and other counts of labels.

    Labels are below `classes`; `writers` is as in `with_equal_counts`.
    """
    own, labels = writers[predictions.ids.numpy()], predictions.labels.numpy()
    known = np.unique(own[own >= 0])
    counts = [np.bincount(labels[own == writer], minlength=classes) for writer in known]
    uneven, unknown = sum(bool(np.ptp(count)) for count in counts), int((own < 0).sum())
    found = []
    if unknown:
        found.append(
            f"{unknown} of {len(own)} images have no writer; equal counts leave their predictions "
            "unchanged"
        )
    if uneven:
        found.append(
            f"{uneven} of {len(known)} writers did not write each of the {classes} classes equally "
            "often, as equal counts assume"
        )
    return found


def _balanced(logits: Tensor) -> Tensor:
    """Return log probabilities (n, c), float64, with columns that sum to n / c.

    A number is added to the logits of each class. These numbers minimise a convex function, whose
    gradient is the excess of the columns. Newton's method finds them in tens of steps, with the
    damping of Levenberg (1944); alternate scaling of rows and columns may take a million.
    """
    log = logits.double().log_softmax(dim=1).clamp(min=LEAST)
    expected = len(log) / log.shape[1]
    added = log.new_zeros(log.shape[1])
    unit = torch.eye(len(added), dtype=log.dtype)

    def value(added: Tensor) -> float:
        return float((log + added).logsumexp(dim=1).sum() - expected * added.sum())

    damping = 1.0
    for _ in range(MOST_STEPS):
        probabilities = (log + added).softmax(dim=1)
        sums = probabilities.sum(dim=0)
        excess = sums - expected
        if float(excess.abs().max()) < TOLERANCE * expected:
            break
        curvature = sums.diag() - probabilities.T @ probabilities
        while True:
            changed = added - torch.linalg.solve(curvature + damping * unit, excess)
            if value(changed) <= value(added):
                break
            damping *= 4
        added, damping = changed, max(damping / 8, 1e-13)
    else:
        raise AssertionError("equal counts: Newton's method has not converged")
    return (log + added).log_softmax(dim=1)
