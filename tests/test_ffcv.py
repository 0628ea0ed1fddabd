"""beton reads the ffcv package's files, and the ffcv package reads beton's.

The package compiles kernels for seconds when it is imported: functions import it, so that a worker
that runs other files does not.
"""

import gc
import io
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
import torch
from ffcv_samples import SAMPLES, SIDE, Samples, image
from numpy.typing import NDArray
from PIL import Image

from beton import fields
from beton.fields.image import shrink
from beton.reader import Reader
from beton.writer import write

pytestmark = [
    pytest.mark.ffcv,
    pytest.mark.skipif(find_spec("ffcv") is None, reason="needs the extra `ffcv`"),
    pytest.mark.timeout(240),  # FFCV's writer waits forever for a worker that raised
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(autouse=True)
def collect() -> Iterator[None]:
    """Collect FFCV's compiled functions here: numba may fail on them in a later test.

    FFCV's parallel kernels set OpenMP's number of threads, which torch shares. FFCV also makes
    numba's types read-only, which all functions share that are compiled later.
    """
    threads = torch.get_num_threads()
    shared = [numba.uint8[::1], numba.uint8[:, ::1], numba.uint32[::1], numba.uint64[::1]]
    yield
    torch.set_num_threads(threads)
    gc.collect()  # with the types that the functions were compiled for
    for one in shared:
        vars(one).pop("mutable", None)


Sample = dict[str, Any]

OURS = {
    "float": fields.FloatField(),
    "int": fields.IntField(),
    "raw": fields.RGBImageField("raw"),
    "jpg": fields.RGBImageField("jpg"),
    "bytes": fields.BytesField(),
    "array": fields.NDArrayField(np.dtype("<i4"), (2, 3)),
    "json": fields.JSONField(),
    "tensor": fields.TorchTensorField("torch.float32", (2, 1, 2)),
    "big": fields.NDArrayField(np.dtype("u1"), (16, 1024)),
}


def their_fields() -> dict[str, Any]:
    import ffcv.fields as theirs

    return {
        "float": theirs.FloatField(),
        "int": theirs.IntField(),
        "raw": theirs.RGBImageField("raw"),
        "jpg": theirs.RGBImageField("jpg"),
        "bytes": theirs.BytesField(),
        "array": theirs.NDArrayField(np.dtype("<i4"), (2, 3)),
        "json": theirs.JSONField(),
        "tensor": theirs.TorchTensorField(torch.float32, (2, 1, 2)),
        "big": theirs.NDArrayField(np.dtype("u1"), (16, 1024)),
    }


@pytest.fixture(scope="module")
def our_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ours") / "ours.beton"
    write(path, OURS, Samples(), info={"classes": ["a", "b"]}, workers=2)
    return path


def write_theirs(path: Path, samples: Any, their_fields: dict[str, Any]) -> Path:
    import ffcv

    writer = ffcv.DatasetWriter(str(path), their_fields, num_workers=2, page_size=1 << 21)
    writer.from_indexed_dataset(samples, chunksize=7)
    return path


@pytest.fixture(scope="module")
def their_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("theirs") / "theirs.beton"
    return write_theirs(path, Samples(with_empty=False), their_fields())


def iterate(path: Path, os_cache: bool, **options: Any) -> Iterator[Sample]:
    import ffcv

    loader = ffcv.Loader(
        str(path), batch_size=32, num_workers=2, os_cache=os_cache, drop_last=False, **options
    )
    names = list(loader.reader.handlers)
    for batch in loader:
        arrays = [value.numpy() for value in batch]
        for row in zip(*arrays, strict=True):
            yield dict(zip(names, (value.copy() for value in row), strict=True))


def write_jpeg(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    record = np.zeros(1, fields.RGBImageField.metadata_dtype)
    return np.frombuffer(fields.RGBImageField("jpg").encode(image, record, 0), np.uint8)


def their_pixels(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Decode a JPEG like FFCV."""
    from ffcv.libffcv import imdecode

    out = np.zeros((*SIDE, 3), np.uint8)
    imdecode(data, out, *SIDE, *SIDE, 0, 0, 1, 1, False, False)
    return out


def same(sample: Sample, expected: tuple[Any, ...]) -> None:
    """Compare a sample, except JPEG pixels, with the written values."""
    from ffcv.fields import JSONField

    for name, wanted in zip(Samples.names, expected, strict=True):
        got = sample[name]
        if name == "bytes":
            got, wanted = bytes(got)[: len(wanted)], bytes(wanted)
        elif name == "json":
            got = JSONField.unpack(got) if isinstance(got, np.ndarray) else got
        if name == "tensor":
            wanted = wanted.numpy()
        if name == "json":
            assert got == wanted
        elif name != "jpg":
            np.testing.assert_array_equal(np.squeeze(got), np.squeeze(wanted), err_msg=name)


@pytest.mark.parametrize("os_cache", [True, False], ids=["os cache", "process cache"])
def test_ffcv_iterates_our_file_with_equal_values(our_file: Path, os_cache: bool) -> None:
    reader = Reader(our_file)
    assert len(np.unique(reader.column("big").take().starts // reader.page_size)) > 3
    samples = list(iterate(our_file, os_cache))
    assert len(samples) == SAMPLES
    for i, sample in enumerate(samples):
        same(sample, Samples()[i])
        np.testing.assert_array_equal(sample["jpg"], reader[i]["jpg"])


def test_we_read_their_file_as_they_do(their_file: Path) -> None:
    reader = Reader(their_file)
    assert reader.info == {}
    assert reader.manifest is None
    for i, sample in enumerate(iterate(their_file, os_cache=True)):
        ours, expected = reader[i], Samples(with_empty=False)[i]
        same(sample, expected)
        same(ours, expected)
        np.testing.assert_array_equal(ours["jpg"], sample["jpg"])


def test_we_read_their_empty_values_which_they_confuse(tmp_path: Path) -> None:
    import ffcv

    reader = Reader(write_theirs(tmp_path / "theirs.beton", Samples(), their_fields()))
    regions = np.fromfile(
        reader.path,
        "<u8",
        offset=int(ffcv.reader.Reader(str(reader.path)).header["alloc_table_ptr"]),
    )
    assert (regions.reshape(-1, 3)[:, 2] == 0).sum() == SAMPLES * 2 // 5
    for i in range(SAMPLES):
        same(reader[i], Samples()[i])


class Numbers:
    """Samples without payloads: FFCV writes no page."""

    def __len__(self) -> int:
        return 20

    def __getitem__(self, i: int) -> tuple[float, int]:
        return i / 2, int(i)


def test_both_read_files_of_numbers_only(tmp_path: Path) -> None:
    import ffcv.fields as theirs

    numbers = {"a": theirs.FloatField(), "b": theirs.IntField()}
    reader = Reader(write_theirs(tmp_path / "theirs.beton", Numbers(), numbers))
    assert [tuple(reader[i].values()) for i in range(20)] == [Numbers()[i] for i in range(20)]
    write(tmp_path / "ours.beton", {"a": OURS["float"], "b": OURS["int"]}, Numbers())
    samples = iterate(tmp_path / "ours.beton", os_cache=True)
    assert [(s["a"].item(), s["b"].item()) for s in samples] == [Numbers()[i] for i in range(20)]


@pytest.mark.parametrize("size", [(60, 80), (61, 37), (90, 12), (64, 64)])
@pytest.mark.parametrize("longest", [8, 31, 45, 300])
def test_max_resolution_is_theirs_within_a_level(size: tuple[int, int], longest: int) -> None:
    from ffcv.fields.rgb_image import resizer

    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    ours, expected = shrink(image, longest), resizer(image, longest)
    assert ours.shape == expected.shape
    assert np.abs(ours.astype(int) - expected).max() <= 1


def test_torch_tensors_and_dtypes_are_accepted(tmp_path: Path) -> None:
    tensors = [torch.arange(i, i + 4).reshape(2, 2) for i in range(3)]
    field = fields.TorchTensorField(torch.int64, (2, 2))
    write(tmp_path / "ours.beton", {"t": field}, [(tensor,) for tensor in tensors])
    reader = Reader(tmp_path / "ours.beton")
    assert all(np.array_equal(reader[i]["t"], tensors[i].numpy()) for i in range(3))


def their_ink() -> type:
    """Return the class that FFCV needs to read the other fields of a file with an ink field."""
    import ffcv.fields as theirs

    class TheirInk(theirs.Field):  # type: ignore[misc]
        metadata_type = fields.InkField.metadata_dtype

        @staticmethod
        def from_binary(_: Any) -> "TheirInk":
            return TheirInk()

        def to_binary(self) -> Any:
            raise NotImplementedError

        def encode(self, *_: Any) -> None:
            raise NotImplementedError

        def get_decoder_class(self) -> Any:
            raise NotImplementedError

    return TheirInk


def test_ffcv_skips_our_own_field(tmp_path: Path) -> None:
    import ffcv

    path = tmp_path / "ours.beton"
    pages = np.random.default_rng(0).integers(254, 256, (20, 30, 40)).astype(np.uint8)
    pages[7] = 255  # takes no bytes
    ours = {"n": fields.IntField(), "ink": fields.InkField(), "b": fields.BytesField()}
    write(path, ours, [(i, page, bytes([i])) for i, page in enumerate(pages)])
    options: dict[str, Any] = {"custom_fields": {"ink": their_ink()}, "pipelines": {"ink": None}}
    loader = ffcv.Loader(str(path), 5, num_workers=2, drop_last=False, **options)
    found = [
        (n.item(), bytes(b))
        for numbers, texts in loader
        for n, b in zip(numbers.numpy(), texts.numpy(), strict=True)
    ]
    assert found == [(i, bytes([i])) for i in range(20)]


@pytest.mark.parametrize("i", range(3))
def test_jpeg_pixels_equal_theirs_for_either_codec(i: int) -> None:
    from ffcv.fields.rgb_image import encode_jpeg

    for data in (encode_jpeg(image(i), 90), write_jpeg(image(i))):
        record = np.array([(0, SIDE[1], SIDE[0], 0)], fields.RGBImageField.metadata_dtype)[0]
        ours = fields.RGBImageField().decode(record, data)
        np.testing.assert_array_equal(ours, their_pixels(data))


def test_ffcv_reads_stored_jpeg_files(tmp_path: Path) -> None:
    path = tmp_path / "ours.beton"
    files = []
    for i in range(8):
        file = io.BytesIO()
        options = {"progressive": i % 2 == 0, "subsampling": i % 3, "quality": 60 + 5 * i}
        Image.fromarray(image(i)).save(file, "JPEG", **options)
        files.append((file.getvalue(),))
    write(path, {"jpg": fields.RGBImageField("raw")}, files)
    reader = Reader(path)
    samples = list(iterate(path, os_cache=True))
    assert len(samples) == len(files)
    for i, sample in enumerate(samples):
        np.testing.assert_array_equal(sample["jpg"], reader[i]["jpg"])
