"""The benchmark of preparation: its tasks, its profile, and other writers in their processes."""

import io
import sys
from contextlib import ExitStack
from pathlib import Path

import forked
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from raw_data import folders, make_tree, make_zip

from beton.reader import Reader
from pipeline.benchmarks.page import page_of
from pipeline.benchmarks.prep import command, tables
from pipeline.benchmarks.prep.images import Dataset, read_pages
from pipeline.benchmarks.prep.profile import profile
from pipeline.benchmarks.prep.results import DECODES, OURS, REPLACED, PrepResult
from pipeline.benchmarks.prep.writers import WRITERS, PeerWriter, PillowFiles, WriterEntry, on_cores
from pipeline.benchmarks.results import origins, read_results
from pipeline.benchmarks.throughput.catalog import PEERS, Peer
from pipeline.data.pixels.png.chunks import SYNTHETIC_MARK
from pipeline.data.sources.image_files import ImageFiles
from pipeline.errors import UserError
from pipeline.runtime.cgroup import usable_cores

ROOT = Path(__file__).resolve().parents[1]
SMALL = ["--peers", "none", "--copies", "2", "--digits", "60", "--rounds", "2"]
MEMORY = WriterEntry("a writer", "memory", "DataLoader over tensors")  # it needs no installation
# Simulated: its package exists nowhere.
MISSING = Peer("missing", "files", (), ("no-such-package-of-inkrun",), ("--no-index",))


def test_pages_that_this_project_generated_are_synthetic_in_a_zip_too(tmp_path: Path) -> None:
    file = io.BytesIO()
    metadata = PngInfo()
    metadata.add_text("Source", SYNTHETIC_MARK)
    Image.new("L", (4, 4)).save(file, "PNG", pnginfo=metadata)
    ours = make_zip(tmp_path / "ours.zip", {"readme": b"", "0/1.png": file.getvalue()})
    others = make_zip(tmp_path / "others.zip", folders())
    for path, kind in ((ours, "synthetic"), (others, "real")):
        found, generated = origins(path, "pages")
        assert found == {"kind": kind, "source": path.name}
        assert generated == {"kind": "synthetic", "source": "pages"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("a folder")
    words = ["jobs/bench/prep.py", *SMALL, "--pages", "2", "--runs", str(folder)]
    result = forked.run(words, ROOT)
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
    return folder / "bench" / "latest"


def result_of(run: Path) -> PrepResult:
    result = read_results(run).prep
    assert result is not None
    return result


def test_the_command_writes_results_a_plot_and_a_page(run: Path) -> None:
    result = result_of(run)
    assert (result.rounds, result.processes, result.skipped) == (2, 1, ())
    assert [one.images for one in result.datasets] == [4, 60, 2]
    for one in result.datasets:
        assert [each.name for each in one.figures] == [DECODES, REPLACED, OURS]
        assert all(len(each.rates) == 2 and min(each.rates) > 0 for each in one.figures)
        pillow, replaced, ours = (each.written for each in one.figures)
        assert pillow is None
        assert replaced == ours
        assert 100 < (ours or 0) < 100_000
    assert (run / "prep-rates.png").stat().st_size > 1_000
    html = page_of([run]).html()
    for part in (
        "Preparation",
        "digits of 28×28 in PNG files",
        "bench prep --pages 2 --copies 2",
        "--peers none",
        "in all",
    ):
        assert part in html


@pytest.fixture
def pages(tmp_path: Path) -> Dataset:
    """Return twelve small pages."""
    return Dataset.write("pages", tmp_path / "pages", iter(folders().items()))


def test_another_writer_takes_turns_and_its_bytes_are_counted(
    pages: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real process of a peer; its writer decodes the pages into an array of 64×64 each."""
    monkeypatch.setattr(command, "WRITERS", (MEMORY,))
    monkeypatch.setattr(command, "FOLDER", tmp_path)
    (tmp_path / "peers").mkdir()
    options = command.Options(copies=3, rounds=2, peers=("memory",))
    skipped: list[str] = []
    with ExitStack() as stack:
        arguments = stack, pages, options, tmp_path / "peers", skipped, lambda _: None
        started = [*command.start(*arguments)]
        found = command.measure_dataset(pages, options, tmp_path, started, lambda _: None)
    assert skipped == []
    one = found.figures[-1]
    assert (one.name, one.images, len(one.rates)) == ("a writer", 4, 2)
    assert one.written == pytest.approx(64 * 64, rel=0.1)
    row = [*tables.rate_rows(found)][-1]
    assert row[0] == "a writer"
    assert "–" not in row


def test_a_writer_that_cannot_be_had_is_skipped_with_the_reason(
    pages: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One writer has no package, the other fails as it writes: its pages are no images."""
    monkeypatch.setattr(command, "WRITERS", (WriterEntry("none", "missing", ""), MEMORY))
    monkeypatch.setattr(command, "PEERS", {**PEERS, "missing": MISSING})
    monkeypatch.setattr(command, "FOLDER", tmp_path)
    (tmp_path / "peers").mkdir()
    for file in pages.files:
        file.write_bytes(b"no image")
    options = command.Options(peers=("missing", "memory"))
    skipped: list[str] = []
    with ExitStack() as stack:
        arguments = stack, pages, options, tmp_path / "peers", skipped, lambda _: None
        assert [*command.start(*arguments)] == []
    first, second = skipped
    assert "no-such-package-of-inkrun" in first
    assert "a writer: failed: " in second
    assert "cannot identify image file" in second


def test_all_writers_are_peers_of_the_catalog() -> None:
    for one in WRITERS:
        assert one.method in [entry.name for entry in PEERS[one.peer].methods]


@pytest.mark.parametrize("entry", WRITERS[:2])
def test_ffcv_writes_every_page(tmp_path: Path, entry: WriterEntry) -> None:
    pytest.importorskip("ffcv")
    make_tree(tmp_path / "pages", {f"{n}.png": data for n, data in enumerate(folders().values())})
    writer = PeerWriter(Path(sys.executable), "ffcv", entry, tmp_path / "pages", 12, 1)
    with writer.process:
        assert writer.turn() > 0
        assert writer.written() > 0
    with Reader(tmp_path / entry.name / "images.ffcv") as file:
        assert len(file) == 12


def test_tasks_share_their_cores() -> None:
    with on_cores(1):
        assert usable_cores() == 1
        with pytest.raises(UserError, match="got 2, expected at most 1"), on_cores(2):
            pass


@pytest.mark.parametrize("count", [1, 5, 12, 99])
def test_pages_of_a_source_are_its_own_files(tmp_path: Path, count: int) -> None:
    files = folders()
    source = make_zip(tmp_path / "pages.zip", files)
    found = dict(read_pages(source, count))
    assert len(found) == min(count, len(files))
    assert found.items() <= files.items()


def test_every_part_of_the_profile_takes_time(tmp_path: Path) -> None:
    """A part whose function has another name would take none."""
    archive = make_zip(tmp_path / "pages.zip", folders())
    parts = profile(ImageFiles, archive, tmp_path / "out.beton")
    assert min(parts.values()) > 0
    assert parts["in all"] == pytest.approx(sum(parts.values()) / 2)
    others = profile(PillowFiles, archive, tmp_path / "out.beton")
    assert others["inflate"] == others["undo filters, convert to grey"] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (command.Options(rounds=0), "rounds: got 0"),
        (command.Options(processes=-1), "processes: got -1"),
        (command.Options(peers=("fcvf",)), "peers: got fcvf, expected some of ffcv, litdata"),
        (command.Options(peers=("ffcv", "none")), "peers: got none, expected some of ffcv"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: command.Options, message: str) -> None:
    with pytest.raises(UserError, match=message):
        command.check(options)


def test_a_source_without_pages_is_one_line(tmp_path: Path) -> None:
    make_zip(tmp_path / "pages.zip", {"words.txt": b"words"})
    words = ["jobs/bench/prep.py", *SMALL, "--source", str(tmp_path / "pages.zip")]
    result = forked.run(words, ROOT)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert result.stderr.strip().endswith("got no PNG pages")
