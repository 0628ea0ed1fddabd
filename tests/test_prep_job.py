import gzip
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from raw_data import digits, folders, idx_pair, make_tree, make_zip, midas, saved

from beton.__main__ import main as beton_command
from beton.reader import Reader
from jobs import prep as job
from pipeline.data.synth import handwriting
from pipeline.data.synth.handwriting import DigitCounts, SyntheticPages

JOB = Path(__file__).resolve().parents[1] / "jobs" / "prep.py"
GOLDEN = Path(__file__).parent / "golden"
Run = subprocess.CompletedProcess[str]
Prep = Callable[..., Run]
FEW = ("--auxiliary-writers", "1")  # what goes with part 1 takes no time then


def prep(folder: Path, *arguments: str) -> Run:
    """Run the command in a folder."""
    return subprocess.run(
        [sys.executable, str(JOB), *arguments, *FEW],
        cwd=folder,
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "80"},
        timeout=120,
    )


@pytest.fixture
def prep_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Prep:
    """Runs the command in the test's folder and in this process, which is quicker to start."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments: str) -> Run:
        monkeypatch.setattr(sys, "argv", ["prep", *arguments, *FEW])
        status = job.main()
        return Run(arguments, status, *capsys.readouterr())

    return run


def failure(run: Run) -> list[str]:
    """The lines that a failed run says: no traceback, and no table."""
    assert run.returncode == 2, run
    assert "Traceback" not in run.stdout + run.stderr
    assert "file MB" not in run.stdout
    return run.stderr.splitlines()


def test_a_dataset_is_prepared_once(tmp_path: Path, prep_here: Prep) -> None:
    make_zip(tmp_path / "some pages.zip", midas() | {"hand writing/notes.txt": b"x"})
    run = prep(tmp_path, "part1", "--source", "some pages.zip", "--split", "writers=1")
    assert (run.returncode, run.stderr) == (0, "")
    lines = [line.strip() for line in run.stdout.splitlines() if line.strip()]
    assert lines[0] == ("part1: --source some pages.zip, midas: 12 images, 3 classes, 4 writers")
    assert (
        f"auxiliary: embedded default {SyntheticPages.path}, "
        "synthetic: 62 images, 62 classes, 1 writers"
    ) in lines
    layout = lines[: lines.index("part1: data card data/part1.html")]
    assert {"writer", "left", "class", "polarity"} <= {line.split()[0] for line in layout}
    assert any(line.split() == ["left", "out", ".txt", "files", "×1"] for line in layout)
    heading = "dataset images classes train validation test raw MB file MB s"
    assert lines[-3].split() == heading.split()
    assert lines[-2].split()[:6] == ["part1", "12", "3", "9", "3", "0"]
    assert (tmp_path / "data" / "part1.html").exists()
    out = tmp_path / "data" / "part1.beton"
    before = out.stat()
    again = prep_here("part1", "--source", "some pages.zip", "--split", "writers=1")
    assert again.returncode == 0
    assert "data/part1.beton is up to date; --force writes it again" in again.stdout
    assert out.stat() == before
    forced = prep_here("part1", "--source", "some pages.zip", "--split=writers=1", "--force")
    assert "up to date" not in forced.stdout
    assert out.stat().st_ino != before.st_ino
    without_source = prep_here("part1")
    assert without_source.returncode == 0
    assert (
        "part1.beton holds real data whose source is missing; not replaced" in without_source.stdout
    )


def test_real_data_are_never_replaced_by_generated_ones_unasked(
    tmp_path: Path, prep_here: Prep
) -> None:
    out = tmp_path / "data" / "part1.beton"

    def kind() -> str:
        with Reader(out) as reader:
            return str(reader.info["provenance"]["kind"])

    make_zip(tmp_path / "pages.zip", midas())
    assert prep_here("part1", "--source", "pages.zip").returncode == 0
    before = out.stat()
    stays = prep_here("part1", "--writers", "1")
    assert stays.returncode == 0
    assert stays.stdout.splitlines()[0] == (
        "part1: data/part1.beton holds real data whose source is missing; not replaced"
    )
    [line] = failure(prep_here("part1", "--writers", "1", "--force"))
    assert line == (
        "prep: part1: data/part1.beton holds real data whose source is missing; "
        "--synthetic replaces it"
    )
    assert (out.stat(), kind()) == (before, "real")
    assert prep_here("part1", "--writers", "1", "--synthetic").returncode == 0
    assert kind() == "synthetic"
    assert prep_here("part1", "--source", "pages.zip").returncode == 0
    assert kind() == "real"


def test_what_goes_with_part_1_is_generated_correctly_whatever_part_1_is(
    tmp_path: Path, prep_here: Prep
) -> None:
    make_zip(tmp_path / "pages.zip", midas())
    assert prep_here("part1", "--source", "pages.zip", "--mislabel", "wrong").returncode == 0
    sources = {}
    for name in ("part1", "auxiliary"):
        with Reader(tmp_path / "data" / f"{name}.beton") as reader:
            sources[name] = reader.info["provenance"]["source"]
    assert "mislabelled" in sources["part1"]
    assert "mislabelled" not in sources["auxiliary"]
    [line] = failure(prep_here("auxiliary", "--source", "pages.zip"))
    assert line == "prep: auxiliary: always synthetic; remove --source and --download"


def test_what_cannot_be_read_is_not_replaced_by_generated_pages(
    tmp_path: Path, prep_here: Prep
) -> None:
    out = tmp_path / "data" / "part1.beton"
    out.parent.mkdir()
    out.write_bytes(b"words")
    [line] = failure(prep_here("part1", "--writers", "1"))
    assert "part1.beton" in line
    assert out.read_bytes() == b"words"


def test_all_that_lies_in_the_folder_of_raw_data_is_prepared(
    tmp_path: Path, prep_here: Prep
) -> None:
    raw = tmp_path / "data" / "raw"
    raw.mkdir(parents=True)
    make_zip(raw / "trainPart1.zip", midas(range(1, 12), writers=2))
    pairs = idx_pair("train", *digits(20), True) | idx_pair("t10k", *digits(20), False)
    make_tree(raw / "MNIST", pairs)
    run = prep_here("--out", "elsewhere", "--seed", "5")
    assert run.returncode == 0, run
    assert "mnist: data/raw data/raw/MNIST, idx: 40 images, 10 classes" in run.stdout
    files = sorted(path.name for path in (tmp_path / "elsewhere").glob("*.beton"))
    assert files == ["auxiliary.beton", "mnist.beton", "part1.beton", "part2.beton"]
    with Reader(tmp_path / "elsewhere" / "part2.beton") as reader:
        assert reader.info["classes"] == list("0123456789")
        assert reader.info["prepare"]["seed"] == 5
        assert reader.info["provenance"]["via"] == "data/raw"
        assert len(reader) == 20


def test_without_data_the_main_datasets_are_generated(tmp_path: Path, prep_here: Prep) -> None:
    run = prep_here("part1", "part2", "--writers", "2", "--seed", "7")
    assert (run.returncode, run.stderr) == (0, "")
    lines = [line.strip() for line in run.stdout.splitlines() if line.strip()]
    assert lines[0] == (
        f"part1: embedded default {SyntheticPages.path}, "
        "synthetic: 124 images, 62 classes, 2 writers"
    )
    assert lines[-3].split()[:7] == ["part1", "124", "62", "62", "62", "0", "–"]
    assert lines[-2].split()[:3] == ["part2", "20", "10"]
    assert lines[-1].split()[:3] == ["auxiliary", "62", "62"]
    names = ("auxiliary", "part1", "part2")
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == [
        f"{name}.{suffix}" for name in names for suffix in ("beton", "html")
    ]
    with Reader(tmp_path / "data" / "part1.beton") as reader:
        assert reader.info["provenance"]["kind"] == "synthetic"
        assert reader.info["provenance"]["via"] == "embedded default"
        assert (reader.info["generator"]["seed"], reader.info["generator"]["writers"]) == (7, 2)
    again = prep_here("part1", "--synthetic", "--writers", "2", "--seed", "7")
    assert "part1.beton is up to date" in again.stdout
    other = prep_here("part1", "--writers", "1", "--seed", "7", "--grey")
    assert "part1.beton is up to date" not in other.stdout
    with Reader(tmp_path / "data" / "part1.beton") as reader:
        assert len(reader) == 62
        assert reader.info["generator"]["grey"] is True


def test_without_data_or_names_all_main_datasets_are_generated(
    tmp_path: Path, prep_here: Prep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handwriting, "MNIST_COUNTS", DigitCounts(300, 60, 1000))
    monkeypatch.setattr(handwriting, "PART3_COUNTS", DigitCounts(300, 0, 2000))
    assert prep_here("--writers", "1", "--mislabel", "pairs=0.5").returncode == 0
    generators = {}
    for path in (tmp_path / "data").glob("*.beton"):
        with Reader(path) as reader:
            generators[path.name] = reader.info["generator"]
    assert sorted(generators) == [
        "auxiliary.beton",
        *("mnist.beton", "part1.beton", "part2.beton", "part3.beton"),
    ]
    assert generators["auxiliary.beton"]["seed"] != generators["part1.beton"]["seed"]
    assert generators["mnist.beton"]["mislabelling"] == "none"
    assert generators["part3.beton"]["mislabelling"] == "pairs=0.5"


@pytest.mark.parametrize(
    "names", [("emnist-digits",), ("my-letters",), ("emnist-letters", "part1")]
)
def test_without_data_a_line_says_how_to_get_some(
    tmp_path: Path, prep_here: Prep, names: tuple[str, ...]
) -> None:
    (line,) = failure(prep_here(*names))
    assert line.startswith(f"prep: no data for {names[0]}")
    assert "into data/raw, or give the path by" in line
    assert list(tmp_path.iterdir()) == []


BROKEN = {"1/broken.png": b"words", "10/3.png": b""}


def test_bad_images_are_listed_and_nothing_is_written(tmp_path: Path, prep_here: Prep) -> None:
    make_zip(tmp_path / "set.zip", folders() | BROKEN)
    lines = failure(prep_here("--source", "set.zip"))
    assert lines == [
        "1/broken.png: not recognised as "
        "PNG, JPEG, BMP, GIF, TIFF, WEBP, PPM, JPEG2000, AVIF, HEIC",
        "10/3.png: the file is empty",
        "prep: set.zip: 2 of 13 images cannot be decoded; --skip-bad leaves them out",
    ]
    assert list((tmp_path / "data").iterdir()) == []
    run = prep_here("--source", "set.zip", "--skip-bad")
    assert run.returncode == 0
    assert "set: skipped 10/3.png: the file is empty" in run.stdout
    assert run.stdout.splitlines()[-1].split()[:2] == ["set", "11"]
    with Reader(tmp_path / "data" / "set.beton") as reader:
        assert len(reader) == 11
        assert [name for name, _ in reader.info["prepare"]["skipped"]] == sorted(BROKEN)


def test_no_image_is_left(tmp_path: Path, prep_here: Prep) -> None:
    make_tree(tmp_path / "set", {f"{name}/{i}.png": b"words" for name in "ab" for i in range(3)})
    *images, line = failure(prep_here("--source", "set", "--skip-bad"))
    assert len(images) == 6
    assert line == "prep: set: 6 of 6 images cannot be decoded: none is left"


def test_files_and_folders_in_the_way_are_named(tmp_path: Path, prep_here: Prep) -> None:
    make_tree(tmp_path / "dir.beton", folders())  # raw images in a folder of such a name
    (tmp_path / "file").touch()
    assert failure(prep_here("dir", "--source", "dir.beton", "--out", "file"))[0].startswith(
        "prep: file: "
    )
    (tmp_path / "data" / "dir.beton").mkdir(parents=True)
    assert failure(prep_here("dir", "--source", "dir.beton"))[0].startswith("prep: data/dir.beton")
    (tmp_path / "data" / "dir.beton").rmdir()
    assert prep_here("dir", "--source", "dir.beton").returncode == 0


def test_control_characters_in_names_do_not_reach_the_terminal(
    tmp_path: Path, prep_here: Prep, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = "\x1b[31mred\x1b]0;title\x07\nline"
    make_tree(tmp_path / "set", folders((evil, "plain")))
    texts = [prep_here("--source", "set")]
    make_tree(tmp_path / "set", {f"{evil}/bad.png": b"words"})
    texts += [prep_here("--source", "set"), prep_here("--source", "set", "--skip-bad")]
    assert [run.returncode for run in texts] == [0, 2, 0]
    assert beton_command(["inspect", "data/set.beton"]) == 0
    shown = "".join(run.stdout + run.stderr for run in texts) + "".join(capsys.readouterr())
    assert "\\x1b[31mred" in shown
    assert all(character.isprintable() or character == "\n" for character in shown)
    assert "\nline" not in shown


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--source", "missing.zip"], "missing.zip: no such file or folder"),
        (["--source", "empty.zip"], "empty.zip: is empty"),
        (["--source", "one"], "one: got one class, 'a', for all 2 images, expected at least 2"),
        (["--source", "words.zip"], "words.zip: expected a folder, a complete zip archive"),
        (["--source", "evil.zip"], "evil.zip: refused: member '../x.png' points outside"),
        (["--source", "good", "--split", "90-20"], "split '90-20': expected percentages"),
        (["--source", "good", "--split", "writers=1"], "12 of 12 images have no known writer"),
        (["--source", "good", "--workers", "0"], "workers"),
        (["--source", "good", "--seed", "-1"], "seed -1"),
        (["--source", "good", "--out", "words.zip"], "words.zip"),
        (["--source", "good", "--out", "new.beton"], "--out: got new.beton, expected a folder"),
        (["a/b", "--source", "good"], "name 'a/b': expected letters, digits"),
        (["part1", "--synthetic", "--source", "good"], "--synthetic excludes --source"),
        (["part1", "--synthetic", "--download"], "--synthetic excludes --source"),
        (
            ["my-letters", "--synthetic"],
            "my-letters: no synthetic version, expected one of part1",
        ),
        (["part1", "--writers", "0"], "writers: got 0, expected 1 to 999"),
        (["part3", "--mislabel", "some"], "mislabel 'some': expected none, wrong,"),
        (["part1", "--writers", "1", "--seed", "-1"], "seed -1"),
        (["part1", "--source", "good", "--grey"], "--writers and --grey are for the synthetic"),
        (["mnist", "--mislabel", "wrong"], "--mislabel: expected --source, or the synthetic"),
        (["part3", "--mislabel", "wrong"], "part3 would be read from data/raw/mnistTask3.zip;"),
        (["--source", "dangling"], "dangling/1/lost.png: No such file or directory"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    tmp_path: Path, prep_here: Prep, arguments: list[str], reason: str
) -> None:
    make_zip(tmp_path / "empty.zip", {})
    make_tree(tmp_path / "one", {"a/0.png": b"x", "a/1.png": b"x"})
    make_tree(tmp_path / "good", folders())
    make_tree(tmp_path / "dangling", folders())
    (tmp_path / "dangling" / "1" / "lost.png").symlink_to("nowhere.png")
    if "part3" in arguments and "some" not in arguments:
        (tmp_path / "data" / "raw").mkdir(parents=True)
        make_zip(tmp_path / "data" / "raw" / "mnistTask3.zip", folders())
    make_zip(tmp_path / "evil.zip", folders() | {"../x.png": b"x"})
    (tmp_path / "words.zip").write_bytes(b"words")
    [line] = failure(prep_here(*arguments))
    assert line.startswith("prep: ")
    assert reason in line
    assert not list(tmp_path.rglob("*.beton"))


@pytest.mark.parametrize(
    ("name", "dataset"),
    [
        ("mnist_train.csv", "mnist"),
        ("digit-recognizer.zip", "mnist"),
        ("train-labels.idx1-ubyte", "mnist"),
        ("trainPart1 (1).zip", "part1"),
        ("Part 1.rar", "part2"),
        ("mnistTask3-copy.zip", "part3"),
    ],
)
def test_data_under_a_similar_name_are_reported_instead_of_generated_ones(
    tmp_path: Path, prep_here: Prep, name: str, dataset: str
) -> None:
    make_tree(tmp_path / "data" / "raw", {name: b"x", "other.zip": b"x"})
    [line] = failure(prep_here(dataset))
    assert line.startswith(f"prep: {dataset}: data/raw/{name} may hold it")
    assert list((tmp_path / "data").iterdir()) == [tmp_path / "data" / "raw"]


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_dotted_names_of_mnist_are_found(tmp_path: Path, prep_here: Prep, suffix: str) -> None:
    pair = idx_pair("train", *digits(40), bool(suffix)).items()
    dotted = {name.replace("-idx", ".idx"): data for name, data in pair}
    make_tree(tmp_path / "data" / "raw", dotted)
    run = prep_here("mnist")
    assert run.returncode == 0, run
    assert "mnist: data/raw data/raw, idx: 40 images, 10 classes" in run.stdout


def test_a_check_reports_and_draws_and_writes_no_dataset(tmp_path: Path, prep_here: Prep) -> None:
    make_zip(tmp_path / "leaves.zip", folders(count=6))
    run = prep_here("--source", "leaves.zip", "--check")
    assert (run.returncode, run.stderr) == (0, "")
    assert "polarity" in run.stdout
    assert list((tmp_path / "data").iterdir()) == [tmp_path / "data" / "leaves.html"]


def test_a_check_of_other_settings_does_not_leave_its_card_with_the_dataset(
    tmp_path: Path, prep_here: Prep
) -> None:
    make_zip(tmp_path / "leaves.zip", folders())
    card = tmp_path / "data" / "leaves.html"
    assert prep_here("--source", "leaves.zip").returncode == 0
    before = card.read_text()
    assert prep_here("--source", "leaves.zip", "--check", "--polarity=light").returncode == 0
    assert card.read_text() != before
    again = prep_here("--source", "leaves.zip")
    assert "is up to date" in again.stdout
    assert card.read_text() == before


def test_other_rules_write_the_dataset_again(tmp_path: Path, prep_here: Prep) -> None:
    make_tree(tmp_path / "set", {f"{name}/x.png": data for name, data in folders().items()})
    source = ("--source", "set", "--class-from")
    assert prep_here(*source, "folder:0").returncode == 0
    assert "is up to date" in prep_here(*source, "folder:0").stdout
    by_file = prep_here(*source, "folder:0,1")
    assert by_file.returncode == 0, by_file
    assert "replaced data/set.beton, which had other data or settings" in by_file.stdout


def test_a_file_of_another_program_is_not_replaced_unasked(tmp_path: Path, prep_here: Prep) -> None:
    make_zip(tmp_path / "set.zip", folders())
    out = tmp_path / "data" / "set.beton"
    out.parent.mkdir()
    out.write_bytes(gzip.decompress((GOLDEN / "ffcv-1.0.2.beton.gz").read_bytes()))
    [line] = failure(prep_here("--source", "set.zip"))
    assert line.endswith("was written by another program; --force overwrites it")
    assert prep_here("--source", "set.zip", "--force").returncode == 0


def pages(paper: int, ink: int, classes: str = "ab") -> dict[str, bytes]:
    """Files of pages with strokes, a folder per class."""
    found = {}
    for number, name in enumerate(classes):
        for i in range(8):
            pixels = np.full((30, 40), paper, np.uint8)
            pixels[8 + number : 11 + number, 6 : 20 + i] = ink
            found[f"{name}/{i}.png"] = saved(Image.fromarray(pixels))
    return found


DOUBTS = {
    "one page of each polarity": pages(255, 0, "a") | pages(0, 255, "bc"),
    "a class of blank pages": pages(255, 0) | pages(255, 255, "c"),
    "many blank pages": pages(255, 0)
    | {f"a/{i}x.png": saved(Image.new("L", (40, 30))) for i in "12"},
}


@pytest.mark.parametrize("doubt", DOUBTS)
def test_every_suggestion_about_pixels_settles_the_doubt(
    tmp_path: Path, prep_here: Prep, doubt: str
) -> None:
    make_zip(tmp_path / "set.zip", DOUBTS[doubt])
    [line] = failure(prep_here("--source", "set.zip"))
    assert list((tmp_path / "data").iterdir()) == []
    suggestions = line.partition("; use ")[2].split(", or ")
    assert suggestions[0].startswith("--")
    for suggestion in suggestions:
        run = prep_here("--source", "set.zip", *shlex.split(suggestion), "--force")
        assert run.returncode == 0, run
        with Reader(tmp_path / "data" / "set.beton") as reader:
            assert len(reader) == len(DOUBTS[doubt])


def test_linked_folders_are_classes_like_others(tmp_path: Path, prep_here: Prep) -> None:
    make_tree(tmp_path / "elsewhere", folders(("7",)))
    make_tree(tmp_path / "set", folders())
    (tmp_path / "set" / "7").symlink_to(tmp_path / "elsewhere" / "7")
    (tmp_path / "set" / "7" / "loop").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "again").symlink_to(tmp_path / "set")
    run = prep_here("--source", "set")
    assert run.returncode == 0, run.stderr
    assert "folders: 16 images, 4 classes" in run.stdout
    (tmp_path / "set" / "7").unlink()
    run = prep_here("--source", "set")
    assert "folders: 12 images, 3 classes" in run.stdout
    assert "set: replaced data/set.beton, which had other data" in run.stdout


def test_help_reads_well(prep_here: Prep, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        prep_here("--help")
    assert done.value.code == 0
    text = capsys.readouterr().out
    for word in ("--source PATH", "--split", "--skip-bad", "--force", "--download", "part1"):
        assert word in text
    for word in ("--synthetic", "--writers", "--grey", "--mislabel"):
        assert word in text


def test_an_interrupted_run_leaves_nothing(tmp_path: Path) -> None:
    page = saved(Image.new("L", (3000, 3000), 255))
    make_zip(tmp_path / "set.zip", {f"{i % 2}/{i}.png": page for i in range(2000)})  # for minutes
    run = subprocess.Popen(
        [sys.executable, str(JOB), "--source", "set.zip", "--workers", "2"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert run.stdout is not None
    run.stdout.readline()  # it has begun
    run.send_signal(signal.SIGINT)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 130
    assert errors.splitlines() == ["prep: interrupted"]
    assert not list(tmp_path.rglob("*.beton*"))
