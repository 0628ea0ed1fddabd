"""Loading from files of 1, 10 and 100 times the pages, and of a million small samples."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Self

from pipeline.benchmarks.harness import take_turns
from pipeline.benchmarks.scaling.data_worker import Task, Turn
from pipeline.benchmarks.scaling.repeated import write_repeated
from pipeline.benchmarks.scaling.results import DataFigures
from pipeline.data.synth.handwriting import DigitCounts, SyntheticDigits, SyntheticPages
from pipeline.data.synth.source import SyntheticSource
from pipeline.errors import UserError

MODULE = "pipeline.benchmarks.scaling.data_worker"
TIMES = (1, 10, 100)
WRITERS = 4  # whose pages are repeated
DIFFERENT = 1000  # small samples that are repeated
SMALL = 100  # times fewer samples has the file that a million are compared with
INNER = slice(4, 24)  # of a digit's 28 pixels: it fills 20, and a million raw ones need less disk
PAGE_SIZE, PAGE_BATCH, SMALL_BATCH = 224, 64, 512


@dataclass(frozen=True)
class Plan:
    """Files to load: `pages` pages, 10 and 100 times as many, and `samples` small samples.

    Rounds are of at least `seconds` each. Each file is opened `opens` times, by as many processes.
    """

    pages: int
    samples: int
    rounds: int
    seconds: float
    threads: int
    opens: int


class DataWorker:
    """A process that loads a file; `with` ends it."""

    def __init__(self, task: Task) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._write(asdict(task))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def opened(self) -> float:
        """Return the time to open the file, in seconds."""
        return float(self._line())

    def load(self, seconds: float) -> Turn:
        """Load whole epochs for at least this time."""
        self._write(seconds)
        return Turn(**json.loads(self._line()))

    def _write(self, value: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{json.dumps(value)}\n")
        self._process.stdin.flush()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            raise UserError(f"scaling: a process that loads a file failed with status {status}")
        return line


def measure(plan: Plan, folder: Path, report: Callable[[str], None]) -> Iterator[DataFigures]:
    """Write the files and load them, those of one kind in turns."""
    pages = SyntheticPages(WRITERS)
    counts = [times * plan.pages for times in TIMES]
    yield from _measure("pages", pages, range(len(pages)), counts, "auto", plan, folder, report)
    digits = SyntheticDigits(DigitCounts(DIFFERENT, 10, 1000))
    counts = [-(-plan.samples // SMALL), plan.samples]
    for mode in ("runs", "raw"):
        numbers = range(DIFFERENT)
        kind = f"digits, {mode}"
        yield from _measure(kind, digits, numbers, counts, mode, plan, folder, report)


def _measure(
    kind: str,
    source: SyntheticSource,
    numbers: Sequence[int],
    counts: Sequence[int],
    mode: str,
    plan: Plan,
    folder: Path,
    report: Callable[[str], None],
) -> Iterator[DataFigures]:
    images = [source.image(number) for number in numbers]
    if mode == "raw":
        images = [image[INNER, INNER] for image in images]
    labels = source.annotations.labels[list(numbers)].tolist()
    is_page = kind == "pages"
    tasks = []
    for count in counts:
        report(f"writing {count:,} samples: {kind}")
        path = write_repeated(folder / f"{count}.beton", images, labels, count, mode)
        size, batch_size = (PAGE_SIZE, PAGE_BATCH) if is_page else (0, SMALL_BATCH)
        tasks.append(Task(str(path), size, batch_size, plan.threads))
    with ExitStack() as stack:
        opened, workers = [], []
        for task in tasks:
            seconds = []
            for _ in range(plan.opens - 1):
                with DataWorker(task) as worker:
                    seconds.append(worker.opened())
            workers.append(stack.enter_context(DataWorker(task)))
            seconds.append(workers[-1].opened())
            workers[-1].load(0)  # an epoch verifies the checksums, and fills the page cache
            opened.append(median(seconds))
        turns = take_turns(
            {n: partial(worker.load, plan.seconds) for n, worker in enumerate(workers)},
            plan.rounds,
        )
    first = turns[0]
    for number, count in enumerate(counts):
        own = turns[number]
        path = Path(tasks[number].path)
        yield DataFigures(
            kind,
            count,
            path.stat().st_size,
            opened[number],
            tuple(one.images / one.seconds for one in own),
            tuple(one.images / one.seconds for one in first),
            median(one.order_seconds for one in own),
            max(one.anonymous for one in own),
            max(one.anonymous for one in first),
        )
        path.unlink()
