"""JPEG files: checked, and decoded at full or reduced scale.

The codec is simplejpeg (libjpeg-turbo), which releases the interpreter lock. Decoding uses the fast
inverse DCT that FFCV uses, so pixels at full scale equal FFCV's bit for bit.
"""

from collections.abc import Sequence

import numpy as np
import simplejpeg

from beton.arrays import Uint8Array
from beton.codec import scaled_jpeg
from beton.errors import FormatError, SampleError

SIDE_LIMIT = 65500  # pixels, in libjpeg-turbo
REDUCTIONS = (8, 4, 2)  # scales 1/8, 1/4 and 1/2: libjpeg-turbo has fast inverse DCTs for them
PROCESSES = (0, 1, 2)  # baseline, extended sequential and progressive, with Huffman coding
SMALLEST = 8  # pixels a side, from which on the reduced size identifies the scale
# Parts of libjpeg-turbo's warnings of pixels that it cannot decode and fills with grey.
_LOSSES = ("premature end", "bad huffman code", "bad arithmetic code", "instead of rst")


def reduced(side: int, reduction: int) -> int:
    """Return the pixels of a side at the scale 1 / reduction; the last may be partly outside."""
    return -(-side // reduction)


def decode(
    data: Uint8Array, size: tuple[int, int], reduction: int = 1, buffer: Uint8Array | None = None
) -> Uint8Array:
    """Decode a JPEG of `size` (height, width) at the scale 1 / reduction: uint8 (h, w, 3).

    The pixels are written to `buffer`, contiguous and at least as large, if there is one. A
    reduction other than 1 needs sides of at least `SMALLEST` pixels. Raises FormatError if the
    JPEG is damaged or has another size.
    """
    try:
        found = simplejpeg.decode_jpeg_header(data)[:2]
        if found == size:  # checked before memory for the pixels is allocated
            least = [reduced(side, reduction) if reduction > 1 else 0 for side in size]
            image: Uint8Array = simplejpeg.decode_jpeg(
                data,
                colorspace="RGB",
                fastdct=True,
                min_height=least[0],
                min_width=least[1],
                buffer=buffer,
            )
            return image
    except ValueError as error:
        raise FormatError(f"JPEG cannot be decoded: {error}") from error
    raise FormatError("JPEG of another size", got=found, expected=size)


def decode_window(
    data: Uint8Array,
    size: tuple[int, int],
    reduction: int,
    window: Sequence[float],
    is_intact: bool,
    buffer: Uint8Array,
) -> None:
    """Do what `decode` does, but for a window only: other pixels of `buffer` may have any values.

    `window` is (left, top, width, height), in pixels of the reduced image. The pixels are those of
    `decode`, bit for bit. Unless the file is known to be intact, it is read to its end, so damage
    after the window is found too.
    """
    height, width = (reduced(side, reduction) for side in size)
    image = buffer[: 3 * height * width].reshape(height, width, 3)
    if not scaled_jpeg.decode(data, size, reduction, window, is_intact, image):
        decode(data, size, reduction, buffer)


def read_size(data: bytes | bytearray) -> tuple[int, int]:
    """Return (height, width) of a JPEG file that readers of .beton files decode, FFCV included.

    It is a baseline, extended or progressive JPEG in YCbCr or RGB. Raises SampleError for others.
    """
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError as error:
        raise SampleError(f"not a JPEG file that can be decoded: {error}") from error
    if space not in ("YCbCr", "RGB"):
        raise SampleError("not a colour JPEG", got=space, expected="YCbCr or RGB")
    if (process := _process(data)) not in PROCESSES:
        got, expected = f"coding process {process}", "baseline, extended or progressive"
        raise SampleError("not a common JPEG", got=got, expected=expected)
    return height, width


def require_complete(data: bytes | bytearray, size: tuple[int, int]) -> None:
    """Raise SampleError if a JPEG file does not decode completely, tested at the scale 1/8."""
    try:
        decode(np.frombuffer(data, np.uint8), size, 8 if min(size) >= SMALLEST else 1)
    except FormatError as error:
        raise SampleError(error.reason) from error


def find_damage(data: bytes | bytearray) -> tuple[str, bool]:
    """Return libjpeg-turbo's warning of a JPEG file, "" without one, and whether pixels are lost.

    A file of another kind than libjpeg-turbo decodes has a warning too, and no known loss.
    """
    try:
        height, width = simplejpeg.decode_jpeg_header(data)[:2]
        reduction = 8 if min(height, width) >= SMALLEST else 1
        least = reduced(height, reduction), reduced(width, reduction)
        simplejpeg.decode_jpeg(data, fastdct=True, min_height=least[0], min_width=least[1])
    except ValueError as error:
        warning = f"{error}"
        return warning, any(loss in warning.lower() for loss in _LOSSES)
    return "", False


def _process(data: bytes | bytearray) -> int | None:
    """Return the number of a JPEG's coding process, n of its marker SOFn; None without a frame."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # no DHT, JPG or DAC
            return marker - 0xC0
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None
