"""Kinds of label noise as hypotheses: their transition matrices, and their evidence from counts.

A kind is a family of transition matrices, p(given label | true class). Its evidence is the marginal
likelihood of a table of counts: given labels (columns) in groups of images (rows). Each group is
mostly of one class, but which one is unknown. Every free parameter has a prior: the rate, the
fraction of outliers in each group, and the class of each group.

The kinds are few, and a kind has one rate for all classes. This is what separates noise from hard
images: noise affects all classes equally, while some classes have more hard images than others.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.special import betaincc, gammaln, logsumexp, softmax

from pipeline.analysis.diagnosis import DECISIVE

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

KINDS = ("clean", "symmetric", "pairs", "permutation", "wrong", "random")
RATED = ("symmetric", "pairs")
FINE_RATES = np.arange(1, 201) / 200
RATES = FINE_RATES[3:196]  # lower rates are indistinguishable from hard images

# Outliers, images that are hard or in the wrong group, may have any label. The prior of their
# fraction of a group is Beta(1/2, 20), with mean 1/41, if the network recognizes the class, and
# uniform with probability UNRECOGNIZED. Of a reference model's predictions, it is uniform.
UNRECOGNIZED = 0.3
_EDGES = np.linspace(0, 1, 61) ** 3
_FRACTIONS = (_EDGES[1:] + _EDGES[:-1]) / 2
UNIFORM_PRIOR = np.diff(_EDGES)
OUTLIER_PRIOR = UNRECOGNIZED * UNIFORM_PRIOR
OUTLIER_PRIOR -= (1 - UNRECOGNIZED) * np.diff(betaincc(0.5, 20, _EDGES))


def transition(
    kind: str, rate: float, classes: int, permutation: Sequence[int] | None = None
) -> Floats:
    """Return p(given label | true class), float64 (classes, classes), true classes as rows.

    `rate` is the fraction of incorrect labels of "symmetric" and "pairs", ignored by other kinds;
    `permutation` is the label of each class. Raises ValueError for an unknown kind, a rate outside
    of 0 to 1, fewer than 2 classes, or a missing or invalid permutation.
    """
    if kind not in KINDS:
        raise ValueError(f"kind: got {kind!r}, expected one of {', '.join(KINDS)}")
    if not 0 <= rate <= 1:
        raise ValueError(f"rate: got {rate}, expected 0 to 1")
    if classes < 2:
        raise ValueError(f"classes: got {classes}, expected at least 2")
    own = np.eye(classes)
    match kind:
        case "clean":
            return own
        case "symmetric":
            return (1 - rate) * own + rate * (1 - own) / (classes - 1)
        case "pairs":
            return (1 - rate) * own + rate * np.roll(own, 1, axis=1)
        case "permutation":
            if permutation is None or sorted(permutation) != list(range(classes)):
                raise ValueError(f"permutation: got {permutation}, expected one of {classes}")
            return own[list(permutation)]
        case "wrong":
            return (1 - own) / (classes - 1)
        case _:
            return np.full((classes, classes), 1 / classes)


@dataclass(frozen=True)
class NoiseFit:
    """A kind fitted to counts.

    `group_classes` (C) is the class of each group and `group_labels` (C) the label of that class.
    `rates` (R) have the posterior `weights`; the fit uses the most likely one. `outliers` (C) is
    the fraction of outliers in each group and `expected` (C, C) its p(given label). `evidence` is
    the log of the marginal likelihood, in nats.
    """

    kind: str
    group_classes: Ints
    group_labels: Ints
    rates: Floats
    weights: Floats
    outliers: Floats
    expected: Floats
    evidence: float

    @property
    def rate(self) -> float:
        """The most likely fraction of incorrect labels, if the kind has a rate."""
        return float(self.rates[self.weights.argmax()])

    @property
    def rate_interval(self) -> tuple[float, float]:
        """The central 95 % interval of the rate."""
        low, high = np.searchsorted(self.weights.cumsum(), [0.025, 0.975])
        return float(self.rates[low]), float(self.rates[high])

    def rows(self, base: Floats) -> Floats:
        """Return p(given label | group) without outliers: (C, C), groups as rows."""
        return self.transition(base)[self.group_classes]

    def transition(self, base: Floats) -> Floats:
        """Return the matrix of the kind (C, C), true classes as rows; rows of `base` if random."""
        if self.kind == "random":
            return np.tile(base, (len(base), 1))
        labels = self.group_labels[np.argsort(self.group_classes)]
        return transition(self.kind, self.rate, len(base), labels.tolist())


def fit_noise_model(kind: str, counts: Floats, base: Floats, reference: Floats) -> NoiseFit:
    """Fit one kind to counts (C, C) of labels (columns) by group (rows).

    `base` (C) are the frequencies of all labels, none of them 0. `reference` (C, C) is the log
    likelihood ratio, in nats, by which a reference model assigns groups (rows) to classes
    (columns); zeros without one. The best of the C! assignments is used, at a cost of log C! nats.
    A permutation assigns both classes and labels; without a reference it equals "clean".
    """
    count = len(counts)
    choice = float(gammaln(count + 1))
    if kind == "random":
        classes = best_assignment(reference)
        evidence = float((counts @ np.log(base)).sum())
        if reference.any():
            evidence += _assignment_score(reference, classes) - choice
        expected, certain = np.tile(base, (count, 1)), np.ones(1)
        return NoiseFit(kind, classes, classes, certain, certain, 0 * base, expected, evidence)
    renamed = kind == "permutation"
    rates = np.zeros(1)
    if kind in RATED:
        # With symmetric noise, the most frequent label of a class is its own.
        max_rate = 1 - 1 / count if kind == "symmetric" else 1
        rates = RATES[: np.searchsorted(RATES, max_rate)]
    family = [transition("clean" if renamed else kind, rate, count) for rate in rates]
    scores = [log_likelihood(counts, rows, base) for rows in family]
    if not renamed:
        scores = [score + reference for score in scores]
    assigned = [best_assignment(score) for score in scores]
    totals = np.array([_assignment_score(*pair) for pair in zip(scores, assigned, strict=True)])
    evidence = float(logsumexp(totals) - np.log(len(rates)) - choice)
    best = int(totals.argmax())
    labels = classes = assigned[best]
    if renamed and reference.any():
        classes = _best_assignment_except(reference, labels)
        evidence += _assignment_score(reference, classes) - choice
    outliers, expected = fit_outliers(counts, family[best][labels], base)
    return NoiseFit(kind, classes, labels, rates, softmax(totals), outliers, expected, evidence)


def fit_noise_models(
    kinds: Sequence[str], counts: Floats, base: Floats, reference: Floats
) -> list[NoiseFit]:
    """Fit several kinds and return the best first; clean labels unless there is decisive evidence.

    The parameters are those of `fit_noise_model`.
    """
    fits = [fit_noise_model(kind, counts, base, reference) for kind in kinds]
    fits.sort(key=lambda fit: -fit.evidence)  # stable: the first of equal kinds comes first
    clean = next(fit for fit in fits if fit.kind == "clean")
    if fits[0].evidence - clean.evidence < DECISIVE:
        fits.sort(key=lambda fit: fit is not clean)
    return fits


def log_likelihood(
    counts: Floats, rows: Floats, base: Floats, prior: Floats = OUTLIER_PRIOR
) -> Floats:
    """Return log p(counts of each group | each row of labels' frequencies): (groups, rows), nats.

    Integrates over the unknown fraction of outliers in each group, whose labels follow `base` (C).
    """
    score = logsumexp(_by_outlier_fraction(counts, rows, base), axis=0, b=prior[:, None, None])
    return np.asarray(score, np.float64)


def fit_outliers(
    counts: Floats, rows: Floats, base: Floats, prior: Floats = OUTLIER_PRIOR
) -> tuple[Floats, Floats]:
    """Return the posterior mean of outliers (C) and p(label) (C, C) of groups with these rows."""
    scores = np.einsum("sgg->sg", _by_outlier_fraction(counts, rows, base))
    outliers = softmax(scores + np.log(prior)[:, None], axis=0).T @ _FRACTIONS
    return outliers, (1 - outliers)[:, None] * rows + outliers[:, None] * base


def _by_outlier_fraction(counts: Floats, rows: Floats, base: Floats) -> Floats:
    outliers = _FRACTIONS[:, None, None]
    logs = np.log((1 - outliers) * rows + outliers * base)
    return np.asarray(counts @ logs.transpose(0, 2, 1))


def best_assignment(score: Floats) -> Ints:
    """Return the one-to-one assignment of groups to classes (C,) with the greatest total score."""
    return np.asarray(linear_sum_assignment(score, maximize=True)[1], np.int64)


def _assignment_score(score: Floats, assigned: Ints) -> float:
    return float(score[np.arange(len(score)), assigned].sum())


def _best_assignment_except(score: Floats, excluded: Ints) -> Ints:
    """Return the best assignment that differs from `excluded`."""
    candidates = []
    for group, barred in enumerate(excluded):
        allowed = score.copy()
        allowed[group, barred] = -1e12
        candidates.append(best_assignment(allowed))
    return max(candidates, key=lambda candidate: _assignment_score(score, candidate))
