"""Run scripts in processes forked from a server that has imported torch: they start at once."""

import gc
import os
import runpy
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from subprocess import CompletedProcess

import torch

CONTEXT = get_context("forkserver")
CONTEXT.set_forkserver_preload(["jobs.part1", "torchmetrics"])  # before a test starts the server


class Job:
    """A script in processes that have started: its words, a process for each folder of output."""

    def __init__(
        self, words: Sequence[str], processes: Sequence[ForkServerProcess], places: Sequence[Path]
    ) -> None:
        self.words = list(words)
        self.processes = processes
        self.places = places

    def wait_for(self, start: str) -> None:
        """Wait until the first process has printed a line with this start."""
        while not f"\n{self._printed(0, '.out')}".count(f"\n{start}"):
            assert self.processes[0].is_alive(), self._printed(0, ".err")
            time.sleep(0.02)

    def send(self, number: int) -> None:
        """Send a signal to all processes, as launch.sh does."""
        for process in self.processes:
            assert process.pid is not None
            os.kill(process.pid, number)

    def wait(self) -> list[CompletedProcess[str]]:
        """Wait for the end of all processes."""
        for process in self.processes:
            process.join()
        return [
            CompletedProcess(
                self.words,
                process.exitcode or 0,
                self._printed(rank, ".out"),
                self._printed(rank, ".err"),
            )
            for rank, process in enumerate(self.processes)
        ]

    def _printed(self, rank: int, kind: str) -> str:
        path = self.places[rank].with_suffix(kind)
        return path.read_text() if path.exists() else ""


@contextmanager
def started(
    count: int,
    command: Sequence[str | Path],
    folder: Path,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Job]:
    """Start [script, *arguments] in `count` processes that form a group for accelerate."""
    words = [str(word) for word in command]
    environment = dict(os.environ if environment is None else environment)
    with tempfile.TemporaryDirectory() as name:
        places = [Path(name) / str(rank) for rank in range(count)]
        processes = [
            CONTEXT.Process(target=_script, args=(words, folder, environment, place, count))
            for place in places
        ]
        for process in processes:
            process.start()
        try:
            yield Job(words, processes, places)
        finally:
            for process in processes:
                process.kill()
                process.join()


def run(
    command: Sequence[str | Path], folder: Path, environment: Mapping[str, str] | None = None
) -> CompletedProcess[str]:
    """Run [script, *arguments] to its end, as a new Python would in `folder`."""
    (done,) = run_together(1, command, folder, environment)
    return done


def run_together(
    count: int,
    command: Sequence[str | Path],
    folder: Path,
    environment: Mapping[str, str] | None = None,
) -> list[CompletedProcess[str]]:
    """Run a script to its end in `count` processes that form a group for accelerate."""
    with started(count, command, folder, environment) as job:
        return job.wait()


def _script(
    words: list[str], folder: Path, environment: Mapping[str, str], place: Path, count: int
) -> None:
    gc.freeze()  # as tests do: collections need not visit all that is imported
    for descriptor, kind in ((1, ".out"), (2, ".err")):
        with place.with_suffix(kind).open("w") as file:
            os.dup2(file.fileno(), descriptor)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    if count > 1:
        rank = place.name
        os.environ.update(RANK=rank, LOCAL_RANK=rank)
        os.environ.update(WORLD_SIZE=str(count), LOCAL_WORLD_SIZE=str(count))
        meeting = place.with_name("meeting").as_uri()
        torch.distributed.init_process_group("gloo", meeting, rank=int(rank), world_size=count)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    sys.argv = words
    sys.path.insert(0, str(Path(words[0]).parent))
    runpy.run_path(words[0], run_name="__main__")
