"""The guard of the loader's speed, and what the benchmark makes of its figures.

The guard takes the ratio of two methods that take turns, with one thread each: a busy machine
changes it little. It sees catastrophic regressions only.
"""

import json
import shutil
from pathlib import Path

import forked
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.benchmarks.page import page_of
from pipeline.benchmarks.results import Throughput, read_results
from pipeline.benchmarks.throughput.catalog import OURS, PEERS, Peer
from pipeline.benchmarks.throughput.command import Options, plan_of
from pipeline.benchmarks.throughput.environments import last_line, python_of
from pipeline.benchmarks.throughput.workloads import area_resize, copy_pages
from pipeline.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
BAR = 400  # times as fast as Pillow's box filter at 224×224


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("a folder")
    options = ["--quick", "--peers", "pillow", "--workloads", "pages", "--threads", "1"]
    command = ["jobs/bench/throughput.py", *options, "--runs", str(folder)]
    done = forked.run(command, ROOT)
    assert done.returncode == 0, done.stderr
    assert "Pillow, box" in done.stdout
    return folder / "bench"


@pytest.fixture
def result(runs: Path) -> Throughput:
    result = read_results(runs / "latest").throughput
    assert result is not None
    return result


def test_pages_load_hundreds_of_times_as_fast_as_by_pillow(result: Throughput) -> None:
    (pages,) = result.workloads
    assert (pages.images, result.skipped) == (124, ())
    pillow = pages.find("Pillow, box")
    assert pillow is not None
    # A thread of its own may wait for a core of a busy machine: the better of both counts.
    best = min(one.factor.value for one in pages.figures if one.peer == OURS)
    assert pillow.factor.value / best > BAR / 2


def test_all_figures_are_measured(result: Throughput) -> None:
    (pages,) = result.workloads
    for one in pages.figures:
        assert len(one.rates) == len(one.reference_rates) == result.rounds == 3
        assert 0 < one.first_batch < 100
        assert 1e-6 < one.cpu_seconds < 1
        assert 1e7 < one.peak_rss < 1e10
        assert 1e4 < one.disk_bytes < 1e7
        assert (one.preparation_seconds > 0) == (one.peer == OURS)
        assert 0 < one.mean_difference < one.largest_difference
        assert (one.largest_difference <= 0.501) == (one.peer == OURS)  # half a grey level


def test_a_page_and_plots_are_made_of_the_results(runs: Path, tmp_path: Path) -> None:
    done = forked.run(["jobs/report.py", runs / "latest", "--out", tmp_path], ROOT)
    assert done.returncode == 0, done.stderr
    assert "times as fast as Pillow, box" in done.stdout
    text = (tmp_path / "bench.html").read_text()
    for part in ("Loading speed", "inkrun, ink, all threads", "synthetic data", "bench throughput"):
        assert part in text
    assert (runs / "latest" / "throughput-pages-224.png").stat().st_size > 1000
    assert json.loads((runs / "latest" / "machine.json").read_text())["cores"] >= 1


def test_a_damaged_or_unfinished_benchmark_has_no_page(runs: Path, tmp_path: Path) -> None:
    folder = shutil.copytree((runs / "latest").resolve(), tmp_path / "a")
    (folder / "results.json").write_text('{"throughput": {"rounds": "3"}}')
    with pytest.raises(UserError, match=r"results.json: damaged"):
        page_of([folder])
    (folder / "results.json").unlink()
    with pytest.raises(UserError, match="no finished benchmark"):
        page_of([folder])


def test_a_comparison_with_itself_changes_nothing_beyond_noise(runs: Path) -> None:
    latest = runs / "latest"
    done = forked.run(["jobs/bench/all.py", "--compare", latest, latest], ROOT)
    assert done.returncode == 0, done.stderr
    assert "changed beyond noise in 0 of 3 comparisons" in done.stdout
    done = forked.run(["jobs/bench/all.py", "--compare", latest, latest, "--quick"], ROOT)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(peers=("pilow",)), "peers: got pilow, expected one of pillow, "),
        (Options(peers=(OURS,)), "peers: got inkrun"),
        (Options(sizes=()), "sizes: got"),
        (Options(sizes=(0,)), "sizes: got"),
        (Options(rounds=0), "rounds: got 0"),
        (Options(threads=-1), "threads: got -1"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: Options, message: str) -> None:
    with pytest.raises(UserError, match=message):
        plan_of(options)


def test_quick_measures_less_than_the_default() -> None:
    quick, full = plan_of(Options(quick=True)), plan_of(Options())
    assert {one.name for one in quick.workloads} < {one.name for one in full.workloads}
    assert set(quick.peers) < set(full.peers) == set(PEERS) - {OURS}
    assert (quick.writers, quick.digits) < (full.writers, full.digits)


def test_a_peer_that_cannot_be_installed_is_skipped_with_pips_reason(tmp_path: Path) -> None:
    """No index is reachable: pip is given one that does not exist."""
    options = ("--no-index",)
    peer = Peer("none", "files", (), ("no-such-package-of-inkrun",), options, "libnone-dev")
    reported: list[str] = []
    with pytest.raises(UserError, match=r"it needs libnone-dev.*no-such-package-of-inkrun"):
        python_of(peer, tmp_path, reported.append)
    assert "no-such-package-of-inkrun" in reported[0]
    assert list(tmp_path.iterdir()) == []


def test_a_peer_s_environment_is_made_once(tmp_path: Path) -> None:
    peer = Peer("array", "files", (), ("numpy",), ("--no-index",))  # the main one has it
    reported: list[str] = []
    first, second = (python_of(peer, tmp_path, reported.append) for _ in range(2))
    assert first == second == tmp_path / "array" / "bin" / "python"
    assert len(reported) == 1


def test_the_reason_is_pips_last_error() -> None:
    assert last_line("a\nERROR: first\nERROR: second\nhint: b\n\n") == "ERROR: second"
    assert last_line("Traceback\na.b.ValueError: x\nwarning: y\n") == "a.b.ValueError: x"
    assert len(last_line("ERROR: " + 1000 * "x")) == 301
    assert last_line("") == "no reason given"


images = arrays(np.uint8, st.tuples(st.integers(1, 30), st.integers(1, 30)))


@given(images, st.integers(1, 12))
def test_the_exact_resize_averages_areas(image: np.ndarray, size: int) -> None:
    """Repeating each pixel `size` times makes every output pixel a whole block of the result."""
    repeated = image.repeat(size, 0).repeat(size, 1).astype(np.float64)
    height, width = image.shape
    blocks = repeated.reshape(size, height, size, width).mean((1, 3))
    np.testing.assert_allclose(area_resize(image, size), blocks, atol=1e-9)
    colours = np.stack([image, image // 2, image], axis=2)
    np.testing.assert_allclose(area_resize(colours, size)[..., 0], blocks, atol=1e-9)


def test_pages_are_numbered_copies(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name in ("b/2.png", "a/1.png", "a/notes.txt"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name)
    shutil.make_archive(str(tmp_path / "zip"), "zip", source)
    for number, pages in enumerate((source, tmp_path / "zip.zip")):
        copy_pages(pages, tmp_path / str(number))
        found = {file.name: file.read_text() for file in (tmp_path / str(number)).iterdir()}
        assert found == {"000000.png": "a/1.png", "000001.png": "b/2.png"}
    (tmp_path / "bad.zip").write_text("no zip")
    for wrong in (tmp_path / "bad.zip", tmp_path / "none", tmp_path / "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(UserError, match="source: "):
            copy_pages(wrong, tmp_path / "new")
