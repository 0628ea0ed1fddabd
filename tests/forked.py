"""Run scripts in processes forked from a server that has imported torch: they start at once."""

import os
import runpy
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing import get_context
from pathlib import Path
from subprocess import CompletedProcess

import torch

CONTEXT = get_context("forkserver")
CONTEXT.set_forkserver_preload(["jobs.part1", "torchmetrics"])  # before a test starts the server


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
    """Run a script in `count` processes that form a group for accelerate."""
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
        for process in processes:
            process.join()
        return [
            CompletedProcess(
                words,
                process.exitcode or 0,
                *(place.with_suffix(kind).read_text() for kind in (".out", ".err")),
            )
            for process, place in zip(processes, places, strict=True)
        ]


def _script(
    words: list[str], folder: Path, environment: Mapping[str, str], place: Path, count: int
) -> None:
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
