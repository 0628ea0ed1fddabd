from pathlib import Path

import forked
import pytest
from raw_data import folders, make_zip

from jobs.bench import prep
from pipeline.data.sources.image_files import ImageFiles

ROOT = Path(__file__).resolve().parents[1]
SMALL = ["--copies", "2", "--digits", "60", "--rounds", "1", "--processes", "1"]


@pytest.mark.parametrize("given", [True, False])
def test_the_benchmark_runs_and_prints_its_tables(tmp_path: Path, given: bool) -> None:
    make_zip(tmp_path / "pages.zip", folders())
    source = ["--source", str(tmp_path / "pages.zip")] if given else []
    result = forked.run(["jobs/bench/prep.py", *SMALL, "--pages", "4", *source], ROOT)
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    for part in (
        "8 RGB pages in PNG files",
        "60 digits of 28×28",
        "4 RGB pages in JPEG files",
        "× Pillow decodes",
        "bytes an image",
        "undo filters, convert to grey",
        "in all",
    ):
        assert part in result.stdout


def test_every_part_of_the_profile_takes_time(tmp_path: Path) -> None:
    """A part whose function has another name would take none."""
    archive = make_zip(tmp_path / "pages.zip", folders())
    parts = prep.profile(ImageFiles, archive, tmp_path / "out.beton")
    assert min(parts.values()) > 0
    assert parts["in all"] == pytest.approx(sum(parts.values()) / 2)
    others = prep.profile(prep.PillowFiles, archive, tmp_path / "out.beton")
    assert others["inflate"] == others["undo filters, convert to grey"] == 0


def test_a_source_without_pages_is_one_line(tmp_path: Path) -> None:
    make_zip(tmp_path / "pages.zip", {"words.txt": b"words"})
    command = ["jobs/bench/prep.py", *SMALL, "--source", str(tmp_path / "pages.zip")]
    result = forked.run(command, ROOT)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert result.stderr.strip().endswith("got no PNG pages")
