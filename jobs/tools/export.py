"""Export a trained network for other programs: one file, a model repository, or an app.

    ./launch.sh export runs/part1/latest --to onnx       → runs/part1/latest/export/onnx/model.onnx
    ./launch.sh export runs/part1/latest --to pt2        → …/export/pt2/model.pt2
    ./launch.sh export runs/part1/latest --to hub        → …/export/hub/: weights, config, card
    ./launch.sh export runs/part1/latest --to space      → …/export/space/: an app with the model

onnx and pt2 turn uint8 pages into logits. They are compared with the run on its validation images.
Exit status: 0 success, 2 failure, with the reason in one line; then nothing is written.
"""

from pipeline.runtime import signals

if __name__ in signals.MAIN:
    signals.exit_on_interrupt(__name__)

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from pipeline.evaluation.evaluate import TrainedModel, load_model
from pipeline.evaluation.run_data import open_run_data
from pipeline.experiments import command
from pipeline.export.check import reference
from pipeline.export.formats import write_onnx, write_pt2
from pipeline.export.hub import write_hub
from pipeline.export.program import Program
from pipeline.export.space import write_space
from pipeline.loading.dataset import source_line
from pipeline.loading.writer_scale import typical_scale
from pipeline.reporting.common import percent
from pipeline.runtime import launch
from pipeline.runtime.folders import output_folder


@dataclass(frozen=True)
class Config:
    """Export a trained network for other programs."""

    run: tyro.conf.Positional[Path]
    """Run directory of the network, such as runs/part1/latest; runs/part1 is the latest in it."""
    to: Literal["onnx", "pt2", "hub", "space"]
    """Format. onnx, pt2: one file, from pages to logits. hub: a folder in the shape of a model
    repository, which evaluate reads. space: the same with an app that a hosting service runs."""
    out: Path | None = None
    """Folder to write. Default: export/FORMAT in the run directory."""


def export(config: Config) -> None:
    """Write the export. Raises UserError, BetonError or OSError."""
    launch.use_cores()
    trained = load_model(config.run)
    out = config.out or trained.run / "export" / config.to
    with output_folder(out, f"export --to {config.to}") as folder:
        if config.to == "hub":
            lines = write_hub(folder, trained)
        elif config.to == "space":
            lines = write_space(folder, trained)
        else:
            lines = write_program(folder / f"model.{config.to}", trained)
    print(f"{out}:", *lines, sep="\n  ")


def write_program(path: Path, trained: TrainedModel) -> list[str]:
    """Write one file, in the format of its suffix; return what to print about it."""
    recipe = trained.config.recipe
    with open_run_data(trained.config) as file:
        scale = typical_scale(file, recipe.hand, trained.view.proportion) if recipe.hand else 1.0
        program = Program(trained, scale)
        expected = reference(trained, program, file)
    description = program.description(trained.classes)
    write = write_onnx if path.suffix == ".onnx" else write_pt2
    difference = write(path, program.export(), description, expected)
    height, width = trained.view.canvas
    lines = [
        f"{path.name}: {path.stat().st_size / 1e6:.1f} MB; uint8 pages (batch, "
        f"{trained.view.channels}, {height}, {width}) → float32 logits (batch, "
        f"{len(trained.classes)})",
        f"pages: {description['colours']}; {description['fit']}",
        f"largest difference from the run's logits: {difference:.1e}, on {len(expected.pages):,} "
        f"images of its split {expected.split}; {source_line(trained.config.provenance)}",
    ]
    if recipe.hand:
        lines.append(
            f"accuracy on them {percent(expected.accuracy)}: every page at the dataset's scale. "
            f"The run scales by writer: {percent(expected.own_accuracy)}, also in float32"
        )
    if recipe.views > 1 or recipe.mirrored:
        passes = recipe.views * (2 if recipe.mirrored else 1)
        lines.append(f"logits are of the mean over {passes} views of an image, as in evaluate")
    return lines


def main() -> int:
    """Run the job; print a failure as one line. Returns the exit status."""
    return command.main("export", Config, export)


if __name__ == "__main__":
    sys.exit(main())
