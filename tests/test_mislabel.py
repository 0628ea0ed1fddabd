import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pipeline.data.base import Ints
from pipeline.data.sources import SourceError
from pipeline.data.synth.mislabel import KINDS, KINDS_WITH_RATE, Flip, LabelNoise

seeds = st.integers(0, 2**63 - 1)
rates = st.integers(0, 1000).map(lambda n: n / 1000)
class_counts = st.integers(2, 62)
N = 3000


def truth(classes: int, n: int = N) -> Ints:
    labels: Ints = np.random.default_rng(classes).integers(0, classes, n)
    return labels


def within(count: int, n: int, share: float) -> bool:
    """Whether so many of n are what chance gives, in all but one case of 10^9."""
    return bool(abs(count - n * share) <= 6.5 * np.sqrt(n * share * (1 - share)) + 3)


@given(seeds, class_counts)
def test_no_label_of_a_wrong_set_is_right(seed: int, classes: int) -> None:
    true = truth(classes)
    labels = LabelNoise("wrong").apply(true, classes, seed)
    assert (labels != true).all()
    assert labels.min() >= 0
    assert labels.max() < classes


@given(seeds)
def test_all_wrong_labels_are_as_likely(seed: int) -> None:
    true = truth(10)
    labels = LabelNoise("wrong").apply(true, 10, seed)
    for digit in range(10):
        of_digit = labels[true == digit]
        for wrong in set(range(10)) - {digit}:
            assert within((of_digit == wrong).sum(), len(of_digit), 1 / 9)


@given(seeds, class_counts, rates)
def test_symmetric_noise_has_its_rate_and_goes_to_all_others(
    seed: int, classes: int, rate: float
) -> None:
    true = truth(classes)
    labels = LabelNoise("symmetric", rate).apply(true, classes, seed)
    wrong = labels != true
    assert within(wrong.sum(), N, rate)
    steps = np.bincount((labels - true)[wrong] % classes, minlength=classes)
    for step in steps[1:]:
        assert within(step, wrong.sum(), 1 / (classes - 1))


@given(seeds, class_counts, rates)
def test_pairs_flip_to_the_next_class_at_their_rate(seed: int, classes: int, rate: float) -> None:
    true = truth(classes)
    labels = LabelNoise("pairs", rate).apply(true, classes, seed)
    wrong = labels != true
    assert within(wrong.sum(), N, rate)
    assert (labels[wrong] == (true[wrong] + 1) % classes).all()


@given(seeds)
def test_flips_have_their_rates_and_change_no_other_class(seed: int) -> None:
    true, noise = truth(5), LabelNoise.parse("flips=2:4:0.2,2:0:.3,3:1:1")
    labels = noise.apply(true, 5, seed)
    for label, rate in ((4, 0.2), (0, 0.3), (2, 0.5)):
        assert within((labels[true == 2] == label).sum(), (true == 2).sum(), rate)
    assert (labels[true == 3] == 1).all()
    others = ~np.isin(true, (2, 3))
    np.testing.assert_array_equal(labels[others], true[others])


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(5, 9), rates), min_size=1, max_size=5))
def test_flips_are_written_as_they_are_read(flips: list[tuple[int, int, float]]) -> None:
    flips = [(true, label, rate / 5) for true, label, rate in flips if rate >= 0.01]
    assume(flips)
    noise = LabelNoise.of_flips([Flip(*flip) for flip in flips])
    assert LabelNoise.parse(str(noise)) == LabelNoise.parse(str(LabelNoise.parse(str(noise))))
    assert str(LabelNoise.parse(str(noise))) == str(noise)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("flips=1:1:0.2", "got 1:1:0.2, expected another label"),
        ("flips=1:2:0.6,1:3:0.6", "got rates of class 1 with the sum 1.2, expected at most 1"),
        ("flips=1:2:0.5,9:3:0.5", "got 9:3:0.5, expected 0 to 4"),
    ],
)
def test_flips_that_cannot_be_are_refused(text: str, reason: str) -> None:
    with pytest.raises(SourceError, match=reason) as caught:
        LabelNoise.parse(text).apply(truth(5), 5, 0)
    assert len(str(caught.value).splitlines()) == 1


@given(seeds, class_counts)
def test_a_permutation_renames_every_class(seed: int, classes: int) -> None:
    names = LabelNoise("permutation").apply(np.arange(classes), classes, seed)
    assert sorted(names) == list(range(classes))
    assert (names != np.arange(classes)).all()
    true = truth(classes)
    np.testing.assert_array_equal(LabelNoise("permutation").apply(true, classes, seed), names[true])


@given(seeds, class_counts)
def test_shuffled_labels_are_the_same_ones_and_say_nothing(seed: int, classes: int) -> None:
    true = np.maximum(truth(classes + 2) - 2, 0)  # not all as frequent
    labels = LabelNoise("shuffled").apply(true, classes, seed)
    share = np.bincount(true, minlength=classes) / N
    np.testing.assert_array_equal(np.bincount(labels, minlength=classes) / N, share)
    assert (labels != true).any()
    assert within((labels == true).sum(), N, float((share**2).sum()))
    ordered = LabelNoise("shuffled").apply(np.sort(true), classes, seed)
    assert (np.diff(ordered) < 0).any()


@given(seeds, st.sampled_from(KINDS + KINDS_WITH_RATE), st.floats(0, 1), class_counts)
def test_labels_are_functions_of_the_seed_alone(
    seed: int, kind: str, rate: float, classes: int
) -> None:
    true = truth(classes, 100)
    before = true.copy()
    labels, again = (LabelNoise(kind, rate).apply(true, classes, seed) for _ in range(2))
    np.testing.assert_array_equal(labels, again)
    np.testing.assert_array_equal(true, before)
    if kind == "none":
        np.testing.assert_array_equal(labels, true)


@pytest.mark.parametrize("kind", sorted({*KINDS, *KINDS_WITH_RATE} - {"none"}))
def test_another_seed_mislabels_otherwise(kind: str) -> None:
    rate = 0.5 if kind in KINDS_WITH_RATE else 1.0
    drawn = {LabelNoise(kind, rate).apply(truth(10), 10, seed).tobytes() for seed in range(9)}
    assert len(drawn) == 9
    assert truth(10).tobytes() not in drawn


@given(st.sampled_from(KINDS + KINDS_WITH_RATE), rates)
def test_a_kind_is_written_as_it_is_read(kind: str, rate: float) -> None:
    text = f"{kind}={rate:g}" if kind in KINDS_WITH_RATE else kind
    assume(text not in {f"{k}=0" for k in KINDS_WITH_RATE})
    read = LabelNoise.parse(text)
    assert (read.kind, str(read)) == (kind, text)
    assert read.rate == (rate if kind in KINDS_WITH_RATE else 1)


@pytest.mark.parametrize(
    "text",
    [
        *("", "some", "Wrong", "wrong ", "wrong=0.5", "none=1", "symmetric", "pairs", "pairs="),
        *("symmetric=1.5", "symmetric=-0.1", "symmetric=40%", "pairs=nan", "pairs=1e-3", "0.4"),
        *("symmetric=0,4", "symmetric=0.4\n", "symmetric=.", "permutation=", "shuffled,wrong"),
        *("flips", "flips=", "flips=1:2", "flips=1:2:20%", "flips=a:b:0.2", "flips=1:2:0.2,"),
    ],
)
def test_what_is_no_kind_is_refused(text: str) -> None:
    with pytest.raises(SourceError, match="expected none, wrong, ") as caught:
        LabelNoise.parse(text)
    assert len(str(caught.value).splitlines()) == 1
