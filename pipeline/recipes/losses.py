"""Losses as data, computed per sample.

Mixup weighs losses per sample; the caller takes the mean. All are computed in float32, whatever the
precision of the logits.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.errors import UserError, check_range
from pipeline.recipes.mixup import Mixed

Kind = Literal["cross-entropy", "focal", "forward", "complementary"]

PARAMETERS: dict[Kind, tuple[str, ...]] = {
    "cross-entropy": ("label_smoothing",),
    "focal": ("alpha", "gamma"),
    "forward": ("transition",),
    "complementary": (),
}


@dataclass(frozen=True)
class Loss:
    """A loss of some `kind` and its parameters; p is the softmax of the logits.

    "cross-entropy": -log p[label], with `label_smoothing` of the target spread over all classes.

    "focal": -`alpha` (1 - p[label])^`gamma` log p[label] (Lin et al. 2017, "Focal loss for dense
    object detection", here for several classes).

    "forward": -log (p @ `transition`)[label]. Row i of `transition` holds the probability of each
    label for class i, so p estimates the class although labels are noisy (Patrini et al. 2017,
    "Making deep neural networks robust to label noise: a loss correction approach").

    "complementary": exp p[label], where a label is a class that the sample is *not* (SCL-EXP of
    Chou et al. 2020, "Unbiased risk estimators can mislead: a case study of learning with
    complementary labels"). Their -log (1 - p[label]) is, up to a constant, "forward" with equal
    probabilities of all incorrect labels.

    `Loss(**dataclasses.asdict(loss))` equals `loss`, also through JSON. Raises UserError for
    invalid parameters, and for parameters of another kind.
    """

    kind: Kind = "cross-entropy"
    label_smoothing: float = 0.0
    alpha: float = 1.0
    gamma: float = 2.0
    transition: Sequence[Sequence[float]] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        rows = tuple(tuple(float(value) for value in row) for row in self.transition)
        object.__setattr__(self, "transition", rows)
        if self.kind not in PARAMETERS:
            raise UserError(f"loss: got {self.kind}, expected one of {', '.join(PARAMETERS)}")
        for parameter in fields(self)[1:]:
            name = parameter.name
            if getattr(self, name) != parameter.default and name not in PARAMETERS[self.kind]:
                expected = " and ".join(PARAMETERS[self.kind]) or "no parameter"
                raise UserError(f"loss: got {self.kind} with {name}, expected {expected}")
        check_range("label_smoothing", self.label_smoothing, 0, 1)
        check_range("alpha", self.alpha, 0)
        check_range("gamma", self.gamma, 0)
        if self.kind == "forward":
            _check_transition(rows)

    def check(self, classes: int) -> None:
        """Raise UserError if the transition matrix is for another number of classes."""
        if self.kind == "forward" and len(self.transition) != classes:
            raise UserError(f"transition: got {len(self.transition)} rows, expected {classes}")

    def of(self, logits: Tensor, mixed: Mixed, class_weights: Tensor | None = None) -> Tensor:
        """Return the loss of each mixed image from its logits (n, classes): float32 (n,).

        `class_weights`, float32 (classes,) on the logits' device, are factors of the losses by
        label. None is 1 for all classes.
        """

        def weighted(labels: Tensor) -> Tensor:
            losses = self.per_sample(logits, labels)
            return losses if class_weights is None else class_weights[labels] * losses

        own = weighted(mixed.labels)
        if mixed.partners is mixed.labels:  # nothing was mixed
            return own
        partners = weighted(mixed.partners)
        return mixed.weights * own + (1 - mixed.weights) * partners

    def per_sample(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of each sample: logits (n, classes), labels int64 (n,) → float32 (n,)."""
        logits = logits.float()
        if self.kind == "cross-entropy":
            return F.cross_entropy(
                logits, labels, reduction="none", label_smoothing=self.label_smoothing
            )
        log_p = F.log_softmax(logits, dim=1)
        if self.kind == "forward":
            transition = self._log_transition.to(log_p.device, non_blocking=True)
            return -(log_p + transition.T[labels]).logsumexp(dim=1)
        own = log_p.gather(1, labels[:, None])[:, 0]
        if self.kind == "complementary":
            return own.exp().exp()
        # Above 0, where a power below 1 has an infinite slope.
        other = -torch.expm1(own).clamp(max=-torch.finfo(own.dtype).tiny)
        return -self.alpha * other**self.gamma * own

    @cached_property
    def _log_transition(self) -> Tensor:
        """Log-probabilities, clamped so that gradients are finite."""
        transition = torch.tensor(self.transition, dtype=torch.float64)
        return transition.clamp(min=torch.finfo(torch.float32).tiny).log().float()


def balanced_weights(counts: Sequence[int]) -> Tensor:
    """Return a weight for each class, float32 (classes,), inverse to its number of samples.

    All classes then have the same weight in total, and the mean over all samples is 1. A class
    without samples gets 0. `counts` are the numbers of samples, of which one must be positive.
    """
    numbers = torch.tensor(counts, dtype=torch.float64)
    present = numbers > 0
    weights = numbers.sum() / (present.sum() * numbers.clamp(min=1))
    return torch.where(present, weights, 0).float()


def _check_transition(rows: tuple[tuple[float, ...], ...]) -> None:
    count = len(rows)
    if count < 2 or any(len(row) != count for row in rows):
        widths = sorted({len(row) for row in rows})
        raise UserError(f"transition: got {count} rows of {widths}, expected a square matrix")
    for number, row in enumerate(rows):
        if not min(row) >= 0:
            raise UserError(f"transition: got {min(row)} in row {number}, expected at least 0")
        if not np.isclose(sum(row), 1, rtol=0, atol=1e-6):
            raise UserError(f"transition: row {number} adds up to {sum(row)}, expected 1")
