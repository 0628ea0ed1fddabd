"""Serve a web page to draw characters or drop images, with the predictions of finished runs.

    ./launch.sh app                          the latest finished run in runs/; others can be chosen
    ./launch.sh app runs/part1/latest        this run first
    ./launch.sh app --port 8000

The page is at http://127.0.0.1:7860, for this machine alone. It shows probabilities, what the
network saw, Grad-CAM and the nearest training images. Ctrl-C ends it. Exit status: 0 stopped, 2
failure, with the reason in one line.
"""

from pipeline.runtime import signals

if __name__ in signals.MAIN:
    signals.exit_on_interrupt(__name__)

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from pipeline.app.runs import find_runs
from pipeline.app.server import serve
from pipeline.errors import UserError
from pipeline.experiments import command
from pipeline.runtime import launch


@dataclass(frozen=True)
class Config:
    """Serve a web page to draw characters or drop images, with the predictions of finished runs."""

    run: tyro.conf.Positional[Path | None] = None
    """Run directory of the network to start with. Default: the latest finished run."""
    runs: Path = Path("runs")
    """Folder with the runs that can be chosen on the page."""
    port: int = 7860
    """Port to listen on."""
    host: str = "127.0.0.1"
    """Address to listen on. In a container, 0.0.0.0: all addresses, for all who can reach them."""


def show(config: Config) -> None:
    """Serve the page. Raises UserError for a run that is not finished, or a port in use."""
    found = find_runs(config.runs)
    if config.run is not None:
        found = [config.run, *(run for run in found if not run.samefile(config.run))]
    if not found:
        raise UserError(
            f"{config.runs}: it has no finished run; train one first: ./launch.sh train part1"
        )
    launch.use_cores()
    serve(found, config.host, config.port)


def main() -> int:
    """Run the job; print a failure as one line. Returns the exit status."""
    return command.main("app", Config, show)


if __name__ == "__main__":
    sys.exit(main())
