import json
from dataclasses import asdict, dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.analysis.diagnosis import Diagnosis
from pipeline.analysis.label_noise import diagnose, rank_labels
from pipeline.analysis.noise_models import Floats, Ints, transition
from pipeline.data.synth.mislabel import LabelNoise

DIGITS = tuple("0123456789")
KIND = {"none": "clean", "shuffled": "random"}  # what the diagnosis calls the generator's
KINDS = ("none", "wrong", "permutation", "shuffled")
CASES = [
    *(LabelNoise(kind) for kind in KINDS),
    *(LabelNoise(kind, n / 10) for kind in ("symmetric", "pairs") for n in range(1, 7)),
]
seeds = st.integers(0, 2**32 - 1)


@dataclass(frozen=True)
class Asked:
    """Simulated pictures, a network that learned from mislabelled ones, and a witness."""

    true: Ints
    labels: Ints
    predictions: Floats
    witness: Floats
    transition: Floats


def ask(
    mislabelling: LabelNoise,
    seed: int = 0,
    images: int = 6000,
    hard: float | Floats = 0.25,
    temperature: float = 1.0,
    error: float = 0.3,
    classes: int = 10,
) -> Asked:
    """Simulate an imperfect network's answers.

    A picture looks like its class for certain, almost; `hard` of them (shares) also look like one
    of two others, and are that sometimes. The network answers with p(label | picture), blunted or
    sharpened by `temperature`, each logit with an `error` (standard deviation) of its own.
    """
    generator = np.random.default_rng(seed)
    looks = generator.integers(0, classes, images)
    other = (looks * 3 + 7 + generator.integers(0, 2, images)) % classes
    sure = 1 - generator.exponential(0.004, images).clip(0, 0.5)
    doubtful = generator.random(images) < np.broadcast_to(hard, classes)[looks]
    sure = np.where(doubtful, generator.uniform(0.5, 1, images), sure)
    true = np.where(generator.random(images) < sure, looks, other)
    seen = np.full((images, classes), 1e-3)
    seen[np.arange(images), looks] += sure
    seen[np.arange(images), other] += 1 - sure
    seen /= seen.sum(1, keepdims=True)

    kind, names = (
        KIND.get(mislabelling.kind, mislabelling.kind),
        mislabelling.apply(np.arange(classes), classes, seed),
    )
    rows = transition(
        kind, mislabelling.rate, classes, names.tolist() if kind == "permutation" else None
    )

    def answer(shares: Floats) -> Floats:
        logits = np.log(shares + 1e-3) / temperature
        odds = np.exp(logits + error * generator.standard_normal(shares.shape))
        return np.asarray(odds / odds.sum(1, keepdims=True))

    labels = mislabelling.apply(true, classes, seed)
    return Asked(true, labels, answer(seen @ rows), answer(seen), rows)


def distance(one: Floats, other: Floats) -> float:
    """Mean total variation of rows."""
    return float(np.abs(one - other).sum(1).mean() / 2)


def numbers(found: Diagnosis) -> dict[str, object]:
    return asdict(replace(found, witness=None))


@pytest.mark.parametrize("made", CASES, ids=str)
def test_every_kind_that_the_generator_makes_is_named_and_measured(made: LabelNoise) -> None:
    asked = ask(made)
    found = diagnose(asked.predictions, asked.labels, DIGITS, asked.witness)
    assert found.kind == KIND.get(made.kind, made.kind)
    assert abs(found.rate - (1 - asked.transition.diagonal().mean())) < 0.03
    assert distance(np.array(found.forward), asked.transition) < 0.03
    assert distance(np.array(found.matrix), asked.transition) < 0.12
    assert found.misfit < 0.05
    assert found.evidence[0].kind == found.kind
    assert found.evidence[0].behind == found.evidence[0].error == 0
    assert all(one.behind * found.labels > 3 for one in found.evidence[1:])
    assert found.witness is not None
    assert found.witness.kind == found.kind
    assert found.witness.distance < 0.15
    if found.kind != "random":
        assert found.witness.heard
        assert found.witness.agreement > 0.95


@settings(max_examples=15)
@given(
    st.sampled_from([case for case in CASES if case.kind != "permutation"]),
    seeds,
    st.floats(0.05, 0.5),
    st.floats(0.6, 1.4),
    st.floats(0, 0.4),
)
def test_the_diagnosis_survives_hard_pictures_and_poor_networks(
    made: LabelNoise, seed: int, hard: float, temperature: float, error: float
) -> None:
    asked = ask(made, seed, hard=hard, temperature=temperature, error=error)
    found = diagnose(asked.predictions, asked.labels, DIGITS)
    assert found.kind == KIND.get(made.kind, made.kind)
    assert abs(found.rate - (1 - asked.transition.diagonal().mean())) < 0.05


@settings(max_examples=3)
@given(seeds)
def test_a_permutation_is_clean_labels_to_all_but_a_witness(seed: int) -> None:
    asked = ask(LabelNoise("permutation"), seed)
    alone = diagnose(asked.predictions, asked.labels, DIGITS)
    told = {one.kind: one.log_likelihood for one in alone.evidence}
    assert alone.kind == "clean"
    assert told["clean"] == told["permutation"]
    assert "or a fixed permutation of the names" in alone.verdict
    assert "only a witness" in alone.verdict

    found = diagnose(asked.predictions, asked.labels, DIGITS, asked.witness)
    assert found.kind == "permutation"
    np.testing.assert_array_equal(found.forward, asked.transition)
    for name, label in zip(DIGITS, asked.transition.argmax(1), strict=True):
        assert f"{name} is called {label}" in found.verdict


def test_a_witness_confirms_clean_labels() -> None:
    asked = ask(LabelNoise())
    found = diagnose(asked.predictions, asked.labels, DIGITS, asked.witness)
    assert found.verdict.startswith("The labels are clean; ")
    assert "permutation" not in found.verdict


@pytest.mark.parametrize("made", ["none", "permutation", "shuffled"])
@pytest.mark.parametrize("witness", ["guesses", "one class", "untrained"])
def test_a_witness_that_knows_nothing_renames_nothing(made: str, witness: str) -> None:
    asked = ask(LabelNoise.parse(made))
    generator = np.random.default_rng(1)
    if witness == "guesses":
        said = generator.dirichlet(np.full(10, 0.3), len(asked.labels))
    elif witness == "one class":
        said = np.tile(np.eye(10)[3], (len(asked.labels), 1))
    else:  # like pictures are called alike, but by three names for ten classes
        said = np.roll(asked.witness, 1, axis=1) @ np.eye(10)[[3, 3, 3, 5, 5, 5, 7, 7, 7, 7]]
    alone = diagnose(asked.predictions, asked.labels, DIGITS)
    found = diagnose(asked.predictions, asked.labels, DIGITS, said)
    assert found.witness is not None
    assert not found.witness.heard
    assert found.witness.agreement < 0.4
    assert numbers(found) == numbers(replace(alone, verdict=found.verdict))
    assert found.verdict.startswith(alone.verdict)


def test_a_poor_witness_is_enough_to_tell_names() -> None:
    asked = ask(LabelNoise("permutation"))
    generator = np.random.default_rng(1)
    lost = generator.random(len(asked.labels)) < 0.4
    said = np.where(lost[:, None], np.eye(10)[generator.integers(0, 3, len(lost))], asked.witness)
    found = diagnose(asked.predictions, asked.labels, DIGITS, said)
    assert found.kind == "permutation"
    np.testing.assert_array_equal(found.forward, asked.transition)
    assert found.witness is not None
    assert 0.5 < found.witness.agreement < 0.75


def test_a_witness_sees_what_a_network_did_not_learn() -> None:
    asked = ask(LabelNoise("symmetric", 0.4))
    idle = np.random.default_rng(1).dirichlet(np.full(10, 50), len(asked.labels))
    found = diagnose(idle, asked.labels, DIGITS, asked.witness)
    assert found.kind == "random"
    assert found.assumption == "Assumed: that the network learned what there was to learn."
    assert found.verdict.endswith("By the witness's names alone they look symmetric.")
    assert found.witness is not None
    assert abs(found.witness.rate - 0.4) < 0.05


@pytest.mark.parametrize("rate", [0.3, 0.5, 0.6])
def test_pair_flips_name_the_direction_that_they_assume(rate: float) -> None:
    asked = ask(LabelNoise("pairs", rate))
    alone = diagnose(asked.predictions, asked.labels, DIGITS)
    assert alone.kind == "pairs"
    assert f"({1 - alone.rate:.0%} going to the one before" in alone.assumption
    told = diagnose(asked.predictions, asked.labels, DIGITS, asked.witness)
    assert "the one before" not in told.assumption
    assert "that the witness knows the names" in told.assumption


@pytest.mark.parametrize(("made", "bits"), [("none", 0), ("wrong", np.log2(9))])
def test_entropy_and_information_are_those_of_the_labels(made: str, bits: float) -> None:
    asked = ask(LabelNoise.parse(made), images=30_000, hard=0.1)
    found = diagnose(asked.predictions, asked.labels, DIGITS)
    assert found.entropy == pytest.approx(bits, abs=0.1)
    assert found.information == pytest.approx(np.log2(10) - bits, abs=0.1)


def test_the_least_rate_that_would_show_does_show_and_falls_with_more_labels() -> None:
    least = []
    for images in (1000, 3000, 9000):
        asked = ask(LabelNoise(), images=images)
        found = diagnose(asked.predictions, asked.labels, DIGITS)
        assert found.kind == "clean"
        assert found.detectable is not None
        assert f"noise below {found.detectable:.1%} might not have shown" in found.verdict
        least.append(found.detectable)
        noisy = ask(LabelNoise("symmetric", found.detectable), images=images)
        assert diagnose(noisy.predictions, noisy.labels, DIGITS).kind == "symmetric"
    assert least[0] > least[1] > least[2]
    assert diagnose(noisy.predictions, noisy.labels, DIGITS).detectable is None


@settings(max_examples=5)
@given(seeds)
def test_hard_classes_are_not_noise(seed: int) -> None:
    hard = np.full(10, 0.1)
    hard[[2, 4, 6]] = 1  # no pullover, coat or shirt is beyond doubt, say
    asked = ask(LabelNoise(), seed, hard=hard)
    found = diagnose(asked.predictions, asked.labels, DIGITS, asked.witness)
    assert found.kind == "clean"


def test_what_no_kind_fits_is_said_to_be_so() -> None:
    asked = ask(LabelNoise())
    generator = np.random.default_rng(1)
    lumped = (asked.true % 2 == 0) & (generator.random(len(asked.true)) < 0.4)  # even ones to 9
    labels = np.where(lumped, 9, asked.true)
    rows = np.eye(10)
    rows[::2] = 0.6 * rows[::2] + 0.4 * rows[9]
    predictions = asked.predictions @ rows
    found = diagnose(predictions, labels, DIGITS, asked.witness)
    assert found.misfit > 0.1
    assert "No kind fits well" in found.verdict
    assert distance(np.array(found.matrix), rows) < 0.05  # which is still counted


@settings(max_examples=4)
@given(st.sampled_from(CASES), seeds)
def test_the_order_of_the_pictures_is_no_matter(made: LabelNoise, seed: int) -> None:
    asked = ask(made, images=1500)
    order = np.random.default_rng(seed).permutation(1500)
    found = diagnose(asked.predictions, asked.labels, DIGITS, asked.witness)
    again = diagnose(asked.predictions[order], asked.labels[order], DIGITS, asked.witness[order])
    assert again.kind == found.kind
    np.testing.assert_allclose(again.matrix, found.matrix)


@pytest.mark.parametrize("classes", [3, 5, 20])
def test_any_number_of_classes_will_do(classes: int) -> None:
    for made in (LabelNoise(), LabelNoise("symmetric", 0.3), LabelNoise("wrong")):
        asked = ask(made, images=200 * classes, classes=classes, error=0.1)
        found = diagnose(asked.predictions, asked.labels, [f"class {k}" for k in range(classes)])
        assert found.kind == KIND.get(made.kind, made.kind)


def test_a_diagnosis_is_plain_data() -> None:
    asked = ask(LabelNoise("pairs", 0.3), images=1000)
    found = diagnose(asked.predictions, asked.labels, DIGITS, asked.witness)
    read = json.loads(json.dumps(asdict(found)))
    assert read["matrix"] == [list(row) for row in found.matrix]
    assert read["evidence"][0]["kind"] == "pairs"
    np.testing.assert_allclose(np.array(found.forward).sum(1), 1)
    np.testing.assert_allclose(np.array(found.matrix).sum(1), 1)


@given(st.integers(1, 60), st.integers(2, 6), seeds)
def test_a_look_counts_what_it_says(images: int, classes: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    predictions = generator.dirichlet(np.ones(classes), images)
    labels = generator.integers(0, classes, images)
    seen = rank_labels(predictions, labels)
    assert seen.accuracy == pytest.approx((predictions.argmax(1) == labels).mean())
    assert seen.backwards == pytest.approx((predictions.argmin(1) == labels).mean())
    assert sum(seen.ranks) == pytest.approx(1)
    for label in range(classes):
        of_it = predictions[labels == label].argmax(1)
        shares = np.bincount(of_it, minlength=classes) / max(len(of_it), 1)
        np.testing.assert_allclose(seen.histogram[label], shares)


def test_a_network_of_complementary_labels_is_right_when_read_backwards() -> None:
    asked = ask(LabelNoise("wrong"), hard=0.1)
    seen = rank_labels(asked.predictions, asked.true)
    assert seen.accuracy < 0.05
    assert seen.backwards > 0.9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.zeros(5, np.int64)}, r"probabilities: got shape \(60, 3\), expected \(5, 3"),
        ({"labels": np.full(60, 3)}, "labels: got 3 to 3, expected 0 to 2"),
        ({"labels": np.full(60, -1)}, "labels: got -1 to -1, expected 0 to 2"),
        ({"probabilities": np.full((60, 3), 0.5)}, "probabilities: got rows that are no prob"),
        ({"probabilities": np.full((60, 3), np.nan)}, "probabilities: got rows that are no prob"),
        ({"witness": np.full((60, 3), np.nan)}, "witness: got rows that are no probabilities"),
        ({"witness": np.full((59, 3), 1 / 3)}, r"witness: got shape \(59, 3\)"),
        ({"classes": "abcd"}, r"probabilities: got shape \(60, 3\), expected \(60, 4\)"),
        (
            {
                "probabilities": np.full((60, 2), 0.5),
                "labels": np.zeros(60, np.int64),
                "classes": "ab",
            },
            "diagnose: got 2 classes and 60 pictures",
        ),
        (
            {"probabilities": np.full((29, 3), 1 / 3), "labels": np.zeros(29, np.int64)},
            "diagnose: got 3 classes and 29 pictures",
        ),
        (
            {"probabilities": np.empty((0, 3)), "labels": np.zeros(0, np.int64)},
            "labels: got none, expected 0 to 2",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(change: dict[str, object], message: str) -> None:
    good: dict[str, object] = {
        "probabilities": np.full((60, 3), 1 / 3),
        "labels": np.arange(60) % 3,
        "classes": "abc",
    }
    diagnose(**good)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message) as caught:
        diagnose(**{**good, **change})  # type: ignore[arg-type]
    assert len(str(caught.value).splitlines()) == 1
