"""Part 2: find out whether pretraining on the digits of part 1 helps on MNIST.

    ./launch.sh train part2 [--processes N]              after prep part2 mnist
    ./launch.sh train part2 --seeds 2                    fewer pairs: quicker, and less is shown
    ./launch.sh train part2 --resume runs/part2/TIME     goes on with a run that was ended
    accelerate launch jobs/part2.py --seeds 2            the same, for one process

Trains a network on the digits of part 1; then, for every seed, one from its weights and one from
random weights on MNIST, alike in all else. Writes runs/part2/<time>, with a folder for every
training, result.json and console.html; runs/part2/latest points to it. Exit status: 0 done, 2 not
done, with the reason in a line, 130 or 143 stopped by Ctrl-C or SIGTERM.
"""

import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import tyro
from rich.console import Console

from beton.reader import Reader
from pipeline.analysis.pretraining import ARMS, TrainingCurve, analyse
from pipeline.errors import UserError
from pipeline.evaluation.run_config import TrainingConfig
from pipeline.evaluation.run_dir import FinishedRun, RunDir
from pipeline.loading.batches import Decode
from pipeline.loading.dataset import open_dataset, source_line, split_indices
from pipeline.recipes import presets
from pipeline.reporting import part2 as page
from pipeline.runtime import launch
from pipeline.runtime.files import read_json
from pipeline.runtime.hardware import Precision
from pipeline.runtime.progress import terminal
from pipeline.training.datamodule import DataModule
from pipeline.training.distributed import Processes, join_processes
from pipeline.training.runner import run_training, write_config
from pipeline.training.warm_start import measure_start


@dataclass(frozen=True)
class Config:
    """Part 2: find out whether pretraining on the digits of part 1 helps on MNIST."""

    digits: Path = Path("data/part2.beton")
    """The digits of part 1: what `./launch.sh prep part2` wrote."""
    mnist: Path = Path("data/mnist.beton")
    """What `./launch.sh prep mnist` wrote. Validated on its test split, or, without one, on its
    validation split."""
    runs: Path = Path("runs")
    """The folder that results go to, as part2/<time>."""
    seeds: int = 5
    """Pairs of trainings on MNIST."""
    network: Literal["auto", "small", "plain", "resnet18"] = "auto"
    """auto: plain on a CPU, resnet18 on a GPU."""
    epochs: int | None = None
    """Times that every picture of MNIST is seen. By default, the recipe's."""
    digits_epochs: int | None = None
    """Times that every digit of part 1 is seen. By default, the recipe's."""
    size: int | None = None
    """Side in pixels of what the network sees. By default, the recipe's."""
    batch_size: int | None = None
    """Pictures of MNIST per step, all processes together."""
    learning_rate: float | None = None
    """The highest of the schedule, on MNIST."""
    seed: int = 0
    """The first one: of weights, order and augmentation."""
    resume: Path | None = None
    """The folder of a run to go on with, with its own settings."""
    decode: Decode = "auto"
    """Who makes pictures of runs: the loader's kernels or the device; auto: the device if a GPU."""
    precision: Precision = "auto"
    """auto: bf16 where the hardware computes in it."""


OWN = ("resume", "precision")  # not a run's settings


@dataclass(frozen=True)
class Sets:
    """The digits of part 1 and MNIST. Raises UserError for sets that cannot be compared."""

    digits: Reader
    mnist: Reader

    def __post_init__(self) -> None:
        got, expected = self.digits.info["classes"], self.mnist.info["classes"]
        if got != expected:
            raise UserError(
                f"digits: {self.digits.path} has the classes {', '.join(got)}; expected those of "
                f"{self.mnist.path}: {', '.join(expected)}"
            )
        if not len(split_indices(self.mnist, self.split)):
            raise UserError(f"mnist: {self.mnist.path} has neither a test nor a validation split")

    @property
    def split(self) -> str:
        """What MNIST's trainings are validated on."""
        return "test" if len(split_indices(self.mnist, "test")) else "validation"

    @property
    def learn_from(self) -> str:
        """What they learn from."""
        return "train+validation" if self.split == "test" else "train"

    def of(self, training: str) -> Reader:
        """Return what a training is on."""
        return self.digits if training == "digits" else self.mnist


@contextmanager
def opened(digits: Path, mnist: Path) -> Iterator[Sets]:
    """Open the files, or say how to get them."""
    with ExitStack() as stack:

        def open_data(path: Path, name: str) -> Reader:
            if not path.exists():
                raise UserError(f"{path} is not there; make it: ./launch.sh prep {name}")
            return stack.enter_context(open_dataset(path))

        yield Sets(open_data(digits, "part2"), open_data(mnist, "mnist"))


def plan(config: Config, sets: Sets, on_gpu: bool) -> dict[str, TrainingConfig]:
    """Return the trainings by their names, in their order.

    A start is the name of an earlier one. Raises UserError for settings that make no sense.
    """
    if config.seeds < 1:
        raise UserError(f"seeds: got {config.seeds}, expected at least 1")
    network = config.network
    if network == "auto":
        network = "resnet18" if on_gpu else "plain"
    digits = presets.override(
        presets.PART2_DIGITS[network],
        size=config.size,
        epochs=config.digits_epochs,
        seed=config.seed,
    )
    others: dict[str, Any] = {"decode": config.decode, "checkpoints": {"keep": 1}}
    planned = {"digits": TrainingConfig(network, digits, **others)}
    for seed in range(config.seed, config.seed + config.seeds):
        recipe = presets.override(
            presets.PART2_MNIST[network],
            size=config.size,
            epochs=config.epochs,
            batch_size=config.batch_size,
            learning_rate=config.learning_rate,
            seed=seed,
        )
        for arm in ARMS:
            start = Path("digits") if arm == "pretrained" else None
            planned[f"{arm}-{seed}"] = TrainingConfig(
                network, recipe, start, sets.learn_from, sets.split, **others
            )
    return planned


def begun(config: Config, sets: Sets, planned: Mapping[str, TrainingConfig]) -> RunDir:
    """Make the folder of a new run, with all that is needed to go on with it."""
    whole = RunDir.new(config.runs / "part2")
    for name, assignment in planned.items():
        start = assignment.start and whole.path / assignment.start
        record = RunDir(whole.path / name)
        write_config(
            record, "part2", replace(assignment, start=start), sets.of(name), asdict(config)
        )
    options = {name: str(v) if isinstance(v, Path) else v for name, v in asdict(config).items()}
    whole.write_json(
        "config.json",
        {
            "job": "part2",
            "options": options,
            "seeds": [*range(config.seed, config.seed + config.seeds)],
            "trainings": [*planned],
            "classes": sets.mnist.info["classes"],
            "provenance": sets.mnist.info["provenance"],
        },
    )
    return whole


def resumed(config: Config, run: Path) -> RunDir:
    """Return the run to go on with, given its folder or that of one of its trainings.

    Raises UserError for another folder, and for settings besides.
    """
    defaults = asdict(Config())
    for name, value in asdict(config).items():
        if name not in OWN and value != defaults[name]:
            raise UserError(f"{name}: a resumed run has its own settings; leave it out")
    run = run.resolve()  # not `latest`, which will be another one
    for folder in (run, run.parent):
        if (folder / "config.json").exists():
            written = read_json(folder, "config.json")
            if written["job"] == "part2" and "trainings" in written:
                return RunDir(folder)
    raise UserError(f"{run}: got a folder of another kind, expected that of a run of part 2")


def train(config: Config) -> None:
    """Train on the digits, then both arms on MNIST; compare them, and leave a run's folder."""
    digits, mnist, record = config.digits, config.mnist, None
    if config.resume is not None:
        record = resumed(config, config.resume)
        trainings = read_json(record.path, "config.json")["trainings"]
        digits, mnist = (
            Path(RunDir(record.path / trainings[place]).config().data) for place in (0, 1)
        )
    with opened(digits, mnist) as sets, join_processes(config.precision) as processes:
        if record is None:
            planned = plan(config, sets, on_gpu=processes.device.type == "cuda")
            for name, one in planned.items():  # before there is a folder: this says what is wrong
                file = sets.of(name)
                DataModule(processes, one.recipe, file, one.learn_from, one.validate_on)
            record = processes.from_main(lambda: begun(config, sets, planned))
        written = record.read_json("config.json")
        console = terminal(quiet=not processes.is_main)
        for name, file in (("digits", sets.digits), ("MNIST", sets.mnist)):
            provenance = source_line(file.info["provenance"])
            console.print(f"part2: {name}: {len(file):,} pictures, {provenance}")
        console.print(
            f"part2: MNIST: learns from {sets.learn_from}, validated on {sets.split}; {record.path}"
        )
        runs = {}
        for name in written["trainings"]:
            part, file = RunDir(record.path / name), sets.of(name)
            if not part.finished:
                console.print(f"{name}:")
            assignment = part.config().training
            runs[name] = run_training(
                processes, part, assignment, file, console, name, whole=record.path
            )
            if processes.is_main:  # what is finished will not be gone on with
                shutil.rmtree(part.path / "checkpoints", ignore_errors=True)
        if processes.is_main:
            conclude(record, sets, written["seeds"], runs, processes, console)


def conclude(
    record: RunDir,
    sets: Sets,
    seeds: Sequence[int],
    runs: Mapping[str, FinishedRun],
    processes: Processes,
    console: Console,
) -> None:
    """Compare the arms, and write it all down."""
    arms = [
        [
            TrainingCurve(
                run.history,
                run.losses,
                measure_start(run, sets.mnist, processes.device, processes.precision),
            )
            for run in (runs[f"{arm}-{seed}"] for seed in seeds)
        ]
        for arm in ARMS
    ]
    analysis = analyse(seeds, *arms)
    record.finish(
        {
            "provenance": sets.mnist.info["provenance"],
            "digits": described(sets.digits, "train", "validation"),
            "mnist": described(sets.mnist, sets.learn_from, sets.split),
            "analysis": asdict(analysis),
            "trainings": {name: run.result.as_json() for name, run in runs.items()},
            "seconds_in_all": launch.seconds_since_start(),
        }
    )
    page.page_of([record.path]).write(record.path / "console.html")
    record.link_latest()
    console.print(page.closing_table(record.path))
    console.print(analysis.answer)
    console.print(str(record.path / "console.html"))


def described(file: Reader, learn_from: str, validate_on: str) -> dict[str, Any]:
    """Return what a file is, and how many pictures of it were for what."""
    return {
        "file": str(file.path),
        "provenance": file.info["provenance"],
        "learn_from": learn_from,
        "learned": len(split_indices(file, learn_from)),
        "validate_on": validate_on,
        "validated": len(split_indices(file, validate_on)),
    }


def main() -> int:
    """Run the job; a failure is said in a line, once. Returns the exit status."""
    return launch.run_job(
        "part2", lambda: train(tyro.cli(Config, console_outputs=launch.is_main()))
    )


if __name__ == "__main__":
    sys.exit(main())
