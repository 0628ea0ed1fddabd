import gzip
import json
import pickle
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import golden_files
import numpy as np
import pytest
from every_field import FIELDS, INFO, EveryField, parts, same, without_manifest, write_every_field

from beton import reader
from beton.errors import BetonError, ChecksumError, FormatError, SampleError
from beton.format import manifest
from beton.reader import Reader

SAMPLES = 12


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_every_field(tmp_path_factory.mktemp("reader") / "sound.beton", SAMPLES)


@pytest.fixture
def path(tmp_path: Path, sound: bytes) -> Path:
    path = tmp_path / "file.beton"
    path.write_bytes(sound)
    return path


def test_a_reader_is_a_sequence_of_samples(path: Path) -> None:
    with Reader(path) as file:
        assert (len(file), list(file.fields), file.info) == (SAMPLES, list(FIELDS), INFO)
        assert file.page_size == 4096
        for i in range(SAMPLES):
            assert same(file[i], EveryField()[i] | {"jpg": file[i]["jpg"]})
        assert same(file[-1], file[SAMPLES - 1])
        for index in (SAMPLES, -SAMPLES - 1):
            with pytest.raises(IndexError, match=r"file\.beton: sample .* of 12"):
                file[index]


def test_columns_are_arrays_for_kernels(path: Path) -> None:
    file = Reader(path)
    for name in FIELDS:
        column = file.column(name)
        assert (column.file, column.name, column.field) == (str(path), name, file.fields[name])
        assert column.metadata.dtype == FIELDS[name].metadata_dtype
        assert column.data.tobytes() == path.read_bytes()
        taken = column.take()
        sizes = taken.sizes
        assert np.array_equal(taken.records, column.metadata)
        for numbers in (taken.starts, sizes):
            assert numbers.dtype == np.int64
            assert len(numbers) == (0 if name in ("float", "int") else SAMPLES)
        for array in (column.metadata, column.data):
            assert not array.flags.writeable
        assert len(column.payload(2)) == (sizes[2] if len(sizes) else 0)
        payloads = [*taken.payloads()]
        assert [len(data) for data in payloads] == sizes.tolist()
        assert all(np.array_equal(data, column.payload(n)) for n, data in enumerate(payloads))
        some = column.take(np.array([2, 0]))
        for numbers, part in zip(taken[:3], some[:3], strict=True):
            assert np.array_equal(numbers[[2, 0]] if len(numbers) else numbers, part)


def test_a_field_that_is_not_there(path: Path) -> None:
    with pytest.raises(
        BetonError, match=r"field 'imgae': no such field .*expected float, int, raw"
    ):
        Reader(path).column("imgae")


def test_a_closed_reader_raises_and_its_columns_remain_valid(path: Path) -> None:
    with Reader(path) as file:
        column = file.column("bytes")
    for use in (lambda: file[0], lambda: file.column("int"), lambda: file.metadata, file.verify):
        with pytest.raises(BetonError, match="closed"):
            use()
    assert column.decode(2) == EveryField()[2]["bytes"]


def test_files_that_are_no_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Reader(tmp_path / "none.beton")
    with pytest.raises(IsADirectoryError):
        Reader(tmp_path)
    (tmp_path / "empty.beton").touch()
    with pytest.raises(FormatError, match=r"empty\.beton: the file is empty"):
        Reader(tmp_path / "empty.beton")


def test_a_file_without_manifest_has_no_info_and_no_checksums(path: Path, sound: bytes) -> None:
    path.write_bytes(without_manifest(sound))
    file = Reader(path)
    assert (file.info, file.manifest) == ({}, None)
    file.verify()
    assert same(file[3], EveryField()[3] | {"jpg": file[3]["jpg"]})


def test_pages_are_checked_when_they_are_first_used(
    path: Path, sound: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = parts(sound)
    damaged = bytearray(sound)
    damaged[found.data_end - 1] ^= 1  # in the last page
    path.write_bytes(damaged)
    file = Reader(path)
    pages = (found.regions["ptr"] - found.data_start) // found.page_size
    on_last = set(found.regions["sample_id"][pages == pages.max()].tolist())
    sound_ids = np.array([i for i in range(SAMPLES) if i not in on_last])
    assert len(sound_ids)
    file.check(sound_ids)
    assert same(file[0], EveryField()[0] | {"jpg": file[0]["jpg"]})
    for use in (lambda: file[max(on_last)], lambda: file.check(np.arange(SAMPLES)), file.verify):
        with pytest.raises(ChecksumError, match=rf"file\.beton: page {pages.max()} \(bytes"):
            use()
    # A verified page is not checked again.
    monkeypatch.setattr("zlib.crc32", lambda _: pytest.fail("checked twice"))
    file.check(sound_ids)


def test_one_flipped_bit_is_never_missed(path: Path, sound: bytes) -> None:
    found = parts(sound)
    random = np.random.default_rng(0)
    places = [
        np.arange(24),
        random.integers(24, found.data_start, 300),
        random.integers(found.data_start, found.data_end, 200),
        random.integers(found.data_end, len(sound), 500),
    ]
    for at in np.concatenate(places):
        damaged = bytearray(sound)
        damaged[at] ^= 1 << random.integers(8)
        path.write_bytes(damaged)
        with pytest.raises(BetonError):
            Reader(path).verify()


def with_manifest(sound: bytes, change: Callable[[dict[str, Any]], Any]) -> bytes:
    """Replace the manifest's JSON, its checksum, and the numbers that depend on its length."""
    found = parts(sound)
    assert found.manifest
    start, end = found.manifest
    value = json.loads(sound[start + 16 : end])
    text = change(value)
    text = json.dumps(value if text is None else text).encode() if text is not ... else b"{"
    head = manifest.MAGIC + zlib.crc32(text).to_bytes(4, "little") + len(text).to_bytes(4, "little")
    table = bytearray(sound[found.table_start :])
    table[-8:] = (16 + len(text)).to_bytes(8, "little")
    header = sound[:16] + (start + 16 + len(text)).to_bytes(8, "little")
    return header + sound[24:start] + head + text + table


def patch(at: int, raw: bytes) -> Callable[[bytes], bytes]:
    """Overwrite bytes of the manifest's region."""

    def change(sound: bytes) -> bytes:
        found = parts(sound)
        assert found.manifest
        start = found.manifest[0] + at
        return sound[:start] + raw + sound[start + len(raw) :]

    return change


def flip(place: Callable[[Any], int]) -> Callable[[bytes], bytes]:
    def change(sound: bytes) -> bytes:
        damaged = bytearray(sound)
        damaged[place(parts(sound))] ^= 0x10
        return bytes(damaged)

    return change


def swap_rows(sound: bytes) -> bytes:
    """Swap two rows of the table, which changes only its checksum."""
    start = parts(sound).table_start
    return (
        sound[:start]
        + sound[start + 24 : start + 48]
        + sound[start : start + 24]
        + sound[start + 48 :]
    )


def pages_cut(value: dict[str, Any]) -> None:
    value["checksums"]["pages"] = value["checksums"]["pages"][8:]


def pages_not_hex(value: dict[str, Any]) -> None:
    value["checksums"]["pages"] = "x" * 16


def head_too_long(value: dict[str, Any]) -> None:
    value["checksums"]["head"] *= 2


# The change, the class of the error, and a pattern of its message. FORMAT.md lists the cases.
REJECTED: dict[str, tuple[Callable[[bytes], bytes], type[BetonError], str]] = {
    "manifest's magic": (patch(0, b"Inkrun"), FormatError, "magic"),
    "manifest's length": (patch(12, b"\0\0"), FormatError, "length of the manifest"),
    "manifest's checksum": (patch(30, b"?"), ChecksumError, "manifest has changed"),
    "manifest not JSON": (lambda s: with_manifest(s, lambda _: ...), FormatError, "cannot be read"),
    "manifest no object": (
        lambda s: with_manifest(s, lambda _: [1]), FormatError, "cannot be read",
    ),
    "manifest without info": (
        lambda s: with_manifest(s, lambda v: v.pop("info") and None), FormatError, "KeyError",
    ),
    "manifest's info no object": (
        lambda s: with_manifest(s, lambda v: v.update(info=[])), FormatError, "objects",
    ),
    "manifest's pages not hex": (
        lambda s: with_manifest(s, pages_not_hex), FormatError, "cannot be read",
    ),
    "manifest's head too long": (
        lambda s: with_manifest(s, head_too_long), FormatError, "cannot be read",
    ),
    "manifest's number of pages": (
        lambda s: with_manifest(s, pages_cut), FormatError, "number of page checksums",
    ),
    "checksum of the head": (flip(lambda p: p.data_start - 1), ChecksumError, "head has changed"),
    "checksum of the table": (swap_rows, ChecksumError, "allocation table has changed"),
    "checksum of a page": (flip(lambda p: p.data_start + 9), ChecksumError, "page 0"),
}  # fmt: skip


@pytest.mark.parametrize("what", REJECTED)
def test_rejects(path: Path, sound: bytes, what: str) -> None:
    change, kind, pattern = REJECTED[what]
    path.write_bytes(change(sound))
    with pytest.raises(kind, match=pattern) as caught:
        Reader(path).verify()
    assert caught.value.file == str(path)


def test_the_format_lists_every_rejection() -> None:
    text = (Path(reader.__file__).parent / "FORMAT.md").read_text()
    assert sorted(re.findall(r"`test_reader\[([^\]]+)\]`", text)) == sorted(REJECTED)


def test_errors_are_one_line_and_can_be_pickled() -> None:
    error = SampleError("too loud", field="sound", sample=3, got=11, expected=10)
    error.at(file=Path("a.beton"), field="other", sample=4)
    error.add_note("a note")
    assert str(error) == "a.beton: field 'sound', sample 3: too loud (got 11, expected 10)"
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is SampleError
    assert (str(copy), copy.sample, copy.__notes__) == (str(error), 3, ["a note"])
    assert str(BetonError("alone")) == "alone"
    assert isinstance(error, ValueError)


@pytest.mark.parametrize("name", FIELDS)
def test_golden_files_are_read_and_written_again(name: str, tmp_path: Path) -> None:
    with Reader(golden_files.ours(name)) as file:
        assert (file.info, len(file)) == (INFO, golden_files.SAMPLES)
        file.verify()
        if name == "jpg":  # its bytes depend on the version of the codec
            pixels = np.stack([file[i]["jpg"] for i in range(len(file))]).astype(float)
            assert np.abs(pixels - np.load(golden_files.THEIR_PIXELS)).mean() < 2
            return
        for i in range(len(file)):
            assert same(file[i], {name: EveryField()[i][name]})
    golden_files.write_ours(tmp_path / "again.beton", name)
    assert (tmp_path / "again.beton").read_bytes() == golden_files.ours(name).read_bytes()


def test_the_golden_file_of_ffcv_is_read(tmp_path: Path) -> None:
    path = tmp_path / "theirs.beton"
    path.write_bytes(gzip.decompress(golden_files.THEIRS.read_bytes()))
    pixels = np.load(golden_files.THEIR_PIXELS)
    with Reader(path) as file:
        assert list(file.fields) == golden_files.THEIR_FIELDS
        for i in range(golden_files.SAMPLES):
            expected = EveryField()[i] | {"jpg": pixels[i]}
            assert same(file[i], {name: expected[name] for name in golden_files.THEIR_FIELDS})
