"""Raw archives for tests: images, folders, zips and IDX files."""

import gzip
import io
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]


def pillow(data: bytes) -> Pixels:
    """The pixels that Pillow decodes, as the reference."""
    return np.array(Image.open(io.BytesIO(data)).convert("L"))


def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def picture(number: int, height: int = 5, width: int = 7) -> bytes:
    """A PNG of dark ink on light paper that depends on `number`."""
    ink = scattered_ink(np.random.default_rng(number), 1, height, width)[0]
    return saved(Image.fromarray(250 - ink))


def scattered_ink(generator: np.random.Generator, count: int, height: int, width: int) -> Pixels:
    """Some pixels of ink, 150 to 249, on black paper that is free at the border: (n, h, w)."""
    ink = generator.integers(150, 250, (count, height, width), dtype=np.uint8)
    ink *= generator.random(ink.shape) < 0.3
    ink[:, height // 2, width // 2] = generator.integers(150, 250, count)
    ink[:, [0, -1]] = ink[:, :, [0, -1]] = 0
    return ink


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    rows: Pixels,
    filters: Sequence[int],
    colour_type: int,
    channels: int,
    before: bytes = b"",
    between: bytes = b"",
    after: bytes = b"",
) -> bytes:
    """A PNG of already filtered rows (h, bytes) and the filters that it declares.

    `before`, `between` and `after` are chunks around and between the pixels.
    """
    height, stride = rows.shape
    header = struct.pack(">IIBBBBB", stride // channels, height, 8, colour_type, 0, 0, 0)
    filtered = b"".join(bytes([f]) + row.tobytes() for f, row in zip(filters, rows, strict=True))
    compressed = zlib.compress(filtered)
    middle = len(compressed) // 2  # in two chunks, like large files
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            before,
            chunk(b"IDAT", compressed[:middle]),
            between,
            chunk(b"IDAT", compressed[middle:]),
            after,
            chunk(b"IEND", b""),
        )
    )


def make_tree(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def make_zip(path: Path, files: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(
                zipfile.ZipInfo(name), data, method
            )  # a fixed date: the same bytes every time
    return path


def folders(classes: Sequence[str] = ("0", "1", "10"), count: int = 4) -> dict[str, bytes]:
    """Files of a dataset with a folder per class."""
    return {
        f"{name}/{i}.png": picture(100 * c + i)
        for c, name in enumerate(classes)
        for i in range(count)
    }


def midas(numbers: Sequence[int] = (1, 11, 37), writers: int = 4) -> dict[str, bytes]:
    """Files of a dataset with the structure of MIDAS part 1."""
    return {
        f"hand writing/Sample{n:03}/img{n:03}-{w + 1:03}.png": picture(100 * n + w, 50, 90)
        for n in numbers
        for w in range(writers)
    }


def idx(array: Pixels) -> bytes:
    return (
        bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    ) + array.tobytes()


def idx_pair(prefix: str, images: Pixels, labels: Sequence[int], packed: bool) -> dict[str, bytes]:
    """Files of an IDX pair; `prefix` is for example "emnist-letters-train"."""
    pair = {
        f"{prefix}-images-idx3-ubyte": idx(images),
        f"{prefix}-labels-idx1-ubyte": idx(np.array(labels, np.uint8)),
    }
    return {f"{k}.gz": gzip.compress(v) for k, v in pair.items()} if packed else pair


def digits(count: int, seed: int = 0) -> tuple[Pixels, list[int]]:
    """Light ink on dark paper, images (count, 4, 6), and labels 0 to 9."""
    images = scattered_ink(np.random.default_rng(seed), count, 4, 6)
    return images, [i % 10 for i in range(count)]
