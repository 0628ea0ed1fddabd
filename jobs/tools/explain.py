"""Explain a trained network: its errors, where it looks, its nearest training images, labels.

    ./launch.sh explain runs/part1/latest                      its validation images
    ./launch.sh explain runs/part1/latest --source test.zip    labelled images, as for evaluate
    ./launch.sh explain runs/part1/latest --source photos/     images without labels
    ./launch.sh explain runs/part1/latest --folds 5            also its training labels

Writes a page and image files to RUN/explain. Exit status: 0 success; 1 if some images without
labels cannot be predicted; 2 failure, with the reason in one line: then nothing is written.
"""

from pipeline.runtime import signals

if __name__ in signals.MAIN:
    signals.exit_on_interrupt(__name__)

import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import tyro

from pipeline.data.base import LayoutError
from pipeline.data.pixels.formats import SNIFFED, sniff
from pipeline.errors import UserError, check_range
from pipeline.evaluation.evaluate import TrainedModel, load_model, open_images
from pipeline.evaluation.run_data import open_run_data
from pipeline.experiments import command
from pipeline.experiments.data_options import DataOptions
from pipeline.inspection.cross_validation import cross_validated
from pipeline.inspection.explain import explain_given, explain_labelled
from pipeline.inspection.explain_files import write_given, write_json, write_labelled
from pipeline.inspection.explain_page import given_page, labelled_page
from pipeline.inspection.neighbours import Neighbours
from pipeline.loading.dataset import source_line
from pipeline.reporting.html import Page
from pipeline.runtime import launch
from pipeline.runtime.folders import output_folder
from pipeline.runtime.hardware import Precision
from pipeline.runtime.progress import make_console


@dataclass(frozen=True)
class Config:
    """Explain a trained network: its errors, where it looks, its nearest training images."""

    run: tyro.conf.Positional[Path]
    """Run directory of the network, such as runs/part1/latest; runs/part1 is the latest in it."""
    source: Path | None = None
    """Images to explain: labelled as for evaluate, or images without labels. Default: those of the
    run's own dataset."""
    split: Literal["all", "train", "validation", "test"] | None = None
    """Split to explain. Default: that of the run's validation; of a source, all."""
    out: Path | None = None
    """Folder to write. Default: explain in the run directory."""
    most: int = 60
    """Number of images, at most, of each kind: misclassified, largest losses, suspicious, given."""
    folds: int = 0
    """Train this number of networks, each without one part of the training images, to find
    suspicious labels among these. It takes this number of trainings. 0: examine the explained
    split instead, which the network was not trained on."""
    skip_bad: bool = False
    """Leave out labelled images that cannot be decoded. By default, they are an error."""
    data: tyro.conf.OmitArgPrefixes[DataOptions] = field(default_factory=DataOptions)
    """How to understand raw images."""
    precision: Precision = "auto"
    """Precision to compute in. no: float32; auto: bf16 if the hardware computes in it, else no."""


def explain(config: Config) -> int:
    """Write the page; return the exit status. Raises UserError, BetonError or OSError."""
    check_range("most", config.most, 1, 10_000)
    if config.folds:
        check_range("folds", config.folds, 2, 100)
        if config.source is not None:
            raise UserError("folds: got a source too, expected one of them: folds are of the run")
    launch.use_cores()
    trained = load_model(config.run)
    out = config.out or trained.run / "explain"
    with output_folder(out, "explain") as folder, ExitStack() as stack:
        neighbours, warnings = _neighbours(config, trained, stack)
        explained = _given if _is_image(config.source) else _labelled
        try:
            page, found = explained(config, trained, neighbours, warnings, folder)
        except LayoutError as error:
            if config.source is None or config.data != DataOptions():
                raise
            print(f"explain: no labels: {error}", file=sys.stderr)
            page, found = _given(config, trained, neighbours, warnings, folder)
        failed = found.get("failed", ())
        if failed and not found["given"]:
            first = failed[0]
            raise UserError(f"none of {len(failed)} images can be explained: {first['error']}")
        write_json(folder, found)
        page.write(folder / "index.html")
    print(f"{out / 'index.html'}: {page.answer}")
    print(f"trained on {source_line(trained.config.provenance)}")
    for line in warnings:
        print(line)
    for one in failed:
        print(f"{one['file']}: {one['error']}", file=sys.stderr)
    return 1 if failed else 0


def _is_image(path: Path | None) -> bool:
    if path is None or not path.is_file():
        return False
    with path.open("rb") as file:
        return sniff(file.read(SNIFFED)) is not None


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _neighbours(
    config: Config, trained: TrainedModel, stack: ExitStack
) -> tuple[Neighbours | None, list[str]]:
    """Return the training images; without them, a source can still be explained."""
    try:
        return stack.enter_context(Neighbours.of(trained, _device())), []
    except UserError as error:
        if config.source is None:
            raise
        print(f"explain: no nearest training images: {error}", file=sys.stderr)
        return None, ["Nearest training images are left out: the run's dataset is not there."]


def _labelled(
    config: Config,
    trained: TrainedModel,
    neighbours: Neighbours | None,
    warnings: list[str],
    folder: Path,
) -> tuple[Page, dict[str, Any]]:
    with ExitStack() as stack:
        if config.source is None:
            split = config.split or trained.config.validate_on
            file = stack.enter_context(open_run_data(trained.config))
            trained.check(file, split, file.path)
            source = f"the split {split} of {file.path.name}"
        else:
            split = config.split or "all"
            file = stack.enter_context(
                open_images(
                    trained,
                    config.source,
                    split=split,
                    skip_bad=config.skip_bad,
                    layout=config.data.layout(),
                    pixels=config.data.pixels(),
                )
            )
            source = config.source.name
        held_out = None
        if config.folds:
            held_out = cross_validated(
                trained, file, config.folds, config.precision, make_console()
            )
        found = explain_labelled(
            trained, file, split, config.most, neighbours, _device(), config.precision, held_out
        )
        warnings += found.evaluation.warnings
        content = write_labelled(folder, found)
    return labelled_page(trained, found, source, warnings), content


def _given(
    config: Config,
    trained: TrainedModel,
    neighbours: Neighbours | None,
    warnings: list[str],
    folder: Path,
) -> tuple[Page, dict[str, Any]]:
    assert config.source is not None
    found = explain_given(
        trained, [config.source], config.most, neighbours, _device(), config.precision
    )
    return given_page(trained, found, config.source.name, warnings), write_given(folder, found)


def main() -> int:
    """Run the job; print a failure as one line. Returns the exit status."""
    statuses: list[int] = []
    failed = command.main("explain", Config, lambda config: statuses.append(explain(config)))
    return failed or statuses[0]


if __name__ == "__main__":
    sys.exit(main())
