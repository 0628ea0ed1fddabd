"""Progress of a long task: a bar on a terminal, plain lines in a log."""

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


class _Console(Console):
    """A console that raises BrokenPipeError, where rich's own exits with status 1."""

    def on_broken_pipe(self) -> None:
        raise  # the error that rich is handling


def make_console(quiet: bool = False, *, stderr: bool = False) -> Console:
    """Return a job's console. It prints [brackets] in names of files and classes unchanged."""
    return _Console(highlight=False, markup=False, soft_wrap=True, quiet=quiet, stderr=stderr)


@contextmanager
def progress(console: Console, label: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show the progress of `total` steps; yields a function to call with the steps just done.

    Without a known total, the steps and their rate.
    """
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
    def __init__(self, console: Console, label: str, total: int | None) -> None:
        self._console, self._label, self._total = console, label, total
        self._done = self._done_before = 0
        self._time_before = time.monotonic()

    def advance(self, steps: int) -> None:
        self._done += steps
        seconds = time.monotonic() - self._time_before
        if seconds < SECONDS_BETWEEN_LINES:
            return
        rate = (self._done - self._done_before) / seconds  # recent: the start may be slow
        line = f"{self._label}: {self._done:,}"
        if self._total is None:
            line += f", {rate:,.0f}/s"
        else:
            left = (self._total - self._done) / rate
            line += f" of {self._total:,}, {rate:,.0f}/s, {left:,.0f} s left"
        self._console.print(line)
        self._done_before, self._time_before = self._done, self._time_before + seconds
