"""Kinds of mislabelling as hypotheses: transition matrices, and what counted labels say for them.

A kind is a family of transition matrices, p(given label | true class). It is judged by its marginal
likelihood of counts: labels given (columns) in groups of pictures (rows) that are each mostly of
one class, it is unknown which. Every free parameter pays its price: the rate, the share of strays
in each group, and which group is which class.

What this trades: the kinds are few, and a rate is one for all classes. It is this that tells noise
from difficulty: noise spares no class, while what is hard is hard in some classes more than others.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.special import betaincc, gammaln, logsumexp, softmax

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

KINDS = ("clean", "symmetric", "pairs", "permutation", "wrong", "random")
RATED = ("symmetric", "pairs")
RATES = np.arange(4, 197) / 200  # none below 2 %: hard pictures look like that

# Strays, pictures that are hard or in the wrong group, bear any label. Their share of a group is
# Beta(1/2, 20) beforehand: a fortieth on average, mostly less, seldom much more. Of a witness's
# answers any share may be astray.
_EDGES = np.linspace(0, 1, 61) ** 3
_FRACTIONS = (_EDGES[1:] + _EDGES[:-1]) / 2
OUTLIER_PRIOR = -np.diff(betaincc(0.5, 20, _EDGES))
UNIFORM_PRIOR = np.diff(_EDGES)


def transition(
    kind: str, rate: float, classes: int, permutation: Sequence[int] | None = None
) -> Floats:
    """Return p(given label | true class), float64 (classes, classes), true classes as rows.

    `rate` is the share of wrong labels in "symmetric" and "pairs" and has no effect on others;
    `permutation` is the label that each class bears. Raises ValueError for an unknown kind, a rate
    outside of 0 to 1, fewer than 2 classes, or a permutation that is missing or none.
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
    """A kind's explanation of counts: each group's true class and label, and what follows.

    `rates` (R) have posterior `weights`; the likeliest is followed. `strays` (C) and `expected`
    (C, C), p(given label), are by group. `evidence` is the log of the marginal likelihood, in nats.
    """

    kind: str
    truths: Ints
    bears: Ints
    rates: Floats
    weights: Floats
    strays: Floats
    expected: Floats
    evidence: float

    @property
    def rate(self) -> float:
        """The likeliest share of wrong labels, where the kind has a rate."""
        return float(self.rates[self.weights.argmax()])

    @property
    def between(self) -> tuple[float, float]:
        """The rate's central 95 %."""
        low, high = np.searchsorted(self.weights.cumsum(), [0.025, 0.975])
        return float(self.rates[low]), float(self.rates[high])

    def transition(self, base: Floats) -> Floats:
        """Return the kind's own matrix (C, C), true classes as rows; `base` (C) if random."""
        if self.kind == "random":
            return np.tile(base, (len(base), 1))
        bears = self.bears[np.argsort(self.truths)]
        return transition(self.kind, self.rate, len(base), bears.tolist())


def fit_noise_model(kind: str, counts: Floats, base: Floats, naming: Floats) -> NoiseFit:
    """Explain counts (C, C) of labels (columns) by group (rows) by one kind.

    `base` (C) are all labels' shares, none of them 0. `naming` (C, C) is other evidence, in nats,
    that a group (row) is a class (column); zero where there is none. Of the C! ways to name the
    groups the best is taken, and pays for the choice. A permutation chooses twice, classes and
    labels; without other evidence it is "clean" by another name.
    """
    count = len(counts)
    choice = float(gammaln(count + 1))
    if kind == "random":
        truths = best_assignment(naming)
        evidence = float((counts @ np.log(base)).sum())
        if naming.any():
            evidence += assignment_score(naming, truths) - choice
        expected = np.tile(base, (count, 1))
        return NoiseFit(kind, truths, truths, np.ones(1), np.ones(1), 0 * base, expected, evidence)
    renamed = kind == "permutation"
    rates = np.zeros(1)
    if kind in RATED:
        # Symmetric noise leaves a class's own label its most frequent.
        most = 1 - 1 / count if kind == "symmetric" else 1
        rates = RATES[: np.searchsorted(RATES, most)]
    family = [transition("clean" if renamed else kind, rate, count) for rate in rates]
    scores = [log_likelihood(counts, rows, base, OUTLIER_PRIOR) for rows in family]
    if not renamed:
        scores = [score + naming for score in scores]
    assigned = [best_assignment(score) for score in scores]
    totals = np.array([assignment_score(*pair) for pair in zip(scores, assigned, strict=True)])
    evidence = float(logsumexp(totals) - np.log(len(rates)) - choice)
    best = int(totals.argmax())
    bears = truths = assigned[best]
    if renamed and naming.any():
        truths = _best_assignment_except(naming, bears)
        evidence += assignment_score(naming, truths) - choice
    strays, expected = fit_outliers(counts, family[best][bears], base, OUTLIER_PRIOR)
    return NoiseFit(kind, truths, bears, rates, softmax(totals), strays, expected, evidence)


def log_likelihood(counts: Floats, rows: Floats, base: Floats, prior: Floats) -> Floats:
    """Return log p(counts of each group | each of the rows): (groups, rows), in nats.

    A share of each group, unknown and integrated over, is astray, with labels of `base` (C).
    """
    score = logsumexp(_by_outlier_fraction(counts, rows, base), axis=0, b=prior[:, None, None])
    return np.asarray(score, np.float64)


def fit_outliers(
    counts: Floats, rows: Floats, base: Floats, prior: Floats
) -> tuple[Floats, Floats]:
    """Return the strays' posterior mean (C) and p(label) (C, C) of groups that have these rows."""
    by_share = np.einsum("sgg->sg", _by_outlier_fraction(counts, rows, base))
    strays = softmax(by_share + np.log(prior)[:, None], axis=0).T @ _FRACTIONS
    return strays, (1 - strays)[:, None] * rows + strays[:, None] * base


def _by_outlier_fraction(counts: Floats, rows: Floats, base: Floats) -> Floats:
    shares = _FRACTIONS[:, None, None]
    logs = np.log((1 - shares) * rows + shares * base)
    return np.asarray(counts @ logs.transpose(0, 2, 1))


def best_assignment(score: Floats) -> Ints:
    """Return the class (C,) of each group, one to one, that makes the total score greatest."""
    return np.asarray(linear_sum_assignment(score, maximize=True)[1], np.int64)


def assignment_score(score: Floats, assigned: Ints) -> float:
    """Return the score of an assignment."""
    return float(score[np.arange(len(score)), assigned].sum())


def _best_assignment_except(score: Floats, but: Ints) -> Ints:
    """Return the best assignment that is not `but`."""
    outcomes = []
    for group, barred in enumerate(but):
        open_score = score.copy()
        open_score[group, barred] = -1e12
        outcomes.append(best_assignment(open_score))
    return max(outcomes, key=lambda outcome: assignment_score(score, outcome))
