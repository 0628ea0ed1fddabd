"""Readers of arrays: IDX, NumPy, rows of pixels, MATLAB, Parquet."""

import gzip
import importlib
import io
import json
import pickle
import shlex
import struct
import sys
import tarfile
import tracemalloc
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from raw_data import digits, folders, idx_pair, make_tree, make_zip, picture, pillow, saved
from scipy.io import savemat

from pipeline.data.archives import Folder
from pipeline.data.base import (
    NO_SPLIT,
    TEST,
    TRAIN,
    VALIDATION,
    ImageError,
    LayoutError,
    Source,
    SourceError,
)
from pipeline.data.layout.options import LayoutOptions
from pipeline.data.sources import open_source
from pipeline.data.sources.idx import open_idx
from pipeline.data.sources.pixel_table import PixelTable


def read(path: Path, *options: str) -> Source:
    """Open a folder or archive with options as on the command line."""
    words = list(options)
    given: dict[str, Any] = {}
    while words:
        name, value = words.pop(0).removeprefix("--").replace("-", "_"), True
        if name in ("include", "exclude"):
            given[name] = (*given.get(name, ()), words.pop(0))
        else:
            given[name] = value if name == "allow_gaps" else words.pop(0)
    source: Source = pickle.loads(pickle.dumps(open_source(path, LayoutOptions.parse(**given), 1)))
    return source


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


pyarrow, pq = map(importlib.import_module, ("pyarrow", "pyarrow.parquet"))


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


def test_an_unknown_part_of_emnist_is_refused(tmp_path: Path) -> None:
    images, labels = numbered(12, first=1)
    path = make_tree(tmp_path / "EMNIST", idx_pair("raw/train", images, labels, packed=True))
    with pytest.raises(SourceError, match="labels from 1 to 12; name the folder emnist-PART"):
        read(path)


def test_pairs_in_folders_named_as_splits_are_one_set(tmp_path: Path) -> None:
    files = idx_pair("train/train", *digits(12), False) | idx_pair("Test/t10k", *digits(10), True)
    source = read(make_tree(tmp_path, files))
    assert source.annotations.splits.tolist() == [NO_SPLIT] * 12 + [TEST] * 10


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
    packed = tarred(tmp_path / "gzip", named)
    assert len(open_source(packed / "emnist-mnist")) == 13


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


# NumPy


def npz(*args: Any, packed: bool = True, **arrays: Any) -> bytes:
    file = io.BytesIO()
    (np.savez_compressed if packed else np.savez)(file, *args, allow_pickle=True, **arrays)
    return file.getvalue()


def npy(array: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def both(first: str, second: str) -> dict[str, bytes]:
    """Files of images and labels, each an array of its own."""
    images, labels = digits(10)
    form = npz if first.endswith(".npz") else npy
    return {first: form(images), second: form(np.array(labels))}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("make", [make_tree, make_zip])
def test_keras_arrays_are_a_training_and_a_test_set(
    tmp_path: Path, packed: bool, make: Callable[..., Path]
) -> None:
    train, test = digits(12), digits(10, 1)
    data = npz(packed=packed, x_train=train[0], y_train=train[1], x_test=test[0], y_test=test[1])
    source = read(make(tmp_path / "set", {"mnist.npz": data, "readme.md": b"x"}))
    assert source.annotations.labels.tolist() == train[1] + test[1]
    assert source.annotations.splits.tolist() == [NO_SPLIT] * 12 + [TEST] * 10
    assert images_of(source) == [*train[0].tolist(), *test[0].tolist()]
    assert source.layout.dataset == "MNIST"
    assert source.layout.left_out == {"other files": 1}
    assert source.name(12) == "test/0"


@pytest.mark.parametrize(
    "files",
    [
        both("kmnist-train-imgs.npz", "kmnist-train-labels.npz"),
        both("train_images.npy", "train_labels.npy"),
        both("data/X_train.npy", "data/y_train.npy"),
        both("train/images.npy", "train/labels.npy"),
        both("Xtrain.npy", "Ytrain.npy"),
        both("X.npy", "Y.npy"),
        {"a.npz": npz(images=digits(10)[0], labels=digits(10)[1])},
        {"a.npz": npz(X=digits(10)[0], y=digits(10)[1], names=np.arange(3))},
        {"train.npz": npz(data=digits(10)[0], target=digits(10)[1])},
        {"a.npz": npz(*digits(10))},
        both("digits.npy", "digits_labels.npy"),
        {"a.npz": npz(train_images=digits(10)[0], train_labels=np.array(digits(10)[1])[:, None])},
    ],
    ids=lambda files: " ".join(files),
)
def test_names_of_arrays_say_what_they_are(tmp_path: Path, files: dict[str, bytes]) -> None:
    source = read(make_tree(tmp_path, files))
    assert images_of(source) == digits(10)[0].tolist()
    assert labels_of(source) == [str(i) for i in digits(10)[1]]


@pytest.mark.parametrize(
    ("change", "shape"),
    [
        (lambda a: a[..., None], (4, 6)),
        (lambda a: a[:, None], (4, 6)),
        (lambda a: a[:, :, :4].reshape(10, 16), (4, 4)),
        (np.asfortranarray, (4, 6)),
        (lambda a: a.astype(np.float64), (4, 6)),
        (lambda a: a.astype(np.int64), (4, 6)),
        (lambda a: a.astype(">u2"), (4, 6)),
        (lambda a: a[::-1][::-1], (4, 6)),
    ],
)
def test_every_shape_and_type_of_an_array_gives_its_pixels(
    tmp_path: Path, change: Callable[[Any], Any], shape: tuple[int, int]
) -> None:
    images, labels = digits(10)
    path = make_tree(tmp_path, {"X.npy": npy(change(images)), "y.npy": npy(np.array(labels))})
    source = read(path)
    assert images_of(source) == images[:, : shape[0], : shape[1]].tolist()
    assert source.image(0).dtype == np.uint8


@pytest.mark.parametrize("channels_first", [False, True])
def test_colour_becomes_pillows_grey(tmp_path: Path, channels_first: bool) -> None:
    colour = np.random.default_rng(0).integers(0, 256, (10, 8, 9, 3), dtype=np.uint8)
    stored = np.moveaxis(colour, 3, 1) if channels_first else colour
    source = read(make_tree(tmp_path, {"a.npz": npz(X=stored, y=digits(10)[1])}))
    for i in range(10):
        expected = np.array(Image.fromarray(colour[i]).convert("L"))
        np.testing.assert_array_equal(source.image(i), expected)
    assert source.decoded(0).mode == "RGB"


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (np.linspace(0, 1, 240), np.float32),
        (np.linspace(-1, 1, 240), np.float32),
        (np.arange(240) * 17, np.uint16),
        (np.arange(240, dtype=np.uint8) % 17, np.uint16),
    ],
)
def test_pixels_that_are_no_bytes_stay_deep(
    tmp_path: Path, values: NDArray[Any], dtype: Any
) -> None:
    images = values.reshape(10, 4, 6)
    source = read(make_tree(tmp_path, {"a.npz": npz(X=images, y=digits(10)[1])}))
    assert source.image(0).dtype == dtype
    np.testing.assert_array_equal(source.image(9), images[9].astype(dtype))
    assert any("scale" in note for note in source.layout.notes)


def test_true_and_false_pixels_are_255_and_0(tmp_path: Path) -> None:
    images = digits(10)[0] > 99
    source = read(make_tree(tmp_path, {"a.npz": npz(X=images, y=digits(10)[1])}))
    assert images_of(source) == (images * 255).tolist()


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (np.eye(3)[[0, 2, 1, 0]], ["0", "2", "1", "0"]),
        (np.array([1.0, 0, 2, 2]), ["1", "0", "2", "2"]),
        (np.array(["b", "a", "ä", "a"]), ["b", "a", "ä", "a"]),
        (np.array([b"b", b"a", b"c10", b"c9"]), ["b", "a", "c10", "c9"]),
    ],
)
def test_labels_are_numbers_strings_or_one_hot(
    tmp_path: Path, labels: NDArray[Any], classes: list[str]
) -> None:
    source = read(make_tree(tmp_path, {"a.npz": npz(X=digits(4)[0], y=labels)}))
    assert labels_of(source) == classes


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"X": digits(4)[0]}, "without labels"),
        ({"X": np.array([{}, 1], object), "y": [0, 1]}, "pickled objects"),
        ({"X": digits(4)[0], "y": [0, 1, 2]}, r"shape \(4, 4, 6\) and 3 labels"),
        ({"X": np.moveaxis(digits(5)[0], 0, 2), "y": [0, 1, 2, 0, 1]}, "number of images first"),
        ({"X": digits(4)[0], "y": np.ones((4, 3))}, "not one class each"),
        ({"X": digits(4)[0], "y": [0, 0.5, 1, 1]}, "no whole numbers"),
        ({"X": digits(4)[0] * 1j, "y": [0, 1, 0, 1]}, "pixels of type complex128"),
        ({"X": digits(4)[0] * np.nan, "y": [0, 1, 0, 1]}, "NaN"),
        ({"X": np.zeros((4, 5, 5, 2)), "y": [0, 1, 0, 1]}, "2 channels"),
        ({"X": digits(4)[0], "images": digits(4)[0], "y": [0, 1, 0, 1]}, "several arrays of im"),
    ],
)
def test_arrays_that_are_no_dataset_are_refused_in_a_line(
    tmp_path: Path, arrays: dict[str, Any], reason: str
) -> None:
    make_tree(tmp_path, {"a.npz": npz(**arrays)})
    with pytest.raises(SourceError, match=reason) as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_rows_of_pixels_take_the_shape_that_is_given(tmp_path: Path) -> None:
    images, labels = digits(10)
    make_tree(tmp_path, {"a.npz": npz(X=images.reshape(10, 24), y=labels)})
    sources = suggested(tmp_path)
    assert images_of(sources["--shape 4x6"]) == images.tolist()
    with pytest.raises(SourceError, match="rows of 24 pixels, expected 25 for --shape 5x5"):
        read(tmp_path, "--shape", "5x5")


def test_equal_labels_of_two_splits_are_no_copies(tmp_path: Path) -> None:
    arrays = {
        f"{name}_{part}": values
        for part, images in zip(("train", "val", "test"), np.split(SQUARES[:18], 3), strict=True)
        for name, values in (("x", images), ("y", np.arange(6)))
    }
    files = {f"{name}.npy": npy(array) for name, array in arrays.items()}
    make_tree(tmp_path / "npy", files | {f"copy/{name}": data for name, data in files.items()})
    for path in (make_zip(tmp_path / "a.npz", files), make_tree(tmp_path / "some", files)):
        source = read(path)
        assert np.bincount(source.annotations.splits).tolist() == [6, 6, 6]
    assert len(read(tmp_path / "npy")) == 18


def test_test_images_without_labels_are_left_out(tmp_path: Path) -> None:
    train, test = digits(12), digits(10, 1)
    path = make_tree(
        tmp_path,
        {"train.npz": npz(x=train[0], y=train[1]), "test.npz": npz(x=test[0])},
    )
    source = read(path)
    assert len(source) == 12
    assert source.layout.left_out == {"other files": 1}
    assert any("without labels" in note for note in source.layout.notes)


def test_several_sets_of_arrays_are_refused_with_options_that_select_each(tmp_path: Path) -> None:
    files = {
        f"{name}-train-{role}.npz": npz(array)
        for name, count in (("kmnist", 10), ("k49", 12))
        for role, array in (("imgs", digits(count)[0]), ("labels", np.array(digits(count)[1])))
    }
    sources = suggested(make_tree(tmp_path / "prefixes", files))
    assert {s.layout.dataset: len(s) for s in sources.values()} == {
        "KMNIST": 10,
        "Kuzushiji-49": 12,
    }
    med = {f"{n}mnist.npz": npz(images=digits(c)[0], labels=digits(c)[1])
           for n, c in (("path", 10), ("blood", 11))}  # fmt: skip
    sources = suggested(make_tree(tmp_path / "files", med))
    assert sorted(map(len, sources.values())) == [10, 11]


def test_several_sets_in_one_file_are_refused_without_an_option_that_cannot_work(
    tmp_path: Path,
) -> None:
    arrays: dict[str, Any] = {"a_images": digits(4)[0], "a_labels": [0, 1, 0, 1]}
    arrays |= {"b_images": digits(4)[0], "b_labels": [0, 1, 0, 1]}
    make_tree(tmp_path, {"a.npz": npz(**arrays)})
    with pytest.raises(LayoutError, match="several datasets") as caught:
        read(tmp_path)
    assert caught.value.suggestions == ()


def test_a_large_array_is_never_whole_in_memory(tmp_path: Path) -> None:
    images = np.zeros((20_000, 28, 28), np.uint8)
    images[-1] = 255
    labels = np.arange(20_000) % 10
    make_tree(tmp_path / "npz", {"a.npz": npz(X=images, y=labels)})
    make_tree(tmp_path / "npy", {"X.npy": npy(np.asfortranarray(images)), "y.npy": npy(labels)})
    tracemalloc.start()
    for form in ("npz", "npy"):
        assert read(tmp_path / form).image(19_999).min() == 255
    assert tracemalloc.get_traced_memory()[1] < images.nbytes / 2
    tracemalloc.stop()


# Tables of pixels


def table(
    images: NDArray[Any],
    labels: Sequence[Any] | None,
    header: str | None = "label",
    *,
    last: bool = False,
    end: str = "\n",
    delimiter: str = ",",
) -> bytes:
    """A CSV file of images and labels; `header` is the name of the labels."""
    rows = [list(map(str, image.reshape(-1))) for image in images]
    names = [f"pixel{i}" for i in range(len(rows[0]))]
    if labels is not None:
        for row, label in zip([names, *rows], [header, *labels], strict=True):
            row.insert(len(row) if last else 0, str(label))
    lines = [delimiter.join(row) for row in ([names] if header is not None else []) + rows]
    return (end.join(lines) + end).encode()


def squares(count: int, seed: int = 0) -> tuple[NDArray[np.uint8], list[int]]:
    """Images (count, 5, 5) on black paper and labels 0 to 9."""
    images = np.random.default_rng(seed).integers(0, 256, (count, 5, 5), dtype=np.uint8)
    images[:, [0, -1]] = 0
    return images, [i % 10 for i in range(count)]


SQUARES, SQUARE_LABELS = squares(20)


@pytest.mark.parametrize(
    "data",
    [
        table(SQUARES, SQUARE_LABELS),
        table(SQUARES, SQUARE_LABELS, "class", last=True),
        table(SQUARES, SQUARE_LABELS, "what"),
        table(SQUARES, SQUARE_LABELS, None),
        table(SQUARES, SQUARE_LABELS, None, last=True),
        table(SQUARES, SQUARE_LABELS, None, end="\r\n"),
        table(SQUARES, SQUARE_LABELS, None)[:-1],
        table(SQUARES, SQUARE_LABELS, delimiter=";"),
        table(SQUARES, SQUARE_LABELS, delimiter="\t", end="\r\n") + b"\r\n\r\n",
        b"\xef\xbb\xbf" + table(SQUARES, SQUARE_LABELS),
        b"\xef\xbb\xbf" + table(SQUARES, SQUARE_LABELS, None),
        table(SQUARES * 1.0, SQUARE_LABELS),
        table(SQUARES, [f'"{i}"' for i in SQUARE_LABELS]),
        gzip.compress(table(SQUARES, SQUARE_LABELS)),
    ],
)
@pytest.mark.parametrize("make", [make_tree, make_zip])
def test_rows_of_pixels_are_images(tmp_path: Path, data: bytes, make: Callable[..., Path]) -> None:
    source = read(make(tmp_path / "set", {"train.csv": data}))
    assert images_of(source) == SQUARES.tolist()
    assert labels_of(source) == list(map(str, SQUARE_LABELS))
    assert source.image(0).dtype == np.uint8


@pytest.mark.parametrize("last", [True, False])
def test_an_index_without_a_name_is_neither_label_nor_pixel(tmp_path: Path, last: bool) -> None:
    lines = table(SQUARES, SQUARE_LABELS, last=last).decode().splitlines()
    indexed = "\n".join([f",{lines[0]}", *(f"{i},{line}" for i, line in enumerate(lines[1:]))])
    source = read(make_tree(tmp_path, {"train.csv": indexed.encode()}))
    assert labels_of(source) == list(map(str, SQUARE_LABELS))
    assert images_of(source) == SQUARES.tolist()


def test_a_column_of_pixels_that_is_not_there_is_refused(tmp_path: Path) -> None:
    make_tree(tmp_path, {"train.csv": table(SQUARES, SQUARE_LABELS)})
    assert len(read(tmp_path, "--columns", "label=Label")) == 20
    with pytest.raises(SourceError, match="has no column 'what'; its first columns are label"):
        read(tmp_path, "--columns", "label=what")


def test_kaggles_digits_leave_out_the_table_without_labels(tmp_path: Path) -> None:
    files = {
        "train.csv": table(SQUARES, SQUARE_LABELS),
        "test.csv": table(squares(9, 1)[0], None, ""),
        "sample_submission.csv": b"ImageId,Label\n1,0\n2,0\n",
    }
    source = read(make_tree(tmp_path, files))
    assert len(source) == 20
    assert source.layout.left_out == {"tables without labels": 1, "other files": 1}
    assert (source.annotations.splits == NO_SPLIT).all()
    (tmp_path / "train.csv").unlink()
    with pytest.raises(SourceError, match=r"without labels in test\.csv"):
        read(tmp_path)


def test_a_header_that_was_a_row_is_left_out_and_noted(tmp_path: Path) -> None:
    order = np.argsort(SQUARE_LABELS, kind="stable")  # as the letters A to Z of Kaggle are
    rows = table(SQUARES[order], [SQUARE_LABELS[i] for i in order], None)
    header = ",".join(["0", *(f"0.{i}" for i in range(1, 26))])
    path = make_tree(tmp_path, {"A_Z Handwritten Data.csv": header.encode() + b"\n" + rows})
    source = read(path)
    assert images_of(source) == SQUARES[order].tolist()
    assert any("became a header" in note for note in source.layout.notes)


def test_a_table_and_its_test_are_splits_and_copies_are_read_once(tmp_path: Path) -> None:
    train, test = (table(*squares(20, seed)) for seed in (0, 1))
    files = {
        "sign_mnist_train.csv": train,
        "sign_mnist_train/sign_mnist_train.csv": train,
        "sign_mnist_test.csv": test,
        "sign_mnist_test/sign_mnist_test.csv": test,
        "sign.png": b"x",
    }
    source = read(make_tree(tmp_path, files))
    assert source.annotations.splits.tolist() == [NO_SPLIT] * 20 + [TEST] * 20
    assert any("equal contents" in note for note in source.layout.notes)


def test_a_label_that_may_be_in_either_column_is_refused(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 9, (20, 5, 5))
    path = make_tree(tmp_path, {"a.csv": table(noise, SQUARE_LABELS, None)})
    sources = suggested(path)
    assert labels_of(sources["--columns label=0"]) == list(map(str, SQUARE_LABELS))
    assert labels_of(sources["--columns label=25"]) == list(map(str, noise[:, -1, -1]))


def test_several_tables_are_refused_with_options_that_select_each(tmp_path: Path) -> None:
    files = {
        f"emnist-{part}-{split}.csv": table(*squares(count, i), None)
        for part, count in (("digits", 10), ("mnist", 12))
        for i, split in enumerate(("train", "test"))
    }
    sources = suggested(make_tree(tmp_path, files))
    assert [len(s) for s in sources.values()] == [20, 24]
    digits_ = sources["--include 'emnist-digits*'"]
    assert digits_.layout.dataset == "EMNIST digits"
    np.testing.assert_array_equal(digits_.image(3), squares(10)[0][3].T)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b",7,", b",300,", r"line 3, column \d+: got '300', expected a whole number from 0 to"),
        (b",7,", b",x,", r"line 3, column \d+: got 'x'"),
        (b",7,", b",7.5,", r"got '7.5'"),
        (b",7,", b",-7,", r"got '-7'"),
        (b",7,", b",,", r"got ''"),
        (b",7,", b",7,7,", "line 3: got 27 columns, expected 26"),
        (b",7,", b",", "line 3: got 25 columns, expected 26"),
    ],
)
def test_a_value_that_is_no_pixel_is_named_by_line_and_column(
    tmp_path: Path, old: bytes, new: bytes, reason: str
) -> None:
    images = SQUARES.copy()
    images[images == 7] = 8
    images[1, 2, 2] = 7
    data = table(images, SQUARE_LABELS)
    assert data.count(old) == 1
    make_tree(tmp_path, {"train.csv": data.replace(old, new)})
    with pytest.raises(SourceError, match=reason) as caught:
        read(tmp_path)
    assert "train.csv: line 3" in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        b"id,label\n1,0\n2,1\n",
        b"",
        b"\n",
        ("filename," + ",".join("abcdefghijklmnopq") + "\n" + "a.png" + ",0" * 17 + "\n").encode(),
        (",".join(f"f{c}" for c in "abcdefghijklmnopq") + "\n" + ",".join(["0.5"] * 17)).encode(),
        bytes(range(256)) * 9,
    ],
)
def test_tables_of_other_things_are_no_pixels(tmp_path: Path, data: bytes) -> None:
    make_tree(tmp_path, {"a.csv": data})
    assert PixelTable.detect(Folder(tmp_path)) is None


def test_pixels_of_rows_that_are_no_square_take_a_shape(tmp_path: Path) -> None:
    images = squares(10)[0][:, 1:]
    sources = suggested(make_tree(tmp_path, {"train.csv": table(images, SQUARE_LABELS[:10])}))
    assert images_of(sources["--shape 4x5"]) == images.tolist()


def test_few_grey_levels_are_left_to_the_datasets_scale(tmp_path: Path) -> None:
    source = read(make_tree(tmp_path, {"a.csv": table(SQUARES // 16, SQUARE_LABELS)}))
    assert source.image(0).dtype == np.uint16
    assert images_of(source) == (SQUARES // 16).tolist()


# MATLAB


def mat(arrays: dict[str, Any], *, packed: bool = True) -> bytes:
    file = io.BytesIO()
    savemat(file, arrays, do_compression=packed)
    return file.getvalue()


def emnist_mat(codes: Sequence[int], first: int, counts: tuple[int, int]) -> dict[str, Any]:
    """EMNIST's structure: images (n, 784) by columns, labels, writers and the characters' codes."""
    parts = {}
    for name, count, seed in zip(("train", "test"), counts, (0, 1), strict=True):
        images, _ = squares(count, seed)
        labels = first + np.arange(count) % len(codes)
        parts[name] = {
            "images": images.transpose(0, 2, 1).reshape(count, 25),
            "labels": labels[:, None].astype(float),
            "writers": (100 + np.arange(count) % 3)[:, None].astype(float),
        }
    mapping = np.array([[first + i, code] for i, code in enumerate(codes)], np.uint8)
    return {"dataset": {**parts, "mapping": mapping}}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("make", [make_tree, make_zip])
def test_emnists_matlab_file_is_upright_with_its_characters_and_writers(
    tmp_path: Path, packed: bool, make: Callable[..., Path]
) -> None:
    data = mat(emnist_mat([ord(letter) for letter in LETTERS], 1, (30, 27)), packed=packed)
    source = read(make(tmp_path / "set", {"matlab/any name.mat": data}))
    assert source.annotations.classes == tuple(LETTERS)
    assert labels_of(source)[:30] == [*LETTERS, *"ABCD"]
    assert images_of(source) == [*squares(30)[0].tolist(), *squares(27, 1)[0].tolist()]
    assert source.annotations.splits.tolist() == [NO_SPLIT] * 30 + [TEST] * 27
    assert source.annotations.writer_names == ("0100", "0101", "0102")
    assert source.layout.dataset == "EMNIST letters"


@pytest.mark.parametrize("packed", [False, True])
def test_svhns_label_10_is_the_digit_0(tmp_path: Path, packed: bool) -> None:
    colour = np.random.default_rng(0).integers(0, 256, (20, 6, 7, 3), dtype=np.uint8)
    labels = np.arange(1, 21) % 11 + (np.arange(1, 21) % 11 == 0)
    files = {
        f"{part}_32x32.mat": mat(
            {"X": colour.transpose(1, 2, 3, 0), "y": labels[:, None]}, packed=packed
        )
        for part in ("train", "test")
    }
    source = read(make_tree(tmp_path / "a", {"train_32x32.mat": files["train_32x32.mat"]}))
    assert labels_of(source) == [str(label % 10) for label in labels]
    for i in range(20):
        expected = np.array(Image.fromarray(colour[i]).convert("L"))
        np.testing.assert_array_equal(source.image(i), expected)
    changed = mat({"X": 255 - colour.transpose(1, 2, 3, 0), "y": labels[None, :]}, packed=packed)
    extra = mat({"X": 254 - colour.transpose(1, 2, 3, 0) // 2, "y": labels}, packed=packed)
    files |= {"test_32x32.mat": changed}
    source = read(make_tree(tmp_path / "b", files))
    assert (source.annotations.splits == TEST).sum() == 20
    assert source.layout.dataset == "SVHN"
    sources = suggested(make_tree(tmp_path / "c", {**files, "extra_32x32.mat": extra}))
    assert sorted(map(len, sources.values())) == [20, 40]


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a,
        lambda a: a.transpose(1, 2, 0),
        lambda a: a.reshape(20, 25),
        lambda a: a.reshape(20, 25).T,
        lambda a: a.astype(float),
    ],
)
def test_every_order_of_matlabs_axes_gives_the_images(
    tmp_path: Path, change: Callable[[Any], Any]
) -> None:
    images = change(SQUARES)
    path = make_tree(tmp_path, {"a.mat": mat({"X": images, "y": SQUARE_LABELS, "info": "words"})})
    source = read(path)
    assert images_of(source) == SQUARES.tolist()
    assert labels_of(source) == list(map(str, SQUARE_LABELS))
    assert bool(source.layout.warnings) == (images.ndim == 2)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512) + b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"\x89HDF\r\n\x1a\n" + bytes(600), "HDF5"),
        (b"words", "no MATLAB file"),
        (mat({"a": np.zeros(3)}), "without images and labels"),
        (mat({"X": SQUARES, "y": [1, 2]}), r"shape \(20, 5, 5\) and 2 labels"),
        (mat({"X": SQUARES, "y": SQUARE_LABELS})[:-9], "damaged"),
        (mat({"X": SQUARES, "y": SQUARE_LABELS}, packed=False)[:-9], "damaged"),
    ],
)
def test_matlab_files_that_are_no_dataset_are_refused_in_a_line(
    tmp_path: Path, data: bytes, reason: str
) -> None:
    make_tree(tmp_path, {"a.mat": data})
    with pytest.raises(SourceError, match=reason) as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)
    assert "a.mat" in str(caught.value)


def test_a_matlab_file_that_would_inflate_without_end_is_refused(tmp_path: Path) -> None:
    bomb = mat({"X": np.zeros((90_000, 28, 28), np.uint8), "y": np.zeros(90_000)})
    make_tree(tmp_path, {"a.mat": bomb})
    with pytest.raises(SourceError, match="decompression bomb"):
        read(tmp_path)


# Parquet


def parquet(
    images: Sequence[Any],
    labels: Sequence[Any],
    names: Sequence[str] | None = None,
    *,
    group: int = 7,
    **more: Sequence[Any],
) -> bytes:
    """A Parquet file as Hugging Face writes it; `images` are bytes, or bytes and a path."""
    columns = {"image": list(images), "label": list(labels), **{k: [*v] for k, v in more.items()}}
    written = pyarrow.table(columns)
    if names is not None:
        features = {
            "image": {"_type": "Image"},
            "label": {"_type": "ClassLabel", "names": list(names)},
        }
        info = json.dumps({"info": {"features": features}}).encode()
        written = written.replace_schema_metadata({b"huggingface": info})
    file = io.BytesIO()
    pq.write_table(written, file, row_group_size=group)
    return file.getvalue()


def encoded(count: int, first: int = 0) -> list[dict[str, Any]]:
    return [{"bytes": picture(first + i), "path": f"{i}.png"} for i in range(count)]


@pytest.mark.parametrize("make", [make_tree, make_zip])
def test_parquet_shards_are_splits_with_the_stored_class_names(
    tmp_path: Path, make: Callable[..., Path]
) -> None:
    files = {
        "mnist/train-00000-of-00002.parquet": parquet(encoded(10), [0, 1] * 5, ["cat", "dog"]),
        "mnist/train-00001-of-00002.parquet": parquet(encoded(9, 10), [1] * 9, ["cat", "dog"]),
        "mnist/test-00000-of-00001-0123456789abcdef.parquet": parquet(
            encoded(5, 30), [0, 1, 0, 1, -1], ["cat", "dog"]
        ),
        "README.md": b"words",
    }
    source = read(make(tmp_path / "set", files))
    assert source.annotations.classes == ("cat", "dog")
    assert source.annotations.labels.tolist() == [0, 1] * 5 + [1] * 9 + [0, 1, 0, 1]
    assert source.annotations.splits.tolist() == [NO_SPLIT] * 19 + [TEST] * 4
    order = np.random.default_rng(0).permutation(len(source)).tolist()
    for i in [*range(len(source)), *order]:
        expected = pillow(picture(i if i < 19 else 11 + i))
        np.testing.assert_array_equal(source.image(i), expected)
    assert source.decoded(0).mode == "L"
    assert "1 rows without a label are left out" in source.layout.notes
    assert source.layout.left_out == {"other files": 1}
    assert not source.layout.warnings


def test_parquet_of_bytes_without_metadata_takes_labels_as_they_are(tmp_path: Path) -> None:
    data = parquet([picture(i) for i in range(6)], ["b", "a", "b", "a", "c", "c"], writer="xyxyxx")
    source = read(make_tree(tmp_path, {"0000.parquet": data}))
    assert labels_of(source) == list("babacc")
    assert source.annotations.writer_names == ("x", "y")
    np.testing.assert_array_equal(source.image(5), pillow(picture(5)))


def test_parquet_may_name_files_beside_it(tmp_path: Path) -> None:
    rows = [{"bytes": None, "path": f"../images/{i}.png"} for i in range(6)]
    files: dict[str, bytes] = {f"images/{i}.png": picture(i) for i in range(5)}
    files["data/train-00000-of-00003.parquet"] = parquet(rows, [0, 1] * 3)
    source = read(make_tree(tmp_path, files))
    np.testing.assert_array_equal(source.image(4), pillow(picture(4)))
    with pytest.raises(ImageError, match=r"images/5\.png' is not in the source"):
        source.image(5)
    assert source.size(np.arange(6)) == sum(map(len, files.values()))
    assert "1 of 3 shards" in source.layout.warnings[0]


def test_several_columns_or_sets_in_parquet_are_refused_with_options(tmp_path: Path) -> None:
    pictures = [picture(i) for i in range(6)]
    file = parquet(pictures, [0, 1] * 3, mask=pictures[::-1], target=[1, 1, 0] * 2)
    sources = suggested(make_tree(tmp_path / "columns", {"train.parquet": file}))
    assert [len(s) for s in sources.values()] == [6, 6]
    files = {
        f"{name}/{part}-00000-of-00001.parquet": parquet(encoded(count), [0, 1] * (count // 2))
        for name, count in (("a", 6), ("b", 8))
        for part in ("train", "test")
    }
    sources = suggested(make_tree(tmp_path / "sets", files))
    assert [len(s) for s in sources.values()] == [12, 16]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"PAR1words", "damaged"),
        (parquet(encoded(4), [0, 1, 0, 2], ["a", "b"]), "labels from 0 to 2, expected 0 to 1"),
        (parquet(encoded(2), [0, 1], ["a", "a"]), "names two classes alike"),
        (parquet(encoded(2), [-1, -1], ["a", "b"]), "no row with a label"),
        (parquet(["a", "b"], [0, 1]), "no column of images; it has image, label"),
        (parquet(encoded(2), [[0], [1]]), "no numbers or strings"),
    ],
)
def test_parquet_that_is_no_dataset_is_refused_in_a_line(
    tmp_path: Path, data: bytes, reason: str
) -> None:
    make_tree(tmp_path, {"a.parquet": data})
    with pytest.raises(SourceError, match=reason) as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)
    assert "a.parquet" in str(caught.value)


def test_what_parquet_does_not_have_is_refused(tmp_path: Path) -> None:
    files = {"train.parquet": parquet(encoded(4), [0, 1, 0, 1], ["a", "b"])}
    make_tree(tmp_path, files)
    for column in ("file", "label", "writer"):
        with pytest.raises(SourceError, match="no column 'what'; it has image, label"):
            read(tmp_path, "--columns", f"{column}=what")
    make_tree(tmp_path, {"test.parquet": parquet(encoded(4), [0, 1, 0, 1], ["b", "a"])})
    with pytest.raises(SourceError, match=r"test.parquet: names other classes than train.parquet"):
        read(tmp_path)


def test_a_choice_of_columns_or_shape_shows_in_the_layout(tmp_path: Path) -> None:
    pictures = [picture(i) for i in range(6)]
    file = parquet(pictures, [0, 1] * 3, mask=pictures[::-1])
    first = read(make_tree(tmp_path, {"a.parquet": file}), "--columns", "file=image")
    assert first.layout != read(tmp_path, "--columns", "file=mask").layout
    flat = mat({"X": SQUARES.reshape(20, 25)[:, :24], "y": SQUARE_LABELS})
    wide = read(make_tree(tmp_path / "flat", {"a.mat": flat}), "--shape", "4x6")
    assert wide.layout != read(tmp_path / "flat", "--shape", "6x4").layout


def test_without_pyarrow_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    make_tree(tmp_path, {"a.parquet": b"PAR1"})
    with pytest.raises(SourceError, match=r"launch.sh setup parquet"):
        read(tmp_path)


# All kinds


def tarred(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path.with_suffix(".tar.gz"), "w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path.with_suffix(".tar.gz")


FORMS: dict[str, dict[str, bytes]] = {
    "mnist/raw/train-images-idx3-ubyte.gz": idx_pair("mnist/raw/train", *squares(20), True),
    "mnist.npz": {"mnist.npz": npz(x_train=SQUARES, y_train=SQUARE_LABELS)},
    "mnist_train.csv": {"mnist_train.csv": table(SQUARES, SQUARE_LABELS)},
    "mnist.mat": {"mnist.mat": mat({"X": SQUARES, "y": SQUARE_LABELS})},
    "mnist.parquet": {
        "mnist.parquet": parquet(
            [saved(Image.fromarray(image)) for image in SQUARES], SQUARE_LABELS
        )
    },
}


@pytest.mark.parametrize("name", FORMS)
def test_a_file_a_folder_a_zip_and_a_tar_are_the_same_dataset(tmp_path: Path, name: str) -> None:
    files = FORMS[name]
    folder = make_tree(tmp_path / "tree", files)
    archives = make_zip(tmp_path / "zip", files), tarred(tmp_path / "tar", files)
    for path in (folder / name, folder, *archives):
        source = read(path)
        assert source.layout.dataset == "MNIST"
        assert labels_of(source) == list(map(str, SQUARE_LABELS))
        assert images_of(source) == SQUARES.tolist()
        assert source.digest() == read(path).digest()
        assert source.size(np.arange(3)) > 0
        assert str(tmp_path) not in str(source.layout)


@pytest.mark.parametrize(
    "stray",
    [
        {"features.npy": npy(np.zeros((9, 25)))},
        {"a.npz": b"damaged"},
        {"digitStruct.mat": b"MATLAB 7.3 MAT-file".ljust(512) + b"\x89HDF\r\n\x1a\n"},
        {"embeddings.parquet": b"PAR1"},
        {"scores.csv": table(SQUARES, None, "")},
    ],
    ids=lambda files: next(iter(files)),
)
def test_arrays_beside_folders_of_images_do_not_stand_in_their_way(
    tmp_path: Path, stray: dict[str, bytes]
) -> None:
    source = read(make_tree(tmp_path, folders() | stray))
    assert source.annotations.classes == ("0", "1", "10")
    assert len(source) == 12


@pytest.mark.parametrize("option", ["--class-from", "--split-from", "--writer-from"])
def test_rules_for_image_files_are_refused_for_arrays(tmp_path: Path, option: str) -> None:
    images, labels = digits(10)
    make_tree(tmp_path / "npz", {"a.npz": npz(x=SQUARES, y=SQUARE_LABELS)})
    make_tree(tmp_path / "idx", idx_pair("train", images, labels, False))
    for path in ("npz", "npz/a.npz", "idx", "idx/train-images-idx3-ubyte"):
        with pytest.raises(SourceError, match=f"{option} folder:0 is for image files"):
            read(tmp_path / path, option, "folder:0")


def test_rules_for_image_files_choose_them_beside_arrays(tmp_path: Path) -> None:
    make_tree(tmp_path, folders() | {"a.npz": npz(x=SQUARES, y=SQUARE_LABELS)})
    assert read(tmp_path).layout.reader == "numpy"
    assert len(read(tmp_path, "--class-from", "folder:0")) == 12


def test_a_test_set_alone_is_named_as_the_split(tmp_path: Path) -> None:
    images, labels = digits(10)
    source = read(make_tree(tmp_path, idx_pair("t10k", images, labels, False)))
    assert (source.annotations.splits == TEST).all()
    assert source.layout.split_from == "file names"


def test_labels_from_1_to_10_are_a_warning(tmp_path: Path) -> None:
    labels = [i + 1 for i in SQUARE_LABELS]
    source = read(make_tree(tmp_path, {"usps.mat": mat({"fea": SQUARES, "gnd": labels})}))
    assert labels_of(source) == list(map(str, labels))
    assert "10 may stand for 0" in source.layout.warnings[0]


def test_few_columns_are_no_image_unless_a_shape_is_given(tmp_path: Path) -> None:
    flowers = npz(data=SQUARES[:, :2, :2].reshape(20, 4), target=SQUARE_LABELS)
    sources = suggested(make_tree(tmp_path, {"iris.npz": flowers}))
    assert sources["--shape 2x2"].image(0).shape == (2, 2)


# Damage


SAMPLES = {
    "idx": kaggle(digits(9), digits(8, 1)),
    "npz": {"mnist.npz": npz(x_train=digits(9)[0], y_train=digits(9)[1])},
    "stored npz": {"a.npz": npz(packed=False, X=digits(9)[0] * 1.5, y=np.eye(3)[[0, 1, 2] * 3])},
    "npy": both("X.npy", "y.npy"),
    "table": {"train.csv": table(SQUARES[:9], SQUARE_LABELS[:9])},
    "packed table": {"train.csv.gz": gzip.compress(table(SQUARES[:9], SQUARE_LABELS[:9], None))},
    "emnist": {"a.mat": mat(emnist_mat([48, 65], 0, (6, 5)), packed=False)},
    "packed mat": {"a.mat": mat({"X": SQUARES, "y": SQUARE_LABELS})},
    "parquet": {"train.parquet": parquet(encoded(9), [0, 1, 2] * 3, ["a", "b", "c"])},
}


@pytest.mark.parametrize("kind", SAMPLES)
@given(
    file=st.integers(0, 7),
    changes=st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), max_size=3),
    cut=st.none() | st.integers(0, 1 << 20),
)
@settings(max_examples=30, deadline=None, derandomize=True)
def test_damaged_arrays_are_errors_of_ours(
    tmp_path_factory: pytest.TempPathFactory,
    kind: str,
    file: int,
    changes: list[tuple[int, int]],
    cut: int | None,
) -> None:
    files = dict(SAMPLES[kind])
    name = sorted(files)[file % len(files)]
    data = bytearray(files[name])
    for position, value in changes:
        # Half of the changes are in the first bytes, where the declarations are.
        span = len(data) if position % 2 else min(len(data), 200)
        data[position // 2 % span] = value
    files[name] = bytes(data[: cut % (len(data) + 1)]) if cut is not None else bytes(data)
    folder = tmp_path_factory.mktemp("damaged")
    error: SourceError | None = None
    try:
        source = read(make_tree(folder, files))
        for i in range(len(source)):
            with suppress(ImageError):
                assert source.image(i).ndim == 2
    except SourceError as caught:
        error = caught
    assert error is None or ("\n" not in str(error) and str(folder) in str(error))
