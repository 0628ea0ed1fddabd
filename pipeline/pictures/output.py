"""The output of predictions: a table, lines of JSON, comma-separated values, PNG files."""

import csv
import json
import re
import sys
from abc import ABC, abstractmethod
from contextlib import ExitStack
from io import StringIO
from pathlib import Path
from typing import Any, Self

from PIL import Image
from rich.console import Console
from rich.table import Table

from beton.errors import printable
from pipeline.pictures.predictor import Prediction
from pipeline.pictures.stream import Outcome
from pipeline.runtime.progress import make_console, progress

BOX = ("x", "y", "width", "height")
LONGEST_NAME = 80  # characters of an image's name in the name of a PNG file


class Lines(ABC):
    """An output of outcomes, one after another; `with` completes it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        return None

    @abstractmethod
    def add(self, outcome: Outcome) -> None:
        """Print an outcome, or keep it for a table."""


class JsonLines(Lines):
    """One line of JSON for each prediction or error; with `separate`, with the character's box."""

    def __init__(self, *, separate: bool) -> None:
        self._separate = separate

    def add(self, outcome: Outcome) -> None:
        """Print an outcome."""
        if outcome.error is not None:
            self._print({"file": outcome.name, "error": outcome.error})
        for one in outcome.predictions:
            line: dict[str, Any] = {
                "file": outcome.name,
                "label": one.label,
                "probability": one.probability,
                "top": [list(pair) for pair in one.top],
            }
            self._print(line | ({"box": list(one.box or ())} if self._separate else {}))

    def _print(self, line: dict[str, Any]) -> None:
        print(json.dumps(line))


class CsvLines(Lines):
    """Comma-separated values with a header: file, label, probability, label 2, …, error."""

    def __init__(self, top: int, *, separate: bool) -> None:
        self._top, self._separate = top, separate
        names = ["file", "label", "probability"]
        for place in range(2, top + 1):
            names += [f"label {place}", f"probability {place}"]
        self._header: list[str] = [*names, *(BOX if separate else ()), "error"]

    def add(self, outcome: Outcome) -> None:
        """Print an outcome, the first one after the header."""
        if self._header:
            self._print(self._header)
            self._header = []
        empty = [""] * (2 * self._top + 4 * self._separate)
        if outcome.error is not None:
            self._print([outcome.name, *empty, outcome.error])
        for one in outcome.predictions:
            values = [value for pair in one.top for value in pair]
            box = list(one.box or ()) if self._separate else []
            self._print([outcome.name, *values, *box, ""])

    def _print(self, values: list[Any]) -> None:
        line = StringIO()
        csv.writer(line, lineterminator="").writerow(
            printable(value) if isinstance(value, str) else value for value in values
        )
        print(line.getvalue())


class TableLines(Lines):
    """A table on the console; on the standard error stream, progress and a line for each error."""

    def __init__(self, console: Console, top: int, *, separate: bool) -> None:
        self._console, self._separate, self._errors = console, separate, list[str]()
        self._progress = ExitStack()
        self._table = Table(title_justify="left")
        self._table.add_column("image", overflow="fold")  # of a path, the end tells images apart
        for name in (*(("box",) if separate else ()), "class"):
            self._table.add_column(name)
        self._table.add_column("probability", justify="right")
        if top > 1:
            self._table.add_column("next")

    def __enter__(self) -> Self:
        # On the other stream: the standard output may be a file.
        shown = progress(make_console(stderr=True), "predicted", None)
        self._advance = self._progress.enter_context(shown)
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.close()
        if self._table.row_count:
            self._console.print(self._table)
        sys.stdout.flush()
        for line in self._errors:
            print(line, file=sys.stderr)

    def add(self, outcome: Outcome) -> None:
        """Add an outcome to the table."""
        self._advance(1)
        name = printable(outcome.name)
        if outcome.error is not None:
            self._errors.append(f"{name}: {printable(outcome.error)}")
        for one in outcome.predictions:
            self._table.add_row(name, *self._cells(one))

    def _cells(self, one: Prediction) -> list[str]:
        cells = [", ".join(map(str, one.box or ()))] if self._separate else []
        others = ", ".join(f"{name} {share:.1%}" for name, share in one.top[1:])
        return [*cells, one.label, f"{one.probability:.1%}", *([others] if one.top[1:] else [])]


class SeenFolder:
    """PNG files in a folder, of what the network saw, numbered in the order of the predictions."""

    def __init__(self, path: Path) -> None:
        self._path, self._count = path, 0

    def add(self, outcome: Outcome) -> None:
        """Write a file for each prediction of an outcome."""
        for one in outcome.predictions:
            self._count += 1
            stem = re.sub(r"[^\w-]+", "_", outcome.name.rpartition(".")[0] or outcome.name)
            name = f"{self._count:04}-{stem[-LONGEST_NAME:]}.png"
            Image.fromarray(one.seen).save(self._path / name)
