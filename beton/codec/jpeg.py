"""JPEG files: checked, and decoded at full or reduced scale.

The codec is simplejpeg (libjpeg-turbo), which releases the interpreter lock. Decoding uses the fast
inverse DCT that FFCV uses, so pixels at full scale equal FFCV's bit for bit.
"""

import simplejpeg

from beton.arrays import Uint8Array
from beton.errors import FormatError

SIDE_LIMIT = 65500  # pixels, in libjpeg-turbo
REDUCTIONS = (8, 4, 2)  # scales 1/8, 1/4 and 1/2: libjpeg-turbo has fast inverse DCTs for them
SMALLEST = 8  # pixels a side, from which on the reduced size identifies the scale


def reduced(side: int, reduction: int) -> int:
    """Return the pixels of a side at the scale 1 / reduction; the last one may be partly outside."""
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
