"""Files whose records are overwritten in place while they are open, and their memory."""

import os
import tracemalloc
from collections.abc import Iterable, Iterator
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from every_field import FIELDS, without_manifest, write_every_field
from hypothesis import given
from hypothesis import strategies as st

from beton import ops
from beton.codec import batches
from beton.crop import RandomResizedCrop
from beton.errors import BetonError, ChecksumError, FormatError
from beton.fields import InkField
from beton.fields.image import MAX_PIXELS
from beton.format import layout
from beton.loader import Batch, Loader
from beton.reader import Reader
from beton.transforms import Jitter, Normalize
from pipeline.benchmarks.scaling.repeated import write_repeated

SAMPLES = 12
CHANGED = 4, 5, 6  # samples of a later batch: ink of flat runs, of grey ones, and raw
HARMLESS = "background", "ink", "reserved"  # members that memory does not depend on
HOSTILE = [0, 1, 2**15, 2**16 - 1, 2**31, 2**32 - 1, 2**53, 2**63 - 1, 2**63, 2**64 - 1]
STEPS: dict[str, list[ops.Op]] = {
    "ink": [ops.Resize(9, 7), ops.Resize(9, 7, Jitter(scale=(0.9, 1.1))), ops.Runs(), ops.Pixels()],
    "raw": [ops.Rgb(), ops.RgbResize(4, 4), ops.RgbResize(4, 4, RandomResizedCrop())],
    "jpg": [ops.Rgb(), ops.RgbResize(4, 4), ops.RgbResize(4, 4, RandomResizedCrop())],
    "bytes": [ops.Bytes()],
    "json": [ops.Bytes()],
    "array": [ops.FixedArray()],
    "tensor": [ops.FixedArray()],
}
MEMBERS = [
    (name, member)
    for name in STEPS
    for member in FIELDS[name].metadata_dtype.names or [""]  # "": a record of one number
]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_every_field(tmp_path_factory.mktemp("changed") / "sound.beton", SAMPLES)


@pytest.fixture(params=["with checksums", "without checksums"])
def path(tmp_path: Path, sound: bytes, request: pytest.FixtureRequest) -> Path:
    path = tmp_path / "copy.beton"
    path.write_bytes(sound if request.param == "with checksums" else without_manifest(sound))
    return path


def overwrite(path: Path, sample: int, name: str, member: str, value: int) -> None:
    """Overwrite a number of a record in place; the date stays as it was."""
    dtype = layout.metadata_dtype(FIELDS.values())
    assert dtype.fields
    record, start = dtype.fields[f"f{[*FIELDS].index(name)}"][:2]
    kind, offset = record.fields[member][:2] if record.fields else (record, 0)
    at = layout.metadata_start(len(FIELDS)) + sample * dtype.itemsize + start + offset
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(at)
        file.write((value % 256**kind.itemsize).to_bytes(kind.itemsize, "little"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def numbers(reader: Reader, sample: int, name: str, member: str) -> tuple[int, list[int]]:
    """Return the stored number of a record, and other numbers."""
    column = reader.column(name).metadata
    column = column[member] if member else column
    stored, bits = int(column[sample]), 8 * column.itemsize
    near = [stored - 1, stored + 1, 2 * stored, *HOSTILE, reader.path.stat().st_size - 1]
    return stored, [value for value in dict.fromkeys(v % 2**bits for v in near) if value != stored]


def contents(batches: Iterable[Batch], name: str) -> list[bytes]:
    """Copy the arrays of a field; the rows after the last run of `Runs` have any values."""
    return [
        batch[name][: batch.arrays.get(f"{name}.offsets", [None])[-1]].tobytes()
        for batch in batches
    ]


@pytest.mark.parametrize(("name", "member"), MEMBERS)
def test_a_record_that_changes_during_an_epoch_is_harmless(
    path: Path, name: str, member: str
) -> None:
    """A hostile number is an error that names the sample, or changes no more than values."""
    for op, sample in product(STEPS[name], CHANGED):
        with Loader(path, 4, {name: op}, order="sequential", threads=0) as loader:
            expected = contents(loader.batches(0), name)  # all pages are verified from here on
            stored, values = numbers(loader._reader, sample, name, member)
            found = set()
            for value in values:
                batches = loader.batches(0)
                next(batches)
                overwrite(path, sample, name, member, value)
                try:
                    list(batches)
                except BetonError as error:
                    # A sum over several samples has no number.
                    found.add((error.file, error.field, error.sample or sample))
                finally:
                    overwrite(path, sample, name, member, stored)
            assert contents(loader.batches(0), name) == expected
        assert found <= {(str(path), name, sample)}
        assert found or member in HARMLESS or (name, sample, member) == ("bytes", 5, "ptr")


@pytest.mark.parametrize(("name", "member"), MEMBERS)
def test_a_record_that_changed_is_found_at_the_next_epoch(
    path: Path, name: str, member: str
) -> None:
    with Loader(path, 4, {name: STEPS[name][0]}) as loader:
        list(loader)
        _, values = numbers(loader._reader, 6, name, member)
        overwrite(path, 6, name, member, values[0])
        os.utime(path, ns=(0, 0))
        for _ in range(2):
            with pytest.raises(ChecksumError, match=r"copy.beton: was changed in place while it"):
                list(loader)


def test_a_sample_whose_record_changed_is_named(path: Path) -> None:
    file = Reader(path)
    overwrite(path, 6, "raw", "width", 0)
    assert file[5]
    expected = r"'raw', sample 6: was changed in place .*: invalid image size \(got 5 x 0"
    for use in (lambda: file[6], lambda: file.column("raw").take()):
        with pytest.raises(FormatError, match=expected):
            use()
    overwrite(path, 6, "array", "", 2**63)
    with pytest.raises(FormatError, match=r"'array', sample 6: .*: payload outside"):
        file.column("array").take()


NUMBERS = [*range(9), 16, 36, 64, 65, 255, 2**15, 2**31, 2**63]


@given(
    st.fixed_dictionaries(
        {
            name: st.sampled_from([n for n in NUMBERS if n < 256**dtype.itemsize])
            for name, (dtype, *_) in (InkField.metadata_dtype.fields or {}).items()
            if name != "reserved"
        }
    ),
    st.binary(min_size=64, max_size=64),
)
def test_kernels_of_ink_reject_what_is_invalid(numbers: dict[str, int], payload: bytes) -> None:
    """What fails the checks of opening, or is outside the data, does not reach memory."""
    content, ids = np.frombuffer(payload, np.uint8), np.zeros(1, np.int64)
    record = np.zeros(1, InkField.metadata_dtype)
    for name, number in numbers.items():
        record[name] = number
    try:
        InkField().validate(record)
        valid = numbers["size"] == 0 or numbers["ptr"] + numbers["size"] <= len(content)
    except FormatError:
        valid = False
    sides = int(record["height"][0]), int(record["width"][0])
    geometry = np.array([[0, 0, max(sides[1], 1), max(sides[0], 1), 0, 0]], np.float64)
    statuses = [
        batches.resize_whole_batch(content, record, ids, np.empty((1, 5, 4), np.uint8)),
        batches.resize_batch(
            content, record, ids, geometry, 1.0, 0.5, np.empty((1, 5, 4), np.uint8)
        ),
        batches.runs_batch(content, record, ids, np.array([0, 3]), np.empty((3, 4), np.uint16)),
    ]
    if 0 < sides[0] * sides[1] <= 1 << 16:
        out = np.empty((1, *sides), np.float32)
        scale = np.float32(1), np.float32(0)
        statuses.append(batches.pixels_batch(content, record, ids, *scale, out))
        out = np.empty((1, sides[0] + 1, sides[1]), np.float32)
        assert batches.pixels_batch(content, record, ids, *scale, out) == (0, -4)
    if not valid and sides[0] * sides[1] <= MAX_PIXELS:
        assert all(status < 0 for _, status in statuses)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("large") / "large.beton"
    image = np.full((8, 8), 255, np.uint8)
    image[2:6, 3] = 0
    yield write_repeated(path, [image], [3], 200_000)
    path.unlink()


def test_a_sample_takes_little_memory(large: Path) -> None:
    """Of a file that is open, and during an epoch, which has an order of 8 bytes a sample."""
    fields = {"image": ops.Pixels(Normalize(0, 255)), "label": ops.Scalar()}
    with Loader(large, 512, fields, threads=1) as loader:
        next(iter(loader))  # kernels are compiled
    tracemalloc.start()
    try:
        with Loader(large, 512, fields, threads=1) as loader:
            opened = tracemalloc.get_traced_memory()[0]
            for number, _ in enumerate(loader):
                if number == 100:
                    during = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            loader.state_dict()
            peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert opened / 200_000 < 2
    assert during / 200_000 < 14
    assert peak / 200_000 < 14
