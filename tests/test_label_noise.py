import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from made_up import STATISTICAL

from pipeline.analysis.diagnosis import Diagnosis
from pipeline.analysis.label_noise import diagnose, rank_labels
from pipeline.analysis.noise_models import Floats, Ints, transition
from pipeline.data.synth.mislabel import LabelNoise

DIGITS = tuple("0123456789")
KIND = {"none": "clean", "shuffled": "random"}  # kinds by the names of the diagnosis
PLAIN = ("none", "wrong", "permutation", "shuffled")
CASES = [
    *(LabelNoise(kind) for kind in PLAIN),
    *(LabelNoise(kind, n / 10) for kind in ("symmetric", "pairs") for n in range(1, 7)),
]
seeds = st.integers(0, 2**32 - 1)


@dataclass(frozen=True)
class Simulation:
    """Simulated images, a network trained on mislabelled ones, and a reference model."""

    true: Ints
    labels: Ints
    predictions: Floats
    reference: Floats
    transition: Floats


def rows_of(mislabelling: LabelNoise, classes: int, seed: int = 0) -> Floats:
    """Return p(given label | true class) of label noise."""
    if mislabelling.kind == "flips":
        rows = np.eye(classes)
        for flip in mislabelling.flips:
            rows[flip.true, [flip.true, flip.label]] += [-flip.rate, flip.rate]
        return rows
    kind = KIND.get(mislabelling.kind, mislabelling.kind)
    names = mislabelling.apply(np.arange(classes), classes, seed).tolist()
    return transition(kind, mislabelling.rate, classes, names if kind == "permutation" else None)


def simulate(
    mislabelling: LabelNoise,
    seed: int = 0,
    images: int = 6000,
    hard: float | Floats = 0.25,
    temperature: float = 1.0,
    error: float = 0.3,
    classes: int = 10,
    frequencies: Sequence[float] | None = None,
) -> Simulation:
    """Simulate the predictions of an imperfect network.

    Most images are of one class almost surely; the fraction `hard` also resemble one of two others,
    and some of these are of that class. The network predicts p(label | image), with a
    `temperature` and an independent `error` (standard deviation) of each logit. Classes are equally
    frequent without `frequencies`.
    """
    generator = np.random.default_rng(seed)
    looks = generator.integers(0, classes, images)
    if frequencies is not None:
        looks = generator.choice(classes, images, p=frequencies)
    other = (looks * 3 + 7 + generator.integers(0, 2, images)) % classes
    sure = 1 - generator.exponential(0.004, images).clip(0, 0.5)
    doubtful = generator.random(images) < np.broadcast_to(hard, classes)[looks]
    sure = np.where(doubtful, generator.uniform(0.5, 1, images), sure)
    true = np.where(generator.random(images) < sure, looks, other)
    seen = np.full((images, classes), 1e-3)
    seen[np.arange(images), looks] += sure
    seen[np.arange(images), other] += 1 - sure
    seen /= seen.sum(1, keepdims=True)

    rows = rows_of(mislabelling, classes, seed)

    def predict(probabilities: Floats) -> Floats:
        logits = np.log(probabilities + 1e-3) / temperature
        odds = np.exp(logits + error * generator.standard_normal(probabilities.shape))
        return np.asarray(odds / odds.sum(1, keepdims=True))

    labels = mislabelling.apply(true, classes, seed)
    return Simulation(true, labels, predict(seen @ rows), predict(seen), rows)


def distance(one: Floats, other: Floats) -> float:
    """Mean total variation of rows."""
    return float(np.abs(one - other).sum(1).mean() / 2)


def numbers(found: Diagnosis) -> dict[str, object]:
    return asdict(replace(found, witness=None))


@pytest.mark.parametrize("made", CASES, ids=str)
def test_every_generated_kind_is_identified_and_measured(made: LabelNoise) -> None:
    simulation = simulate(made)
    found = diagnose(simulation.predictions, simulation.labels, DIGITS, simulation.reference)
    assert found.kind == KIND.get(made.kind, made.kind)
    assert abs(found.rate - (1 - simulation.transition.diagonal().mean())) < 0.03
    assert distance(np.array(found.forward), simulation.transition) < 0.03
    assert distance(np.array(found.matrix), simulation.transition) < 0.12
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


@settings(STATISTICAL, max_examples=15)
@given(
    st.sampled_from([case for case in CASES if case.kind != "permutation"]),
    seeds,
    st.floats(0.05, 0.5),
    st.floats(0.6, 1.4),
    st.floats(0, 0.4),
)
@example(LabelNoise("symmetric", 0.3), 2453, 0.375, 1.0, 0.0)
def test_the_diagnosis_holds_for_hard_images_and_poor_networks(
    made: LabelNoise, seed: int, hard: float, temperature: float, error: float
) -> None:
    simulation = simulate(made, seed, hard=hard, temperature=temperature, error=error)
    found = diagnose(simulation.predictions, simulation.labels, DIGITS)
    assert found.kind == KIND.get(made.kind, made.kind)
    # Of 600 simulations, one is off by 0.05, all others by at most 0.04.
    assert abs(found.rate - (1 - simulation.transition.diagonal().mean())) < 0.075


@settings(STATISTICAL, max_examples=3)
@given(seeds)
def test_only_a_reference_model_distinguishes_a_permutation_from_clean_labels(seed: int) -> None:
    simulation = simulate(LabelNoise("permutation"), seed)
    alone = diagnose(simulation.predictions, simulation.labels, DIGITS)
    evidence = {one.kind: one.log_likelihood for one in alone.evidence}
    assert alone.kind == "clean"
    assert evidence["clean"] == evidence["permutation"]
    assert "or the class names are permuted" in alone.verdict
    assert "only a reference model" in alone.verdict

    found = diagnose(simulation.predictions, simulation.labels, DIGITS, simulation.reference)
    assert found.kind == "permutation"
    np.testing.assert_array_equal(found.forward, simulation.transition)
    for name, label in zip(DIGITS, simulation.transition.argmax(1), strict=True):
        assert f"{name} is labelled {label}" in found.verdict


def test_a_reference_model_confirms_clean_labels() -> None:
    simulation = simulate(LabelNoise())
    found = diagnose(simulation.predictions, simulation.labels, DIGITS, simulation.reference)
    assert found.verdict.startswith("The labels are clean; ")
    assert "permutation" not in found.verdict


@pytest.mark.parametrize("made", ["none", "permutation", "shuffled"])
@pytest.mark.parametrize("reference", ["guesses", "one class", "untrained"])
def test_a_reference_model_that_knows_nothing_changes_nothing(made: str, reference: str) -> None:
    simulation = simulate(LabelNoise.parse(made))
    generator = np.random.default_rng(1)
    if reference == "guesses":
        outputs = generator.dirichlet(np.full(10, 0.3), len(simulation.labels))
    elif reference == "one class":
        outputs = np.tile(np.eye(10)[3], (len(simulation.labels), 1))
    else:  # similar images get the same prediction, but only three classes occur
        outputs = (
            np.roll(simulation.reference, 1, axis=1) @ np.eye(10)[[3, 3, 3, 5, 5, 5, 7, 7, 7, 7]]
        )
    alone = diagnose(simulation.predictions, simulation.labels, DIGITS)
    found = diagnose(simulation.predictions, simulation.labels, DIGITS, outputs)
    assert found.witness is not None
    assert not found.witness.heard
    assert found.witness.agreement < 0.4
    assert numbers(found) == numbers(replace(alone, verdict=found.verdict))
    assert found.verdict.startswith(alone.verdict)


def test_a_poor_reference_model_is_enough_to_find_names() -> None:
    simulation = simulate(LabelNoise("permutation"))
    generator = np.random.default_rng(1)
    replaced = generator.random(len(simulation.labels)) < 0.4
    outputs = np.where(
        replaced[:, None], np.eye(10)[generator.integers(0, 3, len(replaced))], simulation.reference
    )
    found = diagnose(simulation.predictions, simulation.labels, DIGITS, outputs)
    assert found.kind == "permutation"
    np.testing.assert_array_equal(found.forward, simulation.transition)
    assert found.witness is not None
    assert 0.5 < found.witness.agreement < 0.75


def test_a_reference_model_finds_what_an_untrained_network_does_not() -> None:
    simulation = simulate(LabelNoise("symmetric", 0.4))
    idle = np.random.default_rng(1).dirichlet(np.full(10, 50), len(simulation.labels))
    found = diagnose(idle, simulation.labels, DIGITS, simulation.reference)
    assert found.kind == "random"
    assert found.assumption == (
        "Assumptions: the network was trained well enough to find any dependence."
    )
    assert found.verdict.endswith(
        "By the reference model's predictions alone, the kind is symmetric."
    )
    assert found.witness is not None
    assert abs(found.witness.rate - 0.4) < 0.05


@pytest.mark.parametrize("rate", [0.3, 0.5, 0.6])
def test_pair_flips_report_the_direction_that_they_assume(rate: float) -> None:
    simulation = simulate(LabelNoise("pairs", rate))
    alone = diagnose(simulation.predictions, simulation.labels, DIGITS)
    assert alone.kind == "pairs"
    assert f"({1 - alone.rate:.0%} flipped to the previous one" in alone.assumption
    informed = diagnose(simulation.predictions, simulation.labels, DIGITS, simulation.reference)
    assert "the previous one" not in informed.assumption
    assert "the reference model knows the class names" in informed.assumption


@pytest.mark.parametrize(("made", "bits"), [("none", 0), ("wrong", np.log2(9))])
def test_entropy_and_information_are_those_of_the_labels(made: str, bits: float) -> None:
    simulation = simulate(LabelNoise.parse(made), images=30_000, hard=0.1)
    found = diagnose(simulation.predictions, simulation.labels, DIGITS)
    assert found.entropy == pytest.approx(bits, abs=0.1)
    assert found.information == pytest.approx(np.log2(10) - bits, abs=0.1)


def test_the_detectable_rate_is_detected_and_falls_with_more_labels() -> None:
    least = []
    for images in (1000, 3000, 9000):
        simulation = simulate(LabelNoise(), images=images)
        found = diagnose(simulation.predictions, simulation.labels, DIGITS)
        assert found.kind == "clean"
        assert found.detectable is not None
        assert f"may be undetected: symmetric below {found.detectable:.1%} of" in found.verdict
        least.append(found.detectable)
        noisy = simulate(LabelNoise("symmetric", found.detectable), images=images)
        assert diagnose(noisy.predictions, noisy.labels, DIGITS).kind == "symmetric"
    assert least[0] > least[1] > least[2]
    assert diagnose(noisy.predictions, noisy.labels, DIGITS).detectable is None


@settings(STATISTICAL, max_examples=5)
@given(seeds)
def test_hard_classes_are_not_noise(seed: int) -> None:
    hard = np.full(10, 0.1)
    hard[[2, 4, 6]] = 1  # no pullover, coat or shirt is beyond doubt, say
    simulation = simulate(LabelNoise(), seed, hard=hard)
    found = diagnose(simulation.predictions, simulation.labels, DIGITS, simulation.reference)
    assert found.kind == "clean"


def test_noise_that_no_kind_fits_is_class_dependent() -> None:
    simulation = simulate(LabelNoise())
    generator = np.random.default_rng(1)
    lumped = (simulation.true % 2 == 0) & (
        generator.random(len(simulation.true)) < 0.4
    )  # even ones to 9
    labels = np.where(lumped, 9, simulation.true)
    rows = np.eye(10)
    rows[::2] = 0.6 * rows[::2] + 0.4 * rows[9]
    predictions = simulation.predictions @ rows
    found = diagnose(predictions, labels, DIGITS, simulation.reference)
    assert found.kind == "class-dependent"
    assert "No known kind fits" in found.verdict
    assert found.misfit < 0.05
    assert {(entry.true, entry.label) for entry in found.entries} == {
        (k, 9) for k in range(0, 9, 2)
    }
    assert distance(np.array(found.matrix), rows) < 0.05
    assert distance(np.array(found.forward), rows) < 0.05


@settings(STATISTICAL, max_examples=4)
@given(st.sampled_from(CASES), seeds)
def test_the_order_of_the_images_does_not_matter(made: LabelNoise, seed: int) -> None:
    simulation = simulate(made, images=1500)
    order = np.random.default_rng(seed).permutation(1500)
    found = diagnose(simulation.predictions, simulation.labels, DIGITS, simulation.reference)
    again = diagnose(
        simulation.predictions[order], simulation.labels[order], DIGITS, simulation.reference[order]
    )
    assert again.kind == found.kind
    np.testing.assert_allclose(again.matrix, found.matrix)


@pytest.mark.parametrize("classes", [3, 5, 20])
def test_any_number_of_classes_will_do(classes: int) -> None:
    for made in (LabelNoise(), LabelNoise("symmetric", 0.3), LabelNoise("wrong")):
        simulation = simulate(made, images=200 * classes, classes=classes, error=0.1)
        found = diagnose(
            simulation.predictions, simulation.labels, [f"class {k}" for k in range(classes)]
        )
        assert found.kind == KIND.get(made.kind, made.kind)


def test_a_diagnosis_is_plain_data() -> None:
    simulation = simulate(LabelNoise("pairs", 0.3), images=1000)
    found = diagnose(simulation.predictions, simulation.labels, DIGITS, simulation.reference)
    read = json.loads(json.dumps(asdict(found)))
    assert read["matrix"] == [list(row) for row in found.matrix]
    assert read["evidence"][0]["kind"] == "pairs"
    np.testing.assert_allclose(np.array(found.forward).sum(1), 1)
    np.testing.assert_allclose(np.array(found.matrix).sum(1), 1)


@given(st.integers(1, 60), st.integers(2, 6), seeds)
def test_ranks_and_histogram_by_definition(images: int, classes: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    predictions = generator.dirichlet(np.ones(classes), images)
    labels = generator.integers(0, classes, images)
    seen = rank_labels(predictions, labels)
    assert seen.ranks[0] == pytest.approx((predictions.argmax(1) == labels).mean())
    assert seen.ranks[-1] == pytest.approx((predictions.argmin(1) == labels).mean())
    assert sum(seen.ranks) == pytest.approx(1)
    for label in range(classes):
        of_it = predictions[labels == label].argmax(1)
        shares = np.bincount(of_it, minlength=classes) / max(len(of_it), 1)
        np.testing.assert_allclose(seen.histogram[label], shares)


def test_argmin_is_correct_for_a_network_trained_on_complementary_labels() -> None:
    simulation = simulate(LabelNoise("wrong"), hard=0.1)
    seen = rank_labels(simulation.predictions, simulation.true)
    assert seen.ranks[0] < 0.05
    assert seen.ranks[-1] > 0.9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.zeros(5, np.int64)}, r"probabilities: got shape \(60, 3\), expected \(5, 3"),
        ({"labels": np.full(60, 3)}, "labels: got 3 to 3, expected 0 to 2"),
        ({"labels": np.full(60, -1)}, "labels: got -1 to -1, expected 0 to 2"),
        ({"probabilities": np.full((60, 3), 0.5)}, "probabilities: got rows that are not prob"),
        ({"probabilities": np.full((60, 3), np.nan)}, "probabilities: got rows that are not prob"),
        ({"reference": np.full((60, 3), np.nan)}, "reference: got rows that are not prob"),
        ({"reference": np.full((59, 3), 1 / 3)}, r"reference: got shape \(59, 3\)"),
        ({"classes": "abcd"}, r"probabilities: got shape \(60, 3\), expected \(60, 4\)"),
        (
            {
                "probabilities": np.full((60, 2), 0.5),
                "labels": np.zeros(60, np.int64),
                "classes": "ab",
            },
            "diagnose: got 2 classes and 60 images",
        ),
        (
            {"probabilities": np.full((29, 3), 1 / 3), "labels": np.zeros(29, np.int64)},
            "diagnose: got 3 classes and 29 images",
        ),
        (
            {"probabilities": np.empty((0, 3)), "labels": np.zeros(0, np.int64)},
            "labels: got none, expected 0 to 2",
        ),
    ],
)
def test_invalid_input_is_rejected(change: dict[str, object], message: str) -> None:
    good: dict[str, object] = {
        "probabilities": np.full((60, 3), 1 / 3),
        "labels": np.arange(60) % 3,
        "classes": "abc",
    }
    diagnose(**good)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message) as caught:
        diagnose(**{**good, **change})  # type: ignore[arg-type]
    assert len(str(caught.value).splitlines()) == 1
