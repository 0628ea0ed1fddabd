"""A process that loads one file, as the benchmark of scaling asks it to.

It imports nothing but `beton`, so its memory is that of a loader. The first line of
its input is a `Task`, and it prints the time to open the file. For each further line, a number of
seconds, it loads whole epochs for at least that time and prints a `Turn`. All lines are JSON.
"""

import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from beton.loader import Loader
from beton.ops import Op, Pixels, Resize, Scalar
from beton.order import epoch_order
from beton.transforms import Normalize

MEAN, STD = 33.3, 78.6  # of MNIST, in grey levels


@dataclass(frozen=True)
class Task:
    """A file to load: pages at size × size, or with a size of 0 small samples as float32."""

    path: str
    size: int
    batch_size: int
    threads: int


@dataclass(frozen=True)
class Turn:
    """Images loaded, seconds, seconds for one order, and anonymous memory in bytes."""

    images: int
    seconds: float
    order_seconds: float
    anonymous: int


def anonymous_memory() -> int:
    """Return the resident memory of this process that no file backs, in bytes (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status: it has no RssAnon: the kernel is older than 4.5")


def main() -> None:
    """Load what the input says."""
    task = Task(**json.loads(sys.stdin.readline()))
    start = time.perf_counter()
    op: Op = Resize(task.size, task.size) if task.size else Pixels(Normalize(MEAN, STD))
    fields = {"image": op, "label": Scalar()}
    with Loader(Path(task.path), task.batch_size, fields, threads=task.threads) as loader:
        print(json.dumps(time.perf_counter() - start), flush=True)
        for line in sys.stdin:
            print(json.dumps(asdict(turn(loader, json.loads(line)))), flush=True)


def turn(loader: Loader, seconds: float) -> Turn:
    """Load whole epochs for at least this time."""
    images, start = 0, time.perf_counter()
    while True:
        for batch in loader:
            images += int(batch.valid.sum())
        elapsed = time.perf_counter() - start
        if elapsed >= seconds:
            break
    anonymous, before = anonymous_memory(), time.perf_counter()
    epoch_order(len(loader) * loader.batch_size, 0, 0)
    return Turn(images, elapsed, time.perf_counter() - before, anonymous)


if __name__ == "__main__":
    main()
