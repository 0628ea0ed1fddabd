"""Is the diagnosis right? Sets mislabelled on purpose, and what is said of each.

    ./launch.sh bench noise                              the generator's digits: synthetic
    ./launch.sh bench noise --source fashion-mnist       real pictures
    ./launch.sh bench noise --rates 0.3                  the shortest of all kinds

For each way to mislabel, a small CNN learns from some of the labels and is diagnosed by its answers
to others, as part 3 does it, without a witness and with one: the same network, having learned right
labels of other pictures of that source. Which pictures are whose is drawn at random.
"""

import hashlib
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import tyro
from rich import box
from rich.console import Console
from rich.table import Table

from pipeline.analysis.diagnosis import Diagnosis
from pipeline.analysis.label_noise import diagnose
from pipeline.analysis.noise_robust import probabilities_of
from pipeline.data.prepare import prepare
from pipeline.data.sources import Source, SourceError, open_source
from pipeline.data.sources.base import TEST, TRAIN, VALIDATION, Ints, Pixels
from pipeline.data.synth.handwriting import PART3_COUNTS, DigitCounts, SyntheticDigits
from pipeline.data.synth.mislabel import KINDS, KINDS_WITH_RATE, LabelNoise, MislabelledSource
from pipeline.evaluation.run_config import TrainingConfig
from pipeline.evaluation.run_dir import FinishedRun, RunDir
from pipeline.loading.dataset import open_dataset, source_line
from pipeline.recipes.presets import PART3, override
from pipeline.runtime.hardware import machine
from pipeline.training.distributed import Processes, join_processes
from pipeline.training.runner import run_training, write_config

VERDICTS = {"none": "clean", "shuffled": "random"}  # where a verdict's word is not the deed's


@dataclass(frozen=True)
class Config:
    """Measure how often the diagnosis is right."""

    source: Path | None = None
    """Pictures with right labels, at least 3 classes. By default, the generator's digits."""
    kinds: tuple[str, ...] = (*KINDS, *KINDS_WITH_RATE)
    """What to do to the labels."""
    rates: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
    """Shares of the labels, for the kinds that have a rate."""
    learned: int = 12_000
    """Pictures to learn from; the witness learns from as many others."""
    held_out: int = 6_000
    """Pictures to diagnose by."""
    epochs: int = 2
    """Times that they are learned from."""
    seed: int = 0
    """Of the draws, the mislabelling, weights and order."""

    @property
    def deeds(self) -> list[LabelNoise]:
        """All that is to be done, in turn."""
        return [
            LabelNoise(kind, rate)
            for kind in self.kinds
            for rate in (self.rates if kind in KINDS_WITH_RATE else (1.0,))
        ]


class Drawn(Source):
    """Pictures of another source, decoded once: some to learn from, some held out."""

    expected_layout = "some pictures of another source"

    def __init__(self, source: Source, learned: Ints, held_out: Ints) -> None:
        rows, entries = np.concatenate([learned, held_out]), source.annotations
        self._source, self._rows = source, rows
        self._pictures = [source.image(int(row)) for row in rows]
        self.annotations = replace(
            entries,
            labels=entries.labels[rows],
            writers=entries.writers[rows],
            splits=np.repeat([TRAIN, VALIDATION], [len(learned), len(held_out)]),
        )
        self.kind, self.origin, self.path = source.kind, source.origin, source.path

    def name(self, index: int) -> str:
        """Return what the other source calls the picture."""
        return self._source.name(int(self._rows[index]))

    def image(self, index: int) -> Pixels:
        """Return the picture."""
        return self._pictures[index]

    def size(self, rows: Ints) -> int:
        """Return the bytes of the files that hold the pictures `rows` (n,)."""
        return self._source.size(self._rows[rows])

    def digest(self) -> str:
        """Return the digest of the other source's digest and of what was drawn."""
        made_from = self._source.digest().encode() + self._rows.tobytes()
        return f"sha256:{hashlib.sha256(made_from).hexdigest()}"


def draw(config: Config) -> tuple[Drawn, Drawn]:
    """Return what is to be mislabelled, and what the witness learns: the same is held out of both.

    Raises SourceError for a source with too few pictures.
    """
    count = 2 * config.learned + config.held_out
    if config.source is None:
        source: Source = SyntheticDigits(DigitCounts(count, 0, PART3_COUNTS.writers), config.seed)
    else:
        source = open_source(config.source)
    free = np.flatnonzero(source.annotations.splits != TEST)
    if len(free) < count:
        raise SourceError(
            f"{source.path}: {len(free):,} pictures beside the test set, expected {count:,}: "
            f"twice {config.learned:,} to learn from, {config.held_out:,} to hold out"
        )
    order = np.random.default_rng(config.seed).permutation(free)[:count]
    held_out, own, others = np.split(order, [config.held_out, config.held_out + config.learned])
    return Drawn(source, own, held_out), Drawn(source, others, held_out)


def train(
    processes: Processes, config: Config, name: str, source: Source, folder: Path
) -> tuple[FinishedRun, str]:
    """Train on a source by the first of part 3's recipes; return that, and where data came from."""
    path = folder / f"{name}.beton"
    prepare(source, path)
    plan = PART3["simple"]
    recipe = override(plan.recipe, epochs=config.epochs, seed=config.seed)
    with open_dataset(path) as file:
        record = RunDir(folder / name)
        assignment = TrainingConfig(plan.network, recipe)
        write_config(record, "bench", assignment, file, asdict(config))
        run = run_training(processes, record, assignment, file, Console(quiet=True))
        return run, source_line(file.info["provenance"])


@dataclass(frozen=True)
class Outcome:
    """What was done to labels, the share of those held out that became wrong, and what was said.

    The diagnoses are without a witness and with one.
    """

    done: LabelNoise
    wrong: float
    alone: Diagnosis
    told: Diagnosis

    def right(self, found: Diagnosis) -> bool:
        """Say whether a diagnosis names what was done."""
        return found.kind == VERDICTS.get(self.done.kind, self.done.kind)


def percent(share: float) -> str:
    """Return a share in words."""
    return f"{100 * share:.1f} %"


def estimated(found: Diagnosis) -> str:
    """Return the estimated share of wrong labels; of clean ones, what would not have shown."""
    if found.detectable is None:
        return percent(found.rate)
    return f"below {percent(found.detectable)}"


def closing_table(outcomes: Sequence[Outcome]) -> Table:
    """Return a row for each thing done, in Markdown; verdicts without a witness, then with one."""
    table = Table(box=box.MARKDOWN)
    table.add_column("what was done", no_wrap=True)
    table.add_column("truly wrong", justify="right", no_wrap=True)
    for verdict in ("verdict", "with a witness"):
        table.add_column(verdict, no_wrap=True)
        table.add_column("estimated", justify="right", no_wrap=True)
        table.add_column("right?", no_wrap=True)
    for one in outcomes:
        cells = [str(one.done), percent(one.wrong)]
        for found in (one.alone, one.told):
            cells += [found.kind, estimated(found), "yes" if one.right(found) else "no"]
        table.add_row(*cells)
    return table


def conclusion(outcomes: Sequence[Outcome]) -> str:
    """Say how many verdicts were right."""
    alone = sum(one.right(one.alone) for one in outcomes)
    told = sum(one.right(one.told) for one in outcomes)
    return (
        f"The kind was right in {alone} of {len(outcomes)} without a witness, "
        f"in {told} of {len(outcomes)} with one."
    )


def main(config: Config) -> None:
    """Run the benchmark and print its table."""
    console = Console(width=110, highlight=False, soft_wrap=True)
    start = time.perf_counter()
    own, others = draw(config)
    console.print(f"{config.learned:,} + {config.held_out:,} pictures, and the witness's")
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory() as name, join_processes() as processes:
        folder = Path(name)
        witness, origin = train(processes, config, "witness", others, folder)
        assert witness.predictions is not None
        truth, classes = witness.predictions.labels.numpy(), own.annotations.classes
        title = (
            f"{machine()}, precision {processes.precision}; {origin}; {config.learned:,} "
            f"labels to learn from, {config.epochs} times, {config.held_out:,} to diagnose by; "
            f"the witness is right in {percent(witness.result.accuracy or 0.0)}"
        )
        console.print(title)
        for done in config.deeds:
            mislabelled = MislabelledSource(own, done, config.seed)
            run, _ = train(processes, config, str(done), mislabelled, folder)
            assert run.predictions is not None
            labels, predictions = run.predictions.labels.numpy(), probabilities_of(run.predictions)
            one = Outcome(
                done,
                float((labels != truth).mean()),
                diagnose(predictions, labels, classes),
                diagnose(predictions, labels, classes, probabilities_of(witness.predictions)),
            )
            outcomes.append(one)
            console.print(
                f"{done}: {one.alone.kind}, {one.alone.rate:.1%}; with a witness "
                f"{one.told.kind}, {one.told.rate:.1%}; truly {one.wrong:.1%} "
                f"({time.perf_counter() - start:.0f} s)"
            )
    console.print(f"\n{title}")
    console.print(closing_table(outcomes))
    console.print(conclusion(outcomes))


if __name__ == "__main__":
    main(tyro.cli(Config))
