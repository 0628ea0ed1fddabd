"""Decodes an image file of any format to grey levels and colours, upright and on paper.

Pillow decodes all formats and all unusual or damaged files; a plain PNG takes a fast path. Opaque
8-bit images equal Pillow's `convert("L")` and `convert("RGB")`. Grey images of more than 8 bits
keep their values, because only the whole dataset shows how to scale them; colours have 8 bits.
Colour profiles are ignored; files whose profile is not sRGB are reported.
"""

import importlib
import warnings
from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, UnidentifiedImageError, features

from beton.codec import jpeg
from pipeline.data.base import Decoded, Grey, ImageError, Pixels
from pipeline.data.pixels.formats import ANIMATED, FORMATS, sniff
from pipeline.data.pixels.measures import DOUBTFUL, PROFILED, TURNED, UNREADABLE
from pipeline.data.pixels.png.chunks import without_texts
from pipeline.data.pixels.png.decoder import LONGEST_SIDE, decode_plain_png
from pipeline.data.pixels.tiff import is_preview, tiff_pages
from pipeline.data.pixels.transparency import OPAQUE, blend, change_of, put_on_paper

_ORIENTATION = 0x0112  # the EXIF tag
_PHOTOMETRIC, _BITS, _SAMPLE_FORMAT = 262, 258, 339  # TIFF tags
_UNSIGNED = 1
_DEEP = {"I": np.int32, "F": np.float32}
_WORDS = "I;16"  # the beginning of the modes with 16 bits
# The XYZ of sRGB's red, green and blue in a profile (D50), and how far a rounded copy may deviate.
_SRGB = ((0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141))
_SRGB_TOLERANCE = 0.01
_CORRUPT = "Corrupt JPEG data: "  # the beginning of libjpeg-turbo's warnings of wrong data
_COLOURS = ("RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB", "P", "PA")  # the modes


def pages(data: bytes | bytearray) -> tuple[int, ...]:
    """Return the frames of a TIFF file that are pages, (0,) for every other format."""
    return tiff_pages(data) if sniff(data) == "TIFF" else (0,)


def decode(data: bytes | bytearray, page: int = 0) -> Decoded:
    """Decode an image file, or the frame `page` of a TIFF file.

    Raises ImageError for bytes that are no image or a damaged one, for animations, for sides longer
    than 65,535 pixels, and for more pixels than `PIL.Image.MAX_IMAGE_PIXELS`, before anything is
    inflated.
    """
    if not data:
        raise ImageError("the file is empty")
    plain = decode_plain_png(data)
    return _decode_with_pillow(data, page) if plain is None else plain


def _what_else(head: bytes) -> str:
    """Return what a file is that often lies in an image's place, "" if it is none of these."""
    if head.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS, not the image: git lfs pull downloads it"
    if head.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "a web page, not an image: its download failed"
    return ""


def _decode_with_pillow(data: bytes | bytearray, page: int) -> Decoded:
    kind = sniff(data)
    if kind is None:
        raise ImageError(_what_else(bytes(data[:64])) or f"not recognised as {', '.join(FORMATS)}")
    if kind == "AVIF" and not features.check("avif"):
        raise ImageError("AVIF needs a Pillow that was built with AVIF support")
    if kind == "TIFF" and is_preview(data, page):
        raise ImageError("holds a reduced copy of an image in a format of raw photographs")
    if kind == "PNG":
        data = without_texts(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about metadata; damaged pixels raise
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with _open(data, kind) as image:
                return _convert(image, kind, page, data)
        except ImageError:
            raise
        except (Image.DecompressionBombWarning, Image.DecompressionBombError):
            limit = Image.MAX_IMAGE_PIXELS
            raise ImageError(f"got too many pixels, expected at most {limit:,}") from None
        except UnidentifiedImageError:
            raise ImageError(f"damaged {kind} file") from None
        except Exception as error:  # Pillow raises many types for damaged bytes
            raise ImageError(f"{error}" or type(error).__name__) from error


def _open(data: bytes | bytearray, kind: str) -> Image.Image:
    """Open a file without decoding its pixels."""
    if kind != "HEIC":
        return Image.open(BytesIO(data), formats=(kind,))
    try:
        heif: Any = importlib.import_module("pillow_heif")
    except ImportError:
        raise ImageError("HEIC needs pillow-heif: ./launch.sh setup heic") from None
    file = heif.open_heif(BytesIO(data))
    _check_size(*file.size)
    image: Image.Image = file.to_pillow()
    return image


def _check_size(width: int, height: int) -> None:
    """Raise ImageError for an image that is too large to decode."""
    if max(width, height) > LONGEST_SIDE:
        raise ImageError(f"got {width}×{height} pixels, expected at most 65,535 a side")
    limit = Image.MAX_IMAGE_PIXELS
    if limit and width * height > limit:
        raise ImageError(f"got {width * height:,} pixels, expected at most {limit:,}")


def _convert(image: Image.Image, kind: str, page: int, data: bytes | bytearray) -> Decoded:
    """Convert an open image of the file `data` to grey levels and colours, upright and on paper."""
    if kind in ANIMATED and (frames := getattr(image, "n_frames", 1)) > 1:
        raise ImageError(f"animated: {frames:,} frames, expected one image")
    if page:
        image.seek(page)
    _check_size(*image.size)
    mode = image.mode
    # Pillow turns TIFF images itself when it loads them, and then forgets the orientation.
    orientation = _orientation(image) if kind == "TIFF" else None
    inverted = _white_is_zero(image) if kind == "TIFF" else 0
    unsigned = kind == "TIFF" and _is_unsigned(image)
    if kind == "TIFF" and mode in _COLOURS and _bits(image) == 16:
        mode = f"{mode};16"
    image.load()
    doubtful = kind == "JPEG" and _is_doubtful(data)
    if kind != "TIFF":
        orientation = _orientation(image)
    grey, colour, paper = _to_pixels(image, kind)
    if inverted:
        grey = inverted - grey
    if unsigned and grey.min() < 0:  # Pillow reads all 32-bit numbers as signed
        grey = grey.view(np.uint32).astype(np.float32)
    if kind != "TIFF":
        grey = _turn(grey, orientation or 1)
        colour = None if colour is None else _turn(colour, orientation or 1)
    turned = UNREADABLE if orientation is None else TURNED if orientation > 1 else None
    changes = ((turned,) if turned else ()) + change_of(paper) + ((DOUBTFUL,) if doubtful else ())
    if colour is not None and not _is_srgb(image.info.get("icc_profile") or b""):
        changes += (PROFILED,)
    storable = kind == "JPEG" and mode == "RGB" and turned != TURNED and not doubtful
    file = bytes(data) if storable else None
    return Decoded(np.ascontiguousarray(grey), mode, changes, colour, file)


@lru_cache(maxsize=64)  # the images of a dataset have few profiles
def _is_srgb(profile: bytes) -> bool:
    """Return whether a colour profile has sRGB's primaries; True for an empty or damaged one."""
    if not profile:
        return True
    try:
        found: Any = ImageCms.ImageCmsProfile(BytesIO(profile)).profile
        colorants = found.red_colorant, found.green_colorant, found.blue_colorant
    except OSError:  # not a profile
        return True
    if None in colorants:  # of CMYK, or described by tables
        return False
    deviations = np.abs(np.array([xyz for xyz, _ in colorants]) - _SRGB)
    return bool(deviations.max() <= _SRGB_TOLERANCE)


def _is_doubtful(data: bytes | bytearray) -> bool:
    """Return whether the data of a JPEG file have a flaw, such as superfluous bytes.

    Raises ImageError if pixels are lost. Pillow fills them with grey, and does not tell.
    """
    warning, is_lost = jpeg.find_damage(data)
    if is_lost:
        raise ImageError(f"damaged JPEG file: {warning.removeprefix(_CORRUPT)}")
    return warning.startswith(_CORRUPT)


def _orientation(image: Image.Image) -> int | None:
    """Return the EXIF orientation, 1 to 8, where 1 is upright; None if it cannot be read."""
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # Pillow raises many types; the pixels are right, and the survey counts them
        return None
    return orientation if orientation in range(1, 9) else 1


def _turn(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn grey levels (h, w) or colours (h, w, 3) upright."""
    if orientation >= 5:  # rows and columns are exchanged
        pixels = pixels.swapaxes(0, 1)
        orientation = {5: 1, 6: 2, 7: 3, 8: 4}[orientation]
    if orientation in (2, 3):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4):
        pixels = pixels[::-1]
    return pixels


def _white_is_zero(image: Any) -> int:
    """Return the greatest value of a deep TIFF image whose least is white, 0 for other images.

    Pillow inverts images of up to 8 bits itself.
    """
    if not image.mode.startswith(_WORDS) or image.tag_v2.get(_PHOTOMETRIC) != 0:
        return 0
    return int((1 << image.tag_v2.get(_BITS, (16,))[0]) - 1)


def _bits(image: Any) -> int:
    """Return the bits of a TIFF image's values, 1 for an image that does not state them."""
    return int(image.tag_v2.get(_BITS, (1,))[0])


def _is_unsigned(image: Any) -> bool:
    """Return whether a TIFF image holds whole numbers of 32 bits without a sign."""
    formats = image.tag_v2.get(_SAMPLE_FORMAT, (_UNSIGNED,))
    return bool(image.mode == "I" and formats[0] == _UNSIGNED)


def _to_pixels(image: Image.Image, kind: str) -> tuple[Grey, Pixels | None, int]:
    """Return grey levels (h, w) and colours of a loaded image, and the result of `put_on_paper`.

    The colours (h, w, 3) are None for a grey image, and for a palette of grey levels.
    """
    transparent = image.info.get("transparency")
    if image.mode.startswith(_WORDS) or image.mode in _DEEP:
        grey, paper = _deep_grey(image, transparent)
        return grey, None, paper
    if image.mode == "LAB":
        return np.array(image.getchannel("L")), _from_lab(image), OPAQUE
    coloured = image.mode in _COLOURS
    if image.has_transparency_data:
        pixels = np.array(image.convert("RGBA"))
        alpha = pixels[:, :, 3]
        # Some programs write BMP files whose fourth byte is unused and 0.
        if not (kind == "BMP" and not alpha.any()):
            opaque = Image.fromarray(pixels[:, :, :3])
            grey = np.array(opaque.convert("L"))
            if (paper := put_on_paper(grey, alpha)) != OPAQUE:
                return grey, blend(pixels, paper) if coloured else None, paper
    image.info.pop("transparency", None)  # converting it too can fail, and changes no pixel
    grey = np.array(image.convert("L"))
    colour = None
    if coloured:
        colour = np.array(image if image.mode == "RGB" else image.convert("RGB"))
    if image.mode in ("P", "PA") and colour is not None and _is_grey(colour):
        colour = None
    return grey, colour, OPAQUE


def _is_grey(colour: Pixels) -> bool:
    """Return whether the three channels of colours (h, w, 3) are equal."""
    return bool((colour[:, :, :1] == colour[:, :, 1:]).all())


def _from_lab(image: Image.Image) -> Pixels:
    """Return the sRGB colours (h, w, 3) of an image of the mode LAB."""
    profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, *profiles, outputMode="RGB")
    assert converted is not None  # it is not converted in place
    return np.array(converted)


def _deep_grey(image: Image.Image, transparent: Any) -> tuple[Grey, int]:
    """Return the grey levels (h, w) of an image of more than 8 bits, as for `_to_grey`."""
    grey = np.array(image).astype(_DEEP.get(image.mode, np.uint16))
    if image.mode == "F" and not np.isfinite(grey).all():
        raise ImageError("got NaN or infinite grey levels, expected finite ones")
    if isinstance(transparent, int) and (clear := grey == transparent).any():
        opaque = grey[~clear]
        middle = 1 << 15
        paper = 0 if opaque.size and opaque.mean() >= middle else 255
        grey[clear] = 257 * paper
        return grey, paper
    return grey, OPAQUE
