import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from every_field import FIELDS, EveryField, parts, same, write_every_field
from hypothesis import given
from hypothesis import strategies as st

from beton.errors import BetonError, FormatError, SampleError
from beton.fields import BytesField, Field, IntField
from beton.format.paging import choose_page_size, paginate, place
from beton.reader import Reader
from beton.writer import Noted, Skip, Summary, write

SIZES = st.lists(st.integers(1, 4096), min_size=1, max_size=60).map(np.array)
NUMBER: dict[str, Field] = {"n": IntField()}
BYTES: dict[str, Field] = {"b": BytesField()}


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Path]:
    """A path for a file; after the test, the folder has no other file."""
    path = tmp_path / "file.beton"
    yield path
    assert {entry.name for entry in tmp_path.iterdir()} <= {"file.beton"}


def test_bytes_do_not_depend_on_the_workers(target: Path) -> None:
    samples = 110  # several chunks
    expected = write_every_field(target, samples)
    for workers in (2, 4):
        assert write_every_field(target, samples, workers=workers) == expected
    values = (EveryField()[i] for i in range(samples))
    write(target, FIELDS, values, info=Reader(target).info, page_size=4096, workers=2)
    assert target.read_bytes() == expected


@given(SIZES, st.integers(12, 14))
def test_pages_hold_whole_samples_in_order(sizes: Any, bits: int) -> None:
    bounds = paginate(sizes, 1 << bits)
    assert (bounds[0], bounds[-1]) == (0, len(sizes))
    filled = np.add.reduceat(sizes, bounds[:-1])
    assert filled.max() <= 1 << bits
    # Greedy: the first sample of a page does not fit on the previous page.
    assert (filled[:-1] + sizes[bounds[1:-1]] > 1 << bits).all()


@given(st.lists(st.integers(1, 1 << 20), min_size=1, max_size=200), st.integers(1, 1 << 18))
def test_page_size_pads_little(sizes: list[int], head: int) -> None:
    array = np.array(sizes)

    def padding(page_size: int) -> int:
        found = place(array[:, None], head, page_size)
        return found.data_end - head - sum(sizes)

    chosen = choose_page_size(array, head)
    candidates = [1 << bits for bits in range(16, 32) if 1 << bits >= max(sizes)]
    frugal = [size for size in candidates if padding(size) <= 0.05 * sum(sizes)]
    assert chosen in candidates
    if frugal:
        assert chosen == frugal[0]
    else:
        assert padding(chosen) == min(map(padding, candidates))


def test_regions_of_a_sample_share_a_page_and_the_last_page_is_not_padded(target: Path) -> None:
    found = parts(write_every_field(target))
    pages = (found.regions["ptr"] - found.data_start) // found.page_size
    per_sample = [set(pages[found.regions["sample_id"] == i]) for i in range(12)]
    assert all(len(on) == 1 for on in per_sample)
    assert len(set.union(*per_sample)) > 1
    assert found.manifest is not None
    assert found.manifest[0] - found.data_end < 8


def test_empty_bytes_get_a_region_of_their_own(target: Path) -> None:
    write(target, BYTES | NUMBER, [(b"", 1), (b"ab", 2), (bytearray(), 3)])
    found = parts(target.read_bytes())
    assert found.regions["size"].tolist() == [1, 2, 1]
    assert found.column("b")["size"].tolist() == [0, 2, 0]
    assert [sample["b"] for sample in map(Reader(target).__getitem__, range(3))] == [
        b"",
        b"ab",
        b"",
    ]


def test_samples_may_be_tuples_lists_or_mappings(target: Path) -> None:
    write(target, NUMBER | BYTES, [(1, b"a"), [2, b"b"], {"b": b"c", "n": 3}])
    with Reader(target) as reader:
        assert [reader[i] for i in range(3)] == [
            {"n": 1, "b": b"a"}, {"n": 2, "b": b"b"}, {"n": 3, "b": b"c"},
        ]  # fmt: skip


@pytest.mark.parametrize("workers", [1, 2])
def test_skipped_samples_are_left_out_and_reported(target: Path, workers: int) -> None:
    bad = [i for i in range(200) if i % 7 == 3 or 50 < i < 120]  # a whole chunk among them
    samples = [Skip(f"bad {i}") if i in bad else (i, bytes([i])) for i in range(200)]
    summary = write(target, NUMBER | BYTES, samples, workers=workers)
    kept = [i for i in range(200) if i not in bad]
    assert summary.skipped == [(i, f"bad {i}") for i in bad]
    assert summary.samples == len(kept)
    assert summary.payload_bytes == {"n": 0, "b": len(kept)}
    assert summary.file_bytes == target.stat().st_size
    with Reader(target) as reader:
        assert [reader[i]["n"] for i in range(len(reader))] == kept


def test_progress_counts_every_sample_once(target: Path) -> None:
    steps: list[int] = []
    write(target, NUMBER, [(i,) for i in range(100)], progress=steps.append)
    assert sum(steps) == 100
    assert len(steps) > 1


def test_info_may_wait_for_the_summary(target: Path) -> None:
    def info(summary: Summary) -> dict[str, Any]:
        assert not target.exists()
        return {"samples": summary.samples, "file": summary.file_bytes}

    write(target, NUMBER, [(1,), (2,)], info=info)
    assert Reader(target).info == {"samples": 2, "file": 0}


@pytest.mark.parametrize("workers", [1, 2])
def test_notes_arrive_in_order_and_records_may_change(target: Path, workers: int) -> None:
    def info(summary: Summary) -> dict[str, Any]:
        summary.records["n"][:] = np.frombuffer(summary.notes, np.uint8) * 2
        return {}

    samples = [Noted((0,), bytes([i])) if i % 5 else Skip("bad") for i in range(100)]
    summary = write(target, NUMBER, samples, info=info, workers=workers)
    kept = [i for i in range(100) if i % 5]
    assert [*summary.notes] == kept
    with Reader(target) as reader:
        assert reader.column("n").metadata.tolist() == [2 * i for i in kept]
        reader.verify()


def test_info_may_stop_the_writing(target: Path) -> None:
    def info(summary: Summary) -> dict[str, Any]:
        raise RuntimeError(f"{len(summary.skipped)} bad files")

    with pytest.raises(RuntimeError, match="1 bad files"):
        write(target, NUMBER, [(1,), Skip("bad")], info=info)
    assert not target.exists()


def test_the_manifest_contains_the_settings(target: Path) -> None:
    write_every_field(target)
    manifest = Reader(target).manifest
    assert manifest is not None
    assert manifest.fields["jpg"] == {
        "type": "RGBImageField", "write_mode": "jpg", "max_resolution": None,
        "smart_threshold": None, "jpeg_quality": 90, "compress_probability": 0.5,
    }  # fmt: skip


def test_a_file_of_numbers_has_no_pages(target: Path) -> None:
    write(target, NUMBER, [(7,)], info={"a": 1})
    with Reader(target) as reader:
        assert reader[0] == {"n": 7}
        assert reader.info == {"a": 1}
        reader.verify()


def test_permissions_are_those_of_any_new_file(target: Path) -> None:
    write(target, NUMBER, [(7,)])
    plain = target.with_name("plain")
    plain.touch()
    assert stat.S_IMODE(target.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)
    plain.unlink()


def test_an_existing_file_stays_until_the_new_one_is_complete(target: Path) -> None:
    write(target, NUMBER, [(1,)])
    before = target.read_bytes()
    with pytest.raises(SampleError):
        write(target, NUMBER, [(2,), ("no",)])
    assert target.read_bytes() == before
    write(target, NUMBER, [(2,)])
    assert Reader(target)[0] == {"n": 2}


REJECTED_NAMES = ["", "sixteen is enough", "é", "a\0b", "a\nb"]


@pytest.mark.parametrize("name", REJECTED_NAMES)
def test_rejects_names(target: Path, name: str) -> None:
    with pytest.raises(FormatError, match="name of a field"):
        write(target, {name: IntField()}, [(1,)])


def test_a_name_of_sixteen_characters_comes_back(target: Path) -> None:
    write(target, {"exactly sixteen!": IntField()}, [(1,)])
    assert Reader(target)[0] == {"exactly sixteen!": 1}


REJECTED: dict[str, tuple[dict[str, Any], str]] = {
    "no fields": ({"fields": {}}, "number of fields"),
    "not a field": ({"fields": {"n": IntField}}, "field 'n': not a field"),
    "no samples": ({"samples": []}, "no samples"),
    "no sample left": ({"samples": [Skip("bad")]}, "no samples"),
    "not samples": ({"samples": 5}, "samples .*got int"),
    "a bare value": ({"samples": [5]}, "sample 0: not a sample .*got int, expected 1 values"),
    "too many values": ({"samples": [(1,), (1, 2)]}, "sample 1: not a sample .*got tuple of 2"),
    "other names": ({"samples": [{"m": 1}]}, r"names .*got \['m'\], expected \['n'\]"),
    "wrong value": ({"samples": [(1,), ("x",)]}, "field 'n', sample 1: not an integer"),
    "no workers": ({"workers": 0}, "workers"),
    "page size not a power of 2": ({"page_size": 5000}, "page size"),
    "page size too small": ({"page_size": 2048}, "page size"),
    "sample larger than a page": (
        {"fields": BYTES, "samples": [(b"a",), (bytes(5000),)], "page_size": 4096},
        "sample 1: sample larger than a page .*got 5000 bytes",
    ),
    "only empty values": (
        {"fields": BYTES, "samples": [(b"",)]}, "field 'b': every value is empty",
    ),
    "info not JSON": ({"info": {"a": object()}}, "info is not JSON"),
    "info no mapping": ({"info": [1]}, "info is not JSON"),
    "info of NaN": ({"info": {"a": float("nan")}}, "info is not JSON"),
}  # fmt: skip


@pytest.mark.parametrize("what", REJECTED)
def test_rejects(target: Path, what: str) -> None:
    arguments, pattern = REJECTED[what]
    arguments = {"fields": NUMBER, "samples": [(1,)]} | arguments
    with pytest.raises(BetonError, match=pattern) as caught:
        write(target, **arguments)
    assert caught.value.file == os.fspath(target)
    assert not target.exists()


def test_rejects_a_folder_as_its_target(tmp_path: Path) -> None:
    with pytest.raises(BetonError, match="folder"):
        write(tmp_path, NUMBER, [(1,)])


def test_a_missing_folder_raises_oserror(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write(tmp_path / "none" / "file.beton", NUMBER, [(1,)])


def test_every_sample_is_read_as_written(target: Path) -> None:
    write_every_field(target, 30)
    with Reader(target) as reader:
        for i in range(30):
            expected = EveryField()[i] | {"jpg": reader[i]["jpg"]}
            assert same(reader[i], expected)
