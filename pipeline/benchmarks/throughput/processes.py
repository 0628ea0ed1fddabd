"""Worker processes as the benchmark sees them: commands, figures, time and memory."""

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from pipeline.benchmarks.throughput.environments import last_line
from pipeline.benchmarks.throughput.request import Request
from pipeline.errors import UserError

MODULE = "pipeline.benchmarks.throughput.worker"
TICKS = os.sysconf("SC_CLK_TCK")
SAMPLING = 0.05  # seconds between two looks at the memory of a worker


class WorkerProcess:
    """A process that loads images by one method; `with` ends it and all that it started.

    `started` is the time of its start on the monotonic clock, which all processes share. What it
    prints goes to `log`. Compiled kernels are cached in `kernels`, by default where numba does it.
    """

    def __init__(self, python: Path, request: Request, log: Path, kernels: Path | None) -> None:
        self._log = log
        self.peak_rss = 0
        environment = {**os.environ}
        if kernels:
            environment["NUMBA_CACHE_DIR"] = str(kernels)
        with log.open("ab") as file:
            self.started = time.monotonic()
            self._process = subprocess.Popen(
                [str(python), "-m", MODULE],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                start_new_session=True,  # its processes are those of its session
            )
        self._write(json.dumps(asdict(request)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(10 if exception == (None, None, None) else 0)
        except subprocess.TimeoutExpired:
            self._kill()
            self._process.wait()
        self._kill()

    def ask(self, *command: str | float) -> Mapping[str, Any]:
        """Send a command of the worker, and return the reply.

        Raises UserError with the reason if the worker fails.
        """
        done = threading.Event()
        sampler = threading.Thread(target=self._sample, args=(done,))
        sampler.start()
        try:
            self._write(json.dumps(command))
            assert self._process.stdout is not None
            line = self._process.stdout.readline()
        finally:
            done.set()
            sampler.join()
        if not line:
            self._process.wait()
            raise UserError(self._reason())
        reply: Mapping[str, Any] = json.loads(line)
        return reply

    def cpu_seconds(self) -> float:
        """Return the CPU time of all its processes, finished ones included, in seconds."""
        return sum(sum(map(int, fields[11:15])) for _, fields in self._session()) / TICKS

    def _sample(self, done: threading.Event) -> None:
        while not done.wait(SAMPLING):
            pages = sum(int(fields[21]) for _, fields in self._session())
            self.peak_rss = max(self.peak_rss, pages * os.sysconf("SC_PAGE_SIZE"))

    def _session(self) -> list[tuple[int, list[str]]]:
        """Return the number and the fields of /proc/N/stat, from the state on, of each process."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it has ended
                continue
            if int(fields[3]) == self._process.pid:
                found.append((int(folder.name), fields))
        return found

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has failed: there will be no reply
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()

    def _reason(self) -> str:
        text = self._log.read_text(errors="replace")
        status = self._process.returncode
        if status < 0:
            return f"killed by {signal.Signals(-status).name}"
        return f"failed: {last_line(text)}"

    def _kill(self) -> None:
        for number, _ in self._session():
            try:
                os.kill(number, signal.SIGKILL)
            except ProcessLookupError:
                continue
