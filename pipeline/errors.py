"""The kinds of error that this package adds."""

from collections.abc import Sequence
from math import inf, isfinite
from pathlib import Path


class UserError(ValueError):
    """A request cannot be met; the message is one line that says what was got and expected."""


def check_range(name: str, value: float, low: float, high: float = inf) -> None:
    """Raise UserError unless a value is finite and in [low, high]."""
    if not (isfinite(value) and low <= value <= high):
        expected = f"{low} to {high}" if isfinite(high) else f"at least {low}"
        raise UserError(f"{name}: got {value}, expected {expected}")


class DivergedError(FloatingPointError):
    """The loss of a step, or a weight after it, is not finite.

    `ids` are the samples of the step's batch, of all processes; `others` those of the auxiliary
    set, if there is one.
    """

    def __init__(
        self,
        step: int,
        epoch: int,
        ids: Sequence[int],
        others: Sequence[int],
        checkpoint: Path | None,
    ) -> None:
        self.step, self.checkpoint = step, checkpoint
        self.ids, self.others = tuple(ids), tuple(others)
        besides = f"; of the auxiliary set: {', '.join(map(str, others))}" if others else ""
        super().__init__(
            f"training diverged at step {step}, in epoch {epoch + 1}: the loss, or a weight after "
            f"it, is not finite; lower the learning rate. The batch's samples: "
            f"{', '.join(map(str, ids))}{besides}. The last good checkpoint: {checkpoint or 'none'}"
        )
