"""What is wrong with a set's labels, concluded from a network's answers: numbers in, numbers out.

A network that learned from a set's labels, right or wrong, answers with estimates of
p(given label | picture). Pictures that it was not shown are grouped by its answers. In each group
the most informative answers are anchors: legible pictures stand for their class, as anchor points
(Patrini et al. 2017, "Making deep neural networks robust to label noise: a loss correction
approach"). Their given labels are counted, as in confident learning (Northcutt et al. 2021,
"Confident learning: estimating uncertainty in dataset labels"). The network never saw these, so
that the counts are evidence whatever the network is worth, and `pipeline.kinds` judges by them what
kind of mislabelling it is: complementary labels among others (Ishida et al. 2017, "Learning from
complementary labels"; Yu et al. 2018, "Learning with biased complementary labels").

What this trades: which group is which class cannot be counted. Each kind names the groups by an
assumption of its own, which is told with the verdict, and a witness, a network that learned the
classes elsewhere, can put it to the test.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import entr, rel_entr

from pipeline.analysis.diagnosis import (
    DECISIVE,
    Diagnosis,
    KindEvidence,
    Matrix,
    ReferenceReport,
    describe_diagnosis,
)
from pipeline.analysis.noise_models import (
    KINDS,
    OUTLIER_PRIOR,
    RATED,
    RATES,
    UNIFORM_PRIOR,
    Floats,
    Ints,
    NoiseFit,
    best_assignment,
    fit_noise_model,
    fit_outliers,
    log_likelihood,
    transition,
)

ANCHOR_FRACTION = 1 / 3  # the share of each group that is counted
CONFIDENT_FRACTION = 1 / 2  # the share of a witness's answers that is


@dataclass(frozen=True)
class LabelRanks:
    """What answers say beside labels, before any theory; shares from 0 to 1.

    `ranks` (C) are the shares of pictures whose label is the first, second, … choice: the first is
    the accuracy, the last that of reading the answers backwards (argmin). `histogram` (C, C) has
    the shares of predicted classes, columns, for each label, rows; zeros where a label is absent.
    """

    ranks: tuple[float, ...]
    histogram: Matrix


def rank_labels(probabilities: Floats, labels: Ints) -> LabelRanks:
    """Return what answers (N, C) say beside labels (N,). Raises ValueError as `diagnose` does."""
    count = probabilities.shape[-1]
    _check("probabilities", probabilities, labels, count)
    choices = np.argsort(-probabilities, axis=1, kind="stable")
    ranks = (choices == labels[:, None]).mean(0)
    histogram = _count_pairs(labels, choices[:, 0], count)
    histogram /= histogram.sum(1, keepdims=True).clip(1)
    return LabelRanks(tuple(ranks.tolist()), _nested(histogram))


def diagnose(
    probabilities: Floats, labels: Ints, classes: Sequence[str], witness: Floats | None = None
) -> Diagnosis:
    """Conclude what is wrong with labels from answers to pictures that were not learned from.

    `probabilities` float64 (N, C) are softmax outputs of a network that was trained on labels of
    the same making; `labels` int64 (N,) are the given ones, which it has not seen; `classes` are
    the C names, in the order of the labels. `witness` float64 (N, C) are outputs of a network that
    learned the same classes elsewhere, from labels to be trusted. Raises ValueError for shapes that
    do not belong together, fewer than 3 classes or 10 pictures for each, labels outside of 0 to
    C - 1, and rows that are no probabilities.
    """
    count = len(classes)
    _check("probabilities", probabilities, labels, count)
    if count < 3 or len(labels) < 10 * count:
        raise ValueError(
            f"diagnose: got {count} classes and {len(labels)} pictures, "
            "expected at least 3 classes and 10 pictures for each"
        )
    groups, anchors, counts = max(
        (
            _anchor_counts(probabilities, labels, groups)
            for groups in _candidate_groups(probabilities)
        ),
        key=lambda anchors: _information(anchors[2]),
    )
    base = _base_rates(labels, count)
    seen = naming = np.zeros((count, count))
    if witness is not None:
        _check("witness", witness, labels, count)
        seen = _count_pairs(groups[anchors], witness[anchors].argmax(1), count)
        naming = _reference_scores(seen, witness)
    if not naming.any():
        seen = naming

    fits = [fit_noise_model(kind, counts, base, naming) for kind in KINDS]
    fits.sort(key=lambda one: -one.evidence)  # stable: of kinds that fit alike, the first listed
    best = fits[0]
    order = np.argsort(best.truths)  # the group of each class
    matrix, forward = _smooth(counts[order], base), best.transition(base)
    prior = (np.bincount(groups, minlength=count) / len(groups))[order]
    entropies = entr(matrix).sum(1) / np.log(2)
    shares = counts.sum(1) / counts.sum()

    diagnosis = Diagnosis(
        kind=best.kind,
        rate=round(float(prior @ (1 - forward.diagonal())), 9),
        between=best.between if best.kind in RATED else None,
        verdict="",
        assumption="",
        evidence=_kind_evidence(fits, counts, seen),
        labels=len(anchors),
        matrix=_nested(matrix),
        forward=_nested(forward),
        entropy=float(entropies.mean()),
        information=float(entr(prior @ matrix).sum() / np.log(2) - prior @ entropies),
        strays=float(shares @ best.strays),
        misfit=float(shares @ _misfit(counts, best.expected)),
        detectable=_detectable(best, counts, base) if best.kind == "clean" else None,
        witness=None
        if witness is None
        else _reference_report(
            witness, labels, matrix, best.truths[groups], anchors, bool(naming.any())
        ),
    )
    verdict, assumption = describe_diagnosis(diagnosis, classes)
    return replace(diagnosis, verdict=verdict, assumption=assumption)


def _check(name: str, probabilities: Floats, labels: Ints, classes: int) -> None:
    if probabilities.shape != (len(labels), classes):
        raise ValueError(
            f"{name}: got shape {probabilities.shape}, expected {(len(labels), classes)}"
        )
    if not len(labels) or labels.min() < 0 or labels.max() >= classes:
        got = f"{labels.min()} to {labels.max()}" if len(labels) else "none"
        raise ValueError(f"labels: got {got}, expected 0 to {classes - 1}")
    if not (probabilities >= 0).all() or not np.allclose(probabilities.sum(1), 1, atol=1e-3):
        raise ValueError(f"{name}: got rows that are no probabilities, expected them to sum to 1")


def _candidate_groups(probabilities: Floats) -> tuple[Ints, ...]:
    """Return guesses at which pictures are of one class, each (N,), 0 to C - 1.

    What tells a class may be its likeliest label, the least likely one (complementary labels), or
    two neighbours together (pair flips); likely as compared with the mean answer.
    """
    lift = probabilities / probabilities.mean(0).clip(1e-12)
    pairs = lift + np.roll(lift, -1, axis=1)
    return lift.argmax(1), lift.argmin(1), pairs.argmax(1)


def _anchor_counts(probabilities: Floats, labels: Ints, groups: Ints) -> tuple[Ints, Ints, Floats]:
    """Return the groups, which pictures of them to count, and the counts of their labels."""
    anchors = _most_informative(probabilities, groups, ANCHOR_FRACTION)
    return groups, anchors, _count_pairs(groups[anchors], labels[anchors], probabilities.shape[1])


def _most_informative(probabilities: Floats, groups: Ints, share: float) -> Ints:
    """Return which pictures to keep: the most informative `share` of each group.

    An answer tells as much as it differs from the mean answer, by Kullback-Leibler divergence.
    """
    told = rel_entr(probabilities, probabilities.mean(0)).sum(1)
    order = np.lexsort((-told, groups))
    sizes = np.bincount(groups)
    place = np.arange(len(groups)) - np.repeat(sizes.cumsum() - sizes, sizes)
    anchors: Ints = order[place < np.ceil(share * sizes)[groups[order]]]
    return anchors


def _count_pairs(rows: Ints, columns: Ints, classes: int) -> Floats:
    """Return how often each (row, column) occurs: float64 (classes, classes)."""
    pairs = np.bincount(rows * classes + columns, minlength=classes**2)
    return pairs.reshape(classes, classes).astype(np.float64)


def _information(counts: Floats) -> float:
    """Return the mutual information in nats between rows and columns of counts."""
    shares = counts / counts.sum()
    return float(rel_entr(shares, np.outer(shares.sum(1), shares.sum(0))).sum())


def _base_rates(labels: Ints, classes: int) -> Floats:
    """Return the share (classes,) of each label; none is 0, as if each had been met once more."""
    base: Floats = (np.bincount(labels, minlength=classes) + 1) / (len(labels) + classes)
    return base


def _smooth(counts: Floats, base: Floats) -> Floats:
    """Return counts as rows of shares, as if one more label had been seen, of the base rate's."""
    rows: Floats = (counts + base) / (counts.sum(1, keepdims=True) + 1)
    return rows


def _reference_scores(seen: Floats, witness: Floats) -> Floats:
    """Return log p(what a witness calls each group | its class), (C, C), less that of guessing.

    Any share of a group may be called astray. All zero for a witness that no one-to-one naming lets
    be right in half of each group, on average: even an untrained network calls like things alike.
    """
    base = _base_rates(witness.argmax(1), len(seen))
    right = _smooth(seen, base)
    if right[np.arange(len(seen)), best_assignment(right)].mean() < 1 / 2:
        return np.zeros_like(seen)
    score = log_likelihood(seen, np.eye(len(seen)), base, UNIFORM_PRIOR)
    named: Floats = score - (seen @ np.log(base))[:, None]
    return named


def _kind_evidence(
    fits: Sequence[NoiseFit], counts: Floats, seen: Floats
) -> tuple[KindEvidence, ...]:
    """Return the evidence for each kind, the best first; `seen` is what a witness calls groups."""
    labels, own = counts.sum(), np.eye(len(seen))
    base = (seen.sum(0) + 1) / (seen + 1 / len(seen)).sum()
    given = [np.log(one.expected) for one in fits]
    called = [np.log(fit_outliers(seen, own[one.truths], base, UNIFORM_PRIOR)[1]) for one in fits]
    return tuple(
        KindEvidence(
            kind=one.kind,
            rate=one.rate if one.kind in RATED else None,
            log_likelihood=float(one.evidence / labels),
            behind=float((fits[0].evidence - one.evidence) / labels),
            error=float(
                np.sqrt(
                    _sum_of_squares(counts, given[0] - given[place])
                    + _sum_of_squares(seen, called[0] - called[place])
                )
                / labels
            ),
        )
        for place, one in enumerate(fits)
    )


def _sum_of_squares(counts: Floats, values: Floats) -> float:
    """Return the sum of squares about the mean of values that occur so often."""
    mean = (counts * values).sum() / counts.sum().clip(1)
    return float((counts * (values - mean) ** 2).sum())


def _misfit(counts: Floats, expected: Floats) -> Floats:
    """Return each group's total variation (C,) from what is expected, less what chance gives."""
    labels = counts.sum(1, keepdims=True).clip(1)
    distance = np.abs(counts / labels - expected).sum(1)
    chance = np.sqrt(2 / np.pi * expected * (1 - expected) / labels).sum(1)
    misfit: Floats = ((distance - chance) / 2).clip(0)
    return misfit


def _detectable(clean: NoiseFit, counts: Floats, base: Floats) -> float:
    """Return the least rate of symmetric noise that would be told from clean labels.

    It would in 19 of 20 tables of counts that are drawn as these may have been; 1 if none would.
    """
    draws, count = 20, len(base)
    generator = np.random.Generator(np.random.Philox(0))
    truths, strays = np.tile(clean.truths, draws), np.tile(clean.strays, draws)[:, None]
    labels = np.tile(counts.sum(1).astype(np.int64), draws)

    def score(drawn: Floats, rows: Floats) -> Floats:
        scores: Floats = log_likelihood(drawn, rows, base, OUTLIER_PRIOR)[
            np.arange(len(drawn)), truths
        ]
        return scores

    for rate in RATES:
        noisy = transition("symmetric", rate, count)
        shares = (1 - strays) * noisy[truths] + strays * base
        drawn = generator.multinomial(labels, shares).astype(np.float64)
        gains = score(drawn, noisy) - score(drawn, np.eye(count))
        evidence = gains.reshape(draws, count).sum(1) - np.log(len(RATES))
        if (evidence >= DECISIVE).mean() >= 0.95:
            return float(rate)
    return 1.0


def _reference_report(
    witness: Floats, labels: Ints, matrix: Floats, names: Ints, anchors: Ints, heard: bool
) -> ReferenceReport:
    """Compare a witness with the estimate `matrix` and the groups' `names` (N,)."""
    called = witness.argmax(1)
    sure = _most_informative(witness, called, CONFIDENT_FRACTION)
    counts, base = (
        _count_pairs(called[sure], labels[sure], len(matrix)),
        _base_rates(labels, len(matrix)),
    )
    fixed = np.where(np.eye(len(matrix)), 0, -1e12)  # its classes have their names
    best = max(
        (fit_noise_model(kind, counts, base, fixed) for kind in KINDS), key=lambda one: one.evidence
    )
    second = _smooth(counts, base)
    return ReferenceReport(
        heard=heard,
        agreement=float((called == names)[anchors].mean()),
        distance=float(np.abs(matrix - second).sum(1).mean() / 2),
        kind=best.kind,
        rate=float(1 - best.transition(base).diagonal().mean()),
        matrix=_nested(second),
    )


def _nested(matrix: Floats) -> Matrix:
    return tuple(map(tuple, matrix.tolist()))
