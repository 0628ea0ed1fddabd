"""A small dataset with a field of every kind, and functions that take its file apart."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beton import fields
from beton.format import layout
from beton.writer import write

FIELDS: dict[str, fields.Field] = {
    "float": fields.FloatField(),
    "int": fields.IntField(),
    "raw": fields.RGBImageField("raw"),
    "jpg": fields.RGBImageField("jpg"),
    "bytes": fields.BytesField(),
    "array": fields.NDArrayField("<i2", (2, 3)),
    "json": fields.JSONField(),
    "tensor": fields.TorchTensorField("torch.float32", (4,)),
    "ink": fields.InkField(),
}
INFO = {"classes": ["a", "b", "c"], "note": "é"}


@dataclass(frozen=True)
class EveryField:
    """Small samples by index, different in each field."""

    samples: int = 12

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {
            "float": i / 4 - 1,
            "int": i * 10**15 - 5,
            "raw": smooth(i, 5, 4),
            "jpg": smooth(i, 19, 18),
            "bytes": b"" if i % 4 == 1 else bytes(range(i, 2 * i + 1)),
            "array": np.arange(6, dtype="<i2").reshape(2, 3) - i,
            "json": {"i": i, "list": [None, True, "é"]},
            "tensor": np.arange(4, dtype="<f4") / (i + 1),
            "ink": ink_image(i),
        }


def smooth(i: int, height: int, width: int) -> NDArray[np.uint8]:
    y, x, c = np.mgrid[:height, :width, :3]
    waves: NDArray[np.float64] = np.sin((y * (c + 1) + x * (i + 1)) / 5)
    return (127.5 + 127.5 * waves).astype(np.uint8)


def ink_image(i: int) -> NDArray[np.uint8]:
    """An image of flat runs, grey runs, raw pixels or no runs, in turn."""
    page = np.full((30, 40), 255, np.uint8)
    if i % 4 == 0:
        page[5:20, 10 + i : 14 + i] = 0
        page[8, 25:30] = 0
    elif i % 4 == 1:
        page[5:20, 10:14] = [90, 3, i, 60]
    elif i % 4 == 2:
        page[:] = np.random.default_rng(i).integers(0, 256, page.shape)
    return page


def write_every_field(path: Path, samples: int = 12, **options: Any) -> bytes:
    """Write the dataset on small pages and return the file's bytes."""
    write(path, FIELDS, EveryField(samples), info=INFO, page_size=4096, **options)
    return path.read_bytes()


def same(got: Any, expected: Any) -> bool:
    """Compare two samples; arrays by dtype, shape and every bit."""
    if isinstance(expected, dict):
        return list(got) == list(expected) and all(same(got[k], expected[k]) for k in expected)
    if isinstance(expected, np.ndarray):
        return (
            isinstance(got, np.ndarray)
            and (got.dtype, got.shape) == (expected.dtype, expected.shape)
            and got.tobytes() == expected.tobytes()
        )
    return type(got) is type(expected) and bool(got == expected)


def parts(data: bytes) -> layout.Layout:
    return layout.parse(np.frombuffer(data, np.uint8))


def without_manifest(data: bytes) -> bytes:
    """Convert the file to one that FFCV could have written: whole pages and no manifest."""
    found = parts(data)
    end = layout.align(found.data_end - found.data_start, found.page_size) + found.data_start
    header = np.frombuffer(data, layout.HEADER, 1).copy()
    header["alloc_table_ptr"] = end
    pages = data[24 : found.data_end] + bytes(end - found.data_end)
    return header.tobytes() + pages + data[found.table_start : -24]
