"""Accuracy of the label noise diagnosis, on datasets whose labels are corrupted on purpose.

    ./launch.sh bench diagnosis                          synthetic digits
    ./launch.sh bench diagnosis --source fashion-mnist   real images
    ./launch.sh bench diagnosis --rates 0.3              fewer rates, less time
    ./launch.sh bench diagnosis --kinds none --seed 7    false alarms: correct labels, another seed

For each kind of label noise, a small CNN is trained on some of the labels and its predictions for
held-out images are diagnosed, as in part 3: without and with a reference model. The reference model
is the same network, trained on correct labels of other images. The split is random.
"""

from pipeline.runtime import signals

if __name__ in signals.MAIN:
    signals.exit_on_interrupt(__name__)

import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from pipeline.analysis.diagnosis import CLASS_DEPENDENT, Diagnosis
from pipeline.analysis.label_noise import diagnose
from pipeline.analysis.noise_robust import probabilities_of
from pipeline.benchmarks import trainings
from pipeline.benchmarks.harness import table
from pipeline.data.base import TEST, TRAIN, VALIDATION, DerivedSource, Ints, Pixels
from pipeline.data.prepare import prepare
from pipeline.data.sources import Source, SourceError, open_source
from pipeline.data.synth.handwriting import PART3_COUNTS, DigitCounts, SyntheticDigits
from pipeline.data.synth.mislabel import (
    KINDS,
    KINDS_WITH_RATE,
    LabelNoise,
    MislabelledSource,
)
from pipeline.evaluation.run_config import TrainingConfig
from pipeline.evaluation.run_dir import FinishedRun
from pipeline.experiments import command
from pipeline.loading.dataset import open_dataset, source_line
from pipeline.recipes.arms import PART3_ARMS
from pipeline.recipes.presets import override
from pipeline.reporting.common import percent
from pipeline.runtime.hardware import machine
from pipeline.training.distributed import Processes, join_processes

EXPECTED = {"none": "clean", "shuffled": "random", "flips": CLASS_DEPENDENT}  # other names


@dataclass(frozen=True)
class Config:
    """Measure how often the diagnosis is correct."""

    source: Path | None = None
    """Images with correct labels, at least 3 classes. Default: synthetic digits."""
    kinds: tuple[str, ...] = (*KINDS, *KINDS_WITH_RATE, "flips")
    """Kinds of label noise."""
    rates: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
    """Fractions of labels to corrupt, for the kinds that have a rate."""
    flips: tuple[str, ...] = ("2:7,3:8,5:6,6:5,7:1", "4:9,9:4")
    """Class-dependent noise: CLASS:LABEL,… by number, each with every one of --flip-rates."""
    flip_rates: tuple[float, ...] = (0.1, 0.2, 0.3)
    """Fractions of the labels of these classes to corrupt."""
    learned: int = 12_000
    """Training images; the reference model gets as many others."""
    held_out: int = 6_000
    """Held-out images for the diagnosis."""
    epochs: int = 2
    """Epochs of each training."""
    seed: int = 0
    """Seed of the split, the label noise, the weights and the order."""


class SampledSource(DerivedSource):
    """Images of another source, decoded once, for training and validation."""

    def __init__(self, source: Source, train: Ints, held_out: Ints) -> None:
        rows, entries = np.concatenate([train, held_out]), source.annotations
        annotations = replace(
            entries,
            labels=entries.labels[rows],
            writers=entries.writers[rows],
            splits=np.repeat([TRAIN, VALIDATION], [len(train), len(held_out)]),
        )
        super().__init__(source, rows, annotations)
        self._images = [source.image(int(row)) for row in rows]

    def image(self, index: int) -> Pixels:
        """Return an image: uint8 (h, w)."""
        return self._images[index]


def sample_sources(config: Config) -> tuple[SampledSource, SampledSource]:
    """Return the images to mislabel and those of the reference model, with equal held-out images.

    Raises SourceError for a source with too few images.
    """
    count = 2 * config.learned + config.held_out
    if config.source is None:
        source: Source = SyntheticDigits(DigitCounts(count, 0, PART3_COUNTS.writers), config.seed)
    else:
        source = open_source(config.source)
    available = np.flatnonzero(source.annotations.splits != TEST)
    if len(available) < count:
        raise SourceError(
            f"{source.path}: got {len(available):,} images outside the test set, expected "
            f"{count:,}: twice {config.learned:,} for training, {config.held_out:,} held out"
        )
    order = np.random.default_rng(config.seed).permutation(available)[:count]
    held_out, own, others = np.split(order, [config.held_out, config.held_out + config.learned])
    return SampledSource(source, own, held_out), SampledSource(source, others, held_out)


def train(
    processes: Processes, config: Config, name: str, source: Source, folder: Path
) -> FinishedRun:
    """Train on a source by part 3's recipe `simple`."""
    path, preset = folder / f"{name}.beton", PART3_ARMS["simple"].preset
    prepare(source, path)
    recipe = override(preset.recipe, epochs=config.epochs, seed=config.seed)
    with open_dataset(path) as file:
        training = TrainingConfig(preset.network, recipe)
        return trainings.train(processes, folder / name, training, file)


@dataclass(frozen=True)
class Outcome:
    """A kind of label noise, the fraction of incorrect held-out labels, and two diagnoses.

    `alone` is the diagnosis without a reference model, `referenced` the one with it.
    """

    mislabelling: LabelNoise
    incorrect: float
    alone: Diagnosis
    referenced: Diagnosis

    def is_correct(self, diagnosis: Diagnosis) -> bool:
        """Return whether a diagnosis names the kind of label noise."""
        return diagnosis.kind == EXPECTED.get(self.mislabelling.kind, self.mislabelling.kind)


def label_noises(config: Config) -> list[LabelNoise]:
    """Return the label noises to diagnose."""
    noises: list[LabelNoise] = []
    for kind in config.kinds:
        if kind == "flips":
            noises += (
                LabelNoise.parse("flips=" + ",".join(f"{pair}:{rate}" for pair in pairs.split(",")))
                for pairs in config.flips
                for rate in config.flip_rates
            )
        else:
            rates = config.rates if kind in KINDS_WITH_RATE else (1.0,)
            noises += (LabelNoise(kind, rate) for rate in rates)
    return noises


def estimated(diagnosis: Diagnosis) -> str:
    """Format the estimated noise rate; for clean labels, the limit of symmetric noise."""
    if diagnosis.detectable is None:
        return percent(diagnosis.rate, 1)
    return f"below {percent(diagnosis.detectable, 1)}"


def closing_table(outcomes: Sequence[Outcome]) -> Table:
    """Return a row per outcome, in Markdown: the diagnosis without, then with reference model."""
    headings = ["label noise", "incorrect labels"]
    for name in ("diagnosis", "with reference model"):
        headings += [name, "estimated", "correct"]
    rows = []
    for outcome in outcomes:
        rows.append([str(outcome.mislabelling), percent(outcome.incorrect, 1)])
        for diagnosis in (outcome.alone, outcome.referenced):
            correct = "yes" if outcome.is_correct(diagnosis) else "no"
            rows[-1] += [diagnosis.kind, estimated(diagnosis), correct]
    return table(headings, rows, "lrlrllrl", style=box.MARKDOWN)


def conclusion(outcomes: Sequence[Outcome]) -> str:
    """Return a sentence with the numbers of correct diagnoses."""
    alone = sum(outcome.is_correct(outcome.alone) for outcome in outcomes)
    referenced = sum(outcome.is_correct(outcome.referenced) for outcome in outcomes)
    return (
        f"The diagnosed kind is correct in {alone} of {len(outcomes)} cases without a reference "
        f"model, in {referenced} of {len(outcomes)} with one."
    )


def main(config: Config) -> None:
    """Run the benchmark and print its table."""
    console = Console(width=130, highlight=False, soft_wrap=True)
    start = time.perf_counter()
    own, others = sample_sources(config)
    noises = label_noises(config)
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory() as name, join_processes() as processes:
        folder = Path(name)
        reference = train(processes, config, "reference", others, folder)
        assert reference.predictions is not None
        truth, classes = reference.predictions.labels.numpy(), own.annotations.classes
        expected = probabilities_of(reference.predictions)
        title = (
            f"{machine()}, precision {processes.precision}; "
            f"{source_line(reference.config.provenance)}; {config.learned:,} training images, "
            f"{config.epochs} epochs, {config.held_out:,} held-out images; accuracy of the "
            f"reference model: {percent(reference.result.accuracy or 0.0, 1)}"
        )
        console.print(title)
        for number, mislabelling in enumerate(noises):
            source = MislabelledSource(own, mislabelling, config.seed)
            run = train(processes, config, f"{number}", source, folder)
            assert run.predictions is not None
            labels, predictions = run.predictions.labels.numpy(), probabilities_of(run.predictions)
            alone = diagnose(predictions, labels, classes)
            referenced = diagnose(predictions, labels, classes, expected)
            incorrect = float((labels != truth).mean())
            outcomes.append(Outcome(mislabelling, incorrect, alone, referenced))
            console.print(
                f"{mislabelling}: {alone.kind}, {alone.rate:.1%}; with reference model: "
                f"{referenced.kind}, {referenced.rate:.1%}; incorrect labels: {incorrect:.1%} "
                f"({time.perf_counter() - start:.0f} s)"
            )
    console.print(f"\n{title}")
    console.print(closing_table(outcomes))
    console.print(conclusion(outcomes))


if __name__ == "__main__":
    sys.exit(command.main("bench diagnosis", Config, main))
