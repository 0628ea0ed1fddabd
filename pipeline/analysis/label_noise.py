"""The diagnosis of label noise from a network's predictions. Reads no files.

A network trained on a dataset's given labels estimates p(given label | image). Held-out images are
grouped by these estimates. In each group, the images with the most informative predictions are
anchors: they represent their class, as anchor points do (Patrini et al. 2017, "Making deep neural
networks robust to label noise: a loss correction approach"). Their given labels are counted, as in
confident learning (Northcutt et al. 2021, "Confident learning: estimating uncertainty in dataset
labels"). The network was not trained on them, so the counts are valid however poor the network is.
From the counts, `noise_models` computes the evidence for each kind of noise, such as complementary
labels (Ishida et al. 2017, "Learning from complementary labels"; Yu et al. 2018, "Learning with
biased complementary labels").

The counts do not identify the class of a group. Each kind does so by an assumption of its own,
which is reported with the verdict. A reference model, trained on the same classes elsewhere, can
check it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.special import entr, rel_entr

from pipeline.analysis import class_dependent
from pipeline.analysis import noise_models as models
from pipeline.analysis.class_dependent import ClassDependentFit, smooth
from pipeline.analysis.diagnosis import (
    DECISIVE,
    DetectionLimit,
    Diagnosis,
    Intervals,
    KindEvidence,
    Matrix,
    MatrixEntry,
    ReferenceReport,
)
from pipeline.analysis.noise_models import KINDS, UNIFORM_PRIOR, Floats, Ints, NoiseFit

ANCHOR_FRACTION = 1 / 3  # of each group
CONFIDENT_FRACTION = 1 / 2  # of each class that a reference model predicts


@dataclass(frozen=True)
class LabelRanks:
    """Predictions compared with labels; fractions from 0 to 1.

    `ranks` (C) are the fractions of images whose label is the most likely class, the second, …; the
    first is the accuracy, the last is the accuracy of argmin. `histogram` (C, C) has the fractions
    of predicted classes, columns, for each label, rows; zeros for a label without images.
    """

    ranks: tuple[float, ...]
    histogram: Matrix


def rank_labels(probabilities: Floats, labels: Ints) -> LabelRanks:
    """Compare predictions (N, C) with labels (N,). Raises ValueError as `diagnose` does."""
    count = probabilities.shape[-1]
    _check("probabilities", probabilities, labels, count)
    choices = np.argsort(-probabilities, axis=1, kind="stable")
    ranks = (choices == labels[:, None]).mean(0)
    histogram = _count_pairs(labels, choices[:, 0], count)
    histogram /= histogram.sum(1, keepdims=True).clip(1)
    return LabelRanks(tuple(ranks.tolist()), _nested(histogram))


def diagnose(
    probabilities: Floats, labels: Ints, classes: Sequence[str], reference: Floats | None = None
) -> Diagnosis:
    """Diagnose the noise of labels from predictions for images that were not trained on.

    `probabilities` float64 (N, C) are softmax outputs of a network trained on labels with the same
    noise; `labels` int64 (N,) are the given labels of the held-out images; `classes` are the C
    names, in the order of the labels. `reference` float64 (N, C) are outputs of a reference model,
    trained on trusted labels of the same classes. Raises ValueError for shapes that do not match,
    fewer than 3 classes or 10 images for each, labels outside of 0 to C - 1, and rows that are not
    probabilities.
    """
    count = len(classes)
    _check("probabilities", probabilities, labels, count)
    if count < 3 or len(labels) < 10 * count:
        raise ValueError(
            f"diagnose: got {count} classes and {len(labels)} images, "
            "expected at least 3 classes and 10 images for each"
        )
    candidates = []
    for group_scores in _candidate_groups(probabilities):
        groups = group_scores.argmax(1)
        anchors = _most_informative(probabilities, groups, ANCHOR_FRACTION)
        table = _count_pairs(groups[anchors], labels[anchors], count)
        candidates.append((group_scores, groups, anchors, table))
    group_scores, groups, anchors, counts = max(candidates, key=lambda one: _information(one[3]))
    base = _base_rates(labels, count)
    predicted = scores = np.zeros((count, count))  # by the reference model, per group
    if reference is not None:
        _check("reference", reference, labels, count)
        predicted = _count_pairs(groups[anchors], reference[anchors].argmax(1), count)
        scores = _reference_scores(predicted, reference)
    if not scores.any():
        predicted = scores

    fits = models.fit_noise_models(KINDS, counts, base, scores)
    best = fits[0]
    sizes = np.bincount(groups, minlength=count)
    limits: tuple[DetectionLimit, ...] = ()
    indistinct: tuple[tuple[int, int], ...] = ()
    if best.kind == "clean":
        limits += tuple(_detectable(kind, best, counts, base) for kind in models.RATED)
    if best.kind != "random":
        limits += class_dependent.entry_limits(sizes, best.rows(base))
        find = partial(class_dependent.find_floors, probabilities, labels, groups, base=base)
        if floors := find(best):
            others = class_dependent.fit_other_entries(counts, floors, base, scores)
            floors = find(others)
            entries = [one for one in floors if class_dependent.has_gap(group_scores, others, one)]
            indistinct = _pairs(others, set(floors) - set(entries))
            fit = class_dependent.fit_class_dependent(others, entries, counts, base, best)
            if fit is not None:
                best = fit
                fits.insert(0, fit)
    order = np.argsort(best.group_classes)  # the group of each class
    matrix, forward = smooth(counts[order], base), best.transition(base)
    between = _intervals(counts[order], base)
    prior = (sizes / len(groups))[order]
    entropies = entr(matrix).sum(1) / np.log(2)
    weights = counts.sum(1) / counts.sum()

    return Diagnosis(
        kind=best.kind,
        rate=round(float(prior @ (1 - forward.diagonal())), 9),
        between=best.rate_interval if best.kind in models.RATED else None,
        verdict="",
        assumption="",
        evidence=_kind_evidence(fits, counts, predicted),
        labels=len(anchors),
        matrix=_nested(matrix),
        forward=_nested(forward),
        entropy=float(entropies.mean()),
        information=float(entr(prior @ matrix).sum() / np.log(2) - prior @ entropies),
        strays=float(weights @ best.outliers),
        misfit=float(weights @ _misfit(counts, best.expected)),
        detectable=limits[0].rate if best.kind == "clean" else None,
        witness=None
        if reference is None
        else _reference_report(
            reference, labels, matrix, best.group_classes[groups], anchors, bool(scores.any())
        ),
        intervals=between,
        entries=_entries(best, matrix, between),
        others=best.others if isinstance(best, ClassDependentFit) else None,
        indistinct=indistinct,
        limits=limits,
    ).described(classes)


def _check(name: str, probabilities: Floats, labels: Ints, classes: int) -> None:
    if probabilities.shape != (len(labels), classes):
        raise ValueError(
            f"{name}: got shape {probabilities.shape}, expected {(len(labels), classes)}"
        )
    if not len(labels) or labels.min() < 0 or labels.max() >= classes:
        got = f"{labels.min()} to {labels.max()}" if len(labels) else "none"
        raise ValueError(f"labels: got {got}, expected 0 to {classes - 1}")
    if not (probabilities >= 0).all() or not np.allclose(probabilities.sum(1), 1, atol=1e-3):
        raise ValueError(f"{name}: got rows that are not probabilities, expected a sum of 1")


def _candidate_groups(probabilities: Floats) -> tuple[Floats, ...]:
    """Return three scores to group images by class, each (N, C); the highest is that of the group.

    The images of a class share the most likely label, the least likely one (complementary labels),
    or two neighbouring ones (pair flips), relative to the mean prediction. Scores are logarithms.
    """
    lift = (probabilities / probabilities.mean(0).clip(1e-12)).clip(1e-300)
    pairs = lift + np.roll(lift, -1, axis=1)
    return np.log(lift), -np.log(lift), np.log(pairs)


def _most_informative(probabilities: Floats, groups: Ints, fraction: float) -> Ints:
    """Return the indices of the `fraction` of each group with the most informative predictions.

    The information is the Kullback-Leibler divergence from the mean prediction.
    """
    information = rel_entr(probabilities, probabilities.mean(0)).sum(1)
    order = np.lexsort((-information, groups))
    sizes = np.bincount(groups)
    place = np.arange(len(groups)) - np.repeat(sizes.cumsum() - sizes, sizes)
    return np.asarray(order[place < np.ceil(fraction * sizes)[groups[order]]])


def _count_pairs(rows: Ints, columns: Ints, classes: int) -> Floats:
    """Count each (row, column): float64 (classes, classes)."""
    pairs = np.bincount(rows * classes + columns, minlength=classes**2)
    return pairs.reshape(classes, classes).astype(np.float64)


def _information(counts: Floats) -> float:
    """Return the mutual information in nats between rows and columns of counts."""
    joint = counts / counts.sum()
    return float(rel_entr(joint, np.outer(joint.sum(1), joint.sum(0))).sum())


def _base_rates(labels: Ints, classes: int) -> Floats:
    """Return the frequency (classes,) of each label, with one added count each."""
    return np.asarray((np.bincount(labels, minlength=classes) + 1) / (len(labels) + classes))


def _reference_scores(predicted: Floats, reference: Floats) -> Floats:
    """Return log p(predictions per group | its class), (C, C), minus that of random predictions.

    Any fraction of a group may be outliers. All zero if no one-to-one assignment of groups to
    classes agrees with half of the predictions in each group, on average: even an untrained network
    predicts the same class for similar images.
    """
    base = _base_rates(reference.argmax(1), len(predicted))
    rows = smooth(predicted, base)
    if rows[np.arange(len(rows)), models.best_assignment(rows)].mean() < 1 / 2:
        return np.zeros_like(predicted)
    score = models.log_likelihood(predicted, np.eye(len(predicted)), base, UNIFORM_PRIOR)
    return score - (predicted @ np.log(base))[:, None]


def _kind_evidence(
    fits: Sequence[NoiseFit], counts: Floats, predicted: Floats
) -> tuple[KindEvidence, ...]:
    """Return the evidence for each kind; `predicted` are the reference model's counts by group."""
    labels, own = counts.sum(), np.eye(len(predicted))
    base = (predicted.sum(0) + 1) / (predicted + 1 / len(predicted)).sum()
    given = [np.log(fit.expected) for fit in fits]
    reference = [
        np.log(models.fit_outliers(predicted, own[fit.group_classes], base, UNIFORM_PRIOR)[1])
        for fit in fits
    ]
    return tuple(
        KindEvidence(
            kind=fit.kind,
            rate=fit.rate if fit.kind in models.RATED else None,
            log_likelihood=float(fit.evidence / labels),
            behind=float((fits[0].evidence - fit.evidence) / labels),
            error=float(
                np.sqrt(
                    _sum_of_squares(counts, given[0] - given[place])
                    + _sum_of_squares(predicted, reference[0] - reference[place])
                )
                / labels
            ),
        )
        for place, fit in enumerate(fits)
    )


def _sum_of_squares(counts: Floats, values: Floats) -> float:
    """Return the sum of squared deviations from the mean of values with these counts."""
    mean = (counts * values).sum() / counts.sum().clip(1)
    return float((counts * (values - mean) ** 2).sum())


def _misfit(counts: Floats, expected: Floats) -> Floats:
    """Return the total variation (C,) of each group from `expected`, minus sampling noise."""
    labels = counts.sum(1, keepdims=True).clip(1)
    distance = np.abs(counts / labels - expected).sum(1)
    chance = np.sqrt(2 / np.pi * expected * (1 - expected) / labels).sum(1)
    return np.asarray(((distance - chance) / 2).clip(0))


def _detectable(kind: str, clean: NoiseFit, counts: Floats, base: Floats) -> DetectionLimit:
    """Return the lowest rate of a kind that is detected; 1 if none is.

    It is detected in 19 of 20 tables of counts sampled with the outliers of `clean`.
    """
    tables, count = 20, len(base)
    generator = np.random.Generator(np.random.Philox(0))
    classes = np.tile(clean.group_classes, tables)
    outliers = np.tile(clean.outliers, tables)[:, None]
    labels = np.tile(counts.sum(1).astype(np.int64), tables)

    lowest = 1.0
    for rate in models.RATES:
        noisy = models.transition(kind, rate, count)
        rows = (1 - outliers) * noisy[classes] + outliers * base
        sampled = generator.multinomial(labels, rows).astype(np.float64)
        likelihoods = (models.log_likelihood(sampled, p, base) for p in (noisy, np.eye(count)))
        gains = np.subtract(*likelihoods)[np.arange(len(classes)), classes]
        evidence = gains.reshape(tables, count).sum(1) - np.log(len(models.RATES))
        if (evidence >= DECISIVE).mean() >= 0.95:
            lowest = float(rate)
            break
    return DetectionLimit(kind, "the labels", lowest, lowest)


def _intervals(counts: Floats, base: Floats) -> Intervals:
    low, high = class_dependent.intervals(counts, base)
    return tuple(tuple(map(tuple, row)) for row in np.stack([low, high], axis=2).tolist())


def _entries(fit: NoiseFit, matrix: Floats, between: Intervals) -> tuple[MatrixEntry, ...]:
    """Return the entries of a fit of class-dependent noise, the largest first."""
    if not isinstance(fit, ClassDependentFit):
        return ()
    places = [(int(fit.group_classes[group]), label) for group, label in fit.entries]
    places.sort(key=lambda place: -matrix[place])
    return tuple(
        MatrixEntry(true, label, float(matrix[true, label]), between[true][label])
        for true, label in places
    )


def _pairs(fit: NoiseFit, entries: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Return the pairs of classes of entries (group, label), each once, in order."""
    class_of_label = fit.group_classes[np.argsort(fit.group_labels)]
    pairs = {
        tuple(sorted((int(fit.group_classes[group]), int(class_of_label[label]))))
        for group, label in entries
    }
    return tuple((one, other) for one, other in sorted(pairs))


def _reference_report(
    reference: Floats, labels: Ints, matrix: Floats, classes: Ints, anchors: Ints, heard: bool
) -> ReferenceReport:
    """Compare a reference model with the estimate `matrix` and the diagnosed `classes` (N,)."""
    predicted = reference.argmax(1)
    confident = _most_informative(reference, predicted, CONFIDENT_FRACTION)
    counts = _count_pairs(predicted[confident], labels[confident], len(matrix))
    base = _base_rates(labels, len(matrix))
    own = np.where(np.eye(len(matrix)), 0, -1e12)  # each group is the class predicted
    fits = [models.fit_noise_model(kind, counts, base, own) for kind in KINDS]
    best = max(fits, key=lambda fit: fit.evidence)
    rows = smooth(counts, base)
    return ReferenceReport(
        heard=heard,
        agreement=float((predicted == classes)[anchors].mean()),
        distance=float(np.abs(matrix - rows).sum(1).mean() / 2),
        kind=best.kind,
        rate=float(1 - best.transition(base).diagonal().mean()),
        matrix=_nested(rows),
    )


def _nested(matrix: Floats) -> Matrix:
    return tuple(map(tuple, matrix.tolist()))
