"""Class-dependent label noise: transition probabilities that no kind with one rate explains.

Hard images resemble such noise, because both give a group of images some labels of another class.
Two properties distinguish them, and an entry of the transition matrix must have both:

- A floor. Noise does not depend on the image, so a label is as frequent among the images that
  resemble its class least. Hard images resemble it most.
- A gap. Noise leaves few images between two classes that the network distinguishes. Predictions for
  classes that resemble each other, such as o and O, are dense at their boundary.

Both tests are exact, one-sided and binomial, at odds of 20 to 1: the floor over all C (C - 1)
entries, the gap, which is tested where there is a floor, over C classes (Bonferroni).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
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
        del base
        return self.matrix


def floor_level(classes: int) -> float:
    """Return the significance level of the test of each entry for a floor."""
    return gap_level(classes) / (classes - 1)


def gap_level(classes: int) -> float:
    """Return the significance level of the test of an entry for a gap."""
    return math.exp(-DECISIVE) / classes


def find_floors(
    probabilities: Floats, labels: Ints, groups: Ints, fit: NoiseFit, base: Floats
) -> list[tuple[int, int]]:
    """Return the (group, label) with a floor that `fit` does not explain.

    `probabilities` (N, C) are predictions for images in `groups` (N) with given `labels` (N), whose
    frequencies are `base` (C).
    """
    rows, found = fit.rows(base), []
    for group, own in enumerate(fit.group_labels):
        members = np.flatnonzero(groups == group)
        size = least_similar(len(members))
        for label in set(np.unique(labels[members]).tolist()) - {int(own)}:
            order = np.argsort(probabilities[members, label], kind="stable")
            frequent = int((labels[members[order[:size]]] == label).sum())
            level = binom.sf(frequent - 1, size, or_hard(rows[group, label]))
            if level <= floor_level(len(rows)):
                found.append((group, label))
    return found


def has_gap(scores: Floats, fit: NoiseFit, entry: tuple[int, int]) -> bool:
    """Return whether few images of a group lie between it and the group of the label.

    The group of an image has the highest of its `scores` (N, C), which are logarithms.
    """
    group, label = entry
    other = int(np.flatnonzero(fit.group_labels == label)[0])
    members = scores[scores.argmax(1) == group]
    distance = members[:, group] - members[:, other]
    between = int((distance < np.median(distance) / 2).sum())
    return bool(binom.cdf(between, len(members), BOUNDARY) <= gap_level(scores.shape[1]))


def least_similar(members: int) -> int:
    """Return the number of images of a group that are tested for one label."""
    return math.ceil(LEAST_SIMILAR * members)


def or_hard(rates: Floats) -> Floats:
    """Return the probabilities of labels with these rates, or of a hard image."""
    return np.asarray(rates + (1 - rates) * HARD)


def fit_other_entries(
    counts: Floats, entries: Entries, base: Floats, reference: Floats
) -> NoiseFit:
    """Fit the best kind, except "random", to the counts (C, C) of all labels but `entries`."""
    rest = np.where(_chosen(entries, len(counts)), 0, counts)
    kinds = [kind for kind in models.KINDS if kind != "random"]
    return models.fit_noise_models(kinds, rest, base, reference)[0]


def fit_class_dependent(
    others: NoiseFit, entries: Entries, counts: Floats, base: Floats, best: NoiseFit
) -> ClassDependentFit | None:
    """Add `entries`, if any, to the kind `others`; return None without decisive evidence.

    The evidence is that against the kind `best`. The probability of an entry is its frequency in
    `counts` (C, C). Its cost is half the logarithm of its group's count (BIC), and that of the
    choice among C (C - 1) entries.
    """
    if not entries:
        return None
    chosen, count = _chosen(entries, len(counts)), len(counts)
    own = np.where(chosen, smooth(counts, base), 0)
    rows = np.where(chosen, 0, others.rows(base))
    rows = rows * ((1 - own.sum(1)) / rows.sum(1))[:, None] + own
    gain = _log_likelihood(counts, rows, base) - _log_likelihood(counts, best.rows(base), base)
    sizes = counts.sum(1)[[group for group, _ in entries]].clip(1)
    gain -= float(np.log(sizes).sum() / 2 + len(entries) * np.log(count * (count - 1)))
    if gain < DECISIVE:
        return None
    outliers, expected = models.fit_outliers(counts, rows, base)
    values = {field.name: getattr(others, field.name) for field in fields(NoiseFit)} | {
        "kind": CLASS_DEPENDENT,
        "outliers": outliers,
        "expected": expected,
        "evidence": best.evidence + gain,
    }
    matrix = rows[np.argsort(others.group_classes)]
    return ClassDependentFit(**values, matrix=matrix, entries=entries, others=others.kind)


def _chosen(entries: Entries, count: int) -> NDArray[np.bool_]:
    chosen = np.zeros((count, count), np.bool_)
    for entry in entries:
        chosen[entry] = True
    return chosen


def _log_likelihood(counts: Floats, rows: Floats, base: Floats) -> float:
    return float(models.log_likelihood(counts, rows, base).trace())


def smooth(counts: Floats, base: Floats) -> Floats:
    """Return counts as rows of frequencies, with one added label per row, distributed as `base`."""
    return np.asarray((counts + base) / (counts.sum(1, keepdims=True) + 1))


def intervals(counts: Floats, base: Floats) -> tuple[Floats, Floats]:
    """Return the limits of 95 % intervals (C, C) of p(label | group), given counts.

    One label per group, distributed as `base`, is added, as in `smooth`.
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
    count, used = len(sizes), sizes[sizes > 0]
    tested = np.array([least_similar(size) for size in used])
    explained = np.sort(rows, axis=1)[sizes > 0, -2]
    needed = binom.isf(floor_level(count), tested, or_hard(explained)) + 1
    rates = explained[:, None] + (1 - explained[:, None]) * models.FINE_RATES
    power = binom.sf(needed[:, None] - 1, tested[:, None], rates)
    power[(1 - BOUNDARY) ** used > gap_level(count)] = 0  # too few images to show a gap
    each, all_of_them = [_lowest(row) for row in power], _lowest(1 - (1 - power).prod(0))
    return (
        DetectionLimit("one class labelled as another", "its labels", min(each), max(each)),
        DetectionLimit("every class labelled as another", "the labels", all_of_them, all_of_them),
    )


def _lowest(power: Floats) -> float:
    """Return the lowest rate with enough power, 1 if there is none."""
    enough = np.flatnonzero(power >= POWER)
    return float(models.FINE_RATES[enough[0]]) if len(enough) else 1.0
