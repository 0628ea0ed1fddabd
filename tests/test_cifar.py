"""CIFAR-10 and CIFAR-100: pickles that are not unpickled, binary batches, and folders of images."""

import gzip
import io
import os
import pickle
import pickletools
import struct
import sys
import tarfile
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from raw_data import make_tree, make_zip, saved

from beton.reader import Reader
from jobs import prep as job
from pipeline.data.base import NO_SPLIT, TEST, LayoutError, SourceError
from pipeline.data.pixels.options import PixelOptions
from pipeline.data.prepare import prepare
from pipeline.data.sources import open_source
from pipeline.data.sources.cifar.plain_pickle import ForeignObjectError, load_plain

NAMES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
BATCHES = (*(f"data_batch_{n}" for n in range(1, 6)), "test_batch")
ROWS = 10

Rows = NDArray[np.uint8]
Files = dict[str, bytes]


def batch(number: int) -> tuple[Rows, list[int]]:
    """Rows of pixels, one channel after the other, and a label of each class."""
    rng = np.random.default_rng(number)
    return rng.integers(0, 256, (ROWS, 3072), dtype=np.uint8), rng.permutation(10).tolist()


def colours(row: Rows) -> Rows:
    return row.reshape(3, 32, 32).transpose(1, 2, 0)


def of_python2(content: Mapping[str, Any]) -> bytes:
    """A dict as Python 2 and NumPy 1 pickle it by protocol 2, as in CIFAR's own files."""

    def text(value: str | bytes) -> bytes:
        data = value.encode() if isinstance(value, str) else value
        head = b"U" + bytes([len(data)]) if len(data) < 256 else b"T" + struct.pack("<i", len(data))
        return head + data

    def number(value: int) -> bytes:
        return b"K" + bytes([value]) if value < 256 else b"M" + struct.pack("<H", value)

    def value_of(value: Any) -> bytes:
        match value:
            case int():
                return number(value)
            case str():
                return text(value)
            case list():
                return b"](" + b"".join(map(value_of, value)) + b"e"
        made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        shape = b"".join(map(number, value.shape)) + b"\x86"
        kind = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xff"
        kind += b"J\xff\xff\xff\xffK\x00tb"
        return made + b"(K\x01" + shape + kind + b"\x89" + text(value.tobytes()) + b"tb"

    items = b"".join(text(key) + value_of(value) for key, value in content.items())
    return b"\x80\x02}(" + items + b"u."


def dumped(protocol: int) -> Callable[[Mapping[str, Any]], bytes]:
    """The same as Python 3 pickles it, with bytes as keys."""
    return lambda content: pickle.dumps({k.encode(): v for k, v in content.items()}, protocol)


def pickled(write: Callable[[Mapping[str, Any]], bytes] = of_python2) -> Files:
    files = {"batches.meta": write({"num_cases_per_batch": ROWS, "label_names": [*NAMES]})}
    for number, name in enumerate(BATCHES):
        pixels, labels = batch(number)
        files[name] = write({"batch_label": name, "labels": labels, "data": pixels})
    return {f"cifar-10-batches-py/{name}": data for name, data in files.items()}


def binary() -> Files:
    files = {"batches.meta.txt": "\n".join((*NAMES, "")).encode()}
    for number, name in enumerate(BATCHES):
        pixels, labels = batch(number)
        rows = np.concatenate([np.array(labels, np.uint8)[:, None], pixels], axis=1)
        files[f"{name}.bin"] = rows.tobytes()
    return {f"cifar-10-batches-bin/{name}": data for name, data in files.items()}


def make_tar(path: Path, files: Files) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


WRITERS: dict[str, Files] = {
    "python 2": pickled(),
    **{f"protocol {n}": pickled(dumped(n)) for n in range(pickle.HIGHEST_PROTOCOL + 1)},
    "binary": binary(),
}


@pytest.mark.parametrize("form", WRITERS)
def test_every_form_gives_the_same_images_labels_and_splits(form: str, tmp_path: Path) -> None:
    source = open_source(make_tree(tmp_path / "cifar", WRITERS[form]))
    assert source.annotations.classes == NAMES
    assert source.layout.dataset == "CIFAR-10"
    assert (source.annotations.splits == np.repeat([NO_SPLIT, TEST], [5 * ROWS, ROWS])).all()
    for number in range(len(BATCHES)):
        pixels, labels = batch(number)
        rows = range(number * ROWS, (number + 1) * ROWS)
        assert source.annotations.labels[rows].tolist() == labels
        for i in rows:
            decoded = source.decoded(i)
            expected = colours(pixels[i - rows.start])
            assert decoded.colour is not None
            np.testing.assert_array_equal(decoded.colour, expected)
            grey = np.array(Image.fromarray(expected).convert("L"))
            np.testing.assert_array_equal(decoded.grey, grey)
    assert source.name(ROWS).removesuffix("/0") in ("data_batch_2", "data_batch_2.bin")


@pytest.mark.parametrize("form", ["python 2", "binary"])
def test_an_archive_is_read_where_it_lies(form: str, tmp_path: Path) -> None:
    files = WRITERS[form]
    folder = open_source(make_tree(tmp_path / "cifar", files))
    for path in (make_tar(tmp_path / "c.tar.gz", files), make_zip(tmp_path / "c.zip", files)):
        source = pickle.loads(pickle.dumps(open_source(path)))  # as a process gets it
        for i in (0, len(source) - 1):
            np.testing.assert_array_equal(source.decoded(i).colour, folder.decoded(i).colour)
    assert {p.name for p in tmp_path.iterdir()} == {"cifar", "c.tar.gz", "c.zip"}


def test_it_is_stored_in_colour_without_loss(tmp_path: Path) -> None:
    source = open_source(make_tar(tmp_path / "cifar-10-python.tar.gz", pickled()))
    result = prepare(source, tmp_path / "c.beton", pixels=PixelOptions(colour="auto"))
    assert result.images == {"train": 50 - 10, "validation": 10, "test": 10}
    assert result.survey.colour is not None
    assert (result.survey.colour.stored, result.survey.colour.compressed) == ("rgb", 0)
    with Reader(tmp_path / "c.beton") as file:
        for i in (0, 59):
            expected = source.decoded(i).colour
            np.testing.assert_array_equal(file.column("image").decode(i), expected)


def of_cifar100(write: Callable[[Mapping[str, Any]], bytes] | None) -> Files:
    fine, coarse = [f"fine {n}" for n in range(100)], [f"coarse {n}" for n in range(20)]
    files = {}
    for number, name in enumerate(("train", "test")):
        rng = np.random.default_rng(number)
        pixels = rng.integers(0, 256, (100, 3072), dtype=np.uint8)
        labels = np.arange(100)
        if write:
            content = {"data": pixels, "fine_labels": labels.tolist()}
            files[name] = write({**content, "coarse_labels": (labels // 5).tolist()})
        else:
            heads = np.stack([labels // 5, labels], axis=1).astype(np.uint8)
            files[f"{name}.bin"] = np.concatenate([heads, pixels], axis=1).tobytes()
    if write:
        files["meta"] = write({"fine_label_names": fine, "coarse_label_names": coarse})
    else:
        files["fine_label_names.txt"] = "\n".join(fine).encode()
        files["coarse_label_names.txt"] = "\n".join(coarse).encode()
    return files


@pytest.mark.parametrize("write", [of_python2, dumped(4), None])
def test_cifar_100_has_its_fine_labels(
    write: Callable[[Mapping[str, Any]], bytes] | None, tmp_path: Path
) -> None:
    source = open_source(make_tree(tmp_path / "cifar", of_cifar100(write)))
    assert source.layout.dataset == "CIFAR-100"
    assert source.annotations.classes == tuple(f"fine {n}" for n in range(100))
    assert source.annotations.labels.tolist() == [*range(100), *range(100)]
    expected = np.random.default_rng(1).integers(0, 256, (100, 3072), dtype=np.uint8)[7]
    np.testing.assert_array_equal(source.decoded(107).colour, colours(expected))


def test_folders_of_pngs_are_the_same_dataset(tmp_path: Path) -> None:
    files = {}
    for number, name in enumerate(BATCHES):
        for i, (row, label) in enumerate(zip(*batch(number), strict=True)):
            part = "test" if name == "test_batch" else "train"
            png = saved(Image.fromarray(np.ascontiguousarray(colours(row))))
            files[f"cifar10/{part}/{NAMES[label]}/{number}_{i}.png"] = png
    source = open_source(make_zip(tmp_path / "cifar10.zip", files))
    assert source.annotations.classes == NAMES
    assert np.unique_counts(source.annotations.splits).counts.tolist() == [50, 10]
    reference = open_source(make_tree(tmp_path / "cifar", pickled()))
    images = [{s.decoded(i).colour.tobytes() for i in range(60)} for s in (source, reference)]  # type: ignore[union-attr]
    assert images[0] == images[1]


class Evil:
    """An object that runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch evil",)


def without(files: Files, name: str) -> Files:
    return {path: data for path, data in files.items() if not path.endswith(f"/{name}")}


def changed(name: str, data: bytes, files: Files | None = None) -> Files:
    files = files or pickled()
    [path] = [path for path in files if path.endswith(f"/{name}")]
    return {**files, path: data}


def content(number: int = 2, **other: Any) -> dict[str, Any]:
    pixels, labels = batch(number)
    return {"labels": labels, "data": pixels, **other}


P2 = of_python2
BAD: dict[str, tuple[Files, str]] = {
    "foreign object": (
        changed("data_batch_3", pickle.dumps(content(extra=Evil()), 2)),
        "data_batch_3: a pickle with the object posix.system, which could run a program; expected",
    ),
    "foreign meta": (
        changed("batches.meta", pickle.dumps({"label_names": Evil()}, 4)),
        "batches.meta: a pickle with the object posix.system",
    ),
    "float": (
        changed("data_batch_3", pickle.dumps(content(extra=0.5), 2)),
        "data_batch_3: a pickle with the opcode BINFLOAT",
    ),
    "array of objects": (
        changed("data_batch_3", pickle.dumps(content(data=np.array([None])), 2)),
        "data_batch_3: a pickle with an array of type 'O",
    ),
    "truncated pickle": (
        changed("data_batch_3", P2(content())[:-5000]),
        "data_batch_3: damaged: no complete pickle",
    ),
    "truncated binary": (
        changed("data_batch_3.bin", b"\1" * 3072, binary()),
        "data_batch_3.bin: truncated: got 3,072 bytes, expected a multiple of 3,073",
    ),
    "fewer images than the others": (
        changed("data_batch_3.bin", b"\1" * 3073 * (ROWS - 1), binary()),
        "data_batch_3.bin: got 9 images, expected 10, as in the other batches",
    ),
    "fewer test images than in the others": (
        changed("test_batch.bin", b"\1" * 3073 * (ROWS - 1), binary()),
        "test_batch.bin: got 9 images, expected 10, as in the other batches",
    ),
    "labels and rows differ": (
        changed("data_batch_3", P2(content(labels=[1] * 9))),
        "data_batch_3: got 10 images and 9 labels",
    ),
    "label out of range": (
        changed("data_batch_3", P2(content(labels=[1] * 9 + [10]))),
        "data_batch_3: got the label 10 at image 9, expected 0 to 9 for 10 classes",
    ),
    "label out of range in binary": (
        changed("test_batch.bin", b"\x63" * 3073 * ROWS, binary()),
        "test_batch.bin: got the label 99 at image 0, expected 0 to 9",
    ),
    "no labels": (
        changed("data_batch_3", P2({"data": batch(0)[0]})),
        "data_batch_3: got the keys data, expected data and labels",
    ),
    "labels that are no numbers": (
        changed("data_batch_3", P2(content(labels=["1"] * ROWS))),
        "data_batch_3: got labels that are no list of whole numbers",
    ),
    "other pixels": (
        changed("data_batch_3", P2(content(data=np.zeros((ROWS, 784), np.uint8)))),
        "data_batch_3: got uint8 (10, 784) as data, expected uint8 (n, 3072)",
    ),
    "a list": (
        changed("data_batch_3", pickle.dumps([1, 2], 2)),
        "data_batch_3: got a pickled list, expected a dict",
    ),
    "missing batch": (
        without(pickled(), "data_batch_3"),
        "data_batch_3 missing, expected all files of CIFAR-10: data_batch_1, data_batch_2",
    ),
    "missing names": (without(binary(), "batches.meta.txt"), "batches.meta.txt missing"),
    "a class twice": (
        changed("batches.meta.txt", b"cat\ncat\n", binary()),
        "batches.meta.txt: got 2 names of classes, expected distinct ones",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_errors_in_one_line(case: str, tmp_path: Path) -> None:
    files, message = BAD[case]
    with pytest.raises(SourceError) as caught:
        open_source(make_tree(tmp_path / "cifar", files))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("case", ["foreign object", "truncated binary", "labels and rows differ"])
def test_the_command_refuses_them_and_writes_nothing(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files, message = BAD[case]
    path = make_tar(tmp_path / "cifar-10.tar.gz", files)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["prep", "cifar10", "--source", str(path)])
    assert job.main() == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert message in line
    assert [p.name for p in tmp_path.iterdir()] == ["cifar-10.tar.gz"]


def test_two_forms_in_one_folder_need_a_choice(tmp_path: Path) -> None:
    path = make_tree(tmp_path / "both", {**pickled(), **binary()})
    with pytest.raises(LayoutError) as caught:
        open_source(path)
    assert caught.value.suggestions == (
        "--include 'cifar-10-batches-bin/*'",
        "--include 'cifar-10-batches-py/*'",
    )


def test_a_stated_number_that_differs_is_a_warning(tmp_path: Path) -> None:
    meta = P2({"num_cases_per_batch": 10_000, "label_names": [*NAMES]})
    source = open_source(make_tree(tmp_path / "cifar", changed("batches.meta", meta)))
    [warning] = source.layout.warnings
    assert warning == "batches.meta states 10,000 images a batch, and the batches hold 10"


def test_a_gzipped_batch_is_read(tmp_path: Path) -> None:
    plain = binary()
    data = plain["cifar-10-batches-bin/test_batch.bin"]
    path = make_tree(tmp_path / "cifar", changed("test_batch.bin", gzip.compress(data), plain))
    assert len(open_source(path)) == 6 * ROWS


VALUES: tuple[Any, ...] = (
    {},
    {"a": [1, -5, 1 << 40, True, None], b"b": (1, (2, ()), "ü"), 3: {"x": [[], {}]}},
    [np.int64(5), np.uint8(7)],
    {"big": b"x" * 300, "text": "y" * 300},
)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("value", VALUES, ids=str)
def test_plain_data_are_those_that_python_unpickles(value: Any, protocol: int) -> None:
    assert load_plain(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("dtype", ["uint8", "int64", ">i4", "uint16"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_are_those_that_python_unpickles(protocol: int, dtype: str, order: Any) -> None:
    array = np.array(np.arange(24).reshape(4, 6), dtype=dtype, order=order)
    loaded = load_plain(pickle.dumps({"data": array}, protocol))["data"]
    np.testing.assert_array_equal(loaded, array)


class WithState:
    def __init__(self) -> None:
        self.value = 1


FOREIGN: tuple[Any, ...] = (
    *(Evil(), WithState(), print, 1.5, {1, 2}, frozenset(), complex(1), range(3)),
    *(np.zeros(3), np.array(["a"]), np.array([None]), np.float64(1), np.dtype("f4"), slice(1)),
    np.zeros(2, [("a", "u1")]),
)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("value", FOREIGN, ids=lambda value: type(value).__name__)
def test_foreign_objects_are_refused(value: Any, protocol: int) -> None:
    with pytest.raises((ForeignObjectError, ValueError)) as caught:
        load_plain(pickle.dumps([value], protocol))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "opcodes",
    [
        b"cos\nsystem\n(S'touch evil'\ntR.",
        b"(S'touch evil'\nios\nsystem\n.",  # INST
        b"cnumpy\ndtype\n(S'u1'\ntR}S'__class__'\ncos\nsystem\nsb.",
        b"cnumpy\nndarray\n(K\x05tR.",
        b"cnumpy.core.multiarray\n_reconstruct\n(cos\nsystem\nK\x00\x85U\x01btR.",
        b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x04evil\x85R.",
        b"cnumpy\ndtype\n}S'x'\nK\x01sb.",  # a state of a name
        b"\x80\x02Ppersistent\n.",
        b"\x80\x02\x82\x01.",  # a registered extension
        b"cnumpy\nndarray\n)\x81.",  # NEWOBJ
    ],
)
def test_hostile_opcodes_are_refused(opcodes: bytes) -> None:
    with pytest.raises(ForeignObjectError):
        load_plain(opcodes)


@pytest.mark.parametrize(
    "opcodes",
    [b"", b".", b"K\x01", b"e.", b"(K\x01e.", b"K\x01K\x02e.", b"h\x07.", b"K\x01K\x02.", b"\x86."],
)
def test_damaged_opcodes_are_value_errors(opcodes: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        load_plain(opcodes)


def test_any_damage_is_a_value_error() -> None:
    data = of_python2(content(labels=[1, 2, 300], data=np.zeros((2, 3), np.uint8)))
    pickletools.dis(data, io.StringIO())  # the helper writes valid pickles
    rng = np.random.default_rng(0)
    warnings.simplefilter("ignore")  # of escapes in texts
    for _ in range(2000):
        damaged = bytearray(data)
        for at in rng.integers(0, len(data), 3):
            damaged[at] = rng.integers(256)
        with suppress(ValueError):
            load_plain(bytes(damaged[: rng.integers(1, len(data) + 1)]))
