"""The training loop: trains a network by a recipe, on any number of processes.

The global batch is fixed. With 1, 2 or 8 processes, a step uses the same samples, the same
augmentations and the gradient of the global batch's mean loss. Only batch normalisation depends on
the number of processes, because each process normalises its local batch. Validation is exact on
any number.

A step is a function of the recipe, its number and the weights. A killed training that is resumed
from its last checkpoint therefore ends with the same weights (on one process of a CPU, bit for
bit).
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from beton import rng
from beton.reader import Reader
from pipeline.errors import DivergedError, UserError
from pipeline.evaluation.metrics import EpochMetrics, Scores, score
from pipeline.evaluation.predict import Predictions, load_weights, predict
from pipeline.evaluation.run_files import check_history
from pipeline.loading.batches import Decode, DeviceLoader, MicroBatch
from pipeline.loading.dataset import View
from pipeline.recipes.mixup import Mixed
from pipeline.recipes.recipe import Recipe, Stage
from pipeline.runtime.signals import Stopped, StopSignals
from pipeline.training import optim
from pipeline.training.checkpoint import Checkpoints, errors_of_restoring
from pipeline.training.clock import Clock
from pipeline.training.datamodule import DataModule, MakeLoader, TrainLoader
from pipeline.training.distributed import LocalTensors, Processes
from pipeline.training.ema import MovingAverage
from pipeline.training.mixed_precision import MixedPrecision
from pipeline.training.monitor import StepMonitor, StepReport
from pipeline.training.optim.state import load_state


class Trainer:
    """Training of a network by a recipe, as an iterable over the metrics of its epochs.

    The network is trained in place, on the samples of `file` in the splits `learn_from` and, if the
    recipe uses an auxiliary dataset, on all samples of `auxiliary`. With `checkpoints`, training
    resumes from the last one and saves more.

    `eval_model` is the network that is validated and saved: with the recipe's `average`, a moving
    average of `network`. `history` holds the epochs so far, `losses` the mean loss of each step in
    nats. `predictions` are those of the last validation, None without validation samples. `view` is
    that of the last stage trained. `on_step` is called after each step with its number of images,
    `on_first_batch` before the first one with the mixed images of its first micro-batch. Training
    ends after the first epoch whose validation accuracy is at least `until`, unless that is None.
    `make_loader` replaces the loaders of training batches, as in `DataModule`.

    Raises UserError for a recipe that does not suit the network, the files or the processes.
    Iterating raises DivergedError, and Stopped after a stop signal and a checkpoint.
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
        until: float | None = None,
        make_loader: MakeLoader | None = None,
    ) -> None:
        splits = learn_from, validate_on
        self._data = DataModule(processes, recipe, file, *splits, auxiliary, decode, make_loader)
        self._data.check_until(until)
        self.network, self.recipe = network, recipe
        self.batches_per_epoch = self._data.batches_per_epoch
        self.on_step: Callable[[int], None] = lambda _: None
        self.on_first_batch: Callable[[Mixed], None] = lambda _: None
        self.history: list[EpochMetrics] = []
        self.losses: list[float] = []
        self.predictions: Predictions | None = None
        self._processes, self._checkpoints, self.until = processes, checkpoints, until
        self._local_batch_size = recipe.batch_size // processes.count
        self._batch = 0  # number in the epoch, of the next batch
        # Of the epoch's steps so far: losses, accuracies, gradient norms, and steps not skipped.
        self._sums = torch.zeros(4, device=processes.device)
        self._arithmetic = MixedPrecision(processes.device, processes.precision)
        self._class_weights = self._data.class_weights()
        self._clock = Clock()
        self._signals = StopSignals()
        self._monitor = StepMonitor(processes, checkpoints, self._signals)
        network.to(processes.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._average = MovingAverage(network, recipe.average) if recipe.average else None
        self.eval_model: nn.Module = network if self._average is None else self._average.module
        # Batch normalisation's statistics are of local batches.
        buffers = dict.fromkeys([*network.buffers(), *self.eval_model.buffers()])
        statistics = [buffer for buffer in buffers if buffer.is_floating_point()]
        self._local = LocalTensors(processes, [self._sums, *statistics])
        self._optimizer_state = self._restore()

    @property
    def step(self) -> int:
        """The number of steps taken."""
        return len(self.history) * self.batches_per_epoch + self._batch

    @property
    def reached(self) -> bool:
        """Whether an epoch has reached the validation accuracy `until`."""
        return self.until is not None and any(
            epoch.accuracy is not None and epoch.accuracy >= self.until for epoch in self.history
        )

    @property
    def view(self) -> View:
        """What the network sees of an image in the last stage trained."""
        return self._data.view(self._last_stage)

    @property
    def _last_stage(self) -> Stage:
        return self.recipe.stages[self.history[-1].stage if self.history else -1]

    @property
    def images(self) -> int:
        """The number of images trained on, over all processes and both datasets."""
        return self.step * self.recipe.batch_size

    @property
    def images_left(self) -> int:
        """The number of images that are left to train on."""
        steps = self.recipe.epochs * self.batches_per_epoch
        return (steps - self.step) * self.recipe.batch_size

    def late_signal(self) -> int:
        """Return a stop signal that any process received too late to stop training, 0 if none."""
        received = torch.tensor([self._signals.received], device=self._processes.device)
        return int(self._processes.gather(received).max())

    def scores(self, classes: Sequence[str]) -> Scores | None:
        """Score the predictions of the validation samples."""
        if self.predictions is None:
            return None
        return score(self.predictions.logits, self.predictions.labels, classes)

    def performance(self) -> dict[str, Any]:
        """Return the counts, times and rates of a `TrainingResult`."""
        clock = self._clock
        return {
            "epochs": len(self.history),
            "images": self.images,
            "seconds_training": clock.seconds,
            "seconds_validating": clock.seconds_validating,
            "seconds_saving": clock.seconds_saving,
            "images_per_second": self.images / clock.seconds,
            "loader_share": clock.seconds_waited / clock.seconds,
        }

    def run(self) -> None:
        """Train to the end."""
        for _ in self:
            pass

    def __iter__(self) -> Iterator[EpochMetrics]:
        """Train; yield the metrics of each epoch after its validation."""
        first_epoch = 0
        with self._signals:
            for number, stage in enumerate(self.recipe.stages):
                if len(self.history) < first_epoch + stage.epochs and not self.reached:
                    yield from self._train_stage(number, stage, first_epoch)
                first_epoch += stage.epochs
            if self.predictions is None:  # resumed after the last epoch
                last = self._last_stage
                with self._data.validation_loader(last) as loader:
                    self._validate(loader, last)

    def predict_test(self) -> Predictions | None:
        """Predict the test samples, None without any or if the validation used them.

        All processes must call it alike.
        """
        if "test" in (*self._data.learn_from.split("+"), self._data.validate_on):
            return None
        with self._data.test_loader(self._last_stage) as loader:
            return None if loader is None else self._predict(loader, self._last_stage)

    def _train_stage(self, number: int, stage: Stage, first_epoch: int) -> Iterator[EpochMetrics]:
        """Train for the rest of a stage, which starts at the epoch `first_epoch`."""
        optimizer = optim.build(self.network, stage)
        if self._optimizer_state and (len(self.history), self._batch) != (first_epoch, 0):
            load_state(optimizer, self._optimizer_state)
        self._optimizer_state = None
        model = self._processes.parallel(self.network)
        with (
            self._data.train_loader(stage) as train_loader,
            self._data.validation_loader(stage) as validation_loader,
        ):
            while (epoch := len(self.history)) < first_epoch + stage.epochs and not self.reached:
                lr = max(stage.rates) * self._lr_factor(stage, first_epoch, batch=0)
                train_metrics = self._train_epoch(
                    stage, first_epoch, model, optimizer, train_loader
                )
                loss, accuracy, balanced = self._validate(validation_loader, stage)
                in_train_mode = self._train_mode_accuracy(validation_loader, epoch)
                seconds = self._clock.seconds
                self.history.append(
                    EpochMetrics(
                        *(epoch, number, lr, *train_metrics, loss, accuracy, seconds),
                        train_mode_accuracy=in_train_mode,
                        balanced_accuracy=balanced,
                    )
                )
                self._batch = 0
                self._sums.zero_()
                self._save(optimizer, accuracy)
                yield self.history[-1]

    def _train_epoch(
        self,
        stage: Stage,
        first_epoch: int,
        model: nn.Module,
        optimizer: Optimizer,
        loader: TrainLoader,
    ) -> tuple[float, float, float]:
        """Train for the rest of an epoch; return its mean loss, accuracy and gradient norm."""
        epoch = len(self.history)
        parameters = [p for p in model.parameters() if p.requires_grad]
        self._clock.start(loader)
        self._monitor.start_epoch()
        model.train()
        for micro_batches in loader.batches(epoch, self._batch):
            optim.set_lr(optimizer, self._lr_factor(stage, first_epoch, self._batch))
            self._seed_dropout(epoch)
            loss, correct = self._forward_backward(stage, model, micro_batches, epoch)
            # Muon's iteration tolerates rounding, other optimizers do not.
            grad_norm = self._arithmetic.step(
                optimizer, parameters, stage.clip or math.inf, stage.optimizer == "Muon"
            )
            self._sums[:2] += torch.stack([loss, correct / self._local_batch_size])
            if grad_norm is not None:
                self._sums[2] += grad_norm
                self._sums[3] += 1
                if self._average is not None:
                    self._average.update(self.network)
            self._batch += 1
            with self._clock.excluded():
                self.on_step(self.recipe.batch_size)
            self._clock.lap()
            epoch_done = self._batch == self.batches_per_epoch
            report = self._monitor.add(loss, self.step, epoch_done)
            if report is None:
                continue
            self._check_finite(report, epoch_done, loader)
            self.losses += report.losses
            if report.save_requested:
                self._save(optimizer)
            if report.stop_requested:
                raise Stopped(self._signals.received, f"step {self.step}")
        self._local.average()
        loss, accuracy, norm, taken = self._sums.tolist()
        self._clock.lap()
        return loss / self._batch, accuracy / self._batch, norm / max(taken, 1)

    def _forward_backward(
        self, stage: Stage, model: nn.Module, micro_batches: Iterator[MicroBatch], epoch: int
    ) -> tuple[Tensor, Tensor]:
        """Accumulate the gradients of a local batch; return its mean loss and correct count."""
        loss, correct = torch.zeros(2, device=self._processes.device).unbind()
        first = self.step == 0
        for images, labels, _, ids, last in micro_batches:
            mixed = stage.mixing.mix(images, labels, ids, self.recipe.seed, epoch)
            if first:
                first = False
                with self._clock.excluded():
                    self.on_first_batch(mixed)
            with nullcontext() if last else self._processes.no_sync(model):
                with self._arithmetic.autocast(stage.mixed_precision):
                    logits = model(mixed.images)
                micro_loss = stage.loss.of(logits.float(), mixed, self._class_weights).sum()
                micro_loss = micro_loss / self._local_batch_size
                self._arithmetic.backward(micro_loss)
            loss += micro_loss.detach()
            correct += (logits.argmax(dim=1) == labels).sum()
        return loss, correct

    def _lr_factor(self, stage: Stage, first_epoch: int, batch: int) -> float:
        """Return the fraction of the peak learning rate for a batch of the current epoch."""
        step = (len(self.history) - first_epoch) * self.batches_per_epoch + batch
        steps = stage.epochs * self.batches_per_epoch
        return optim.stage_lr_factor(stage, step, steps)

    def _seed_dropout(self, epoch: int) -> None:
        """Make dropout a function of the step and the process."""
        place = self._batch * self._processes.count + self._processes.rank
        (number,) = rng.bits(self.recipe.seed, epoch, np.array([place]), rng.DROPOUT)[0]
        torch.manual_seed(int(number >> np.uint64(1)))

    def _check_finite(self, report: StepReport, epoch_done: bool, loader: TrainLoader) -> None:
        """Raise DivergedError for a loss that is not finite, or such weights before a save."""
        first = self._batch - len(report.losses)
        diverged = [first + n for n, loss in enumerate(report.losses) if not math.isfinite(loss)]
        if not diverged and (report.save_requested or epoch_done):
            finite = all(bool(weights.isfinite().all()) for weights in self.network.parameters())
            diverged = [] if finite else [self._batch - 1]
        if not diverged:
            return
        epoch, batch = len(self.history), diverged[0]
        ids, samples = loader.ids(epoch, batch), len(self._data.file)
        raise DivergedError(
            epoch * self.batches_per_epoch + batch,
            epoch,
            ids[ids < samples].tolist(),
            (ids[ids >= samples] - samples).tolist(),
            self._last_checkpoint(),
        )

    def _last_checkpoint(self) -> Path | None:
        saved = self._checkpoints.all() if self._checkpoints is not None else []
        return saved[-1] if saved else None

    def _validate(
        self, loader: DeviceLoader | None, stage: Stage
    ) -> tuple[float, float, float] | tuple[None, None, None]:
        """Predict the validation samples; return loss, accuracy and balanced accuracy.

        All are None without samples.
        """
        if loader is None:
            return None, None, None
        with self._clock.validating():
            self.predictions = predictions = self._predict(loader, stage)
            loss = F.cross_entropy(predictions.logits, predictions.labels)
            return float(loss), predictions.accuracy, predictions.balanced_accuracy

    def _train_mode_accuracy(self, loader: DeviceLoader | None, epoch: int) -> float | None:
        """Return the validation accuracy in train mode, if the recipe asks for it.

        Batch normalisation then uses the statistics of the batch, and dropout is on. The network's
        own statistics stay unchanged.
        """
        if loader is None or not self.recipe.train_mode_accuracy:
            return None
        network, counts = self.eval_model, torch.zeros(2, device=self._processes.device)
        buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
        was_training = network.training
        with self._clock.validating(), torch.no_grad():
            self._seed_dropout(epoch)
            network.train()
            for inputs in loader.micro_batches():
                # Padding stays out of the statistics, unless they would be those of one image.
                rows = inputs.valid if int(inputs.valid.sum()) > 1 else inputs.valid >= 0
                valid, labels = inputs.valid[rows], inputs.labels[rows]
                correct = network(inputs.images[rows]).argmax(dim=1) == labels
                counts += torch.stack([(correct & valid).sum(), valid.sum()])
            network.train(was_training)
            for buffer, before in buffers:
                buffer.copy_(before)
        correct_rows, rows = self._processes.mean(counts).tolist()
        return float(correct_rows / rows)

    def _predict(self, loader: DeviceLoader, stage: Stage) -> Predictions:
        """Predict the samples of a loader. Raises DivergedError for logits that are not finite."""
        precision = self._processes.precision if stage.mixed_precision else "no"
        predictions = predict(
            self.eval_model,
            loader,
            precision,
            self.recipe.views,
            self.recipe.mirrored,
            gather=self._processes.gather,
        )
        if not predictions.logits.isfinite().all():  # of large weights, or statistics of batches
            last = self.step - 1
            epoch = last // self.batches_per_epoch
            raise DivergedError(last, epoch, (), (), self._last_checkpoint())
        return predictions

    def _save(self, optimizer: Optimizer, score: float | None = None) -> None:
        """Save a checkpoint, if there are to be any. It changes nothing that is trained.

        What differs between the processes is saved of each. The weights to evaluate have the means.
        """
        if self._checkpoints is None:
            return
        with self._clock.saving():
            local = self._local.gather()
            if not self._processes.is_main:
                return
            state = {
                "averaged": 0,
                "optimizer": optimizer.state_dict(),
                "scaler": self._arithmetic.state(),
                "history": [asdict(epoch) for epoch in self.history],
                "batch": self._batch,
                "batches": self.batches_per_epoch,
                "local": local,
                "losses": self.losses,
                "seconds": asdict(self._clock),
            }
            if self._average is not None:  # `eval_model` has other weights
                state["network"] = self.network.state_dict()
                state["averaged"] = self._average.count
            with self._local.as_means(local):
                self._checkpoints.save(self.step, self.eval_model.state_dict(), state, score)

    def _restore(self) -> dict[str, Any] | None:
        """Load the last checkpoint; return the optimizer's state, None without a checkpoint."""
        if self._checkpoints is None:
            return None
        folder, last = self._checkpoints.root, self._checkpoints.last(self._processes.device)
        if last is None:
            return None
        with errors_of_restoring(folder):
            return self._take_up(*last, folder)

    def _take_up(
        self, weights: Mapping[str, Tensor], state: dict[str, Any], folder: Path
    ) -> dict[str, Any]:
        """Take up the weights and the state of a checkpoint; return the optimizer's state."""
        if state["batches"] != self.batches_per_epoch:
            raise UserError(
                f"checkpoint: got {state['batches']} batches per epoch, expected "
                f"{self.batches_per_epoch}"
            )
        if self._average is not None:
            load_weights(self._average.module, weights, folder)
            self._average.count = state["averaged"]
            weights = state["network"]
        load_weights(self.network, weights, folder)
        self.history = [EpochMetrics(**metrics) for metrics in state["history"]]
        check_history(folder, self.history, len(self.recipe.stages))
        self.losses, self._batch = state["losses"], state["batch"]
        self._arithmetic.restore(state.get("scaler", {}))
        if "local" in state:
            self._local.restore(state["local"])
        else:  # of a run of an earlier version: means
            sums: Tensor = state["sums"]
            self._sums.copy_(torch.cat([sums, sums.new_tensor([self._batch])]))
        self._clock = Clock(**state["seconds"])
        optimizer: dict[str, Any] = state["optimizer"]
        return optimizer
