"""Write one HTML page for each part, from the run directories of finished runs.

    ./launch.sh report                                   the latest run of each part
    ./launch.sh report runs/part1/latest                 one run
    ./launch.sh report runs/part1/2026-*                 several runs of part 1, compared
    ./launch.sh report --out pages                       writes pages/part1.html and so on

A page is one file without links. Exit status: 0 success, 2 failure, with the reason in one line.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from pipeline.errors import UserError
from pipeline.experiments import command
from pipeline.reporting.pages import part2, part3, training
from pipeline.runtime.files import read_json

PARTS = {
    "part1": training.page_of,
    "classify": training.page_of,
    "part2": part2.page_of,
    "part3": part3.page_of,
}


@dataclass(frozen=True)
class Config:
    """Write one HTML page for each part, from the run directories of finished runs."""

    folders: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Run directories. Default: the latest run of each part."""
    runs: Path = Path("runs")
    """Folder that holds part1/latest, part2/latest and part3/latest."""
    out: Path = Path("runs/report")
    """Folder to write the pages to."""


def report(config: Config) -> None:
    """Write the pages. Raises UserError for any folder but the run directory of a finished run."""
    latest = (config.runs / part / "latest" for part in PARTS)
    folders = config.folders or [path for path in latest if path.exists()]
    if not folders:
        raise UserError(f"{config.runs}: it has no runs; train first: ./launch.sh train part1")
    parts: dict[str, list[Path]] = {}
    for folder in folders:
        job = read_json(folder, "config.json").get("job")
        if job not in PARTS:
            raise UserError(f"{folder}: got a run of {job}, expected one of {', '.join(PARTS)}")
        parts.setdefault(job, []).append(folder)
    pages = {part: PARTS[part](paths) for part, paths in sorted(parts.items())}
    config.out.mkdir(parents=True, exist_ok=True)
    for part, page in pages.items():
        path = config.out / f"{part}.html"
        page.write(path)
        print(f"{path}: {page.answer}")


def main() -> int:
    """Run the job; print a failure as one line. Returns the exit status."""
    return command.main("report", Config, report)


if __name__ == "__main__":
    sys.exit(main())
