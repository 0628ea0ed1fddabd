"""The training loop: runs a recipe on a file, on any number of processes, by accelerate.

The global batch is fixed: 1, 2 or 8 processes see the same samples, changed alike, and step along
the gradient of the global batch's mean loss. Only batch normalisation can tell how many they are,
since each process normalises by its own share. Validation is exact on any number of processes.

All that decides a step is a function of the recipe, the step and the weights, so a training that
was ended at any moment goes on from its last checkpoint to the same weights (on one process of a
CPU, bit for bit).
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from itertools import chain
from typing import Any, NoReturn

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from beton import rng
from beton.order import Shard
from beton.reader import Reader
from pipeline.errors import DivergedError, UserError
from pipeline.evaluation.metrics import EpochMetrics, Scores, score
from pipeline.evaluation.predict import Predictions, load_weights, predict
from pipeline.loading.batches import Decode, DeviceLoader, MicroBatch
from pipeline.loading.combined import CombinedLoader
from pipeline.recipes.recipe import Recipe, Stage
from pipeline.runtime.hardware import environment
from pipeline.runtime.signals import Stopped, StopSignals
from pipeline.training import optim
from pipeline.training.checkpoint import Checkpoints
from pipeline.training.datamodule import DataModule
from pipeline.training.distributed import Processes
from pipeline.training.ema import moving_average
from pipeline.training.muon import Muon

WATCHED = 16  # steps whose losses are looked at together, at most, where a look costs time
PATIENCE = 4.0  # seconds until a look, about


class Trainer:
    """A recipe to be run on a file that prep wrote; iterating over it trains, epoch by epoch.

    `network` is trained in place, on the samples of the splits `learn_from` and, if the recipe
    wants some, all those of the file `auxiliary`; in the end it sees `view` of a page. With
    `checkpoints`, it goes on from the last of them, and writes more. What training has come to:
    `history`; `losses` of all steps; `answers` to the validation samples (None without any);
    `images` learned from, over all processes and both sets, in `seconds`, of which this process
    spent `seconds_waited` waiting for its loaders; `seconds_validating` and `seconds_saving`, which
    come on top.

    `on_step`, if set, is called with the number of images of each step. Raises UserError for a
    recipe that does not suit the network, the file or the processes; DivergedError; Stopped, when
    told by SIGTERM or SIGINT, after a checkpoint.
    """

    def __init__(
        self,
        processes: Processes,
        network: nn.Module,
        recipe: Recipe,
        file: Reader,
        *,
        learn_from: str = "train",
        validate_on: str = "validation",
        auxiliary: Reader | None = None,
        decode: Decode = "auto",
        checkpoints: Checkpoints | None = None,
    ) -> None:
        self._supply = data_module(
            processes, recipe, file, learn_from, validate_on, auxiliary, decode
        )
        self.network, self.recipe = network, recipe
        self.epochs, self.batches = recipe.epochs, self._supply.batches
        self.on_step: Callable[[int], None] | None = None
        self.view = self._supply.view(recipe.stages[-1])
        self.history: list[EpochMetrics] = []
        self.losses: list[float] = []
        self.predictions: Predictions | None = None
        self.seconds = self.seconds_waited = self.seconds_validating = self.seconds_saving = 0.0
        self._processes, self._checkpoints = processes, checkpoints
        self._rows = recipe.batch_size // processes.count
        self._batch = 0  # of the epoch, that comes next
        self._due = False  # a checkpoint, once the steps have been looked at
        # Of the epoch's steps: losses, shares of right answers and gradient norms.
        self._sums = torch.zeros(3, device=processes.device)
        self._unseen: list[Tensor] = []  # losses of steps that nobody has looked at
        self._looked, self._patience = 0.0, 1  # when that was; steps until the next time
        self._signals = StopSignals()
        network.to(processes.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._average = moving_average(network, recipe.average) if recipe.average else None
        self._optimizer_state = self._restore()

    @property
    def eval_model(self) -> nn.Module:
        """The network that is validated and kept: the average of the weights, if there is one."""
        if self._average is None:
            return self.network
        module: nn.Module = self._average.module
        return module

    @property
    def is_main(self) -> bool:
        """Whether this process speaks for all."""
        return bool(self._processes.is_main)

    def environment(self) -> dict[str, Any]:
        """Return versions and hardware, for a run's record."""
        processes = self._processes
        return environment(processes.device, processes.precision, processes.count)

    @property
    def step(self) -> int:
        """The number of steps taken."""
        return len(self.history) * self.batches + self._batch

    @property
    def images(self) -> int:
        """The number of images learned from."""
        return self.step * self.recipe.batch_size

    @property
    def images_to_come(self) -> int:
        """The number of images still to learn from."""
        return (self.epochs * self.batches - self.step) * self.recipe.batch_size

    def late_signal(self) -> int:
        """Return a signal that came to any process too late to stop training; 0 if none did."""
        received = torch.tensor([self._signals.received], device=self._processes.device)
        return int(self._processes.gather(received).max())

    def run(self) -> None:
        """Train to the end."""
        for _ in self:
            pass

    def scores(self, classes: Sequence[str]) -> Scores | None:
        """Return what the answers to the validation samples are worth."""
        if self.predictions is None:
            return None
        return score(self.predictions.logits, self.predictions.labels, classes)

    def figures(self) -> dict[str, Any]:
        """Return how long training took, and what for."""
        return {
            "epochs": self.epochs,
            "images": self.images,
            "seconds_training": self.seconds,
            "seconds_validating": self.seconds_validating,
            "seconds_saving": self.seconds_saving,
            "images_per_second": self.images / self.seconds,
            "loader_share": self.seconds_waited / self.seconds,
        }

    def __iter__(self) -> Iterator[EpochMetrics]:
        """Train; yield the figures of every epoch once it is over."""
        first = 0
        with self._signals:
            for number, stage in enumerate(self.recipe.stages):
                if len(self.history) < first + stage.epochs:
                    yield from self._run(number, stage, first)
                first += stage.epochs
            if self.predictions is None:  # resumed after the end
                last = self.recipe.stages[-1]
                with self._supply.held_out(last) as held_out:
                    self._validate(held_out, last)

    def _run(self, number: int, stage: Stage, first: int) -> Iterator[EpochMetrics]:
        """Run a stage whose first epoch has the number `first`."""
        processes = self._processes
        optimizer = optim.build(self.network, stage)
        # Muon's iteration bears rounding, other optimizers do not.
        self._stepping = processes.autocast if isinstance(optimizer, Muon) else nullcontext
        if self._optimizer_state and (len(self.history), self._batch) != (first, 0):
            optimizer.load_state_dict(self._optimizer_state)
        self._optimizer_state = None
        with (
            processes.wrapped(self.network, optimizer, stage.mixed_precision) as (model, wrapped),
            self._supply.training(stage) as feed,
            self._supply.held_out(stage) as held_out,
        ):
            while len(self.history) < first + stage.epochs:
                rate = max(stage.rates) * self._share(stage, first, batch=0)
                learned = self._learn(stage, first, model, wrapped, feed)
                validation = self._validate(held_out, stage)
                epoch = len(self.history)
                self.history.append(
                    EpochMetrics(epoch, number, rate, *learned, *validation, self.seconds)
                )
                self._batch = 0
                self._sums.zero_()
                self._save(wrapped, validation[1])
                yield self.history[-1]

    def _learn(
        self,
        stage: Stage,
        first: int,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        feed: DeviceLoader | CombinedLoader,
    ) -> tuple[float, float, float]:
        """Go through what is left of an epoch; return its loss, accuracy and gradient norm."""
        processes, epoch = self._processes, len(self.history)
        learning = [p for p in model.parameters() if p.requires_grad]
        clock = _Clock(self, feed)
        self._looked = time.perf_counter()
        model.train()
        for parts in feed.batches(epoch, self._batch):
            share = self._share(stage, first, self._batch)
            for group in optimizer.param_groups:
                group["lr"] = group["top"] * share
            self._seed_dropout(epoch)
            loss, right = self._differentiate(stage, model, parts, epoch)
            norm = processes.clip_grad_norm(learning, stage.clip or math.inf)
            with self._stepping():
                optimizer.step()
            optimizer.zero_grad()
            if self._average is not None:
                self._average.update_parameters(self.network)
            self._sums += torch.stack([loss, right / self._rows, norm])
            self._unseen.append(loss)
            self._batch += 1
            if self.on_step is not None:
                self.on_step(self.recipe.batch_size)
            clock.read()
            self._look(feed, optimizer)
        loss, accuracy, norm = (processes.mean(self._sums) / self.batches).tolist()
        clock.read()
        return loss, accuracy, norm

    def _differentiate(
        self, stage: Stage, model: nn.Module, parts: Iterator[MicroBatch], epoch: int
    ) -> tuple[Tensor, Tensor]:
        """Add up the gradients of a batch; return its mean loss and the number of right answers."""
        loss, right = torch.zeros(2, device=self._processes.device).unbind()
        for inputs in parts:
            mixed = stage.mixing.mix(
                inputs.images, inputs.labels, inputs.ids, self.recipe.seed, epoch
            )
            with nullcontext() if inputs.last else self._processes.no_sync(model):
                logits = model(mixed.images)
                share = stage.loss.of(logits, mixed).sum() / self._rows
                self._processes.backward(share)
            loss += share.detach()
            right += (logits.argmax(dim=1) == inputs.labels).sum()
        return loss, right

    def _share(self, stage: Stage, first: int, batch: int) -> float:
        """Return the share of the highest learning rate in a step of the epoch."""
        done = (len(self.history) - first) * self.batches + batch
        return optim.factor(stage.schedule, done, stage.epochs * self.batches, stage.warm_up)

    def _seed_dropout(self, epoch: int) -> None:
        """Make what layers draw a function of the step and the process."""
        place = self._batch * self._processes.count + self._processes.rank
        (number,) = rng.bits(self.recipe.seed, epoch, np.array([place]), rng.DROPOUT)[0]
        torch.manual_seed(int(number >> np.uint64(1)))

    def _look(self, feed: DeviceLoader | CombinedLoader, optimizer: torch.optim.Optimizer) -> None:
        """See whether what was learned is finite, a checkpoint is due, or a signal has come.

        All processes look at the same steps, and at the sum of what each knows. Looking keeps a GPU
        waiting; a launcher gives processes half a minute from a signal on.
        """
        processes, over, agreed = self._processes, self._batch == self.batches, False
        if self._checkpoints is not None:
            agreed = self._checkpoints.due(self.step)
            late = self.is_main and self._checkpoints.late()
            self._due = not over and (self._due or agreed or late)
        at_once = processes.count == 1 and (self._due or feed.device.type == "cpu")
        if len(self._unseen) < self._patience and not (over or agreed or at_once):
            return
        now = time.perf_counter()
        flags = [self._signals.received, self._due, (now - self._looked) / len(self._unseen)]
        known = torch.cat([torch.stack(self._unseen), self._unseen[0].new_tensor(flags)])
        *losses, told, due, pace = processes.mean(known).tolist()
        self._looked, self._patience = now, max(1, min(WATCHED, int(PATIENCE / max(pace, 1e-9))))
        self._unseen.clear()
        for back, loss in zip(range(len(losses), 0, -1), losses, strict=True):
            if not math.isfinite(loss):
                self._diverge(feed, self._batch - back)
        save = bool(told or due)
        if (save or over) and not self._is_finite():
            self._diverge(feed, self._batch - 1)
        self.losses += losses
        if save:
            self._sums = processes.mean(self._sums)  # for all processes
            self._share_statistics()
            self._save(optimizer)
            self._due = False
        if told:
            raise Stopped(self._signals.received, self.step)

    def _is_finite(self) -> bool:
        return all(bool(weights.isfinite().all()) for weights in self.network.parameters())

    def _share_statistics(self) -> None:
        """Let normalisation's statistics, which each process has of its own share, be of all."""
        modules = {id(module): module for module in (self.network, self.eval_model)}.values()
        for buffer in chain.from_iterable(module.buffers() for module in modules):
            if buffer.is_floating_point():
                buffer.copy_(self._processes.mean(buffer))

    def _diverge(self, feed: DeviceLoader | CombinedLoader, batch: int) -> NoReturn:
        epoch = len(self.history)
        kept = self._checkpoints.all() if self._checkpoints is not None else []
        ids, own = feed.ids(epoch, batch), len(self._supply.file)
        raise DivergedError(
            epoch * self.batches + batch,
            epoch,
            ids[ids < own].tolist(),
            (ids[ids >= own] - own).tolist(),
            kept[-1] if kept else None,
        )

    def _validate(
        self, feed: DeviceLoader | None, stage: Stage
    ) -> tuple[float | None, float | None]:
        """Answer the validation samples; return the loss and accuracy of that."""
        if feed is None:
            return None, None
        start = time.perf_counter()
        processes, eval_model = self._processes, self.eval_model
        self._share_statistics()
        precision = processes.precision if stage.mixed_precision else "no"
        views = self.recipe.views
        predictions = predict(eval_model, feed, precision, views, gather=processes.gather)
        self.predictions = predictions
        right = (predictions.logits.argmax(dim=1) == predictions.labels).sum()
        loss = F.cross_entropy(predictions.logits, predictions.labels)
        self.seconds_validating += time.perf_counter() - start
        return float(loss), int(right) / len(predictions.labels)

    def _save(self, optimizer: torch.optim.Optimizer, score: float | None = None) -> None:
        """Write a checkpoint, if any are wanted."""
        if self._checkpoints is None or not self.is_main:
            return
        start = time.perf_counter()
        state = self._state(optimizer)
        self._checkpoints.save(self.step, self.eval_model.state_dict(), state, score)
        self.seconds_saving += time.perf_counter() - start

    def _state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """Return all that training goes on from; of the weights, those that are not judged."""
        learned = {"network": self.network.state_dict()} if self._average is not None else {}
        averaged = 0 if self._average is None else int(self._average.n_averaged)
        return {
            **learned,
            "averaged": averaged,
            "optimizer": optimizer.state_dict(),
            "history": [asdict(epoch) for epoch in self.history],
            "batch": self._batch,
            "batches": self.batches,
            "sums": self._sums,
            "losses": self.losses,
            "seconds": {name: getattr(self, name) for name in SECONDS},
        }

    def _restore(self) -> dict[str, Any] | None:
        """Go back to the last checkpoint; return the optimizer's state there, None without any."""
        if self._checkpoints is None:
            return None
        folder, last = self._checkpoints.root, self._checkpoints.last(self._processes.device)
        if last is None:
            return None
        weights, state = last
        if state["batches"] != self.batches:
            raise UserError(
                f"checkpoint: got {state['batches']} batches an epoch, expected {self.batches}"
            )
        if self._average is not None:
            load_weights(self._average.module, weights, folder)
            self._average.n_averaged.fill_(state["averaged"])
        learned = weights if self._average is None else state["network"]
        load_weights(self.network, learned, folder)
        self.history = [EpochMetrics(**figures) for figures in state["history"]]
        self.losses, self._batch = state["losses"], state["batch"]
        self._sums.copy_(state["sums"])
        for name, seconds in state["seconds"].items():
            setattr(self, name, seconds)
        optimizer: dict[str, Any] = state["optimizer"]
        return optimizer


SECONDS = ("seconds", "seconds_waited", "seconds_validating", "seconds_saving")


class _Clock:
    """Adds the time since it was made to a training's, but for what went to checkpoints."""

    def __init__(self, training: Trainer, feed: DeviceLoader | CombinedLoader) -> None:
        self._training, self._feed = training, feed
        self._read, self._waited = time.perf_counter(), feed.seconds_waited
        self._saving = training.seconds_saving

    def read(self) -> None:
        training, now = self._training, time.perf_counter()
        training.seconds += now - self._read - (training.seconds_saving - self._saving)
        training.seconds_waited += self._feed.seconds_waited - self._waited
        self._read, self._waited = now, self._feed.seconds_waited
        self._saving = training.seconds_saving


def data_module(
    processes: Processes,
    recipe: Recipe,
    file: Reader,
    learn_from: str = "train",
    validate_on: str = "validation",
    auxiliary: Reader | None = None,
    decode: Decode = "auto",
) -> DataModule:
    """Return what this process of a launch learns from. Raises UserError as `Supply` does."""
    shard = Shard(processes.rank, processes.count)
    return DataModule(
        recipe, file, learn_from, validate_on, auxiliary, decode, processes.device, shard
    )
