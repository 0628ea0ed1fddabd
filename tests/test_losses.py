import json
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import UserError
from pipeline.recipes.losses import Loss, balanced_weights
from pipeline.recipes.mixup import Mixed, Mixing

FLIP = ((0.9, 0.1, 0.0), (0.0, 0.7, 0.3), (0.4, 0.0, 0.6))
NEVER_LAST = ((0.5, 0.5, 0.0), (0.2, 0.8, 0.0), (1.0, 0.0, 0.0))
LOSSES = [
    Loss(),
    Loss(label_smoothing=0.1),
    Loss("focal"),
    Loss("focal", alpha=0.25, gamma=0.5),
    Loss("focal", gamma=0),
    Loss("forward", transition=FLIP),
    Loss("forward", transition=NEVER_LAST),
    Loss("complementary"),
]
Floats = NDArray[np.float64]


def expected(loss: Loss, logits: Floats, labels: NDArray[np.int64]) -> Floats:
    """Compute the papers' formulas in double precision."""
    probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    rows = np.arange(len(labels))
    own: Floats = probabilities[rows, labels]
    losses: Floats
    if loss.kind == "focal":
        losses = -loss.alpha * (1 - own) ** loss.gamma * np.log(own)
    elif loss.kind == "forward":
        losses = -np.log((probabilities @ np.array(loss.transition))[rows, labels])
    elif loss.kind == "complementary":
        losses = np.exp(own)
    else:
        spread = loss.label_smoothing
        losses = -(1 - spread) * np.log(own) - spread * np.log(probabilities).mean(axis=1)
    return losses


def draw(seed: int, spread: float = 3, classes: int = 3, count: int = 7) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, classes, generator=random) * spread
    return logits, torch.randint(classes, (count,), generator=random)


@given(st.sampled_from(LOSSES), st.integers(0, 2**32 - 1), st.floats(0, 6))
@settings(max_examples=40, deadline=None)
def test_agrees_with_the_formula(loss: Loss, seed: int, spread: float) -> None:
    logits, labels = draw(seed, spread)
    if loss.transition == NEVER_LAST:
        labels %= 2
    got = loss.per_sample(logits, labels)
    assert got.shape == (7,)
    assert got.dtype == torch.float32
    wanted = torch.from_numpy(expected(loss, logits.double().numpy(), labels.numpy()))
    torch.testing.assert_close(got.double(), wanted, rtol=1e-4, atol=1e-5)


@given(st.sampled_from(LOSSES), st.integers(0, 2**32 - 1), st.sampled_from([0, 1, 30, 1000, 1e30]))
@settings(max_examples=40, deadline=None)
def test_losses_and_gradients_are_finite_for_large_logits(
    loss: Loss, seed: int, spread: float
) -> None:
    logits, labels = draw(seed, spread)
    logits.requires_grad_()
    losses = loss.per_sample(logits, labels)
    (gradients,) = torch.autograd.grad(losses.sum(), logits)
    assert losses.isfinite().all()
    assert gradients.isfinite().all()


@given(st.sampled_from(LOSSES[:-1]), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_gradients_agree_with_finite_differences(loss: Loss, seed: int) -> None:
    logits, labels = draw(seed, 1)
    if loss.transition == NEVER_LAST:
        labels %= 2
    logits.requires_grad_()
    (gradients,) = torch.autograd.grad(loss.per_sample(logits, labels).sum(), logits)
    values, step = logits.detach().double().numpy(), 1e-5
    for place in np.ndindex(2, 3):
        nudge = np.zeros_like(values)
        nudge[place] = step
        high, low = (expected(loss, values + s * nudge, labels.numpy()).sum() for s in (1, -1))
        assert float(gradients[place]) == pytest.approx((high - low) / (2 * step), abs=1e-4)


@given(st.integers(0, 2**32 - 1), st.integers(2, 12))
@settings(max_examples=40, deadline=None)
def test_special_cases_are_cross_entropy(seed: int, classes: int) -> None:
    logits, labels = draw(seed, 5, classes)
    plain = Loss().per_sample(logits, labels)
    identity = Loss("forward", transition=np.eye(classes).tolist())
    for same in (Loss("focal", gamma=0), identity):
        torch.testing.assert_close(same.per_sample(logits, labels), plain, rtol=1e-5, atol=1e-5)


@given(st.integers(0, 2**32 - 1), st.integers(2, 12))
@settings(max_examples=40, deadline=None)
def test_forward_with_uniform_incorrect_labels_is_chous_negative_log(
    seed: int, classes: int
) -> None:
    logits, labels = draw(seed, 1, classes)
    wrong = (1 - np.eye(classes)) / (classes - 1)
    got = Loss("forward", transition=wrong.tolist()).per_sample(logits, labels)
    own = logits.softmax(dim=1).gather(1, labels[:, None])[:, 0]
    torch.testing.assert_close(got, -(1 - own).log() + np.log(classes - 1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("loss", [Loss("complementary"), LOSSES[5]])
def test_training_on_incorrect_labels_finds_the_class(loss: Loss) -> None:
    """The expected loss over the labels of a class is lowest at that class."""
    matrix = (1 - np.eye(3)) / 2 if loss.kind == "complementary" else np.array(FLIP)
    logits = torch.zeros(3, 3, requires_grad=True)
    weights = torch.from_numpy(matrix).float()
    for _ in range(100):
        losses = torch.stack([loss.per_sample(logits, torch.full((3,), n)) for n in range(3)], 1)
        (gradients,) = torch.autograd.grad((weights * losses).sum(), logits)
        logits = (logits - 2 * gradients).detach().requires_grad_()
    assert bool((logits.softmax(dim=1).diagonal() > 0.8).all())


@pytest.mark.parametrize("loss", LOSSES)
def test_mixed_images_have_mixed_losses(loss: Loss) -> None:
    logits, labels = draw(0, count=8)
    mixed = Mixing(mixup=1.0).mix(torch.zeros(8, 1, 2, 2), labels, np.arange(8), 0, 0)
    partner = labels.view(-1, 2).flip(1).flatten()
    own, other = loss.per_sample(logits, labels), loss.per_sample(logits, partner)
    torch.testing.assert_close(loss.of(logits, mixed), other + mixed.weights * (own - other))
    unmixed = Mixed(mixed.images, labels, labels, torch.ones(8))
    assert torch.equal(loss.of(logits, unmixed), own)


def test_half_precision_is_computed_in_single() -> None:
    logits, labels = draw(0)
    for loss in LOSSES:
        got = loss.per_sample(logits.bfloat16(), labels)
        assert torch.equal(got, loss.per_sample(logits.bfloat16().float(), labels))


@pytest.mark.parametrize("loss", LOSSES)
def test_travels_through_json(loss: Loss) -> None:
    again = Loss(**json.loads(json.dumps(asdict(loss))))
    assert again == loss
    assert hash(again) == hash(loss)
    assert isinstance(again.transition, tuple)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"kind": "hinge"}, "loss: got hinge, expected one of cross-entropy, focal"),
        ({"label_smoothing": 1.5}, "label_smoothing: got 1.5, expected 0 to 1"),
        ({"kind": "focal", "gamma": -1}, "gamma: got -1, expected at least 0"),
        (
            {"kind": "focal", "label_smoothing": 0.1},
            "loss: got focal with label_smoothing, expected alpha and gamma",
        ),
        (
            {"kind": "complementary", "gamma": 1},
            "loss: got complementary with gamma, expected no parameter",
        ),
        (
            {"transition": FLIP},
            "loss: got cross-entropy with transition, expected label_smoothing",
        ),
        ({"kind": "forward"}, r"transition: got 0 rows of \[\], expected a square matrix"),
        (
            {"kind": "forward", "transition": [[1, 0], [1]]},
            r"transition: got 2 rows of \[1, 2\], expected a square matrix",
        ),
        (
            {"kind": "forward", "transition": [[1.5, -0.5], [0, 1]]},
            "transition: got -0.5 in row 0, expected at least 0",
        ),
        (
            {"kind": "forward", "transition": [[1, 0], [0.25, 0.25]]},
            "transition: row 1 adds up to 0.5, expected 1",
        ),
        ({"kind": "forward", "transition": [[float("nan"), 1], [0, 1]]}, "transition: "),
    ],
)
def test_invalid_parameters(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Loss(**given)


def test_a_transition_for_other_classes() -> None:
    LOSSES[5].check(3)
    Loss().check(62)
    with pytest.raises(UserError, match="transition: got 3 rows, expected 62"):
        LOSSES[5].check(62)


@pytest.mark.parametrize("loss", LOSSES)
def test_everything_is_computed_on_the_logits_device(loss: Loss) -> None:
    logits, labels = torch.zeros(4, 3, device="meta"), torch.zeros(4, device="meta").long()
    assert loss.per_sample(logits, labels).device.type == "meta"


@pytest.mark.parametrize("loss", LOSSES)
def test_class_weights_are_factors_of_the_losses_by_label(loss: Loss) -> None:
    logits, labels = draw(1)
    other = labels.flip(0)
    weights = torch.tensor([0.5, 2.0, 1.0])
    images, own = torch.zeros(len(labels), 1, 2, 2), torch.linspace(0, 1, len(labels))
    plain = loss.of(logits, Mixed(images, labels, labels, own), weights)
    assert torch.equal(plain, weights[labels] * loss.per_sample(logits, labels))
    mixed = loss.of(logits, Mixed(images, labels, other, own), weights)
    both = weights[labels] * loss.per_sample(logits, labels) * own
    both += weights[other] * loss.per_sample(logits, other) * (1 - own)
    assert torch.allclose(mixed, both)
    ones = loss.of(logits, Mixed(images, labels, other, own), torch.ones(3))
    assert torch.equal(ones, loss.of(logits, Mixed(images, labels, other, own)))


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=40).filter(any))
@settings(deadline=None)
def test_balanced_weights_give_every_class_the_same_weight(counts: list[int]) -> None:
    weights = balanced_weights(counts).double()
    totals = weights * torch.tensor(counts)
    assert float(totals.sum()) == pytest.approx(sum(counts), rel=1e-5)
    present = totals[torch.tensor(counts) > 0]
    assert torch.allclose(present, present[:1].expand_as(present), rtol=1e-5)
    assert not weights[torch.tensor(counts) == 0].any()
