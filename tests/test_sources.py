import gzip
import io
import os
import pickle
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_data import (
    digits,
    folders,
    idx,
    idx_pair,
    make_tree,
    make_zip,
    midas,
    pillow,
)

from pipeline.data.archives import ZipArchive
from pipeline.data.base import NO_SPLIT, TEST, TRAIN, VALIDATION, LayoutError
from pipeline.data.layout.options import LayoutOptions
from pipeline.data.sources import (
    ClassSubset,
    ImageError,
    Source,
    SourceError,
    open_source,
)

# ImageFolder and archives


def contents(source: Source) -> list[tuple[str, str, str | None, bytes]]:
    """All that a source says of its images."""
    entries = source.annotations
    writers = [entries.writer_names[w] if w >= 0 else None for w in entries.writers]
    return [
        (
            source.name(i),
            entries.classes[entries.labels[i]],
            writers[i],
            source.image(i).tobytes(),
        )
        for i in range(len(source))
    ]


JUNK = {
    "__MACOSX/set/0/._0.png": b"resource fork",
    "set/.DS_Store": b"mac",
    "set/0/._1.png": b"mac",
    "set/0/Thumbs.db": b"windows",
    "set/0/desktop.ini": b"windows",
    "set/.git/9/x.png": b"hidden",
    "readme.txt": b"words",
    "set/0/notes.txt": b"words",
}


@pytest.mark.parametrize("top", ["", "a/deep er/"])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_and_its_tree_are_the_same_set(tmp_path: Path, top: str, method: int) -> None:
    files = {f"{top}{name}": data for name, data in folders().items()}
    zipped = open_source(make_zip(tmp_path / "set.zip", files | JUNK, method))
    before = sorted(tmp_path.rglob("*"))
    tree = open_source(make_tree(tmp_path / "tree", files | JUNK))
    assert contents(zipped) == contents(tree)
    assert [name for name, *_ in contents(zipped)] == sorted(files)
    for source in (zipped, tree):
        assert source.kind == "folders"
        assert source.annotations.classes == ("0", "1", "10")
        assert source.annotations.writer_names == ()
        assert (source.annotations.splits == NO_SPLIT).all()
        assert source.layout.left_out[".txt files"] == 2
        assert source.size(np.arange(len(source))) == sum(map(len, files.values()))
        for i in (0, 5, 11):
            np.testing.assert_array_equal(source.image(i), pillow(files[source.name(i)]))
    assert sorted(tmp_path.rglob("*.zip")) == [p for p in before if p.suffix == ".zip"]


def test_names_of_windows_archives_are_understood(tmp_path: Path) -> None:
    files = {name.replace("/", "\\"): data for name, data in folders().items()} | {"0\\": b""}
    source = open_source(make_zip(tmp_path / "set.zip", files))
    assert source.annotations.classes == ("0", "1", "10")
    assert source.layout.left_out == {}


@pytest.mark.parametrize("make", [make_tree, make_zip])
def test_a_source_can_be_pickled_while_open(tmp_path: Path, make: Callable[..., Path]) -> None:
    source = open_source(make(tmp_path / "set", folders()))
    source.image(0)
    assert contents(pickle.loads(pickle.dumps(source))) == contents(source)


def test_digests_follow_the_content(tmp_path: Path) -> None:
    files = folders()
    first = open_source(make_tree(tmp_path / "a", files)).digest()
    assert first == open_source(make_tree(tmp_path / "b", files | JUNK)).digest()
    changed = open_source(make_tree(tmp_path / "c", files | {"0/0.png": files["1/0.png"]}))
    renamed = {("0/9.png" if name == "0/0.png" else name): data for name, data in files.items()}
    digests = {first, changed.digest(), open_source(make_tree(tmp_path / "d", renamed)).digest()}
    digests |= {
        open_source(make_zip(tmp_path / f"{n}.zip", f)).digest()
        for n, f in (("a", files), ("b", renamed))
    }
    assert len(digests) == 5
    assert all(digest.startswith("sha256:") and len(digest) == 71 for digest in digests)


def test_split_folders_are_kept(tmp_path: Path) -> None:
    named = {
        f"{top}/{name}": data
        for top in ("Training", "test")
        for name, data in folders(("a", "b"), 2).items()
    }
    source = open_source(make_tree(tmp_path / "two", named))
    assert source.annotations.classes == ("a", "b")
    assert source.annotations.splits.tolist() == [NO_SPLIT] * 4 + [TEST] * 4
    named |= {f"val/{name}": data for name, data in folders(("a", "b"), 1).items()}
    source = open_source(make_tree(tmp_path / "three", named))
    assert source.annotations.splits.tolist() == [TRAIN] * 4 + [TEST] * 4 + [VALIDATION] * 2
    alone = {f"train/{name}": data for name, data in folders(("a", "b"), 1).items()}
    assert (open_source(make_tree(tmp_path / "one", alone)).annotations.splits == NO_SPLIT).all()


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({}, "is empty"),
        ({".DS_Store": b"x"}, "is empty"),
        ({"a/readme.txt": b"x"}, "expected .*; got 1 files: a/readme.txt"),
        ({"0.png": b"x", "1.png": b"x"}, "no folder gives a class of 2 images, for example 0.png"),
        ({"a/0.png": b"x", "a/1.png": b"x"}, "got one class, 'a', for all 2 images"),
        ({"a/0.png": b"x", "a/b/1.png": b"x"}, "both in 'a' and in 'a/b' below it"),
        ({"Sample001/img001-001.png": b"x"}, "got one class, '0', for"),
    ],
)
@pytest.mark.parametrize("make", [make_tree, make_zip])
def test_what_cannot_be_learned_from_is_refused(
    tmp_path: Path, make: Callable[..., Path], files: dict[str, bytes], reason: str
) -> None:
    path = tmp_path / "set"
    path.mkdir() if make is make_tree else None
    with pytest.raises(SourceError, match=reason) as caught:
        open_source(make(path, files))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_paths_that_are_no_source_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such file or folder"):
        open_source(tmp_path / "missing.zip")
    with pytest.raises(SourceError, match="no such file or folder"):
        open_source(tmp_path / "missing" / "deeper")
    (tmp_path / "words.zip").write_bytes(b"words")
    with pytest.raises(SourceError, match="expected a folder, a complete zip archive"):
        open_source(tmp_path / "words.zip")
    (tmp_path / "latin").mkdir()
    Path(os.fsdecode(os.fsencode(tmp_path / "latin") + b"/\xe9.png")).write_bytes(b"x")
    with pytest.raises(SourceError, match=r"name '\\udce9.png' is not valid UTF-8"):
        open_source(tmp_path / "latin")
    whole = make_zip(tmp_path / "whole.zip", folders()).read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[:-100])
    with pytest.raises(SourceError, match="expected a complete zip archive"):
        open_source(tmp_path / "cut.zip")


# Unsafe archives


@pytest.mark.parametrize(
    "name", ["../0/a.png", "0/../../a.png", "/0/a.png", "C:/0/a.png", "..\\0\\a.png", "0/.."]
)
def test_members_that_point_outside_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(SourceError, match="points outside"):
        open_source(make_zip(tmp_path / "set.zip", folders() | {name: b"x"}))


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ["0/0.png", "./0/0.png", "0//0.png", "0\\0.png"])
def test_duplicate_names_are_refused(tmp_path: Path, name: str) -> None:
    path = make_zip(tmp_path / "set.zip", folders())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, b"other")
    with pytest.raises(SourceError, match="has the same name as another member"):
        open_source(path)


CENTRAL = b"PK\1\2"
FLAGS, METHOD, CRC, PACKED, SIZE, ATTRIBUTES, OFFSET = 8, 10, 16, 20, 24, 38, 42


def patched(path: Path, number: int, field: int, value: int, code: str = "<I") -> Path:
    """Change a field of the directory's entry for member `number`."""
    data = bytearray(path.read_bytes())
    position = data.index(CENTRAL)
    for _ in range(number):
        position = data.index(CENTRAL, position + 4)
    struct.pack_into(code, data, position + field, value)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("field", "value", "code", "reason"),
    [
        (FLAGS, 1, "<H", "is encrypted"),
        (METHOD, 14, "<H", "compression method 14"),
        (METHOD, 99, "<H", "compression method 99"),
        (ATTRIBUTES, 0o120777 << 16, "<I", "is a symbolic link"),
        (SIZE, 1 << 31, "<I", "decompression bomb"),
        (SIZE, 100 << 20, "<I", "decompression bomb"),
        (OFFSET, 1 << 31, "<I", "lies outside the file"),
        (PACKED, 1 << 31, "<I", "lies outside the file"),
        (OFFSET, 0, "<I", "overlap: a decompression bomb"),
    ],
)
def test_unsafe_members_are_refused(
    tmp_path: Path, field: int, value: int, code: str, reason: str
) -> None:
    path = patched(make_zip(tmp_path / "set.zip", folders()), 2, field, value, code)
    with pytest.raises(SourceError, match=f"set.zip: refused: member.*{reason}"):
        open_source(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize(
    ("field", "value", "code"),
    [(SIZE, 9, "<I"), (SIZE, 9999, "<I"), (PACKED, 9, "<I"), (CRC, 9, "<I"), (OFFSET, 1, "<I")],
)
def test_a_member_that_is_not_what_is_declared_is_a_bad_image(
    tmp_path: Path, method: int, field: int, value: int, code: str
) -> None:
    path = patched(make_zip(tmp_path / "set.zip", folders(), method), 0, field, value, code)
    source = open_source(path)
    with pytest.raises(ImageError, match="damaged in the archive"):
        source.image(0)
    assert source.image(1).shape == (5, 7)


def test_a_member_never_inflates_beyond_what_it_declares(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "bomb.zip", {"0/a.png": bytes(50 << 20), "1/b.png": b"x"})
    files = ZipArchive(patched(path, 0, SIZE, 1000))
    tracemalloc.start()
    with pytest.raises(ImageError, match="declared size"):
        files.read(0)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@given(position=st.integers(min_value=0), value=st.integers(1, 255))
@settings(max_examples=150)
def test_a_damaged_archive_is_an_error_of_ours(
    tmp_path_factory: pytest.TempPathFactory, position: int, value: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.zip"
    data = bytearray(make_zip(path, folders(("a", "b"), 2)).read_bytes())
    data[position % len(data)] ^= value
    path.write_bytes(data)
    try:
        source = open_source(path)
        for i in range(len(source)):
            source.image(i)
    except (SourceError, ImageError):
        pass


# MIDAS


def test_midas_labels_and_writers(tmp_path: Path) -> None:
    files = midas((1, 10, 11, 36, 37, 62), writers=2)
    files["hand writing/Sample062/extra.png"] = files["hand writing/Sample001/img001-001.png"]
    source = open_source(make_zip(tmp_path / "trainPart1.zip", files | JUNK))
    assert source.kind == "midas"
    assert "".join(source.annotations.classes) == "09AZaz"
    assert source.annotations.writer_names == ("001", "002")
    for name, label, writer, _ in contents(source):
        folder = name.split("/")[1]
        expected = {"001": "0", "010": "9", "011": "A", "036": "Z", "037": "a", "062": "z"}
        assert label == expected[folder[-3:]]
        assert writer == (None if "extra" in name else name[-7:-4])


def test_other_folders_among_samples_are_refused(tmp_path: Path) -> None:
    files = {name.removeprefix("hand writing/"): data for name, data in midas().items()}
    path = make_tree(tmp_path / "set", files | folders(("x",)))
    with pytest.raises(LayoutError, match=r"others: x; use --exclude 'x/\*'"):
        open_source(path)
    source = open_source(path, LayoutOptions(exclude=("x/*",)))
    assert (source.kind, source.annotations.classes) == ("midas", ("0", "A", "a"))


def test_a_subset_keeps_images_and_writers(tmp_path: Path) -> None:
    whole = open_source(make_zip(tmp_path / "set.zip", midas((1, 2, 11))))
    subset = ClassSubset(whole, ("1", "0"))
    assert subset.annotations.classes == ("1", "0")
    assert contents(subset) == [row for row in contents(whole) if row[1] in "01"]
    assert subset.size(np.arange(8)) < whole.size(np.arange(12))
    with pytest.raises(SourceError, match="no classes 7"):
        ClassSubset(whole, ("0", "7"))


# IDX


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("make", [make_tree, make_zip])
@given(seed=st.integers(0, 99), counts=st.tuples(st.integers(2, 30), st.integers(2, 30)))
@settings(max_examples=5)
def test_idx_gives_what_it_holds(
    tmp_path_factory: pytest.TempPathFactory,
    make: Callable[..., Path],
    packed: bool,
    seed: int,
    counts: tuple[int, int],
) -> None:
    train, test = digits(counts[0], seed), digits(counts[1], seed + 1)
    files = {
        f"MNIST/raw/{name}": data
        for name, data in (
            idx_pair("train", *train, packed) | idx_pair("t10k", *test, packed)
        ).items()
    }
    path = make(tmp_path_factory.mktemp("idx") / "set", files)
    source = pickle.loads(pickle.dumps(open_source(path)))
    assert source.kind == "idx"
    assert source.annotations.labels.tolist() == train[1] + test[1]
    assert source.annotations.splits.tolist() == [NO_SPLIT] * counts[0] + [TEST] * counts[1]
    for i, image in enumerate([*train[0], *test[0]]):
        np.testing.assert_array_equal(source.image(i), image)
    assert source.name(0) == "train/0"
    assert source.name(counts[0] + 1) == "test/1"
    assert source.size(np.arange(3)) == sum(map(len, files.values()))


@pytest.mark.parametrize(
    ("part", "labels", "classes"),
    [
        ("byclass", [0, 61], "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"),
        ("bymerge", [0, 46], "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghnqrt"),
        ("balanced", [0, 46], "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghnqrt"),
        ("letters", [1, 26], "ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
        ("digits", [0, 9], "0123456789"),
        ("mnist", [0, 9], "0123456789"),
    ],
)
def test_emnist_is_turned_upright_and_named(
    tmp_path: Path, part: str, labels: list[int], classes: str
) -> None:
    images, _ = digits(2)
    files = idx_pair(f"emnist-{part}-train", images, labels, packed=True)
    source = open_source(make_tree(tmp_path / "set", files))
    assert "".join(source.annotations.classes) == classes
    assert source.annotations.labels.tolist() == [0, len(classes) - 1]
    np.testing.assert_array_equal(source.image(1), images[1].T)


def test_fashion_mnist_has_its_classes(tmp_path: Path) -> None:
    files = idx_pair("train", *digits(10), packed=False)
    source = open_source(make_tree(tmp_path / "FashionMNIST" / "raw", files))
    assert source.annotations.classes[9] == "Ankle boot"


@pytest.mark.parametrize("make", [make_tree, make_zip])
def test_one_idx_dataset_of_several_is_selected(tmp_path: Path, make: Callable[..., Path]) -> None:
    files: dict[str, bytes] = {}
    for number, part in enumerate(("digits", "mnist")):
        for pair in ("train", "test"):
            files |= idx_pair(f"emnist-{part}-{pair}", *digits(10 + number), packed=True)
    path = make(tmp_path / "gzip", files)
    with pytest.raises(
        SourceError, match=r"several IDX datasets.*gzip/emnist-digits, .*emnist-mnist"
    ):
        open_source(path)
    chosen = [open_source(path / f"emnist-{part}") for part in ("digits", "mnist")]
    assert [len(source) for source in chosen] == [20, 22]
    assert chosen[0].digest() != chosen[1].digest()
    with pytest.raises(SourceError, match="no such file"):
        open_source(path / "emnist-letters")


def test_a_training_file_brings_its_test_pair_a_test_file_comes_alone(tmp_path: Path) -> None:
    files = idx_pair("train", *digits(12), packed=True) | idx_pair("t10k", *digits(11), False)
    make_tree(tmp_path, files)
    assert len(open_source(tmp_path / "train-images-idx3-ubyte.gz")) == 23
    alone = open_source(tmp_path / "t10k-images-idx3-ubyte")
    assert len(alone) == 11
    assert (alone.annotations.splits == TEST).all()


def test_a_plain_idx_file_goes_before_its_gz(tmp_path: Path) -> None:
    plain, packed = digits(10, 0), digits(10, 1)
    make_tree(tmp_path, idx_pair("train", *plain, False) | idx_pair("train", *packed, True))
    np.testing.assert_array_equal(open_source(tmp_path).image(3), plain[0][3])


IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
PLAIN = idx_pair("train", *digits(20), packed=False)
HUGE = bytes((0, 0, 8, 3)) + struct.pack(">III", 1 << 31, 28, 28)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({LABELS: None}, "no labels, expected train-labels-idx1-ubyte"),
        ({LABELS: idx(np.zeros(19, np.uint8))}, "20 images and 19 labels"),
        ({LABELS: PLAIN[LABELS][:-1]}, "damaged: got 27 bytes, expected 28"),
        ({IMAGES: PLAIN[IMAGES][:-1]}, "damaged: got 495 bytes, expected 496"),
        ({IMAGES: PLAIN[IMAGES] + b"x"}, "damaged: got more bytes, expected 496"),
        ({IMAGES: b"\0\0\7\3" + PLAIN[IMAGES][4:]}, "begins with 00 00 07 03"),
        ({IMAGES: PLAIN[IMAGES][:9]}, "expected an IDX file"),
        ({IMAGES: b""}, "begins with nothing"),
        ({IMAGES: idx(np.zeros((20, 0, 3), np.uint8))}, "images of 3×0 pixels"),
        ({IMAGES: HUGE}, "more than its size can hold"),
        ({IMAGES: gzip.compress(HUGE)}, "more than its size can hold"),
        ({IMAGES: gzip.compress(PLAIN[IMAGES])[:-12]}, "damaged"),
        ({IMAGES: gzip.compress(PLAIN[IMAGES][:-9])}, "damaged: got 487 bytes, expected 496"),
        ({IMAGES: gzip.compress(PLAIN[IMAGES] + bytes(1 << 24))}, "damaged: got more bytes"),
    ],
)
def test_damaged_idx_is_refused(
    tmp_path: Path, changes: dict[str, bytes | None], reason: str
) -> None:
    files = {name: data for name, data in (PLAIN | changes).items() if data is not None}
    make_tree(tmp_path, files)
    with pytest.raises(SourceError, match=reason) as caught:
        open_source(tmp_path).image(0)
    assert "train-" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("packed", [False, True])
def test_a_byte_too_many_is_noticed_wherever_blocks_end(tmp_path: Path, packed: bool) -> None:
    images = np.zeros((65535, 4, 4), np.uint8)  # 1 MiB with its header
    files = idx_pair("train", images, [i % 10 for i in range(65535)], packed=False)
    longer = files[IMAGES] + b"x"
    make_tree(tmp_path, files | {IMAGES: gzip.compress(longer) if packed else longer})
    with pytest.raises(SourceError, match="damaged: got more bytes, expected 1048576"):
        open_source(tmp_path).image(0)


def test_labels_that_a_set_does_not_have_are_refused(tmp_path: Path) -> None:
    make_tree(tmp_path, idx_pair("emnist-letters-train", digits(2)[0], [0, 3], packed=True))
    with pytest.raises(SourceError, match="labels from 0 to 3, expected 1 to 26: EMNIST letters"):
        open_source(tmp_path)


def test_a_packed_set_is_never_whole_in_memory(tmp_path: Path) -> None:
    images = np.zeros((20_000, 28, 28), np.uint8)
    make_tree(tmp_path, idx_pair("train", images, [i % 10 for i in range(20_000)], packed=True))
    tracemalloc.start()
    source = open_source(tmp_path)
    assert source.image(19_999).shape == (28, 28)
    assert tracemalloc.get_traced_memory()[1] < images.nbytes / 3
    tracemalloc.stop()


def test_images_of_a_zip_are_read_one_at_a_time(tmp_path: Path) -> None:
    noise = io.BytesIO(np.random.default_rng(0).bytes(1 << 20)).getvalue()
    path = make_zip(tmp_path / "set.zip", {f"{i % 2}/{i}.png": noise for i in range(20)})
    tracemalloc.start()
    source = open_source(path)
    for i in range(20):
        with pytest.raises(ImageError):
            source.image(i)
    assert tracemalloc.get_traced_memory()[1] < 5 << 20
    tracemalloc.stop()
