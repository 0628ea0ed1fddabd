"""How far a long task is: a bar on a terminal, a plain line now and then in a log."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

SECONDS_BETWEEN_LINES = 5.0


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f}/s" if speed else "")


@contextmanager
def progress(console: Console, label: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show the progress of `total` steps; the value is to be called with numbers of steps done."""
    if not console.is_terminal:
        yield _Lines(console, label, total).advance
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda steps: bar.advance(task, steps)


class _Lines:
    def __init__(self, console: Console, label: str, total: int) -> None:
        self._console, self._label, self._total = console, label, total
        self._done, self._start = 0, time.monotonic()
        self._next_line = self._start + SECONDS_BETWEEN_LINES

    def advance(self, steps: int) -> None:
        self._done += steps
        now = time.monotonic()
        if now < self._next_line:
            return
        self._next_line = now + SECONDS_BETWEEN_LINES
        rate = self._done / (now - self._start)
        left = (self._total - self._done) / rate
        self._console.print(
            f"{self._label}: {self._done:,} of {self._total:,}, {rate:,.0f}/s, {left:.0f} s left",
            highlight=False,
        )
