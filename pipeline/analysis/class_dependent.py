"""Class-dependent label noise: transition probabilities that no kind with one rate explains.

Hard images resemble such noise, because both give a group of images some labels of another class.
Two properties distinguish them, and an entry of the transition matrix must have both:

- A floor. Noise does not depend on the image, so a label is as frequent among the images that
  resemble its class least. Hard images resemble it most.
- A gap. Noise leaves few images between two classes that the network distinguishes. Predictions for
  classes that resemble each other, such as o and O, are dense at their boundary.

Each test is one-sided and exact (binomial), at odds of 20 to 1 over all entries (Bonferroni).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from scipy.stats import beta, binom

from pipeline.analysis import noise_models as models
from pipeline.analysis.diagnosis import CLASS_DEPENDENT, DECISIVE, DetectionLimit
from pipeline.analysis.noise_models import Floats, Ints, NoiseFit

LEAST_SIMILAR = 1 / 3  # of each group, for each label
HARD = models.RATES[0]  # fraction of hard images that may remain among the least similar ones
BOUNDARY = 1 / 4  # minimum fraction of a group in the lower half of its median distance, if no gap
POWER = 0.95

Entries = Sequence[tuple[int, int]]  # (group, label)


@dataclass(frozen=True)
class ClassDependentFit(NoiseFit):
    """A kind with one rate, except for `entries` (group, label) with probabilities of their own.

    `others` is that kind. `matrix` (C, C) is p(given label | true class), true classes as rows.
    """

    matrix: Floats
    entries: Entries
    others: str

    def transition(self, base: Floats) -> Floats:
        """Return `matrix`."""
        return self.matrix


def significance(classes: int) -> float:
    """Return the significance level of each of the tests of all entries."""
    return math.exp(-DECISIVE) / (classes * (classes - 1))


def find_entries(
    probabilities: Floats, labels: Ints, scores: Floats, fit: NoiseFit, rows: Floats
) -> list[tuple[int, int]]:
    """Return the (group, label) whose frequency neither `fit` nor hard images explain.

    `probabilities` (N, C) are predictions for images with given `labels` (N). The group of an image
    has the highest of its `scores` (N, C), which are logarithms. `rows` (C, C) are p(label | group)
    by `fit`.
    """
    count, groups, found = len(rows), scores.argmax(1), []
    level, label_groups = significance(count), np.argsort(fit.group_labels)
    for group in range(count):
        members = np.flatnonzero(groups == group)
        size = least_similar(len(members))
        for label in set(np.unique(labels[members]).tolist()) - {int(fit.group_labels[group])}:
            order = np.argsort(probabilities[members, label], kind="stable")
            frequent = int((labels[members[order[:size]]] == label).sum())
            if binom.sf(frequent - 1, size, or_hard(rows[group, label])) <= level:
                distance = scores[members, group] - scores[members, label_groups[label]]
                between = int((distance < np.median(distance) / 2).sum())
                if binom.cdf(between, len(members), BOUNDARY) <= level:
                    found.append((group, label))
    return found


def least_similar(members: int) -> int:
    """Return the number of images of a group that are tested for one label."""
    return math.ceil(LEAST_SIMILAR * members)


def or_hard(rate: float) -> float:
    """Return the probability of a label that has this rate or is that of a hard image."""
    return rate + (1 - rate) * HARD


def fit_class_dependent(
    best: NoiseFit, entries: Entries, counts: Floats, estimate: Floats, base: Floats
) -> ClassDependentFit | None:
    """Fit a kind to the counts (C, C) of all other entries; return None without decisive evidence.

    `estimate` (C, C) is p(label | group) by counts. The cost of each entry is half the logarithm of
    its group's count (BIC), and that of the choice among C (C - 1) entries.
    """
    if not entries:
        return None
    count = len(counts)
    chosen = np.zeros((count, count), bool)
    chosen[tuple(zip(*entries, strict=True))] = True
    others = best
    if best.kind in models.RATED:  # perhaps only because of the entries
        own = np.where(np.eye(count)[best.group_classes], 0, -1e12)
        rest = np.where(chosen, 0, counts)
        kinds = ("clean", *models.RATED)
        fits = [models.fit_noise_model(kind, rest, base, own) for kind in kinds]
        others = max(fits, key=lambda fit: fit.evidence)
    rows = np.where(chosen, 0, others.transition(base)[best.group_classes])
    own_rates = np.where(chosen, estimate, 0)
    rows *= ((1 - own_rates.sum(1)) / rows.sum(1))[:, None]
    rows += own_rates
    gain = _log_likelihood(counts, rows, base)
    gain -= _log_likelihood(counts, best.transition(base)[best.group_classes], base)
    sizes = counts.sum(1)[[group for group, _ in entries]]
    gain -= float(np.log(sizes).sum() / 2 + len(entries) * np.log(count * (count - 1)))
    if gain < DECISIVE:
        return None
    outliers, expected = models.fit_outliers(counts, rows, base)
    values = {field.name: getattr(best, field.name) for field in fields(NoiseFit)} | {
        "kind": CLASS_DEPENDENT,
        "outliers": outliers,
        "expected": expected,
        "evidence": best.evidence + gain,
    }
    matrix = rows[np.argsort(best.group_classes)]
    return ClassDependentFit(**values, matrix=matrix, entries=entries, others=others.kind)


def _log_likelihood(counts: Floats, rows: Floats, base: Floats) -> float:
    return float(models.log_likelihood(counts, rows, base).trace())


def intervals(counts: Floats, base: Floats) -> tuple[Floats, Floats]:
    """Return the limits of 95 % intervals (C, C) of p(label | group), given counts.

    The prior is one label per group, distributed as `base`, as in the estimate.
    """
    successes = counts + base
    failures = counts.sum(1, keepdims=True) + 1 - successes
    return beta.ppf(0.025, successes, failures), beta.ppf(0.975, successes, failures)


def entry_limits(sizes: Ints, rows: Floats) -> tuple[DetectionLimit, DetectionLimit]:
    """Return the lowest rates at which entries are found, in groups of `sizes` (C) images.

    The first is that of one label in one class, by class, as a fraction of the class's labels; the
    second that of one label in every class, at least one of which is found. `rows` (C, C) are
    p(label | group) by the diagnosed kind; the most likely label except the own one is the hardest.
    """
    level, used = significance(len(sizes)), sizes[sizes > 0]
    tested = np.array([least_similar(size) for size in used])
    explained = np.sort(rows, axis=1)[sizes > 0, -2]
    needed = binom.isf(level, tested, or_hard(explained)) + 1
    rates = explained[:, None] + (1 - explained[:, None]) * models.FINE_RATES
    power = binom.sf(needed[:, None] - 1, tested[:, None], rates)
    power[(1 - BOUNDARY) ** used > level] = 0  # too few images to show a gap
    each = [_lowest(row) for row in power]
    return (
        DetectionLimit("one class labelled as one other", "that class's labels", min(each), max(each)),
        DetectionLimit(
            "every class labelled as one other", "the labels", *[_lowest(1 - (1 - power).prod(0))] * 2
        ),
    )


def _lowest(power: Floats) -> float:
    """Return the lowest rate with enough power, 1 if there is none."""
    enough = np.flatnonzero(power >= POWER)
    return float(models.FINE_RATES[enough[0]]) if len(enough) else 1.0
