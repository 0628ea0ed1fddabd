"""Write one HTML page per part from finished runs.

    ./launch.sh report                                   the latest run of every part
    ./launch.sh report runs/part1/latest                 one run
    ./launch.sh report runs/part1/2026-*                 several runs of part 1, side by side
    ./launch.sh report --out pages                       writes pages/part1.html and so on

It reads only run directories. Exit status: 0 for success, 2 for an error, printed in one line.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from pipeline.errors import UserError
from pipeline.reporting import part1, part2, part3
from pipeline.reporting.html import Page
from pipeline.runtime import launch
from pipeline.runtime.files import read_json

PARTS: dict[str, Callable[[Sequence[Path]], Page]] = {
    "part1": part1.page_of,
    "part2": part2.page_of,
    "part3": part3.page_of,
}


@dataclass(frozen=True)
class Config:
    """Write one HTML page per part from finished runs."""

    folders: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Run directories. Default: the latest run of each part."""
    runs: Path = Path("runs")
    """The folder with part1/latest and so on, used if no run directory is given."""
    out: Path = Path("runs/report")
    """The output folder."""


def report(config: Config) -> None:
    """Write the pages. Raises UserError for a folder without a finished run."""
    latest = (config.runs / part / "latest" for part in PARTS)
    folders = config.folders or [path for path in latest if path.exists()]
    if not folders:
        raise UserError(f"{config.runs}: no runs there; train first: ./launch.sh train part1")
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
    """Run the job. Returns the exit status."""
    return launch.run_job("report", lambda: report(tyro.cli(Config)))


if __name__ == "__main__":
    sys.exit(main())
