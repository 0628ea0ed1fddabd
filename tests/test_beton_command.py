"""The command `python -m beton`: its output, images, errors and exit status."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from every_field import EveryField, parts, without_manifest, write_every_field
from PIL import Image

from beton import __main__ as command
from beton.fields import InkField, IntField
from beton.writer import write


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file.beton"
    write_every_field(path)
    return path


def lettered(path: Path) -> Path:
    """Write 30 images of 60 x 80 in three classes, with a bar as high as the label."""
    pages = np.full((30, 60, 80), 255, np.uint8)
    for i in range(30):
        pages[i, 50 - 20 * (i // 10) :, 20:60] = 0
    fields = {"image": InkField(), "label": IntField()}
    info = {"classes": ["a", "b", "ç"], "provenance": {"kind": "synthetic", "source": "here"}}
    write(path, fields, [(pages[i], i // 10) for i in range(30)], info=info)
    return path


def test_inspect_prints_fields_and_metadata(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    assert command.main(["inspect", str(path)]) == 0
    text = capsys.readouterr().out
    for expected in ("12 samples", "float32 (4,)", "40 × 30", "every byte", "3: a, b, c", "note"):
        assert expected in text
    (ink,) = re.findall(r"ink +Ink .*", text)
    assert "1,200 B" in ink
    assert command.main(["inspect", str(lettered(path))]) == 0
    text = capsys.readouterr().out
    assert re.search(r"provenance kind +synthetic", text)
    assert "0 to 2, 3 distinct" in text


def test_verify_prints_one_line(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["verify", str(path)]) == 0
    assert capsys.readouterr() == (f"{path}: 12 samples, every byte matches its checksum\n", "")
    data = bytearray(path.read_bytes())
    data[parts(bytes(data)).data_start] ^= 1
    path.write_bytes(data)
    assert command.main(["verify", str(path)]) == 1
    out, error = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(rf"{path}: page 0 .* has changed since it was written\n", error)


def test_verify_without_checksums_reads_every_sample(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = bytearray(without_manifest(path.read_bytes()))
    path.write_bytes(data)
    assert command.main(["verify", str(path)]) == 0
    found = "no checksums: written by another program; every sample can be decoded"
    assert found in capsys.readouterr().out
    assert command.main(["inspect", str(path)]) == 0
    assert "no checksums: written by another program" in capsys.readouterr().out
    at = data.index(b"\xff\xd8\xff")  # a JPEG
    data[at : at + 2] = b"\0\0"
    path.write_bytes(data)
    assert command.main(["verify", str(path)]) == 1
    assert "field 'jpg', sample 0: JPEG cannot be decoded" in capsys.readouterr().err


def test_show_draws_samples_from_the_whole_file(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "grid.png"
    assert command.main(["show", str(lettered(path)), "-o", str(out), "--count", "3"]) == 0
    assert capsys.readouterr().out == f"{out}: 3 samples of 30 (synthetic, here)\n"
    grid = np.asarray(Image.open(out).convert("L"))
    cell, caption, gap = command.CELL, command.CAPTION, command.GAP
    assert grid.shape == (gap + cell + caption + gap + caption, gap + 3 * (cell + gap))
    assert (grid[-caption:] < 100).any()  # the provenance
    grid = grid[:-caption]
    cells = [grid[gap : gap + cell, gap + i * (cell + gap) :][:, :cell] for i in range(3)]
    heights = [(cell_ == 0).sum(axis=0).max() for cell_ in cells]
    assert heights == [10, 30, 50]  # the bars, of classes 0, 1 and 2
    words = [grid[-caption - gap : -gap, gap + i * (cell + gap) :][:, :cell] for i in range(3)]
    assert all((word < 100).any() for word in words)


def test_show_takes_other_fields_and_files_without_labels(path: Path, tmp_path: Path) -> None:
    out = tmp_path / "grid.png"
    plain = ["show", str(path), "-o", str(out), "--count", "1000000000000"]  # all samples
    assert command.main(plain) == 0
    first = np.asarray(Image.open(out))
    # The first image field has colour images.
    y, x = command.GAP + command.CELL // 2, command.GAP + command.CELL // 2
    around = first[y - 40 : y + 40, x - 40 : x + 40].reshape(-1, 3)
    assert EveryField()[0]["raw"][2, 2] in around
    assert command.main([*plain, "--field", "ink", "--label", "int"]) == 0
    assert not np.array_equal(np.asarray(Image.open(out)), first)


MISTAKES = [
    (["inspect", "none.beton"], "No such file or directory: 'none.beton'"),
    (["inspect", "."], "Is a directory"),
    (["inspect"], "arguments are required: FILE"),
    (["look", "FILE"], "invalid choice: 'look'"),
    (["show", "FILE"], "required: -o/--out"),
    (["show", "FILE", "-o", "grid.png", "--count", "0"], "--count: got 0"),
    (["show", "FILE", "-o", "grid.png", "--count", "x"], "invalid int value: 'x'"),
    (["show", "FILE", "-o", "grid.png", "--field", "inc"], "--field: got inc, expected a field of"),
    (["show", "FILE", "-o", "grid.png", "--label", "ink"], "--label: got ink, expected a field of"),
    (["show", "FILE", "-o", "grid.beton"], "--out: got 'grid.beton'"),
    (["show", "FILE", "-o", "none/grid.png"], "No such file or directory"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES)
def test_mistakes_get_one_line_and_status_2(
    path: Path,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(path.parent)
    given = [str(path) if argument == "FILE" else argument for argument in arguments]
    assert command.main(given) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith("python -m beton: ")
    assert error.count("\n") == 1
    assert message in error
    assert [entry.name for entry in path.parent.iterdir()] == ["file.beton"]


def test_a_file_of_numbers_cannot_be_shown(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(path, {"n": IntField()}, [(1,)])
    assert command.main(["show", str(path), "-o", str(path.with_name("grid.png"))]) == 2
    assert "it has no suitable field" in capsys.readouterr().err


def test_the_module_is_a_command(path: Path) -> None:
    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "beton", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert run("verify", str(path)).returncode == 0
    path.write_bytes(b"not a file of ours, but a longer one")
    done = run("inspect", str(path))
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(
        rf"{path}: unsupported version of the format \(got \d+, expected 2\)\n", done.stderr
    )
