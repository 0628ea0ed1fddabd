"""Part 3: find out what is wrong with a set's labels, and learn from it all the same.

    ./launch.sh train part3 [--processes N]              after prep part3 mnist, and train part2
    ./launch.sh train part3 --arms simple --seeds 1      the shortest
    ./launch.sh train part3 --data data/fashion-wrong.beton --test data/fashion-mnist.beton
    ./launch.sh train part3 --resume runs/part3/TIME     goes on with a run that was ended
    accelerate launch jobs/part3.py --seeds 1            the same, for one process

It trains as was published, looks, diagnoses without a right label, and recovers. Writes
runs/part3/<time>, with a folder for every training, result.json and console.html;
runs/part3/latest points to it. Exit status: 0 done, 2 not done, with the reason in a line, 130 or
143 stopped by Ctrl-C or SIGTERM.
"""

import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import tyro
from rich.console import Console

from beton.reader import Reader
from pipeline.analysis.diagnosis import Diagnosis
from pipeline.analysis.label_noise import diagnose, rank_labels
from pipeline.analysis.noise_robust import (
    accuracy_of,
    loss_of,
    methods_for,
    probabilities_of,
    recovery,
)
from pipeline.errors import UserError
from pipeline.evaluation.evaluate import cached_predictions
from pipeline.evaluation.predict import Predictions
from pipeline.evaluation.run_config import TrainingConfig
from pipeline.evaluation.run_dir import FinishedRun, RunDir
from pipeline.loading.batches import Decode
from pipeline.loading.dataset import open_dataset, source_line, split_indices
from pipeline.recipes import presets
from pipeline.recipes.losses import Loss
from pipeline.reporting import part3 as page
from pipeline.reporting.plots import draw_folders
from pipeline.runtime import launch
from pipeline.runtime.files import read_json
from pipeline.runtime.hardware import Precision
from pipeline.runtime.progress import terminal
from pipeline.training.datamodule import DataModule
from pipeline.training.distributed import Processes, join_processes
from pipeline.training.runner import run_training, write_config

Arm = Literal["simple", "constant", "resnet18", "digits", "pretrained"]
ARMS: tuple[Arm, ...] = ("simple", "constant", "resnet18", "digits", "pretrained")
STARTS = {"digits": "digits", "pretrained": "pretrained-0"}  # part 2's trainings, by arm
WITNESS = "pretrained-0"


@dataclass(frozen=True)
class Config:
    """Part 3: find out what is wrong with a set's labels, and learn from it all the same."""

    data: Path = Path("data/part3.beton")
    """The set in question: what `./launch.sh prep part3` wrote."""
    test: Path = Path("data/mnist.beton")
    """Where right labels are to test on: its test split, or its validation split without one."""
    clean: Path | None = None
    """A set with right labels for the ceiling to learn from. By default, the test file's."""
    part2: Path = Path("runs/part2/latest")
    """The folder of a run of part 2, for its weights and its witness; can be missing."""
    witness: Path | None = None
    """The folder of a training on right labels, to bear witness. By default, one of part 2's."""
    runs: Path = Path("runs")
    """The folder that results go to, as part3/<time>."""
    arms: tuple[Arm, ...] = ARMS
    """The published trainings to repeat. The first one's answers are those that are diagnosed."""
    seeds: int = 3
    """How often to recover in every way."""
    epochs: int | None = None
    """Times that every picture is seen, in all trainings. By default, the recipes'."""
    size: int | None = None
    """Side in pixels of what the networks see. By default, the recipes'."""
    batch_size: int | None = None
    """Pictures per step, all processes together."""
    network: Literal["auto", "plain", "small", "resnet18"] = "auto"
    """Of the trainings from random weights, but for that of ResNet-18. auto: the recipe's."""
    seed: int = 0
    """The first one: of weights, order and augmentation."""
    resume: Path | None = None
    """The folder of a run to go on with, with its own settings."""
    decode: Decode = "auto"
    """Who makes pictures of runs: the loader's kernels or the device; auto: the device if a GPU."""
    precision: Precision = "auto"
    """auto: bf16 where the hardware computes in it."""


PATHS = ("data", "test", "clean", "part2", "witness", "runs")
OWN = ("resume", "decode", "precision")  # not a run's settings


def resumed(config: Config, run: Path) -> Config:
    """Return the settings of the run to go on with. Raises UserError if others are given."""
    defaults = Config()
    for name, value in asdict(config).items():
        if name not in OWN and value != getattr(defaults, name):
            raise UserError(f"{name}: a resumed run has its own settings; leave it out")
    written = read_json(run, "config.json")
    if written.get("job") != "part3" or "recipe" in written:
        raise UserError(f"{run}: got a folder of another kind, expected that of a run of part 3")
    kept = written["options"]
    paths = {name: kept[name] and Path(kept[name]) for name in PATHS}
    own = {name: getattr(config, name) for name in OWN}
    return Config(**{**kept, **paths, **own, "arms": tuple(kept["arms"])})


@dataclass(frozen=True)
class Sets:
    """The set in question, and those with right labels: to test on, in `split`, and to learn from.

    Raises UserError for classes that are not the same, and for a set that lacks a split.
    """

    data: Reader
    test: Reader
    clean: Reader

    def __post_init__(self) -> None:
        for name, file in (("test", self.test), ("clean", self.clean)):
            got, expected = file.info["classes"], self.data.info["classes"]
            if got != expected:
                raise UserError(
                    f"{name}: {file.path} has the classes {', '.join(got)}; expected those of "
                    f"{self.data.path}: {', '.join(expected)}"
                )
        held_out, count = (
            len(split_indices(self.data, "validation")),
            len(self.data.info["classes"]),
        )
        if count < 3 or held_out < 10 * count:
            raise UserError(
                f"data: {self.data.path} has {held_out} validation pictures of {count} classes, "
                "expected 10 for each of at least 3, to diagnose by"
            )
        if not len(split_indices(self.test, self.split)):
            raise UserError(f"test: {self.test.path} has neither a test nor a validation split")

    @property
    def split(self) -> str:
        """The split to test on."""
        return "test" if len(split_indices(self.test, "test")) else "validation"


@contextmanager
def opened(config: Config) -> Iterator[Sets]:
    """Open the files, or say how to get them."""
    with ExitStack() as stack:

        def open_data(path: Path) -> Reader:
            if not path.exists():
                raise UserError(f"{path} is not there; make it: ./launch.sh prep {path.stem}")
            return stack.enter_context(open_dataset(path))

        data, test = open_data(config.data), open_data(config.test)
        yield Sets(data, test, test if config.clean is None else open_data(config.clean))


@dataclass(frozen=True)
class Borrowed:
    """What other runs give: weights to start arms from, a witness; and what they lack, in words."""

    starts: Mapping[str, Path]
    witness: Path | None
    left_out: tuple[str, ...]


def borrow(config: Config, classes: list[str]) -> Borrowed:
    """Look what other runs have to give. Raises UserError for a witness that is none."""
    if config.witness is not None:
        for name in ("result.json", "view.json"):
            read_json(config.witness, name)
        known = read_json(config.witness, "config.json")["classes"]
        if unknown := [name for name in classes if name not in known]:
            raise UserError(f"witness: {config.witness} does not know {', '.join(unknown)}")
    there, left_out = {}, []
    for name in sorted({*STARTS.values(), WITNESS}):
        run = config.part2.resolve() / name
        if not RunDir(run).finished:
            left_out.append(f"{config.part2 / name} is no finished run (./launch.sh train part2)")
        elif read_json(run, "config.json")["classes"] != classes:
            left_out.append(f"{config.part2 / name} knows other classes")
        else:
            there[name] = run
    starts = {arm: there[name] for arm, name in STARTS.items() if name in there}
    return Borrowed(starts, config.witness or there.get(WITNESS), tuple(left_out))


def assigned(config: Config, plan: presets.Preset, seed: int) -> TrainingConfig:
    """Return a plan as the settings change it. Raises UserError for some that make no sense."""
    own = config.network == "auto" or plan.network == "resnet18"
    recipe = presets.override(
        plan.recipe,
        size=config.size,
        epochs=config.epochs,
        batch_size=config.batch_size,
        seed=seed,
    )
    return TrainingConfig(
        plan.network if own else config.network,
        recipe,
        decode=config.decode,
        checkpoints={"keep": 1},
    )


@dataclass(frozen=True)
class Job:
    """A run: its settings, its files, its folder, and the processes that work on it."""

    config: Config
    sets: Sets
    borrowed: Borrowed
    record: RunDir
    processes: Processes
    console: Console

    def repeat(self, arm: Arm) -> FinishedRun:
        """Train as was published."""
        start = self.borrowed.starts.get(arm)
        assignment = assigned(self.config, presets.PART3[arm], self.config.seed)
        if start is not None:
            network = read_json(start, "config.json")["network"]
            assignment = replace(assignment, network=network, start=start)
        return self._train(arm, assignment, self.sets.data)

    def recover(self, way: str, loss: Loss, seed: int) -> FinishedRun:
        """Train in one of the ways to recover."""
        assignment = assigned(self.config, presets.PART3_RECOVERY, seed)
        (stage,) = assignment.recipe.stages
        recipe = replace(assignment.recipe, stages=(replace(stage, loss=loss),))
        file = self.sets.clean if way == "ceiling" else self.sets.data
        return self._train(f"{way}-{seed}", replace(assignment, recipe=recipe), file)

    def tested(self, run: FinishedRun) -> Predictions:
        """Return the answers to the test set with right labels."""
        return self._asked(run.path, self.sets.test, self.sets.split, run.path / "test.safetensors")

    def testified(self) -> Predictions | None:
        """Return the witness's answers to the held-out pictures, if there is one."""
        if self.borrowed.witness is None:
            return None
        keep = self.record.path / "witness.safetensors"
        return self._asked(self.borrowed.witness, self.sets.data, "validation", keep)

    def _train(self, name: str, assignment: TrainingConfig, file: Reader) -> FinishedRun:
        """Train, or go on, in a folder of its own; what is finished is only read."""
        record = RunDir(self.record.path / name)
        if self.processes.is_main and not (record.path / "config.json").exists():
            write_config(record, "part3", assignment, file, asdict(self.config))
        self.processes.wait()
        if not record.finished:
            self.console.print(f"{name}:")
        return run_training(
            self.processes, record, assignment, file, self.console, name, whole=self.record.path
        )

    def _asked(self, run: Path, file: Reader, split: str, keep: Path) -> Predictions:
        precision = self.processes.precision
        return cached_predictions(run, file, split, keep, self.processes.device, precision)


def train(config: Config) -> None:
    """Repeat, look, diagnose, recover; leave a run's folder."""
    if config.resume is not None:
        config = resumed(config, config.resume)
    if config.seeds < 1 or not config.arms:
        raise UserError(f"got {config.seeds} seeds and {len(config.arms)} arms, expected some")
    plans = (*presets.PART3.values(), presets.PART3_RECOVERY)
    given = [assigned(config, plan, config.seed).recipe for plan in plans]
    with opened(config) as sets, join_processes(config.precision) as processes:
        borrowed = borrow(config, sets.data.info["classes"])
        arms = [arm for arm in config.arms if arm not in STARTS or arm in borrowed.starts]
        if not arms:
            raise UserError(f"none of the arms {', '.join(config.arms)}: {borrowed.left_out[0]}")
        for recipe in given:  # before there is a folder: this says what is wrong
            DataModule(processes, recipe, sets.data)
        DataModule(processes, given[-1], sets.clean)
        record = processes.from_main(lambda: prepared(config, sets))
        console = terminal(quiet=not processes.is_main)
        provenance = source_line(sets.data.info["provenance"])
        console.print(f"part3: {len(sets.data):,} pictures, {provenance}; {record.path}")
        for line in borrowed.left_out:
            console.print(f"left out: {line}")

        job = Job(config, sets, borrowed, record, processes, console)
        repeated = [job.repeat(arm) for arm in arms]
        found = processes.from_main(lambda: diagnosed(job, repeated[0]))
        recovered: dict[str, list[FinishedRun]] = {}
        for seed in range(config.seed, config.seed + config.seeds):
            for way in methods_for(found.kind):
                if (loss := loss_of(way, found.forward)) is not None:
                    recovered.setdefault(way, []).append(job.recover(way, loss, seed))
        if processes.is_main:
            conclude(job, repeated, found, recovered)


def prepared(config: Config, sets: Sets) -> RunDir:
    """Make the folder of a new run, or return that of the run to go on with."""
    if config.resume is not None:
        return RunDir(config.resume.resolve())  # `latest` is to point to a folder
    record = RunDir.new(config.runs / "part3")
    if config.part2.exists():
        config = replace(config, part2=config.part2.resolve())  # `latest` may come to be another
    options = {name: str(v) if isinstance(v, Path) else v for name, v in asdict(config).items()}
    record.write_json(
        "config.json",
        {
            "job": "part3",
            "options": options,
            "classes": sets.data.info["classes"],
            "provenance": sets.data.info["provenance"],
        },
    )
    return record


def diagnosed(job: Job, run: FinishedRun) -> Diagnosis:
    """Conclude what is wrong with the labels, from answers to the held-out pictures."""
    assert run.predictions is not None
    witness = job.testified()
    return diagnose(
        probabilities_of(run.predictions),
        run.predictions.labels.numpy(),
        job.sets.data.info["classes"],
        None if witness is None else probabilities_of(witness),
    )


def conclude(
    job: Job, repeated: list[FinishedRun], found: Diagnosis, recovered: dict[str, list[FinishedRun]]
) -> None:
    """Test what was trained on right labels, and write it all down."""
    sets, record, first = job.sets, job.record, repeated[0]
    assert first.predictions is not None
    labels = first.predictions.labels.numpy()
    shares = {
        way: [accuracy_of(job.tested(run)) for run in runs] for way, runs in recovered.items()
    }
    if "backwards" in methods_for(found.kind):
        naive = [job.tested(run) for run in recovered["naive"]]
        shares["backwards"] = [accuracy_of(predictions, backwards=True) for predictions in naive]
    draw_folders(sets.data, record.path / "folders.png")
    result = {
        "provenance": sets.data.info["provenance"],
        "test": {"split": sets.split, **described(sets.test, sets.split)},
        "clean": described(sets.clean, "train"),
        "classes": sets.data.info["classes"],
        "pictures": len(split_indices(sets.data, "train")),
        "held_out": len(labels),
        "arms": {run.path.name: {"accuracy": accuracy_of(job.tested(run))} for run in repeated},
        "left_out": job.borrowed.left_out,
        "witness": None if found.witness is None else str(job.borrowed.witness),
        "look": asdict(rank_labels(probabilities_of(first.predictions), labels)),
        "diagnosis": asdict(found),
        "recovery": asdict(recovery(shares)),
        "trainings": {
            run.path.name: run.result.as_json() for run in (*repeated, *chain(*recovered.values()))
        },
        "seconds_in_all": launch.seconds_since_start(),
    }
    record.finish(result)
    page.page_of([record.path]).write(record.path / "console.html")
    record.link_latest()
    for table in page.closing_tables(record.path):
        job.console.print(table)
    job.console.print(f"{found.verdict} {found.assumption}")
    job.console.print(f"{record.path / 'console.html'}")


def described(file: Reader, split: str) -> dict[str, Any]:
    """Return what a page says of a set with right labels."""
    return {
        "file": str(file.path),
        "pictures": len(split_indices(file, split)),
        "provenance": file.info["provenance"],
    }


def main() -> int:
    """Run the job; a failure is said in a line, once. Returns the exit status."""
    return launch.run_job(
        "part3", lambda: train(tyro.cli(Config, console_outputs=launch.is_main()))
    )


if __name__ == "__main__":
    sys.exit(main())
