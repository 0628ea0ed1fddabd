"""Part 1: 62 classes of hand-written characters, a network trained from random weights.

    ./launch.sh train part1 [--processes N]              knows how to start processes
    accelerate launch jobs/part1.py --epochs 30          the same, for one process
    accelerate launch --multi_gpu --num_processes 2 jobs/part1.py      two, on a CPU too

Writes runs/part1/<time>: config.json, environment.json, metrics.jsonl, result.json,
model.safetensors and state.pt, confusion.png and curves.png; runs/part1/latest points to it. Exit
status: 0 done, 2 not done, with the reason in a line.
"""

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console

from beton.errors import BetonError
from beton.reader import Reader
from pipeline import launch, models, recipe, report
from pipeline.errors import UserError
from pipeline.feed import Decode, open_set
from pipeline.hardware import Precision, environment
from pipeline.progress import progress
from pipeline.record import Record
from pipeline.train import Training, processes


@dataclass(frozen=True)
class Config:
    """Part 1: learn to read 62 classes of hand-written characters."""

    data: Path = Path("data/part1.beton")
    """What `./launch.sh prep part1` wrote."""
    runs: Path = Path("runs")
    """The folder that results go to, as part1/<time>."""
    network: Literal["auto", "small", "resnet18"] = "auto"
    """auto: small, which is quick on a CPU, there, and ResNet-18 on a GPU."""
    size: int | None = None
    """Side in pixels of what the network sees. By default, the network's recipe's."""
    epochs: int | None = None
    """Times that every training picture is seen."""
    batch_size: int | None = None
    """Pictures per step, all processes together."""
    learning_rate: float | None = None
    """The highest of the one cycle."""
    seed: int = 0
    """Of weights, order and augmentation. Equal seeds give equal weights, on one process."""
    decode: Decode = "auto"
    """Who makes pictures of runs: the loader's kernels or the device; auto: the device if a GPU."""
    precision: Precision = "auto"
    """auto: bf16 where the hardware computes in it."""


def train(config: Config) -> None:
    """Train, and leave a run's folder. Raises UserError, BetonError or OSError."""
    automatic = "small" if launch.wants_cpu() else "resnet18"
    name = automatic if config.network == "auto" else config.network
    plan = recipe.part1(
        name,
        size=config.size,
        epochs=config.epochs,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        seed=config.seed,
    )
    with open_data(config.data) as file, processes(config.precision) as accelerator:
        classes, provenance = file.info["classes"], file.info["provenance"]
        network = models.build(name, len(classes), config.seed)
        training = Training(accelerator, network, plan, file, decode=config.decode)
        if not accelerator.is_main_process:
            training.run()
            return

        console = Console(highlight=False, soft_wrap=True)
        record = Record(config.runs / "part1")
        console.print(
            f"part1: {len(file):,} pictures, {report.source_line(provenance)}; {record.path}"
        )
        record.write_json(
            "config.json",
            {
                "job": "part1",
                "options": {key: str(value) for key, value in asdict(config).items()},
                "network": name,
                "recipe": asdict(plan),
                "view": asdict(training.view),
                "classes": classes,
                "provenance": provenance,
            },
        )
        record.write_json(
            "environment.json",
            environment(accelerator.device, accelerator.mixed_precision, accelerator.num_processes),
        )
        with progress(console, "training", training.images_to_come) as training.on_step:
            for epoch in training:
                record.add_epoch(epoch)
                console.print(report.epoch_line(epoch, training.epochs))
        scores = training.scores(classes)
        result = {
            **(scores.headline() if scores else {}),
            **training.figures(),
            "seconds_in_all": launch.seconds_since_start(),
            "provenance": provenance,
        }
        record.write_checkpoint(network, training.state)
        title = report.title("part 1", name, result)
        report.draw_curves(training.history, title, record.path / "curves.png")
        if scores:
            record.write_json("scores.json", asdict(scores), indent=None)
            report.draw_confusion(scores.matrix, classes, title, record.path / "confusion.png")
        record.write_json("result.json", result)
        record.finish()
        console.print(report.result_table(result, str(record.path)))


def open_data(path: Path) -> Reader:
    """Open what to train on, or say how to get it."""
    if not path.exists():
        raise UserError(f"{path} is not there; make it: ./launch.sh prep part1 --source ARCHIVE")
    return open_set(path)


def main() -> int:
    """Run the job; a failure is said in a line, once. Returns the exit status."""
    try:
        train(tyro.cli(Config, console_outputs=launch.is_main()))
    except (UserError, BetonError, OSError, FloatingPointError) as error:
        if launch.is_main():
            print(f"part1: {error}", file=sys.stderr)
        launch.let_main_speak()
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
