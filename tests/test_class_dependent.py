"""Class-dependent label noise: which entries stand out, and what hard images never set off."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import STATISTICAL
from test_label_noise import DIGITS, Simulation, distance, rows_of, seeds, simulate

from pipeline.analysis.diagnosis import Diagnosis
from pipeline.analysis.label_noise import diagnose
from pipeline.analysis.noise_models import Floats, Ints
from pipeline.analysis.noise_robust import loss_of, methods_for
from pipeline.data.synth.handwriting import PART3_COUNTS, DigitCounts, SyntheticDigits
from pipeline.data.synth.mislabel import Flip, LabelNoise

FIVE = ((2, 7), (3, 8), (5, 6), (6, 5), (7, 1))
PAIR = ((4, 9), (9, 4))
Pairs = tuple[tuple[int, int], ...]


def flips(pairs: Pairs, rate: float) -> LabelNoise:
    return LabelNoise.of_flips([Flip(*pair, rate) for pair in pairs])


def diagnosis_of(simulation: Simulation) -> Diagnosis:
    classes = [f"{k}" for k in range(simulation.predictions.shape[1])]
    return diagnose(simulation.predictions, simulation.labels, classes)


def entries_of(found: Diagnosis) -> set[tuple[int, int]]:
    return {(entry.true, entry.label) for entry in found.entries}


def limits_of(found: Diagnosis) -> Mapping[str, float]:
    return {limit.noise: limit.highest for limit in found.limits}


@pytest.mark.parametrize(("rate", "images"), [(0.1, 15_000), (0.2, 6000), (0.3, 6000)])
@pytest.mark.parametrize("pairs", [FIVE, PAIR, ((3, 8),)], ids=["five", "pair", "one"])
def test_class_dependent_noise_is_named_and_estimated(
    pairs: Pairs, rate: float, images: int
) -> None:
    clean = diagnosis_of(simulate(LabelNoise(), images=images, hard=0.1))
    assert clean.kind == "clean"
    assert limits_of(clean)["one class labelled as another"] < rate
    simulation = simulate(flips(pairs, rate), images=images, hard=0.1)
    found = diagnosis_of(simulation)
    assert found.kind == found.evidence[0].kind == "class-dependent"
    assert found.others == "clean"
    assert entries_of(found) == set(pairs)
    assert found.misfit < 0.02
    assert abs(found.rate - len(pairs) * rate / 10) < 0.02
    assert distance(np.array(found.forward), simulation.transition) < 0.03
    assert "No known kind fits: the noise depends on the class." in found.verdict
    assert found.intervals is not None
    for entry in found.entries:
        assert entry.rate == found.matrix[entry.true][entry.label]
        assert entry.between == found.intervals[entry.true][entry.label]
        assert entry.between[0] < entry.rate < entry.between[1]
        low, high = (f"{limit:.0%}" for limit in entry.between)
        words = f"{entry.true} is labelled {entry.label} in {entry.rate:.0%} ({low} to {high})"
        assert words in found.verdict


def test_the_verdict_states_its_assumption_and_offers_the_estimated_matrix() -> None:
    found = diagnosis_of(simulate(flips(FIVE, 0.2)))
    assert "The forward-corrected loss with the estimated matrix suits this noise." in found.verdict
    assert "noise does not depend on the image" in found.assumption
    assert methods_for(found.kind) == ("naive", "forward", "ceiling")
    loss = loss_of("forward", found.forward)
    assert loss is not None
    assert loss.transition == found.forward
    for entry in found.entries:
        assert found.forward[entry.true][entry.label] == pytest.approx(entry.rate)


def test_intervals_contain_the_transition_probabilities() -> None:
    simulation = simulate(flips(FIVE, 0.2), hard=0.1)
    intervals = np.array(diagnosis_of(simulation).intervals)
    chosen = simulation.transition > 0
    inside = (intervals[..., 0] <= simulation.transition) & (
        simulation.transition <= intervals[..., 1] + 0.02  # hard images among the anchors
    )
    assert inside[chosen].mean() > 0.9


def test_noise_at_the_stated_limits_is_detected() -> None:
    images = 2000
    limits = limits_of(diagnosis_of(simulate(LabelNoise(), images=images, hard=0.1)))
    pairs = tuple((k, (k + 3) % 10) for k in range(10))
    one = [flips((pair,), limits["one class labelled as another"]) for pair in pairs[:6]]
    every = [flips(pairs, limits["every class labelled as another"])] * 4
    for noises in (one, every):
        detected = [
            diagnosis_of(simulate(noise, seed, images=images, hard=0.1)).kind != "clean"
            for seed, noise in enumerate(noises)
        ]
        assert sum(detected) >= len(noises) - 1


def test_the_limits_are_those_of_the_anchors_at_hand() -> None:
    few, many = (limits_of(diagnosis_of(simulate(LabelNoise(), images=n))) for n in (1500, 12_000))
    assert list(few) == [
        *("symmetric", "pairs"),
        *("one class labelled as another", "every class labelled as another"),
    ]
    assert few["symmetric"] > many["symmetric"]
    assert few["one class labelled as another"] > 2 * many["one class labelled as another"]
    hopeless = diagnosis_of(simulate(LabelNoise(), images=100))
    assert limits_of(hopeless)["one class labelled as another"] == 1
    assert "one class labelled as another at any rate" in hopeless.verdict


def test_noise_of_two_kinds_has_both() -> None:
    simulation = simulate(LabelNoise())
    rows = 0.8 * np.eye(10) + 0.2 / 10
    rows[3, [3, 8]] += [-0.3, 0.3]
    generator = np.random.default_rng(0)
    labels = rows[simulation.true].cumsum(1) < generator.random((len(rows[simulation.true]), 1))
    found = diagnose(simulation.predictions @ rows, labels.sum(1), DIGITS)
    assert found.kind == "class-dependent"
    assert entries_of(found) == {(3, 8)}
    assert found.others == "symmetric"
    assert "the other labels have noise of the kind symmetric" in found.verdict
    assert distance(np.array(found.forward), rows) < 0.05


@settings(STATISTICAL, max_examples=5)
@given(seeds, st.floats(0.05, 0.6), st.floats(0, 0.5))
def test_hard_images_are_no_class_dependent_noise(seed: int, hard: float, error: float) -> None:
    hard_classes = np.full(10, hard)
    hard_classes[[2, 4, 6]] = 1
    found = diagnosis_of(simulate(LabelNoise(), seed, hard=hard_classes, error=error))
    assert found.kind == "clean"


@settings(STATISTICAL, max_examples=5)
@given(seeds, st.floats(0.3, 2))
def test_classes_that_look_the_same_are_no_class_dependent_noise(seed: int, spread: float) -> None:
    """As o and O: each image is of either class, with a probability that the network predicts."""
    simulation = simulate(LabelNoise(), seed)
    generator = np.random.default_rng(seed)
    alike = np.isin(simulation.true, (0, 1))
    odds = 1 / (1 + np.exp(spread * generator.standard_normal(alike.sum())))
    predictions = simulation.predictions.copy()
    predictions[alike, :2] = 0.98 * np.stack([odds, 1 - odds], axis=1)
    predictions[alike, 2:] = 0.02 / 8
    labels = simulation.true.copy()
    labels[alike] = generator.random(alike.sum()) > odds
    assert not diagnose(predictions, labels, DIGITS).entries


@pytest.mark.parametrize(
    "frequencies",
    [[0.55, *[0.05] * 9], [0, *[1 / 9] * 9], [0.25, 0.25, 0.5], [0.9, 0.05, 0.05]],
    ids=["55 % in one class", "a missing class", "3 classes", "3 unequal classes"],
)
@pytest.mark.parametrize("seed", range(2))
def test_unequal_classes_are_no_noise(frequencies: list[float], seed: int) -> None:
    classes = len(frequencies)
    for noise in (LabelNoise(), LabelNoise("symmetric", 0.3)):
        simulation = simulate(
            noise, seed, error=0.1, classes=classes, frequencies=frequencies, hard=0.1
        )
        found = diagnosis_of(simulation)
        assert found.kind == ("clean" if noise.kind == "none" else "symmetric")


def test_three_classes_with_one_confused_pair() -> None:
    simulation = simulate(flips(((0, 1),), 0.2), classes=3, hard=0.1)
    found = diagnosis_of(simulation)
    assert entries_of(found) == {(0, 1)}
    assert distance(np.array(found.forward), simulation.transition) < 0.03


@pytest.fixture(scope="module")
def digits() -> tuple[Floats, Ints]:
    """The generator's digits, shrunk to 14×14, and their classes."""
    source = SyntheticDigits(DigitCounts(6000, 0, PART3_COUNTS.writers), 0)
    images = np.stack([source.image(row) for row in range(6000)])
    small = images.reshape(6000, 14, 2, 14, 2).mean((2, 4)).reshape(6000, 196) / 255
    return small, np.asarray(source.annotations.labels)


def trained(images: Floats, labels: Ints, seed: int) -> Floats:
    """Predictions of two networks, each for the half of the images that it was not trained on."""
    predictions, x = np.zeros((len(labels), 10)), torch.from_numpy(images).float()
    order = np.random.default_rng(seed).permutation(len(labels))
    torch.manual_seed(seed)
    for held_out in np.array_split(order, 2):
        own = torch.from_numpy(np.setdiff1d(order, held_out))
        network = torch.nn.Sequential(
            torch.nn.Linear(196, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10)
        )
        optimizer = torch.optim.Adam(network.parameters(), 0.01)
        for batch in own[torch.randint(len(own), (150, 256))]:
            loss = torch.nn.functional.cross_entropy(
                network(x[batch]), torch.from_numpy(labels)[batch]
            )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        with torch.no_grad():
            logits = network(x[torch.from_numpy(held_out)])
        predictions[held_out] = logits.double().softmax(1).numpy()
    return predictions


@pytest.mark.parametrize("noise", [(), FIVE], ids=["clean", "five"])
def test_trained_networks_reveal_the_noise_of_digits_and_no_other(
    digits: tuple[Floats, Ints], noise: Pairs
) -> None:
    images, true = digits
    labels = flips(noise, 0.2).apply(true, 10, 0)
    found = diagnose(trained(images, labels, 0), labels, DIGITS)
    assert found.kind == ("class-dependent" if noise else "clean")
    assert entries_of(found) == set(noise)
    assert not found.indistinct
    assert distance(np.array(found.forward), rows_of(flips(noise, 0.2), 10)) < 0.03


def test_classes_that_the_network_does_not_distinguish_are_named(
    digits: tuple[Floats, Ints],
) -> None:
    images, true = digits
    labels = flips(PAIR, 0.2).apply(true, 10, 0)
    found = diagnose(trained(images, labels, 0), labels, DIGITS)
    assert not found.entries
    assert found.indistinct == ((4, 9),)
    assert "The network does not distinguish 4 and 9 well: noise between" in found.verdict
