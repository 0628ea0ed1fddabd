"""Muon: orthogonal steps for kernels, AdamW for all other parameters."""

import copy
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pipeline.training.optim import muon
from pipeline.training.optim.muon import Muon, orthogonal

sides = st.integers(2, 40)


def published(wide: torch.Tensor) -> torch.Tensor:
    """Return the result of the published iteration."""
    return muon._by_steps(wide, wide @ wide.mT)


@given(rows=sides, columns=sides, seed=st.integers(0, 2**31), scale=st.sampled_from([1e-4, 1, 1e4]))
def test_it_approximates_the_nearest_semi_orthogonal_matrix(
    rows: int, columns: int, seed: int, scale: float
) -> None:
    # With singular values from 0.3 to 1, five iterations come close.
    generator = torch.Generator().manual_seed(seed)
    left, _, right = torch.linalg.svd(torch.randn(rows, columns, generator=generator), False)
    values = 0.3 + 0.7 * torch.rand(min(rows, columns), generator=generator)
    found = orthogonal(scale * (left * values) @ right)
    assert found.shape == (rows, columns)
    # In the axes of the singular vectors it is diagonal, and all directions count.
    inside = left.mT @ found @ right.mT
    assert torch.allclose(inside, torch.diag(inside.diagonal()), atol=1e-3)
    assert 0.6 < float(inside.diagonal().min()) <= float(inside.diagonal().max()) < 1.3


@given(rows=sides, columns=sides, seed=st.integers(0, 2**31), decay=st.sampled_from([0, 0.1, 0.5]))
def test_products_of_polynomials_equal_the_published_iteration(
    rows: int, columns: int, seed: int, decay: float
) -> None:
    # Singular values that decay: to 1e-8 of the largest, as those of gradients may.
    generator = torch.Generator().manual_seed(seed)
    left, _, right = torch.linalg.svd(torch.randn(rows, columns, generator=generator), False)
    matrix = (left * torch.exp(-decay * torch.arange(float(min(rows, columns))))) @ right
    wide = matrix.mT if rows > columns else matrix
    expected = published(wide.double() / wide.double().norm())
    found = orthogonal(matrix)
    assert torch.allclose((found.mT if rows > columns else found).double(), expected, atol=5e-4)


def test_in_low_precision_it_is_the_published_iteration() -> None:
    matrix = torch.randn(8, 20, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        found = orthogonal(matrix)
        expected = published(matrix / (matrix.norm() + 1e-7))
    assert torch.equal(found, expected.float())


def test_zero_stays_zero() -> None:
    assert torch.equal(orthogonal(torch.zeros(3, 5)), torch.zeros(3, 5))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 6, 3), nn.Flatten(), nn.Linear(24, 3)
    )


def train(net: nn.Module, optimizer: torch.optim.Optimizer, steps: int, seed: int) -> list[float]:
    generator = torch.Generator().manual_seed(seed)
    losses = []
    for _ in range(steps):
        images = torch.randn(16, 1, 6, 6, generator=generator)
        labels = (images.mean(dim=(1, 2, 3)) * 20).clamp(-1, 1).round().long() + 1
        loss = nn.functional.cross_entropy(net(images), labels)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_it_minimises_the_loss() -> None:
    net = network()
    losses = train(net, Muon(net.parameters(), lr=5e-3), 150, seed=1)
    assert sum(losses[-20:]) < 0.6 * sum(losses[:20])


def test_other_parameters_step_as_with_adamw() -> None:
    torch.manual_seed(0)
    net: nn.Module = nn.Sequential(nn.Conv2d(1, 4, 6), nn.BatchNorm2d(4), nn.Flatten())
    other = copy.deepcopy(net)
    settings: dict[str, Any] = {"lr": 1e-2, "betas": (0.8, 0.99), "weight_decay": 0.1}
    train(net, Muon(net.parameters(), **settings), 5, seed=2)
    train(other, torch.optim.AdamW(other.parameters(), fused=True, **settings), 5, seed=2)
    for one, same in zip(net.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, same)


def test_the_step_of_a_kernel_has_the_length_of_its_learning_rate() -> None:
    net = network()
    (kernel,) = (p for p in net.parameters() if p.ndim == 4 and p.shape[1] > 1)
    before = kernel.detach().clone()
    optimizer = Muon([kernel], lr=0.01, ratio=3, weight_decay=0)
    train(net, optimizer, 1, seed=3)
    step = ((before - kernel.detach()) / 0.03).flatten(1)
    values = torch.linalg.svdvals(step)
    assert float(values.min()) > 0.3
    assert float(values.max()) < 1.3


def test_it_resumes_from_its_state() -> None:
    one, two = network(), network()
    whole, first = Muon(one.parameters()), Muon(two.parameters())
    train(one, whole, 3, seed=4)
    train(two, first, 3, seed=4)
    second = Muon(two.parameters())
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    train(one, whole, 3, seed=5)
    train(two, second, 3, seed=5)
    for mine, theirs in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize(
    "wrong",
    [
        {"momentum": 1.0},
        {"betas": (0.9, -1)},
        {"sgd_momentum": 1.0},
        {"ratio": -1.0},
        {"lr": -1.0},
        {"others": "Adam"},
    ],
)
def test_numbers_out_of_range_are_rejected(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        Muon(network().parameters(), **wrong)


def test_other_parameters_can_step_as_with_sgd() -> None:
    torch.manual_seed(0)
    net: nn.Module = nn.Sequential(nn.Conv2d(1, 4, 6), nn.BatchNorm2d(4), nn.Flatten())
    other = copy.deepcopy(net)
    settings: dict[str, Any] = {"lr": 1e-2, "weight_decay": 0.1}
    own = Muon(net.parameters(), others="SGD", sgd_momentum=0.8, **settings)
    train(net, own, 5, seed=2)
    sgd = torch.optim.SGD(other.parameters(), momentum=0.8, nesterov=True, **settings)
    train(other, sgd, 5, seed=2)
    for one, same in zip(net.parameters(), other.parameters(), strict=True):
        assert torch.allclose(one, same, atol=1e-7)
    again = Muon(net.parameters(), others="SGD", sgd_momentum=0.8, **settings)
    again.load_state_dict(copy.deepcopy(own.state_dict()))
    train(net, again, 3, seed=3)
    train(other, sgd, 3, seed=3)
    for one, same in zip(net.parameters(), other.parameters(), strict=True):
        assert torch.allclose(one, same, atol=1e-7)


def test_kernels_with_unit_rows_do_not_grow() -> None:
    net = network()
    (kernel,) = (p for p in net.parameters() if p.ndim == 4 and p.shape[1] > 1)
    optimizer = Muon([kernel], lr=1e-9, ratio=1, weight_decay=0, unit_rows=True)
    train(net, optimizer, 1, seed=3)
    assert float(kernel.detach().norm() ** 2) == pytest.approx(len(kernel), rel=1e-5)
