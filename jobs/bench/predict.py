"""Accuracy of predict on distorted pages, against its accuracy on the clean pages.

    ./launch.sh bench predict runs/part1/latest --source hand-sample.zip
    ./launch.sh bench predict runs/part1/latest --source hand-sample.zip --pages 60 --image a.png

Each kind of distortion, seeded, gets the same pages, evenly spaced in the source, or all of them.
"one of each" gives every page one of the first seven kinds, in turn. The distortions are synthetic;
`pipeline/pictures/distortions.py` makes them.
"""

from pipeline.runtime import signals

if __name__ in signals.MAIN:
    signals.exit_on_interrupt(__name__)

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tyro
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps
from rich.console import Console
from rich.table import Table

from pipeline.data.sources import Source, open_source
from pipeline.errors import UserError
from pipeline.evaluation.evaluate import load_model
from pipeline.experiments import command
from pipeline.pictures.distortions import FURTHER, REQUIRED, Distortion
from pipeline.pictures.predictor import PictureError, Predictor, Prepared
from pipeline.runtime import launch
from pipeline.runtime.hardware import machine
from pipeline.runtime.progress import make_console, progress

SIDE = 150  # pixels of the height of an image in the figure


@dataclass(frozen=True)
class Config:
    """Measure what distortions cost predict."""

    run: tyro.conf.Positional[Path]
    """Run directory of the network."""
    source: Path
    """Clean pages: a zip, or a folder with a folder per class."""
    pages: int | None = None
    """Number of pages of each kind. Default: all."""
    kinds: tuple[str, ...] = ()
    """Kinds to measure. Default: all."""
    seed: int = 0
    """Seed of the distortions."""
    image: Path | None = None
    """PNG file for an example of each kind, beside what the network saw."""


class Kind(NamedTuple):
    """Results of a kind: which pages (n,) are predicted correctly, and the errors' counts."""

    correct: NDArray[np.bool_]
    errors: Counter[str]


class Task:
    """Pages of a source, and the network that predicts them."""

    def __init__(self, predictor: Predictor, source: Source, rows: Sequence[int], seed: int):
        self._predictor, self._source, self.rows, self._seed = predictor, source, rows, seed

    def measure(self, distortions: Sequence[Distortion | None]) -> Kind:
        """Predict the pages, page i distorted by distortion i modulo their number."""
        numbers = range(len(self.rows))
        with ThreadPoolExecutor(launch.use_cores()) as pool:
            prepared = list(
                pool.map(lambda i: self._prepare(i, distortions[i % len(distortions)]), numbers)
            )
        found = [one for one in prepared if isinstance(one, Prepared)]
        labels = iter(self._predictor.predict(found))
        annotations = self._source.annotations
        correct = [
            isinstance(one, Prepared)
            and next(labels).label == annotations.classes[annotations.labels[row]]
            for one, row in zip(prepared, self.rows, strict=True)
        ]
        return Kind(np.array(correct), Counter(one for one in prepared if isinstance(one, str)))

    def example(self, distortion: Distortion, number: int) -> tuple[Image.Image, Image.Image]:
        """Return a distorted page, and what the network sees of it."""
        data = self.distorted(number, distortion)
        seen = self._predictor.predict(self._predictor.prepare(data))[0].seen
        with Image.open(BytesIO(data)) as image:
            given = ImageOps.exif_transpose(image)
            if given.mode.startswith("I;16"):
                given = Image.fromarray((np.array(given) >> 8).astype(np.uint8))
            shown = Image.new("RGBA", given.size, "#ddeeff")  # behind what is transparent
            shown.alpha_composite(given.convert("RGBA"))
        return shown.convert("RGB"), Image.fromarray(seen)

    def distorted(self, number: int, distortion: Distortion) -> bytes:
        """Return a distorted page as a file."""
        row = self.rows[number]
        return distortion(self._source.image(row), np.random.default_rng([self._seed, row]))

    def _prepare(self, number: int, distortion: Distortion | None) -> Prepared | str:
        try:
            if distortion is None:
                page = self._source.image(self.rows[number])
                return self._predictor.prepare(page)[0]
            return self._predictor.prepare(self.distorted(number, distortion))[0]
        except PictureError as error:
            return str(error)


def measure_all(config: Config, console: Console) -> None:
    """Print the accuracy of each kind. Raises UserError or SourceError."""
    singles = {name: [one] for name, one in (REQUIRED | FURTHER).items()}
    kinds = {"one of each": list(REQUIRED.values())} | singles
    if unknown := sorted(set(config.kinds) - set(kinds)):
        raise UserError(f"kinds: got {', '.join(unknown)}, expected some of {', '.join(kinds)}")
    chosen = {name: kinds[name] for name in config.kinds or kinds}
    launch.use_cores()
    source, predictor = open_source(config.source), Predictor(load_model(config.run))
    count = min(config.pages or len(source), len(source))
    rows = np.linspace(0, len(source) - 1, count).round().astype(int).tolist()
    task = Task(predictor, source, rows, config.seed)
    table = Table("distortion", title=f"{count} pages, synthetic distortions", title_justify="left")
    for column in ("accuracy", "change", "errors"):
        table.add_column(column, justify="right")
    with progress(console, "pages predicted", count * (1 + len(chosen))) as advance:
        clean = task.measure([None])
        table.add_row("none", f"{clean.correct.mean():.2%}", "", str(clean.errors.total()))
        advance(count)
        for name, distortions in chosen.items():
            kind = task.measure(distortions)
            change = 100 * (kind.correct.mean() - clean.correct.mean())
            accuracy = f"{kind.correct.mean():.2%}"
            table.add_row(name, accuracy, f"{change:+.2f} points", str(kind.errors.total()))
            advance(count)
    console.print(table)
    console.print(f"{machine()}; {len(set(rows))} real pages of {config.source.name}")
    if config.image is not None:
        shown = {name: one for name, (one, *_) in chosen.items() if name in singles}
        figure(task, shown).save(config.image)


def figure(task: Task, kinds: Mapping[str, Distortion]) -> Image.Image:
    """Return an example of each kind: the image, and beside it what the network saw."""
    cells = []
    for number, (name, distortion) in enumerate(kinds.items()):
        given, seen = task.example(distortion, number * 7 % len(task.rows))
        cell = Image.new("RGB", (2 * SIDE + 75, SIDE + 24), "white")
        given.thumbnail((SIDE + 50, SIDE))
        cell.paste(given, (5, 20))
        cell.paste(seen.resize((SIDE, SIDE), Image.Resampling.NEAREST), (SIDE + 65, 20))
        ImageDraw.Draw(cell).text((5, 4), name, fill="black")
        cells.append(cell)
    width, height = cells[0].size
    columns = 3
    sheet = Image.new("RGB", (columns * width, -(-len(cells) // columns) * height), "white")
    for place, cell in enumerate(cells):
        sheet.paste(cell, (place % columns * width, place // columns * height))
    return sheet.quantize(64)


def main() -> int:
    """Run the benchmark; print a failure as one line. Returns the exit status."""
    return command.main("bench predict", Config, lambda one: measure_all(one, make_console()))


if __name__ == "__main__":
    sys.exit(main())
