"""The arithmetic of one training: autocast, and the loss scale of fp16.

Small gradients are zero in fp16, so the loss is scaled up before the backward pass, and the
gradients down after it; a step whose gradients overflowed is skipped, and the scale lowered
(Micikevicius et al. 2018). Weights stay float32 in every precision.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pipeline.runtime.hardware import autocast


class MixedPrecision:
    """Steps of one training on a device, in a precision: "no", "bf16" or "fp16"."""

    def __init__(self, device: torch.device, precision: str) -> None:
        self._device, self._precision = device, precision
        self._scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")

    def autocast(self, enabled: bool = True) -> torch.autocast:
        """Return a context that computes in the precision, or in float32 if not `enabled`."""
        return autocast(self._device, self._precision if enabled else "no")

    def backward(self, loss: Tensor) -> None:
        """Accumulate the gradients of a loss, scaled until `step`."""
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def step(
        self,
        optimizer: Optimizer,
        parameters: list[nn.Parameter],
        max_norm: float,
        low_precision: bool = False,
    ) -> Tensor | None:
        """Take a step with gradients of a norm of at most `max_norm`, and clear them.

        Returns the norm before, or None for a step that was skipped. With `low_precision`, the
        optimizer itself computes in the precision.
        """
        self._scaler.unscale_(optimizer)
        norm = nn.utils.clip_grad_norm_(parameters, max_norm)
        with self.autocast(low_precision):
            self._scaler.step(optimizer)
        skipped = False
        if self._scaler.is_enabled():
            scale = self._scaler.get_scale()
            self._scaler.update()
            skipped = self._scaler.get_scale() < scale
        optimizer.zero_grad()
        return None if skipped else norm

    def state(self) -> dict[str, Any]:
        """Return the state of the loss scale as plain data, empty without one."""
        return self._scaler.state_dict()

    def restore(self, state: dict[str, Any]) -> None:
        """Restore a `state`; an empty one starts anew."""
        if state:
            self._scaler.load_state_dict(state)
