"""Readers of arrays: IDX, NumPy, rows of pixels, MATLAB, Parquet."""

import gzip
import pickle
import shlex
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from raw_data import digits, idx_pair, make_tree, make_zip

from pipeline.data.archives.base import Archive, Folder, ZipArchive
from pipeline.data.base import NO_SPLIT, TEST, TRAIN, VALIDATION, LayoutError, Source, SourceError
from pipeline.data.layout.options import LayoutOptions
from pipeline.data.sources.idx import Idx, open_idx

KINDS = (Idx,)


class Selected(Folder):
    """A folder without the files that the options leave out."""

    def __init__(self, path: Path, options: LayoutOptions) -> None:
        super().__init__(path)
        pairs = zip(self.names, self.sizes, strict=True)
        kept = [(name, size) for name, size in pairs if options.selects(name)]
        self.names, self.sizes = [name for name, _ in kept], [size for _, size in kept]


def read(path: Path, *options: str) -> Source:
    """Open a folder or zip archive with options as on the command line."""
    words = list(options)
    given: dict[str, Any] = {}
    while words:
        name, value = words.pop(0).removeprefix("--").replace("-", "_"), True
        if name in ("include", "exclude"):
            given[name] = (*given.get(name, ()), words.pop(0))
        else:
            given[name] = value if name == "allow_gaps" else words.pop(0)
    parsed = LayoutOptions.parse(**given)
    archive: Archive = Selected(path, parsed) if path.is_dir() else ZipArchive(path)
    for kind in KINDS:
        if source := kind.detect(archive, parsed):
            copy: Source = pickle.loads(pickle.dumps(source))
            return copy
    raise SourceError(f"{path}: no array")


def suggested(path: Path, *options: str) -> dict[str, Source]:
    """Open an ambiguous source with each of the options that its error suggests."""
    with pytest.raises(LayoutError) as caught:
        read(path, *options)
    assert caught.value.suggestions
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return {s: read(path, *options, *shlex.split(s)) for s in caught.value.suggestions}


def labels_of(source: Source) -> list[str]:
    return [source.annotations.classes[label] for label in source.annotations.labels]


def images_of(source: Source) -> list[list[list[float]]]:
    return [source.image(i).tolist() for i in range(len(source))]


def numbered(count: int, first: int = 0) -> tuple[NDArray[np.uint8], list[int]]:
    """Images (count, 4, 6) and labels that count from `first`."""
    return digits(count)[0], [first + i for i in range(count)]


# IDX


LETTERS = [chr(ord("A") + i) for i in range(26)]


@pytest.mark.parametrize(
    ("place", "files", "name", "classes"),
    [
        ("fashion-mnist-compared", "MNIST/raw/train", "MNIST", "0-9"),
        ("fashion-mnist-compared/MNIST/raw", "train", "MNIST", "0-9"),
        ("fashion-mnist-compared", "raw/train", "", "0-9"),
        ("fashion-mnist/mine", "train", "", "0-9"),
        ("FashionMNIST/raw", "train", "Fashion-MNIST", "fashion"),
        ("FashionMNIST", "raw/train", "Fashion-MNIST", "fashion"),
        ("x/fashion-mnist", "train", "Fashion-MNIST", "fashion"),
        ("fashion-mnist-master", "data/fashion/train", "Fashion-MNIST", "fashion"),
        ("KMNIST/raw", "train", "KMNIST", "0-9"),
        ("QMNIST", "raw/qmnist-train", "QMNIST", "0-9"),
        ("emnist", "digits/train", "EMNIST digits", "0-9"),
        ("emnist", "mnist/train", "EMNIST mnist", "0-9"),
        ("EMNIST", "train", "EMNIST digits", "0-9"),
        ("any", "emnist-digits-train", "EMNIST digits", "0-9"),
        ("emnist_digits", "train", "EMNIST digits", "0-9"),
    ],
)
def test_a_set_is_what_its_nearest_known_name_says(
    tmp_path: Path, place: str, files: str, name: str, classes: str
) -> None:
    images, labels = numbered(10)
    source = read(make_tree(tmp_path / place, idx_pair(files, images, labels, False)))
    assert source.layout.dataset == name
    assert (source.annotations.classes[9] == "Ankle boot") == (classes == "fashion")
    upright = images[3].T if name.startswith("EMNIST") else images[3]
    np.testing.assert_array_equal(source.image(3), upright)
    assert any(name in note for note in source.layout.notes) or not name
    assert not source.layout.warnings


def test_letters_in_a_folder_of_emnist_are_upright_and_named(tmp_path: Path) -> None:
    images, labels = numbered(26, first=1)
    make_tree(tmp_path / "emnist", idx_pair("letters/raw/train", images, labels, packed=True))
    for place in ("emnist", "emnist/letters", "emnist/letters/raw"):
        source = read(tmp_path / place)
        assert labels_of(source) == LETTERS
        np.testing.assert_array_equal(source.image(5), images[5].T)


def test_labels_1_to_26_without_a_name_warn_that_letters_would_lie_on_their_sides(
    tmp_path: Path,
) -> None:
    images, labels = numbered(26, first=1)
    source = read(make_tree(tmp_path / "set", idx_pair("train", images, labels, False)))
    assert labels_of(source) == [str(i) for i in range(1, 27)]
    np.testing.assert_array_equal(source.image(5), images[5])
    [warning] = source.layout.warnings
    assert "emnist-letters" in warning
    named = make_tree(tmp_path / "emnist-letters", idx_pair("train", images, labels, False))
    assert labels_of(read(named)) == LETTERS


def test_a_known_name_far_from_the_files_is_a_warning(tmp_path: Path) -> None:
    files = idx_pair("mine/train", *digits(10), packed=False)
    source = read(make_tree(tmp_path / "fashion-mnist", files))
    assert "'mine' lies between" in source.layout.warnings[0]


@pytest.mark.parametrize(
    ("place", "labels", "reason"),
    [
        ("MNIST", [0, 10], "labels from 0 to 10, expected 0 to 9: MNIST"),
        ("fashion-mnist", [0, 10], "expected 0 to 9: Fashion-MNIST"),
        ("emnist-letters", [0, 26], "expected 1 to 26: EMNIST letters"),
        ("emnist-balanced", [0, 47], "expected 0 to 46: EMNIST balanced"),
    ],
)
def test_labels_that_contradict_the_name_are_refused(
    tmp_path: Path, place: str, labels: list[int], reason: str
) -> None:
    make_tree(tmp_path / place, idx_pair("train", digits(2)[0], labels, packed=False))
    with pytest.raises(SourceError, match=reason):
        read(tmp_path / place)


def test_large_gaps_between_labels_are_refused_unless_allowed(tmp_path: Path) -> None:
    images, _ = digits(4)
    path = make_tree(tmp_path / "set", idx_pair("train", images, [0, 1, 2, 255], False))
    [(option, source)] = suggested(path).items()
    assert option == "--allow-gaps"
    assert source.annotations.classes == ("0", "1", "2", "255")
    assert source.annotations.labels.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("labels", "classes", "empty"),
    [([0, 1, 3], "0123", "2"), ([1, 2, 3], "123", ""), ([0, 1], "01", ""), ([1, 3], "123", "2")],
)
def test_small_gaps_between_labels_are_a_warning(
    tmp_path: Path, labels: list[int], classes: str, empty: str
) -> None:
    images, _ = digits(len(labels))
    source = read(make_tree(tmp_path / "set", idx_pair("train", images, labels, False)))
    assert "".join(source.annotations.classes) == classes
    assert labels_of(source) == [str(label) for label in labels]
    expected = [f"1 of {len(classes)} classes have no images: {empty}"] if empty else []
    assert list(source.layout.warnings) == expected


def kaggle(
    train: tuple[NDArray[np.uint8], list[int]], test: tuple[NDArray[np.uint8], list[int]]
) -> dict[str, bytes]:
    """Kaggle's archive of MNIST: each file twice."""
    files: dict[str, bytes] = {}
    for part, pair in (("train", train), ("t10k", test)):
        for name, data in idx_pair(part, *pair, packed=False).items():
            files[f"{name}/{name}"] = data
            files[name.replace("-idx", ".idx")] = data
    return files


@pytest.mark.parametrize("make", [make_tree, make_zip])
def test_a_file_twice_with_the_same_bytes_is_read_once(
    tmp_path: Path, make: Callable[..., Path]
) -> None:
    train, test = digits(12), digits(11, 1)
    source = read(make(tmp_path / "archive", kaggle(train, test)))
    assert len(source) == 23
    assert source.annotations.splits.tolist() == [NO_SPLIT] * 12 + [TEST] * 11
    assert images_of(source) == [*train[0].tolist(), *test[0].tolist()]
    assert any("equal contents" in note for note in source.layout.notes)
    assert source.layout.left_out == {"other files": 4}


def test_each_half_of_kaggles_archive_is_a_dataset(tmp_path: Path) -> None:
    files = kaggle(digits(12), digits(11, 1))
    for half in (True, False):
        path = make_tree(
            tmp_path / str(half), {n: d for n, d in files.items() if ("/" in n) == half}
        )
        assert len(read(path)) == 23
    whole = open_idx(tmp_path / "True" / "train-images-idx3-ubyte" / "train-images-idx3-ubyte")
    dotted = open_idx(tmp_path / "False" / "train-images.idx3-ubyte")
    assert whole is not None
    assert dotted is not None
    assert len(whole) == len(dotted) == 23


def test_different_sets_are_refused_with_options_that_select_each(tmp_path: Path) -> None:
    files = kaggle(digits(12), digits(11, 1))
    others = kaggle(digits(14, 3), digits(13, 4))
    mixed = {n: others[n] if "/" in n else files[n] for n in files}
    sources = suggested(make_tree(tmp_path / "forms", mixed))
    assert sorted(len(source) for source in sources.values()) == [23, 27]
    pair = {f"a b/{n}": d for n, d in idx_pair("train", *digits(12), True).items()}
    pair |= {f"c/d/{n}": d for n, d in idx_pair("train", *digits(13), True).items()}
    sources = suggested(make_tree(tmp_path / "folders", pair))
    assert sorted(len(source) for source in sources.values()) == [12, 13]
    named = idx_pair("gzip/emnist-digits-train", *digits(12), True)
    named |= idx_pair("gzip/emnist-mnist-train", *digits(13), True)
    path = make_tree(tmp_path / "prefixes", named)
    assert [len(source) for source in suggested(path).values()] == [12, 13]
    with pytest.raises(LayoutError, match="gzip/emnist-digits, ") as caught:
        read(path)
    named_paths = caught.value.reason.split("a path of its own: ")[1].split(", ")
    assert [len(s) for p in named_paths if (s := open_idx(Path(p)))] == [12, 13]


def idx_of(values: NDArray[Any], code: int, kind: str) -> bytes:
    header = bytes((0, 0, code, values.ndim)) + struct.pack(f">{values.ndim}I", *values.shape)
    return header + values.astype(kind).tobytes()


@pytest.mark.parametrize(
    ("code", "kind", "high", "dtype"),
    [
        (9, "i1", 100, np.uint8),
        (11, ">i2", 255, np.uint8),
        (11, ">i2", 4000, np.uint16),
        (12, ">i4", 255, np.uint8),
        (12, ">i4", 100_000, np.int32),
        (13, ">f4", 255, np.uint8),
        (13, ">f4", 1, np.float32),
        (14, ">f8", 0.5, np.float32),
    ],
)
def test_idx_of_other_types_keeps_its_values(
    tmp_path: Path, code: int, kind: str, high: float, dtype: Any
) -> None:
    images = (np.arange(5 * 4 * 6).reshape(5, 4, 6) / 119 * high).astype(kind)
    if dtype == np.uint8:
        images = np.rint(images)
    label_kind = (12, ">i4") if kind[1] == "f" else (code, kind)
    files = {
        "train-images-idx3-int": idx_of(images, code, kind),
        "train-labels-idx1-int": idx_of(np.arange(5) % 3, *label_kind),
    }
    source = read(make_tree(tmp_path, files))
    assert labels_of(source) == list("01201")
    assert source.image(4).dtype == dtype
    np.testing.assert_array_equal(source.image(4), images[4].astype(dtype))


@pytest.mark.parametrize(
    ("images", "labels", "reason"),
    [
        ((9, "i1", [-1, 5]), (8, "u1", [0, 1]), "signed bytes from -1 to 5"),
        ((13, ">f4", [np.nan, 5]), (8, "u1", [0, 1]), "NaN"),
        ((8, "u1", [3, 5]), (13, ">f4", [0, 1]), "expected whole numbers"),
        ((8, "u1", [3, 5]), (9, "i1", [-1, 1]), "negative label -1"),
        ((8, "u1", [3, 5]), (8, "u1", [0, 1, 2]), "2 images and 3 labels"),
        ((8, "u1", [3, 5]), (8, "u1", [[0, 1], [1, 0]]), "got labels"),
    ],
)
def test_what_idx_cannot_be_is_refused_in_a_line(
    tmp_path: Path, images: Any, labels: Any, reason: str
) -> None:
    grey = np.tile(np.array(images[2]).reshape(2, 1, 1), (1, 4, 6))
    files = {
        "train-images-idx3-ubyte": idx_of(grey, *images[:2]),
        "train-labels-idx1-ubyte": idx_of(np.array(labels[2]), *labels[:2]),
    }
    make_tree(tmp_path, files)
    with pytest.raises(SourceError, match=reason) as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)


def test_qmnist_names_its_writers(tmp_path: Path) -> None:
    images, _ = digits(5)
    rows = np.zeros((5, 8), np.int64)
    rows[:, 0], rows[:, 1], rows[:, 2] = [7, 0, 2, 1, 0], [4, 4, 0, 1, 4], [12, 7, 7, 2000, 12]
    labels = gzip.compress(idx_of(rows, 12, ">i4"))
    files = {
        name: data for name, data in idx_pair("qmnist-train", images, [0] * 5, True).items()
        if "images" in name
    }  # fmt: skip
    files["qmnist-train-labels-idx2-int.gz"] = labels
    source = read(make_tree(tmp_path / "QMNIST" / "raw", files))
    assert labels_of(source) == list("70210")
    names = source.annotations.writer_names
    assert [names[w] for w in source.annotations.writers] == [
        "0012",
        "0007",
        "0007",
        "2000",
        "0012",
    ]
    assert source.layout.dataset == "QMNIST"


def test_given_validation_images_are_not_drawn_again(tmp_path: Path) -> None:
    files: dict[str, bytes] = {}
    for part in ("train", "val", "test"):
        files |= idx_pair(part, *digits(10), packed=False)
    source = read(make_tree(tmp_path, files))
    assert source.annotations.splits.tolist() == [TRAIN] * 10 + [VALIDATION] * 10 + [TEST] * 10
    assert [source.name(i) for i in (0, 10, 29)] == ["train/0", "validation/0", "test/9"]
