"""Bytes of a picture file → 8-bit grey pixels, exactly those of Pillow's `convert("L")`.

Pillow opens every file and has the last word. A plain PNG (8 bits a channel, not interlaced), which
is what pages of handwriting are, then takes a short cut of a seventh of the time: libdeflate
inflates it in one call, and one compiled pass undoes the filters and weighs the channels by
Pillow's own formula. Whatever is unusual or damaged is left to Pillow, so the short cut decides
neither what can be read nor what it looks like.
"""

import struct
import warnings
from io import BytesIO

import deflate
import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngImageFile

from beton.jit import kernel
from pipeline.sources.base import PictureError, Pixels

# Only these are tried: some of Pillow's other formats start programs or fetch other files.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
)
LONGEST_SIDE = 65535
_CHANNELS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}


def decode(data: bytes | bytearray) -> Pixels:
    """Return the first frame of a picture file as uint8 (h, w); EXIF rotation is not applied.

    Raises PictureError for bytes that Pillow cannot decode, for more pixels than
    `PIL.Image.MAX_IMAGE_PIXELS` (declared ones: nothing is inflated then), and for sides longer
    than 65,535 pixels.
    """
    if not data:
        raise PictureError("the file is empty")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # oddities of metadata; what matters raises
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            return _decode(data)
        except PictureError:
            raise
        except UnidentifiedImageError:
            raise PictureError(f"not recognised as {', '.join(FORMATS)}") from None
        except Exception as error:  # Pillow's decoders raise whatever damaged bytes trip them with
            raise PictureError(f"{error}" or type(error).__name__) from error


def _decode(data: bytes | bytearray) -> Pixels:
    with Image.open(BytesIO(data), formats=FORMATS) as image:
        if max(image.size) > LONGEST_SIDE:
            width, height = image.size
            raise PictureError(f"{width}×{height} pixels: the longest side is {LONGEST_SIDE}")
        if isinstance(image, PngImageFile):
            pixels = _decode_plain_png(image, data)
            if pixels is not None:
                return pixels
        # Converting the transparent colour as well may fail or warn, and changes no pixel.
        image.load()
        image.info.pop("transparency", None)
        return np.array(image.convert("L"))


def _decode_plain_png(image: PngImageFile, data: bytes | bytearray) -> Pixels | None:
    """Return the pixels of a PNG that is in no way unusual, None for others."""
    if len(image.tile) != 1 or image.info.get("interlace") or image.is_animated:
        return None
    channels = _CHANNELS.get(str(image.tile[0].args))
    if channels is None:
        return None
    width, height = image.size
    stride = 1 + width * channels
    compressed = _join_idat(data, image.tile[0].offset - 8)
    if compressed is None:
        return None
    try:
        inflated = deflate.zlib_decompress(compressed, height * stride)
    except deflate.DeflateError:
        return None
    if len(inflated) != height * stride:
        return None
    rows = np.frombuffer(inflated, np.uint8).reshape(height, stride)
    if not _unfilter(rows, channels):
        return None
    if channels < 3:
        return np.ascontiguousarray(rows[:, 1::channels])
    pixels = np.empty((height, width), np.uint8)
    _weigh(rows, channels, pixels)
    return pixels


def _join_idat(data: bytes | bytearray, position: int) -> bytes | None:
    """Return the compressed stream that starts at `position`; None unless it ends the file."""
    parts: list[memoryview] = []
    view = memoryview(data)
    while position + 12 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, position)
        if kind == b"IEND":
            return b"".join(parts)
        if kind != b"IDAT":
            return None
        parts.append(view[position + 8 : position + 8 + size])
        position += 12 + size
    return None


@kernel
def _unfilter(rows: Pixels, step: int) -> bool:
    """Undo PNG's filters in place: rows (h, 1 + bytes), each led by its filter's number.

    `step` is the number of bytes a pixel. Returns False for a filter that does not exist.
    """
    height, stride = rows.shape
    for y in range(height):
        kind = rows[y, 0]
        if kind > 4:
            return False
        if kind == 1 or (kind == 4 and y == 0):
            for x in range(1 + step, stride):
                rows[y, x] += rows[y, x - step]
        elif kind == 2 and y > 0:
            for x in range(1, stride):
                rows[y, x] += rows[y - 1, x]
        elif kind == 3:
            for x in range(1, stride):
                left = np.uint32(rows[y, x - step]) if x > step else np.uint32(0)
                above = np.uint32(rows[y - 1, x]) if y > 0 else np.uint32(0)
                rows[y, x] += np.uint8((left + above) >> np.uint32(1))
        elif kind == 4:
            for x in range(1, 1 + step):
                rows[y, x] += rows[y - 1, x]
            for x in range(1 + step, stride):
                left_, above_ = np.int32(rows[y, x - step]), np.int32(rows[y - 1, x])
                corner = np.int32(rows[y - 1, x - step])
                # The first two cases are Paeth's rule too; they make blank paper quick.
                if above_ == corner:
                    nearest = left_
                elif left_ == corner:
                    nearest = above_
                else:
                    to_left, to_above = abs(above_ - corner), abs(left_ - corner)
                    to_corner = abs(left_ + above_ - corner - corner)
                    nearest = above_ if to_above <= to_corner else corner
                    if to_left <= to_above and to_left <= to_corner:
                        nearest = left_
                rows[y, x] += np.uint8(nearest)
    return True


@kernel
def _grey(row: Pixels, i: int) -> np.uint8:
    """Return the luma of the red, green and blue at row[i]: ITU-R 601-2 in units of 2^-16."""
    red, green, blue = np.uint32(row[i]), np.uint32(row[i + 1]), np.uint32(row[i + 2])
    weighed = red * np.uint32(19595) + green * np.uint32(38470) + blue * np.uint32(7471)
    return np.uint8((weighed + np.uint32(0x8000)) >> np.uint32(16))


@kernel
def _weigh(rows: Pixels, step: int, out: Pixels) -> None:
    """Write the grey values of unfiltered rows (h, 1 + w * step), step 3 or 4, into out (h, w)."""
    height, width = out.shape
    for y in range(height):
        row = rows[y, 1:]
        if step == 3:  # a step that is known when compiling lets this run on vectors
            for x in range(width):
                out[y, x] = _grey(row, 3 * x)
        else:
            for x in range(width):
                out[y, x] = _grey(row, 4 * x)
