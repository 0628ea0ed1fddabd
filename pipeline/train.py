"""The training loop: runs a recipe on a file, on any number of processes, by accelerate.

The global batch is fixed: 1, 2 or 8 processes see the same samples, changed alike, and step along
the gradient of the global batch's mean loss. Only batch normalisation can tell how many they are,
since each process normalises by its own share. Validation is exact on any number of processes.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.state import PartialState
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from beton.order import Shard
from beton.reader import Reader
from pipeline.augment import Augmentation
from pipeline.errors import UserError
from pipeline.evaluate import BATCH, Answers, answer
from pipeline.feed import Decode, Feed, View, samples_of
from pipeline.hardware import Precision, precision_for
from pipeline.launch import use_cores, wants_cpu
from pipeline.metrics import Scores, score
from pipeline.recipe import Recipe, Stage


@dataclass(frozen=True)
class Epoch:
    """An epoch's figures, over all processes; shares from 0 to 1, losses in nats.

    `train_loss` and `train_accuracy` are of changed pictures, while learning; `loss` and `accuracy`
    of the validation samples, None if there are none. `learning_rate` is the first step's.
    `seconds` add up from the beginning, without validation.
    """

    epoch: int
    stage: int
    learning_rate: float
    train_loss: float
    train_accuracy: float
    loss: float | None
    accuracy: float | None
    seconds: float


@contextmanager
def processes(precision: Precision = "auto") -> Iterator[Accelerator]:
    """Join the processes of this launch, on their devices and cores, and leave in good order.

    Raises UserError for a precision that the device does not offer.
    """
    use_cores()
    cpu = wants_cpu()
    mixed = precision_for(PartialState(cpu=cpu).device, precision)
    accelerator = Accelerator(cpu=cpu, mixed_precision=mixed)
    yield accelerator
    # Where gloo's threads outlive their group, the process aborts at exit: no wrapped model may be
    # left, and everybody must have come this far, before the group is taken down.
    accelerator.free_memory()
    accelerator.wait_for_everyone()
    accelerator.end_training()


class Training:
    """A recipe to be run on a file that prep wrote; iterating over it trains, epoch by epoch.

    `network` is trained in place, and in the end sees `view` of a page. What training has come to:
    `history`; `answers` to the validation samples (None without any); `images` learned from,
    over all processes, in `seconds`, of which this process spent `seconds_waited` waiting for its
    loader; `seconds_validating`, which come on top; `state`, which with the network's goes on.

    `on_step`, if set, is called with the number of images of each step. Raises UserError for a
    recipe that does not suit the file or the processes, FloatingPointError if training diverges.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        network: nn.Module,
        recipe: Recipe,
        file: Reader,
        *,
        decode: Decode = "auto",
    ) -> None:
        samples = len(samples_of(file, "train"))
        _check(recipe, samples, accelerator.num_processes)
        self.network, self.recipe, self.file, self.decode = network, recipe, file, decode
        self.epochs = sum(stage.epochs for stage in recipe.stages)
        self.images_to_come = self.epochs * (samples - samples % recipe.batch_size)
        self.on_step: Callable[[int], None] | None = None
        self.view = View.of(file, recipe.stages[-1].size, recipe.window)
        self.history: list[Epoch] = []
        self.answers: Answers | None = None
        self.state: dict[str, Any] = {}
        self.images = 0
        self.seconds = self.seconds_waited = self.seconds_validating = 0.0
        self._accelerator = accelerator

    def run(self) -> None:
        """Train to the end."""
        for _ in self:
            pass

    def scores(self, classes: Sequence[str]) -> Scores | None:
        """Return what the answers to the validation samples are worth."""
        if self.answers is None:
            return None
        return score(self.answers.logits, self.answers.labels, classes)

    def figures(self) -> dict[str, float]:
        """Return how long training took, and what for."""
        return {
            "epochs": self.epochs,
            "images": self.images,
            "seconds_training": self.seconds,
            "seconds_validating": self.seconds_validating,
            "images_per_second": self.images / self.seconds,
            "loader_share": self.seconds_waited / self.seconds,
        }

    def __iter__(self) -> Iterator[Epoch]:
        """Train; yield the figures of every epoch once it is over."""
        # Local, so that the wrapper is gone once training is: see `processes`.
        model = self._accelerator.prepare(self.network.to(memory_format=torch.channels_last))
        for number, stage in enumerate(self.recipe.stages):
            view = View.of(self.file, stage.size, self.recipe.window)
            with (
                self._feed("train", view, self.recipe.batch_size, stage.augmentation) as training,
                self._held_out(view) as held_out,
            ):
                optimizer, schedule = _descent(model, stage, len(training))
                optimizer = self._accelerator.prepare(optimizer)
                for _ in range(stage.epochs):
                    epoch = len(self.history)
                    rate = float(schedule.get_last_lr()[0])
                    loss, accuracy = self._learn(
                        model, training, epoch, optimizer, schedule, stage.label_smoothing
                    )
                    validation = self._validate(held_out)
                    figures = Epoch(epoch, number, rate, loss, accuracy, *validation, self.seconds)
                    self.history.append(figures)
                    self.state = {
                        "epochs": len(self.history),
                        "optimizer": optimizer.state_dict(),
                        "schedule": schedule.state_dict(),
                    }
                    yield figures

    def _learn(
        self,
        model: nn.Module,
        feed: Feed,
        epoch: int,
        optimizer: torch.optim.Optimizer,
        schedule: LambdaLR,
        label_smoothing: float,
    ) -> tuple[float, float]:
        """Go through the training samples once; return their loss and accuracy meanwhile."""
        start, waited = time.perf_counter(), feed.seconds_waited
        sums = torch.zeros(2, device=feed.device)  # of losses and of right answers
        model.train()
        for inputs in feed.batches(epoch):
            logits = model(inputs.pictures)
            loss = F.cross_entropy(logits, inputs.labels, label_smoothing=label_smoothing)
            optimizer.zero_grad()
            self._accelerator.backward(loss)
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                right = (logits.argmax(dim=1) == inputs.labels).sum()
                sums += torch.stack([loss * len(inputs.labels), right])
            if self.on_step is not None:
                self.on_step(self.recipe.batch_size)
        total, right = self._accelerator.reduce(sums, "sum").tolist()
        if not math.isfinite(total):
            raise FloatingPointError(
                f"training diverged in epoch {epoch}: the loss is {total}; lower the learning rate"
            )
        samples = len(feed) * self.recipe.batch_size
        self.images += samples
        self.seconds += time.perf_counter() - start
        self.seconds_waited += feed.seconds_waited - waited
        return total / samples, right / samples

    def _validate(self, feed: Feed | None) -> tuple[float | None, float | None]:
        """Answer the validation samples; return the loss and accuracy of that."""
        if feed is None:
            return None, None
        start = time.perf_counter()
        for buffer in self.network.buffers():  # which every process has gathered from its own share
            if buffer.is_floating_point():
                buffer.copy_(self._accelerator.reduce(buffer, "mean"))
        answers = self.answers = answer(self.network, feed, gather=self._accelerator.gather)
        right = (answers.logits.argmax(dim=1) == answers.labels).sum()
        loss = F.cross_entropy(answers.logits, answers.labels)
        self.seconds_validating += time.perf_counter() - start
        return float(loss), int(right) / len(answers.labels)

    def _held_out(self, view: View) -> AbstractContextManager[Feed | None]:
        if not len(samples_of(self.file, "validation")):
            return nullcontext()
        return self._feed("validation", view, BATCH * self._accelerator.num_processes)

    def _feed(
        self, split: str, view: View, batch_size: int, augmentation: Augmentation | None = None
    ) -> Feed:
        accelerator = self._accelerator
        return Feed(
            self.file,
            samples_of(self.file, split),
            view,
            batch_size,
            device=accelerator.device,
            decode=self.decode,
            augmentation=augmentation,
            seed=self.recipe.seed,
            shard=Shard(accelerator.process_index, accelerator.num_processes),
        )


def _check(recipe: Recipe, samples: int, processes: int) -> None:
    batch_size = recipe.batch_size
    if batch_size % processes:
        raise UserError(
            f"batch_size: got {batch_size}, expected a multiple of {processes} processes"
        )
    if batch_size > samples:
        raise UserError(f"batch_size: got {batch_size}, expected at most {samples}, all there is")


def _descent(
    model: nn.Module, stage: Stage, batches: int
) -> tuple[torch.optim.Optimizer, LambdaLR]:
    """Return AdamW, whose decay spares biases and normalisation, and its one cycle."""
    weights = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [
            {"params": weights, "weight_decay": stage.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ],
        stage.learning_rate,
        fused=True,
    )
    steps = stage.epochs * batches
    return optimizer, LambdaLR(optimizer, partial(one_cycle, steps=steps, warm_up=stage.warm_up))


def one_cycle(step: int, steps: int, warm_up: float) -> float:
    """Return the share of the highest learning rate to use in a step: from 1/25 to 1, to almost 0.

    Both ways are half a cosine (Smith and Topin 2018, as fastai shaped it).
    """
    top = warm_up * steps
    if step < top:
        return 1 / 25 + (1 - 1 / 25) * _ease(step / top)
    return 1e-4 + (1 - 1e-4) * (1 - _ease((step - top) / (steps - top)))


def _ease(part: float) -> float:
    return (1 - math.cos(math.pi * part)) / 2
