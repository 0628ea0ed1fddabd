"""Accuracy of predict on distorted pages, against its accuracy on the clean pages.

    ./launch.sh bench predict runs/part1/latest --source hand-sample.zip
    ./launch.sh bench predict runs/part1/latest --source hand-sample.zip --pages 100 --image kinds.png

Each kind of distortion, seeded, gets the same pages, evenly spaced in the source, or all of them.
"one of each" gives every page one of the first seven kinds, in turn. The distortions are synthetic;
`pipeline/pictures/distortions.py` makes them.
"""

import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tyro
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from pipeline.data.sources import open_source
from pipeline.data.sources.image_files import Source
from pipeline.evaluation.evaluate import load_model
from pipeline.experiments import benchmark, command
from pipeline.pictures.distortions import FURTHER, REQUIRED, Distortion
from pipeline.pictures.predictor import PictureError, Predictor, Prepared
from pipeline.runtime import launch
from pipeline.runtime.hardware import machine

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
        return upright(data), Image.fromarray(seen)

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
