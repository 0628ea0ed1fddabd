"""Write one HTML page for each job or dataset, from the run directories of finished runs.

    ./launch.sh report                                   the latest run of each job and dataset
    ./launch.sh report runs/part1/latest                 one run
    ./launch.sh report runs/part1/2026-*                 several runs of part 1, compared
    ./launch.sh report --out pages                       writes pages/part1.html and so on

A page is one file without links. Exit status: 0 success, 2 failure, with the reason in one line.
"""

from pipeline.runtime import signals

if __name__ in signals.MAIN:
    signals.exit_on_interrupt(__name__)

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from pipeline.benchmarks import page as benchmark
from pipeline.errors import UserError
from pipeline.evaluation.run_dir import latest_in
from pipeline.experiments import command
from pipeline.experiments.options import OPTIONS, folder_of
from pipeline.reporting.html import Page
from pipeline.reporting.pages import part2, part3, sweep, training
from pipeline.runtime.files import read_json

# By job: its page. The jobs of OPTIONS train one network, and have one page for each dataset.
PAGES: dict[str, Callable[[Sequence[Path]], Page]] = {
    "part1": training.page_of,
    "part2": part2.page_of,
    "part3": part3.page_of,
    **dict.fromkeys(OPTIONS, training.page_of),
    "sweep": sweep.page_of,
    "bench": benchmark.page_of,
}


@dataclass(frozen=True)
class Config:
    """Write one HTML page for each job or dataset, from the run directories of finished runs."""

    folders: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Run directories. Default: the latest run of each job and dataset."""
    runs: Path = Path("runs")
    """Folder that holds part1/latest, part2/latest and so on."""
    out: Path = Path("runs/report")
    """Folder to write the pages to."""


def report(config: Config) -> None:
    """Write the pages. Raises UserError for any folder but the run directory of a finished run."""
    folders = config.folders or sorted(config.runs.glob("*/latest"))
    if not folders:
        raise UserError(f"{config.runs}: it has no runs; train first: ./launch.sh train part1")
    runs: dict[str, list[Path]] = {}  # by page
    jobs: dict[str, str] = {}
    for folder in map(latest_in, folders):
        written = read_json(folder, "config.json")
        job = written.get("job")
        if not isinstance(job, str) or job not in PAGES:
            raise UserError(f"{folder}: got a run of {job}, expected one of {', '.join(PAGES)}")
        name = folder_of(job, Path(str(written.get("data", ""))))
        runs.setdefault(name, []).append(folder)
        jobs[name] = job
    pages = {name: PAGES[jobs[name]](paths) for name, paths in sorted(runs.items())}
    config.out.mkdir(parents=True, exist_ok=True)
    for name, page in pages.items():
        path = config.out / f"{name}.html"
        page.write(path)
        print(f"{path}: {page.answer}")


def main() -> int:
    """Run the job; print a failure as one line. Returns the exit status."""
    return command.main("report", Config, report)


if __name__ == "__main__":
    sys.exit(main())
