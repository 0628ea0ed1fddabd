"""The app in a process of its own, a network that reads a few characters, and what a test needs."""

import importlib.util
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import forked
from job_started import ENVIRONMENT
from tiny import write_set

from pipeline.data.charset import CHARACTERS
from pipeline.data.synth.handwriting import SyntheticPages

JOBS = Path(__file__).resolve().parents[1] / "jobs"
CLASSES = ("0", "2", "4", "7", "A", "E", "S", "X")
PAGES = 40  # for training, of each class


def app_python() -> Path | None:
    """Return the Python that has Gradio: this one, or that of the environment laid over it."""
    if importlib.util.find_spec("gradio"):
        return Path(sys.executable)
    overlay = Path(sys.prefix) / "app" / "bin" / "python"
    return overlay if overlay.with_name("gradio").exists() else None


def missing_for_browser() -> str:
    """Return what a test in a browser lacks here, or nothing."""
    lacks = []
    if not app_python():
        lacks.append("Gradio (./launch.sh setup app)")
    if not importlib.util.find_spec("playwright"):
        lacks.append("playwright (./launch.sh setup browser)")
    if not shutil.which("chromium"):
        lacks.append("chromium (apt install chromium)")
    return ", ".join(lacks)


def write_characters(path: Path) -> Path:
    """Write a dataset of synthetic pages of CLASSES."""
    writers = PAGES + 5
    pages = SyntheticPages(writers)
    provenance = {"kind": "synthetic", "source": "inkrun's generator", "digest": pages.digest()}
    return write_set(
        path,
        train=PAGES,
        validation=5,
        classes=CLASSES,
        draw=lambda name, number: pages.image(CHARACTERS.index(name) * writers + number),
        info={"provenance": provenance},
    )


def train(folder: Path, data: Path, epochs: int) -> Path:
    """Train a small network in `folder`; return its run directory."""
    options = ["--data", str(data), "--network", "small", "--size", "32", "--epochs", str(epochs)]
    done = forked.run([JOBS / "classify.py", *options], folder, ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    return folder / "runs" / data.stem / "latest"


def app(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the command in `folder` to its end, which a mistake brings about."""
    return forked.run([JOBS / "tools" / "app.py", *options], folder, ENVIRONMENT)


def free_port() -> int:
    """Return a port that no process listens on now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def served(folder: Path, options: Sequence[str | Path] = (), **env: str) -> Iterator[str]:
    """Serve the page for the runs in `folder` as long as `with` lasts; give its address."""
    python = app_python()
    assert python
    words = [str(JOBS / "tools" / "app.py"), *map(str, options), "--port", str(free_port())]
    log = folder / "app.log"
    with (
        log.open("w+") as output,
        subprocess.Popen(
            [str(python), *words], cwd=folder, env=ENVIRONMENT | env, stdout=output, stderr=output
        ) as process,
    ):
        try:
            yield _address(process, log)
        finally:
            process.terminate()
            process.wait(30)


def _address(process: "subprocess.Popen[bytes]", log: Path) -> str:
    while process.poll() is None:
        if found := re.search(r"(http\S+) shows the page", log.read_text()):
            return found[1]
        time.sleep(0.1)
    raise AssertionError(log.read_text())
