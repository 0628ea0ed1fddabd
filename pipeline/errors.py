"""The exceptions of `pipeline`, and a range check."""

from collections.abc import Sequence
from math import inf, isfinite
from pathlib import Path
from sys import float_info

from beton.errors import printable


class UserError(ValueError):
    """An invalid request; the message is one line with the value got and the value expected.

    Names of files and classes in it may come from a stranger, so control characters are escaped.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


def check_range(name: str, value: float, low: float, high: float = inf) -> None:
    """Raise UserError unless a value is finite and in [low, high]."""
    if not (low <= value <= high and abs(value) < float_info.max):  # of whole numbers too
        expected = f"{low} to {high}" if isfinite(high) else f"at least {low}"
        raise UserError(f"{name}: got {value}, expected {expected}")


class DivergedError(FloatingPointError):
    """A non-finite loss, a non-finite weight after the step, or such predictions in an evaluation.

    `ids` are the sample numbers of the step's batch, over all processes; `auxiliary_ids` are those
    in the auxiliary dataset. Both are empty for predictions. `checkpoint` is the last one with
    finite weights, None without any.
    """

    def __init__(
        self,
        step: int,
        epoch: int,
        ids: Sequence[int],
        auxiliary_ids: Sequence[int],
        checkpoint: Path | None,
    ) -> None:
        self.step, self.checkpoint = step, checkpoint
        self.ids, self.auxiliary_ids = tuple(ids), tuple(auxiliary_ids)
        numbers = ", ".join(map(str, ids))
        if auxiliary_ids:
            numbers += f"; of the auxiliary dataset: {', '.join(map(str, auxiliary_ids))}"
        what = "the loss, or a weight after it, is" if ids else "predictions after it are"
        samples = f" The batch's samples: {numbers}." if ids else ""
        super().__init__(
            f"training diverged at step {step}, in epoch {epoch + 1}: {what} not finite; lower the "
            f"learning rate.{samples} The last good checkpoint: {checkpoint or 'none'}"
        )
