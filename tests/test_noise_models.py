import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from made_up import STATISTICAL
from scipy.stats import beta

from pipeline.analysis.noise_models import (
    KINDS,
    OUTLIER_PRIOR,
    RATED,
    Floats,
    fit_noise_model,
    log_likelihood,
    transition,
)

seeds = st.integers(0, 2**32 - 1)
rates = st.floats(0, 1)
class_counts = st.integers(2, 12)


def zeros(classes: int) -> Floats:
    return np.zeros((classes, classes))


def even(classes: int) -> Floats:
    return np.full(classes, 1 / classes)


def sample_counts(rows: Floats, each: int, seed: int) -> Floats:
    """Counts of `each` labels per row, sampled from rows of probabilities in random order."""
    generator = np.random.default_rng(seed)
    return np.asarray(generator.multinomial(each, generator.permutation(rows)), np.float64)


@given(st.sampled_from(KINDS), rates, class_counts, seeds)
def test_a_transition_matrix_has_rows_of_probabilities(
    kind: str, rate: float, classes: int, seed: int
) -> None:
    names = np.random.default_rng(seed).permutation(classes).tolist()
    rows = transition(kind, rate, classes, names)
    assert (rows >= 0).all()
    np.testing.assert_allclose(rows.sum(1), 1)
    if kind in RATED:
        np.testing.assert_allclose(1 - rows.diagonal(), rate, atol=1e-12)


def test_transition_matrices_that_are_known() -> None:
    np.testing.assert_array_equal(
        transition("symmetric", 0.5, 3), [[0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [0.25, 0.25, 0.5]]
    )
    np.testing.assert_array_equal(
        transition("pairs", 0.25, 3), [[0.75, 0.25, 0], [0, 0.75, 0.25], [0.25, 0, 0.75]]
    )
    np.testing.assert_array_equal(
        transition("wrong", 0, 3), [[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
    )
    np.testing.assert_array_equal(
        transition("permutation", 0, 3, [1, 2, 0]), [[0, 1, 0], [0, 0, 1], [1, 0, 0]]
    )


@given(class_counts)
def test_kinds_meet_where_their_rates_end(classes: int) -> None:
    clean, wrong = (transition(kind, 0, classes) for kind in ("clean", "wrong"))
    np.testing.assert_array_equal(transition("symmetric", 0, classes), clean)
    np.testing.assert_allclose(transition("symmetric", 1, classes), wrong)
    np.testing.assert_allclose(
        transition("symmetric", 1 - 1 / classes, classes), transition("random", 0, classes)
    )
    one_on = np.roll(np.arange(classes), -1).tolist()
    np.testing.assert_array_equal(
        transition("pairs", 1, classes), transition("permutation", 0, classes, one_on)
    )


@pytest.mark.parametrize(
    ("kind", "rate", "classes", "names", "message"),
    [
        ("noise", 0, 3, None, "kind: got 'noise', expected one of clean, "),
        ("pairs", 1.5, 3, None, "rate: got 1.5, expected 0 to 1"),
        ("pairs", float("nan"), 3, None, "rate: got nan"),
        ("clean", 0, 1, None, "classes: got 1, expected at least 2"),
        ("permutation", 0, 3, None, "permutation: got None, expected one of 3"),
        ("permutation", 0, 3, [0, 1, 1], "permutation: got "),
    ],
)
def test_invalid_transitions_are_rejected(
    kind: str, rate: float, classes: int, names: list[int] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        transition(kind, rate, classes, names)


@settings(STATISTICAL, max_examples=20)
@given(seeds, st.integers(0, 60), st.sampled_from(["clean", "symmetric", "wrong"]))
def test_likelihoods_are_the_integral_over_the_outliers(seed: int, labels: int, kind: str) -> None:
    rows = transition(kind, 0.3, 3)
    counts = np.random.default_rng(seed).multinomial(labels, [0.6, 0.3, 0.1], 3).astype(float)
    base = np.array([0.5, 0.3, 0.2])

    # Integrates over the square roots of the fractions, whose density has a pole at 0.
    roots = (np.arange(4000) + 0.5) / 4000
    density = (0.7 * beta.pdf(roots**2, 0.5, 20) + 0.3) * 2 * roots / 4000
    fractions = (roots**2)[:, None, None]
    exact = np.einsum(
        "s,srg->gr", density, np.exp(np.log((1 - fractions) * rows + fractions * base) @ counts.T)
    )
    got = log_likelihood(counts, rows, base, OUTLIER_PRIOR)
    np.testing.assert_allclose(got, np.log(exact), rtol=0.01, atol=0.05)


@settings(STATISTICAL, max_examples=20)
@given(seeds, st.sampled_from(["clean", "symmetric", "pairs", "wrong", "random"]))
@example(371, "symmetric")
def test_the_kind_that_counts_were_sampled_from_fits_them_best(seed: int, kind: str) -> None:
    rate = 0.1 + 0.5 * (seed % 97) / 97
    counts = sample_counts(transition(kind, rate, 10), 200, seed)
    fits = {other: fit_noise_model(other, counts, even(10), zeros(10)) for other in KINDS}
    best = max(KINDS, key=lambda other: fits[other].evidence)
    assert best == kind
    if kind in RATED:
        low, high = fits[kind].rate_interval
        assert low <= fits[kind].rate <= high
        # Five standard errors of a rate over 2,000 labels; 2 of 400 seeds are off by over 0.04.
        assert abs(fits[kind].rate - rate) < 0.06
    if kind != "random":
        order = fits[kind].group_classes.argsort()
        np.testing.assert_allclose((counts / 200)[order], transition(kind, rate, 10), atol=0.16)


@settings(STATISTICAL, max_examples=20)
@given(seeds, st.integers(3, 10))
def test_a_permutation_fits_exactly_as_clean_labels_until_names_are_known(
    seed: int, classes: int
) -> None:
    counts = sample_counts(transition("symmetric", 0.02, classes), 100, seed)
    clean, renamed = (
        fit_noise_model(kind, counts, even(classes), zeros(classes))
        for kind in ("clean", "permutation")
    )
    assert clean.evidence == renamed.evidence
    named = np.random.default_rng(seed).permutation(classes)  # each group's class
    reference = np.where(np.eye(classes)[named], 0, -200.0)
    clean, renamed = (
        fit_noise_model(kind, counts, even(classes), reference) for kind in ("clean", "permutation")
    )
    if (named == counts.argmax(1)).all():
        assert clean.evidence > renamed.evidence
    else:
        assert renamed.evidence > clean.evidence
        labels = counts.argmax(1)[named.argsort()].tolist()
        np.testing.assert_array_equal(
            renamed.transition(even(classes)), transition("permutation", 0, classes, labels)
        )


@settings(STATISTICAL, max_examples=10)
@given(seeds)
def test_outliers_are_distinguished_from_noise_in_every_class(seed: int) -> None:
    generator = np.random.default_rng(seed)
    outliers = np.where(np.arange(10) < 3, 0.3, 0.01)[:, None]
    counts = generator.multinomial(300, (1 - outliers) * np.eye(10) + outliers / 10).astype(float)
    alike = generator.multinomial(300, transition("symmetric", outliers.mean(), 10)).astype(float)
    for table, expected in ((counts, "clean"), (alike, "symmetric")):
        fits = [
            fit_noise_model(kind, table, even(10), zeros(10)) for kind in ("clean", "symmetric")
        ]
        assert max(fits, key=lambda one: one.evidence).kind == expected
    assert (
        abs(fit_noise_model("clean", counts, even(10), zeros(10)).outliers[:3].mean() - 0.3) < 0.08
    )


def test_groups_without_labels_are_explained_by_any_kind() -> None:
    for kind in KINDS:
        assert np.isfinite(fit_noise_model(kind, zeros(4), even(4), zeros(4)).evidence)
