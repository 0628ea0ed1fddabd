"""Muon, for convolutional networks (Jordan et al. 2024, "Muon: an optimizer for hidden layers").

Gradients of a weight matrix nearly have low rank: a few directions dominate. Muon steps along the
semi-orthogonal matrix nearest to the momentum, in which all directions have equal length.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

from pipeline.errors import check_range

STEPS = 5  # of the iteration; these and the polynomial are those published
LINEAR, CUBIC, QUINTIC = 3.4445, -4.7750, 2.0315


class Muon(torch.optim.Optimizer):
    """Orthogonal steps for kernels of several input channels, AdamW or SGD for other parameters.

    A kernel (out, in, height, width) is a matrix of `out` rows. Its learning rate is `ratio` times
    `lr`, and `momentum` is Nesterov's; weight decay is decoupled. With `unit_rows`, kernels are
    scaled to a root mean square norm of 1 per row before every step. `others` is "AdamW", with
    `betas` and `eps` and decoupled weight decay, or "SGD", with Nesterov's `sgd_momentum` and
    weight decay in the gradient. Raises ValueError for values out of range.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 5e-3,
        ratio: float = 4.0,
        momentum: float = 0.9,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.02,
        unit_rows: bool = False,
        others: str = "AdamW",
        sgd_momentum: float = 0.85,
    ) -> None:
        for name, value in (
            ("momentum", momentum),
            ("beta", betas[0]),
            ("beta", betas[1]),
            ("sgd_momentum", sgd_momentum),
        ):
            if not 0 <= value < 1:
                raise ValueError(f"{name}: got {value}, expected 0 to below 1")
        if others not in ("AdamW", "SGD"):
            raise ValueError(f"others: got {others!r}, expected AdamW or SGD")
        numbers = {"lr": lr, "ratio": ratio, "eps": eps, "weight_decay": weight_decay}
        for name, value in numbers.items():
            check_range(name, value, 0)
        momenta = {"momentum": momentum, "betas": betas, "sgd_momentum": sgd_momentum}
        super().__init__(params, {**numbers, **momenta, "unit_rows": unit_rows, "others": others})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take a step along the gradients."""
        assert closure is None
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            self._orthogonal([p for p in parameters if _is_kernel(p)], group)
            step_others = self._sgd if group["others"] == "SGD" else self._adamw
            step_others([p for p in parameters if not _is_kernel(p)], group)

    def _orthogonal(self, kernels: list[nn.Parameter], group: dict[str, Any]) -> None:
        lr = group["lr"] * group["ratio"]
        for kernel in kernels:
            assert kernel.grad is not None
            state = self.state[kernel]
            if not state:
                state["momentum"] = torch.zeros_like(kernel)
            momentum = state["momentum"].lerp_(kernel.grad, 1 - group["momentum"])
            nesterov = kernel.grad.lerp(momentum, group["momentum"]).flatten(1)
            rows, columns = nesterov.shape
            direction = orthogonal(nesterov) * max(1, rows / columns) ** 0.5
            if group["unit_rows"]:
                kernel.mul_(rows**0.5 / (kernel.norm() + 1e-7))
            kernel.mul_(1 - lr * group["weight_decay"])
            kernel.sub_(direction.view(kernel.shape), alpha=lr)

    def _sgd(self, others: list[nn.Parameter], group: dict[str, Any]) -> None:
        if not others:
            return
        momenta: list[Tensor | None] = [self.state[p].get("momentum") for p in others]
        sgd(
            [*others],
            [p.grad for p in others if p.grad is not None],
            momenta,
            weight_decay=group["weight_decay"],
            momentum=group["sgd_momentum"],
            lr=group["lr"],
            dampening=0,
            nesterov=group["sgd_momentum"] > 0,
            maximize=False,
        )
        for parameter, momentum in zip(others, momenta, strict=True):
            if momentum is not None:
                self.state[parameter]["momentum"] = momentum

    def _adamw(self, others: list[nn.Parameter], group: dict[str, Any]) -> None:
        for parameter in others:
            if not self.state[parameter]:
                self.state[parameter] = {
                    "step": torch.zeros((), device=parameter.device),
                    "mean": torch.zeros_like(parameter),
                    "square": torch.zeros_like(parameter),
                }
        states = [self.state[parameter] for parameter in others]
        adamw(
            [*others],
            [p.grad for p in others if p.grad is not None],
            [state["mean"] for state in states],
            [state["square"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )


def _is_kernel(parameter: Tensor) -> bool:
    """Return whether this is a convolution's kernel of several input channels."""
    return parameter.ndim == 4 and parameter.shape[1] > 1


def orthogonal(matrix: Tensor) -> Tensor:
    """Approximate the nearest semi-orthogonal matrix: (m, n), singular values 0.7 to 1.2.

    The Newton-Schulz iteration's polynomial raises small singular values quickly and keeps large
    ones near 1. It tolerates rounding, so autocast may choose its precision.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    wide = matrix.mT if tall else matrix
    wide = wide / (wide.norm() + 1e-7)
    square = wide @ wide.mT
    # Products of the polynomials are small matrices, but have entries too large for low precision.
    iterate = _by_products if square.dtype == torch.float32 else _by_steps
    wide = iterate(wide, square)
    result: Tensor = wide.mT if tall else wide
    return result.to(matrix.dtype)


def _by_steps(wide: Tensor, square: Tensor) -> Tensor:
    """Iterate on the matrix itself; `square` is wide wideᵀ."""
    for step in range(STEPS):
        if step:
            square = wide @ wide.mT
        wide = LINEAR * wide + (CUBIC * square + QUINTIC * square @ square) @ wide
    return wide


def _by_products(wide: Tensor, square: Tensor) -> Tensor:
    """Do what `_by_steps` does with products of small matrices: faster if `wide` is wide.

    A step multiplies by a polynomial p of the square, which becomes p square p.
    """
    product = polynomial = _polynomial(square)
    for _ in range(STEPS - 1):
        square = polynomial @ square @ polynomial
        polynomial = _polynomial(square)
        product = polynomial @ product
    return product @ wide


def _polynomial(square: Tensor) -> Tensor:
    polynomial = CUBIC * square + QUINTIC * square @ square
    polynomial.diagonal().add_(LINEAR)
    return polynomial
