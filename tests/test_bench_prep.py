from pathlib import Path

import forked
import pytest
from raw_data import folders, make_tree, make_zip

from beton.reader import Reader
from jobs.bench import prep
from pipeline.data.sources.image_files import ImageFiles

ROOT = Path(__file__).resolve().parents[1]
SMALL = ["--copies", "2", "--digits", "60", "--rounds", "1", "--without-ffcv"]


def test_the_benchmark_runs_and_prints_its_tables() -> None:
    result = forked.run(["jobs/bench/prep.py", *SMALL, "--pages", "2"], ROOT)
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    for part in (
        "4 RGB pages in PNG files",
        "60 digits of 28×28",
        "2 RGB pages in JPEG files",
        "× Pillow decodes",
        "bytes an image",
        "undo filters, convert to grey",
        "in all",
    ):
        assert part in result.stdout


@pytest.mark.parametrize("mode", ["jpg", "raw"])
def test_ffcv_writes_every_page(tmp_path: Path, mode: str) -> None:
    pytest.importorskip("ffcv")
    files = sorted(make_tree(tmp_path / "pages", folders()).rglob("*.png"))
    assert prep.run_ffcv(mode, files, tmp_path / "ffcv.beton", 1) == len(files)
    with Reader(tmp_path / "ffcv.beton") as file:
        assert len(file) == len(files)


@pytest.mark.parametrize("count", [1, 5, 12, 99])
def test_pages_of_a_source_are_its_own_files(tmp_path: Path, count: int) -> None:
    files = folders()
    source = make_zip(tmp_path / "pages.zip", files)
    found = dict(prep.read_pages(prep.Config(source, pages=count)))
    assert len(found) == min(count, len(files))
    assert found.items() <= files.items()


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
