"""The learning rate range test (Smith 2017, "Cyclical learning rates").

A fresh network takes some steps, each at a higher learning rate than the last. The loss first
stays, then falls, and rises steeply where the rate is too high.
"""

import math
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from itertools import count, islice

import numpy as np
import torch

from beton.reader import Reader
from pipeline.errors import UserError
from pipeline.evaluation.run_config import TrainingConfig
from pipeline.loading.batches import MicroBatch
from pipeline.training import optim
from pipeline.training.datamodule import DataModule, TrainLoader
from pipeline.training.distributed import Processes
from pipeline.training.mixed_precision import MixedPrecision
from pipeline.training.runner import initial_network

LOWEST, HIGHEST = 1e-6, 10.0  # learning rates
SMOOTHING = 20  # a loss is averaged with this fraction of the steps to either side
MEMORY = 0.9  # weight of the past in the moving average that decides where the test ends
DIVERGED = 4.0  # times the lowest average
STEPS, MIN_STEPS = 200, 20


@dataclass(frozen=True)
class LrRange:
    """The losses of a learning rate range test, and two suggested rates.

    `rates` are the peak rates of the steps; `losses`, in nats, are smoothed over neighbouring
    steps, until they diverge. `steepest` is the rate at which the loss falls fastest over the
    logarithm of the rate, after the first tenth of the steps. `valley` is the rate in the middle of
    the longest series of ever lower losses, as fastai chooses it.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    steepest: float
    valley: float


def find_learning_rate(
    processes: Processes,
    training: TrainingConfig,
    file: Reader,
    auxiliary: Reader | None = None,
    steps: int = STEPS,
) -> LrRange:
    """Run a range test of a training's recipe, on a network that is thrown away.

    It has the recipe's batches, augmentation, loss and optimizer, and rates from 1e-6 to 10 in
    equal ratios. It ends where the loss diverges. The random state stays unchanged, and equal
    arguments give equal results. All processes must call it alike. Raises UserError for a recipe of
    several stages, and if no rate lowers the loss.
    """
    recipe = training.recipe
    if len(recipe.stages) > 1:
        raise UserError(
            f"learning_rate: got find, but the recipe has {len(recipe.stages)} stages, each with "
            "its own; ./launch.sh find-lr tests one of them: --stage N"
        )
    data = DataModule(
        processes,
        recipe,
        file,
        training.learn_from,
        training.validate_on,
        auxiliary,
        training.decode,
    )
    rates = np.geomspace(LOWEST, HIGHEST, steps).tolist()
    devices = [processes.device] if processes.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(recipe.seed + processes.rank)
        with closing(_losses(processes, training, data, rates)) as measured:
            losses = _until_diverged(measured)
    return suggest(rates[: len(losses)], _smoothed(losses, steps // SMOOTHING))


def with_found_rate(training: TrainingConfig, found: LrRange) -> TrainingConfig:
    """Return a training of one stage at the steepest rate of its range test.

    It is the highest of the rates of stem, body and head; the test kept their ratios.
    """
    (stage,) = training.recipe.stages
    rate, highest = found.steepest, max(stage.rates)
    several = tuple(rate * one / highest for one in stage.rates)
    stage = replace(stage, learning_rate=rate if len({*stage.rates}) == 1 else several)
    recipe = replace(training.recipe, stages=(stage,))
    return replace(training, recipe=recipe, found_rate=rate)


def suggest(rates: Sequence[float], losses: Sequence[float]) -> LrRange:
    """Return the result of a range test, with its suggestions, from smoothed losses.

    Raises UserError if the losses do not fall.
    """
    lowest = int(np.argmin(losses)) if losses else 0
    series = _longest_fall(losses[: lowest + 1])
    if len(series) < 3:
        raise UserError(
            f"learning_rate: the range test failed: no rate from {LOWEST:g} to {HIGHEST:g} lowers "
            "the loss"
        )
    slopes = np.gradient(losses, np.log(rates))
    # The first means are of few losses.
    first = min(max(series[0], len(losses) // 10), lowest)
    steepest = first + int(np.argmin(slopes[first : lowest + 1]))
    middle = series[len(series) // 2]
    return LrRange(tuple(rates), tuple(losses), rates[steepest], rates[middle])


def _losses(
    processes: Processes, training: TrainingConfig, data: DataModule, rates: Sequence[float]
) -> Generator[float]:
    """Take a step at each rate; yield the loss before it, a mean over all processes."""
    recipe, (stage,) = training.recipe, training.recipe.stages
    network = initial_network(training, data.file)
    network.to(processes.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = optim.build(network, stage)
    rows, class_weights = recipe.batch_size // processes.count, data.class_weights()
    arithmetic = MixedPrecision(processes.device, processes.precision)
    model = processes.parallel(network)
    with data.train_loader(stage) as loader:
        parameters = [p for p in model.parameters() if p.requires_grad]
        model.train()
        batches = islice(_batches(loader), len(rates))
        for rate, (epoch, micro_batches) in zip(rates, batches, strict=True):
            loss = torch.zeros((), device=processes.device)
            for images, labels, _, ids, last in micro_batches:
                mixed = stage.mixing.mix(images, labels, ids, recipe.seed, epoch)
                with nullcontext() if last else processes.no_sync(model):
                    with arithmetic.autocast(stage.mixed_precision):
                        logits = model(mixed.images)
                    part = stage.loss.of(logits.float(), mixed, class_weights).sum() / rows
                    arithmetic.backward(part)
                loss += part.detach()
            optim.set_lr(optimizer, rate / max(stage.rates))
            limit = stage.clip or math.inf
            arithmetic.step(optimizer, parameters, limit, stage.optimizer == "Muon")
            yield float(processes.mean(loss))


def _batches(loader: TrainLoader) -> Iterator[tuple[int, Iterator[MicroBatch]]]:
    """Yield the batches of all epochs, each with the number of its epoch."""
    for epoch in count():
        for micro_batches in loader.batches(epoch, 0):
            yield epoch, micro_batches


def _until_diverged(losses: Iterable[float]) -> list[float]:
    """Return the losses up to the step at which their moving average diverges."""
    taken: list[float] = []
    total, lowest = 0.0, math.inf
    for step, loss in enumerate(losses, start=1):
        total = MEMORY * total + (1 - MEMORY) * loss
        average = total / (1 - MEMORY**step)  # without the bias of the first ones
        if not math.isfinite(average) or average > DIVERGED * lowest:
            break
        lowest = min(lowest, average)
        taken.append(loss)
    return taken


def _smoothed(losses: Sequence[float], half: int) -> list[float]:
    """Return means over `half` steps to either side, of weights that fall with the distance.

    Unlike a moving average of the past, they do not lag behind, which would suggest a rate too
    high. Losses above twice the first ones count as that, since the end may have huge ones.
    """
    if not losses:
        return []
    limited = np.minimum(losses, 2 * np.mean(losses[: half + 1]))
    kernel = np.hanning(2 * half + 3)[1:-1]
    sums = (
        np.convolve(one, kernel)[half : -half or None] for one in (limited, np.ones(len(losses)))
    )
    smoothed: list[float] = np.divide(*sums).tolist()
    return smoothed


def _longest_fall(losses: Sequence[float]) -> list[int]:
    """Return the places of the longest series in which every loss is lower than the last."""
    lengths, before = [1] * len(losses), [-1] * len(losses)
    for place, loss in enumerate(losses):
        for earlier in range(place):
            if loss < losses[earlier] and lengths[place] <= lengths[earlier]:
                lengths[place], before[place] = lengths[earlier] + 1, earlier
    place = int(np.argmax(lengths)) if lengths else -1
    series: list[int] = []
    while place >= 0:
        series.insert(0, place)
        place = before[place]
    return series
