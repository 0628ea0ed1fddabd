"""What a training has come to, epoch by epoch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Epoch:
    """An epoch's figures, over all processes; shares from 0 to 1, losses in nats.

    `train_loss` and `train_accuracy` are of changed pictures, while learning; `loss` and `accuracy`
    of the validation samples, None if there are none. `learning_rate` is the first step's,
    `gradient_norm` the mean over the steps. `seconds` add up from the beginning, without
    validation.
    """

    epoch: int
    stage: int
    learning_rate: float
    train_loss: float
    train_accuracy: float
    gradient_norm: float
    loss: float | None
    accuracy: float | None
    seconds: float
