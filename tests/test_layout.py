"""Every invalid number in a file is rejected, with its name; see beton/FORMAT.md."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from every_field import FIELDS, parts, without_manifest, write_every_field
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from beton.errors import FormatError
from beton.fields.image import MAX_PIXELS
from beton.format import layout
from beton.format.layout import ALLOCATION, DESCRIPTOR, HEADER
from beton.reader import Column

NAMES = list(FIELDS)
SAMPLES = 12


class Draft:
    """A file's bytes, with its parts as writable arrays."""

    def __init__(self, data: bytes) -> None:
        self.data = np.frombuffer(data, np.uint8).copy()
        found = layout.parse(self.data)
        self.start, self.end = found.data_start, found.data_end
        self.manifest = found.manifest
        self.header = self.data[:24].view(HEADER)[:1]
        metadata_start = 24 + len(NAMES) * DESCRIPTOR.itemsize
        self.descriptors = self.data[24:metadata_start].view(DESCRIPTOR)
        self.metadata = self.data[metadata_start : metadata_start + found.metadata.nbytes]
        self.table = self.data[found.table_start :].view(ALLOCATION)

    def column(self, name: str) -> NDArray[Any]:
        dtype = layout.metadata_dtype(FIELDS.values())
        column: NDArray[Any] = self.metadata.view(dtype)[f"f{NAMES.index(name)}"]
        return column

    def row(self, name: str, sample: int) -> NDArray[Any]:
        """The row (1,) of a region in the allocation table."""
        column = self.column(name)
        names = column.dtype.names
        pointers = column if names is None else column["data_ptr" if "mode" in names[0] else "ptr"]
        found: NDArray[Any] = self.table[self.table["ptr"] == pointers[sample]]
        at = int(np.flatnonzero(self.table["ptr"] == pointers[sample])[0])
        assert len(found) == 1
        return self.table[at : at + 1]

    def describe(self, name: str) -> NDArray[Any]:
        at = NAMES.index(name)
        return self.descriptors[at : at + 1]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_every_field(tmp_path_factory.mktemp("layout") / "sound.beton", SAMPLES)


def put(array: NDArray[Any], value: Any) -> None:
    array[...] = value


def put_name(draft: Draft, name: str, raw: bytes) -> None:
    put(draft.describe(name)["name"], list(raw.ljust(16, b"\0")))


def put_arguments(draft: Draft, name: str, at: int, raw: bytes) -> None:
    put(draft.describe(name)["arguments"][0, at : at + len(raw)], list(raw))


def put_dtype(draft: Draft, text: bytes) -> None:
    put_arguments(draft, "array", 256, len(text).to_bytes(8, "little") + text.ljust(80, b"\0"))


def put_shape(draft: Draft, *sides: int) -> None:
    put_arguments(draft, "array", 0, np.array(sides, "<u8").tobytes())


def truncate(size: int) -> Callable[[Draft], None]:
    def change(draft: Draft) -> None:
        draft.data = draft.data[:size]

    return change


def drop_table(draft: Draft) -> None:
    draft.data = draft.data[: len(draft.data) - draft.table.nbytes]


def move_into(name: str, sample: int, to: Callable[[Draft], int]) -> Callable[[Draft], None]:
    """Move a region and the pointer to it."""

    def change(draft: Draft) -> None:
        row, target = draft.row(name, sample), to(draft)
        draft.column(name)[sample : sample + 1] = target
        row["ptr"] = target

    return change


def swap_pointers(draft: Draft) -> None:
    column = draft.column("array")
    column[[2, 3]] = column[[3, 2]]


# The change; the field and sample that the error names; a pattern of its message.
Case = tuple[Callable[[Draft], None], str | None, int | None, str]
REJECTED: dict[str, Case] = {
    "short header": (truncate(23), None, None, "too short for a header .*got 23"),
    "version": (lambda d: put(d.header["version"], 1), None, None, "version .*got 1, expected 2"),
    "page size 0": (lambda d: put(d.header["page_size"], 0), None, None, "page size"),
    "page size 2048": (lambda d: put(d.header["page_size"], 2048), None, None, "page size"),
    "page size 5000": (lambda d: put(d.header["page_size"], 5000), None, None, "page size"),
    "no fields": (lambda d: put(d.header["num_fields"], 0), None, None, "number of fields"),
    "many fields": (lambda d: put(d.header["num_fields"], 65535), None, None, "number of fields"),
    "no samples": (lambda d: put(d.header["num_samples"], 0), None, None, "number of samples"),
    "many samples": (
        lambda d: put(d.header["num_samples"], 2**64 - 1), None, None, "number of samples",
    ),
    "table in the head": (
        lambda d: put(d.header["alloc_table_ptr"], 24), None, None,
        "position of the allocation table",
    ),
    "table beyond the end": (
        lambda d: put(d.header["alloc_table_ptr"], 2**64 - 8), None, None,
        "position of the allocation table",
    ),
    "table of broken rows": (
        lambda d: put(d.header["alloc_table_ptr"], int(d.header["alloc_table_ptr"][0]) + 8),
        None, None, "whole rows of 24 bytes",
    ),
    "table cut off": (drop_table, None, None, "without an allocation table"),
    "empty name": (lambda d: put_name(d, "int", b""), None, None, "name of a field"),
    "name not ASCII": (lambda d: put_name(d, "int", "é".encode()), None, None, "name of a field"),
    "name with a control": (lambda d: put_name(d, "int", b"a\x1b"), None, None, "name of a field"),
    "name with a NUL": (lambda d: put_name(d, "int", b"a\0b"), None, None, "name of a field"),
    "doubled name": (lambda d: put_name(d, "int", b"float"), None, None, "duplicate name"),
    "unknown type": (lambda d: put(d.describe("int")["type_id"], 7), "int", None, "got 7"),
    "unknown custom field": (
        lambda d: put_arguments(d, "ink", 0, b"other.ink"), "ink", None, "unknown custom field",
    ),
    "arguments of an int": (lambda d: put_arguments(d, "int", 999, b"x"), "int", None, "arguments"),
    "arguments of an image": (lambda d: put_arguments(d, "raw", 0, b"x"), "raw", None, "arguments"),
    "version of ink": (lambda d: put_arguments(d, "ink", 16, b"\2"), "ink", None, "got 2"),
    "mode of ink": (lambda d: put_arguments(d, "ink", 18, b"\3"), "ink", None, "got 03"),
    "arguments after ink's": (
        lambda d: put_arguments(d, "ink", 99, b"x"), "ink", None, "arguments",
    ),
    "dtype object": (lambda d: put_dtype(d, b'[["", "|O"]]'), "array", None, "dtype"),
    "dtype text": (lambda d: put_dtype(d, b'[["", "<U4"]]'), "array", None, "dtype"),
    "dtype structured": (
        lambda d: put_dtype(d, b'[["", "<i4"], ["b", "<i4"]]'), "array", None, "dtype",
    ),
    "dtype several": (lambda d: put_dtype(d, b'[["", "i4,i4"]]'), "array", None, "dtype"),
    "dtype of no such size": (lambda d: put_dtype(d, b'[["", "<f3"]]'), "array", None, "dtype"),
    "dtype of no bytes": (lambda d: put_dtype(d, b'[["", "|V0"]]'), "array", None, "dtype"),
    "dtype not JSON": (lambda d: put_dtype(d, b'[["", "<i4"]'), "array", None, "dtype"),
    "dtype beyond the arguments": (
        lambda d: put_arguments(d, "array", 256, b"\xff" * 8), "array", None, "dtype",
    ),
    "bytes behind the dtype": (
        lambda d: put_arguments(d, "array", 900, b"x"), "array", None, "dtype",
    ),
    "shape of no dimension": (lambda d: put_shape(d, 0, 0), "array", None, "shape"),
    "shape with a zero": (lambda d: put_shape(d, 0, 3), "array", None, "shape"),
    "huge shape": (lambda d: put_shape(d, 2**63, 2**63), "array", None, "array too large"),
    "region of no sample": (
        lambda d: put(d.row("jpg", 3)["sample_id"], SAMPLES), None, SAMPLES, "does not exist",
    ),
    "second manifest": (
        lambda d: put(d.row("jpg", 3)["sample_id"], 2**64 - 1), None, 2**64 - 1, "does not exist",
    ),
    "region before the data": (
        move_into("array", 0, lambda d: d.start - 12), None, 0, "region outside the data",
    ),
    "region beyond the data": (
        move_into("array", 0, lambda _: 2**64 - 6), None, 0, "region outside the data",
    ),
    "region into the manifest": (
        move_into("array", 0, lambda d: d.manifest[0] - 4 if d.manifest else 0),
        None, 0, "region outside the data",
    ),
    "huge region": (
        lambda d: put(d.row("jpg", 3)["size"], 2**64 - 1), None, 3, "region outside the data",
    ),
    "region across pages": (
        lambda d: put(d.row("jpg", 3)["size"], 4097), None, 3, "crosses a page boundary",
    ),
    "regions overlap": (
        lambda d: put(d.row("jpg", 3)["size"], int(d.row("jpg", 3)["size"][0]) + 1),
        None, 3, "regions overlap",
    ),
    "pointer to no region": (
        lambda d: put(d.column("array")[2:3], int(d.column("array")[2]) + 1),
        "array", 2, "pointer to no region",
    ),
    "huge pointer": (
        lambda d: put(d.column("ink")["ptr"][2:3], 2**64 - 1), "ink", 2, "pointer to no region",
    ),
    "swapped pointers": (swap_pointers, "array", 2, "region belongs to another sample .*got 3"),
    "size of bytes": (
        lambda d: put(d.column("bytes")["size"][2:3], 2),
        "bytes", 2, "size of a region .*got 3, expected 2",
    ),
    "huge size of bytes": (
        lambda d: put(d.column("bytes")["size"][2:3], 2**64 - 1), "bytes", 2, "size of a region",
    ),
    "size of an array": (
        lambda d: put(d.row("array", 5)["size"], 11),
        "array", 5, "size of a region .*got 11, expected 12",
    ),
    "width of a raw image": (
        lambda d: put(d.column("raw")["width"][4:5], 7), "raw", 4, "size of a region",
    ),
    "mode of an image": (lambda d: put(d.column("jpg")["mode"][4:5], 2), "jpg", 4, "mode .*got 2"),
    "image without width": (
        lambda d: put(d.column("jpg")["width"][4:5], 0), "jpg", 4, "image size",
    ),
    "image too large": (
        lambda d: put(d.column("jpg")[4:5][["width", "height"]], (65535, 65535)),
        "jpg", 4, f"1 to {MAX_PIXELS}",
    ),
    "ink without height": (
        lambda d: put(d.column("ink")["height"][4:5], 0), "ink", 4, "image size",
    ),
    "ink too large": (
        lambda d: put(d.column("ink")[4:5][["width", "height"]], (65535, 65535)),
        "ink", 4, "image size",
    ),
    "ink mode of an image": (lambda d: put(d.column("ink")["mode"][4:5], 3), "ink", 4, "mode"),
    "ink reserved byte": (lambda d: put(d.column("ink")["reserved"][4:5], 1), "ink", 4, "mode"),
    "ink raw size": (lambda d: put(d.column("ink")["width"][2:3], 41), "ink", 2, "raw image"),
    "ink of too many runs": (
        lambda d: put(d.column("ink")["runs"][4:5], 2**32 - 1), "ink", 4, "more runs",
    ),
    "ink raw of too many runs": (
        lambda d: put(d.column("ink")["runs"][2:3], 1201), "ink", 2, "more runs",
    ),
    "ink of no runs": (
        lambda d: put(d.column("ink")["runs"][4:5], 0), "ink", 4, "bytes without runs",
    ),
    "manifest moved": (
        lambda d: put(d.table["ptr"][-1:], int(d.table["ptr"][-1]) + 8), None, None,
        "position of the manifest",
    ),
    "manifest of another size": (
        lambda d: put(d.table["size"][-1:], 2**64 - 8), None, None, "position of the manifest",
    ),
    "manifest's row lost": (
        lambda d: put(d.table[-1:], (0, 0, 0)), None, None, "position of the allocation table",
    ),
    "bytes before the manifest": (
        lambda d: put(d.data[d.end : d.end + 1], 1), None, None, "before the manifest",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REJECTED)
def test_rejects(sound: bytes, what: str) -> None:
    change, field, sample, pattern = REJECTED[what]
    draft = Draft(sound)
    change(draft)
    with pytest.raises(FormatError, match=pattern) as caught:
        layout.validate(layout.parse(draft.data))
    assert (caught.value.field, caught.value.sample) == (field, sample)


def test_the_undamaged_file_passes_with_and_without_its_manifest(sound: bytes) -> None:
    for data in (sound, without_manifest(sound)):
        found = parts(data)
        sizes = layout.validate(found)
        assert list(found.fields) == NAMES
        assert (found.manifest is None) == (data is not sound)
        jpegs = [name for name, field in found.fields.items() if not field.sizes_in_records]
        assert [*sizes] == jpegs
        assert all(part.min() > 0 for part in sizes.values())


def test_empty_values_need_no_region(sound: bytes) -> None:
    """FFCV writes empty regions with arbitrary pointers."""
    draft = Draft(without_manifest(sound))
    draft.row("bytes", 1)["size"] = 0
    draft.column("bytes")["ptr"][1] = 2**64 - 1
    found = layout.parse(draft.data)
    layout.validate(found)
    pages = found.data_start, found.data_end
    column = Column("", "bytes", found.fields["bytes"], found.column("bytes"), draft.data, pages)
    assert [part[1] for part in column.take()[1:3]] == [0, 0]


@given(st.integers(0, 2**70), st.integers(0, 40))
def test_align_rounds_up(offset: int, bits: int) -> None:
    aligned = layout.align(offset, 1 << bits)
    assert aligned % (1 << bits) == 0
    assert 0 <= aligned - offset < 1 << bits


def test_the_format_lists_every_rejection() -> None:
    text = (Path(layout.__file__).parents[1] / "FORMAT.md").read_text()
    listed = re.findall(r"`test_layout\[([^\]]+)\]`", text)
    assert sorted(listed) == sorted(REJECTED)
