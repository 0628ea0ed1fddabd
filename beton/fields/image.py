"""Fields of images: RGB images, byte for byte as FFCV stores them, and ink images."""

import operator
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import simplejpeg

from beton import rng
from beton.arrays import Array, Int64Array, Uint8Array
from beton.codec import ink, jpeg
from beton.codec.unpacking import GREY, RAW
from beton.errors import FormatError, SampleError
from beton.fields.base import UNKNOWN, Field, Payload, first_true

MAX_PIXELS = 1 << 28  # per image: a damaged or hostile size must not exhaust a reader's memory


@dataclass(frozen=True)
class RGBImageField(Field):
    """A colour image, uint8 (h, w, 3), stored as raw pixels or JPEG.

    `write_mode` is "raw", "jpg", "smart" or "proportion". "smart" writes a JPEG if the pixels take
    more than `smart_threshold` bytes (None: never), as FFCV's code does. "proportion" writes a JPEG
    with probability `compress_probability`, by a hash of the sample's index, so that the choice
    does not depend on the worker. Images larger than `max_resolution` are area-averaged in float64
    until their longest side has that many pixels; OpenCV, which FFCV uses, may differ by one level.

    A value is an image, or the bytes of a JPEG file, which are stored as they are, so that no image
    is compressed twice. `beton.codec.jpeg` decodes JPEGs; the pixels equal FFCV's bit for bit.
    """

    write_mode: str = "raw"
    max_resolution: int | None = None
    smart_threshold: int | None = None
    jpeg_quality: int = 90
    compress_probability: float = 0.5

    type_id = 2
    metadata_dtype = np.dtype(
        [("mode", "<u1"), ("width", "<u2"), ("height", "<u2"), ("data_ptr", "<u8")]
    )
    sizes_in_records = False
    JPG: ClassVar[int] = 0
    RAW: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.write_mode not in ("raw", "jpg", "smart", "proportion"):
            raise SampleError(
                "write_mode", got=repr(self.write_mode), expected="raw, jpg, smart or proportion"
            )
        if self.max_resolution is not None:
            if not 1 <= self.max_resolution <= 65535:
                raise SampleError("max_resolution", got=self.max_resolution, expected="1 to 65535")
            # A plain int, for the JSON of the manifest.
            object.__setattr__(self, "max_resolution", operator.index(self.max_resolution))
        if not 1 <= self.jpeg_quality <= 100:
            raise SampleError("jpeg_quality", got=self.jpeg_quality, expected="1 to 100")
        if not 0 <= self.compress_probability <= 1:
            raise SampleError(
                "compress_probability", got=self.compress_probability, expected="0 to 1"
            )

    def encode(self, value: Any, record: Array, sample: int) -> Payload:
        """Store a uint8 (h, w, 3) array, a value that `np.asarray` turns into one, or a JPEG file.

        A JPEG file, as bytes or bytearray, is stored byte for byte, whatever the write mode.
        """
        if isinstance(value, bytes | bytearray):
            return self._encode_file(value, record)
        image = np.asarray(value)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            got = f"{image.dtype} {image.shape}"
            expected = "uint8 (h, w, 3), or the bytes of a JPEG file"
            raise SampleError("not a colour image", got=got, expected=expected)
        if self.max_resolution is not None:
            image = shrink(image, self.max_resolution)
        height, width = image.shape[:2]
        _check_sides(height, width)
        record["width"], record["height"] = width, height
        if not self._compresses(image.nbytes, sample):
            record["mode"] = self.RAW
            return image.tobytes()
        record["mode"] = self.JPG
        if max(height, width) > jpeg.SIDE_LIMIT:
            expected = f"{jpeg.SIDE_LIMIT} at most"
            raise SampleError("image too large for JPEG", got=(height, width), expected=expected)
        image = np.ascontiguousarray(image)
        data: bytes = simplejpeg.encode_jpeg(
            image, quality=self.jpeg_quality, colorspace="RGB", colorsubsampling="420"
        )
        return data

    def _encode_file(self, data: bytes | bytearray, record: Array) -> Payload:
        size = jpeg.read_size(data)
        _check_sides(*size)
        jpeg.require_complete(data, size)
        if self.max_resolution is not None and max(size) > self.max_resolution:
            expected = f"sides of at most {self.max_resolution}; decode it to have it shrunk"
            raise SampleError("JPEG file of too many pixels", got=size, expected=expected)
        record["height"], record["width"] = size
        record["mode"] = self.JPG
        return data

    def _compresses(self, size: int, sample: int) -> bool:
        match self.write_mode:
            case "smart":
                return self.smart_threshold is not None and size > self.smart_threshold
            case "proportion":
                number = rng.uniform(0, 0, np.array([sample]), rng.ENCODE)
                return bool(number[0, 0] < self.compress_probability)
            case mode:
                return mode == "jpg"

    def regions(self, column: Array) -> tuple[Array, Int64Array]:
        """Return pointers and sizes; only the allocation table gives the size of a JPEG."""
        pixels = column["width"].astype(np.int64) * column["height"]
        return column["data_ptr"], np.where(column["mode"] == self.RAW, 3 * pixels, UNKNOWN)

    def validate(self, column: Array) -> None:
        """Check modes and image sizes."""
        if (i := first_true(column["mode"] > self.RAW)) is not None:
            raise FormatError("mode of an image", sample=i, got=column["mode"][i], expected="0, 1")
        _validate_sides(column)

    def decode(self, record: Any, payload: Uint8Array) -> Uint8Array:
        """Return uint8 (h, w, 3)."""
        height, width = int(record["height"]), int(record["width"])
        if record["mode"] == self.RAW:
            return payload.reshape(height, width, 3).copy()
        return jpeg.decode(payload, (height, width))


@dataclass(frozen=True)
class InkField(Field):
    """A single-channel 8-bit image, uint8 (h, w), stored losslessly as runs or as pixels.

    `mode` is "runs", "raw" (pixels), or "auto": for each sample, whichever takes fewer bytes.
    `beton.codec.ink` describes the payload.
    """

    mode: str = "auto"

    type_id = 255
    metadata_dtype = np.dtype(
        [
            ("ptr", "<u8"),
            ("size", "<u4"),
            ("runs", "<u4"),
            ("width", "<u2"),
            ("height", "<u2"),
            ("mode", "<u1"),
            ("background", "<u1"),
            ("ink", "<u1"),
            ("reserved", "<u1"),
        ],
        align=True,
    )
    TAG: ClassVar[bytes] = b"inkrun.ink".ljust(16, b"\0")
    VERSION: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.mode not in ink.MODES:
            raise SampleError("mode", got=repr(self.mode), expected=", ".join(ink.MODES))

    def arguments(self) -> bytes:
        """Return the tag, the version (uint16) and the mode (uint8)."""
        return self.TAG + self.VERSION.to_bytes(2, "little") + bytes([ink.MODES.index(self.mode)])

    @classmethod
    def from_arguments(cls, arguments: bytes) -> Self:
        """Read the mode. Raises FormatError for another version."""
        version = int.from_bytes(arguments[16:18], "little")
        if version != cls.VERSION:
            raise FormatError(
                "unsupported version of an ink field", got=version, expected=cls.VERSION
            )
        mode = arguments[18]
        if mode >= len(ink.MODES) or any(arguments[19:]):
            raise FormatError("invalid arguments of an ink field", got=arguments[18:26].hex())
        return cls(ink.MODES[mode])

    def encode(self, value: Any, record: Array, _sample: int) -> Payload:
        """Store a uint8 (h, w) array, or a value that `np.asarray` turns into one."""
        image = np.asarray(value)
        if image.dtype != np.uint8 or image.ndim != 2:
            got = f"{image.dtype} {image.shape}"
            raise SampleError("not a single-channel image", got=got, expected="uint8 (h, w)")
        _check_sides(*image.shape)
        encoded = ink.encode(image, self.mode)
        record["size"] = len(encoded.payload)
        for name in ("runs", "width", "height", "mode", "background", "ink"):
            record[name] = getattr(encoded, name)
        return encoded.payload

    def regions(self, column: Array) -> tuple[Array, Int64Array]:
        """Return the pointers and sizes."""
        return column["ptr"], column["size"].astype(np.int64)

    def validate(self, column: Array) -> None:
        """Check modes, image sizes and numbers of runs; every run takes at least one byte."""
        _validate_sides(column)
        size, runs, mode = (column[name].astype(np.int64) for name in ("size", "runs", "mode"))
        pixels = column["width"].astype(np.int64) * column["height"]
        raw = mode == RAW
        unknown = (mode > GREY) | (column["reserved"] != 0)
        for reason, wrong in (
            ("unknown mode or nonzero reserved byte", unknown),
            ("incorrect size of a raw image", raw & (size != pixels)),
            ("more runs than bytes", runs > size),
            ("bytes without runs", ~raw & (runs == 0) & (size != 0)),
        ):
            if (i := first_true(wrong)) is not None:
                got = f"mode {mode[i]}, {size[i]} bytes, {runs[i]} runs"
                raise FormatError(reason, sample=i, got=got)

    def decode(self, record: Any, payload: Uint8Array) -> Uint8Array:
        """Return uint8 (h, w)."""
        names = ("mode", "background", "ink", "runs", "height", "width")
        numbers = {name: int(record[name]) for name in names}
        return ink.decode(ink.Encoded(**numbers, payload=payload.tobytes()))


def _check_sides(height: int, width: int) -> None:
    if not (1 <= height <= 65535 and 1 <= width <= 65535 and height * width <= MAX_PIXELS):
        expected = f"sides of 1 to 65535, at most {MAX_PIXELS} pixels"
        raise SampleError("invalid image size", got=f"{height} x {width}", expected=expected)


def _validate_sides(column: Array) -> None:
    pixels = column["width"].astype(np.int64) * column["height"]
    if (i := first_true((pixels < 1) | (pixels > MAX_PIXELS))) is not None:
        got, expected = f"{column['height'][i]} x {column['width'][i]}", f"1 to {MAX_PIXELS} pixels"
        raise FormatError("invalid image size", sample=i, got=got, expected=expected)


def shrink(image: Uint8Array, longest: int) -> Uint8Array:
    """Area-average a uint8 (h, w, c) image until its longest side is at most `longest` pixels.

    The other side is rounded down, like in FFCV, but is at least 1.
    """
    ratio = longest / max(image.shape[:2])
    if ratio >= 1:
        return image
    result = image.astype(np.float64)
    for axis in (0, 1):
        side = image.shape[axis]
        edges = np.linspace(0, side, max(1, int(ratio * side)) + 1)
        whole = np.minimum(edges.astype(np.int64), side - 1)
        # The integral up to an edge: all pixels before it, and a fraction of the pixel it cuts.
        sums = np.cumsum(result, axis) - result
        cut = np.expand_dims(edges - whole, tuple({0, 1, 2} - {axis}))
        integral = sums.take(whole, axis) + cut * result.take(whole, axis)
        result = np.diff(integral, axis=axis) * (len(edges) - 1) / side
    rounded: Uint8Array = np.rint(result).clip(0, 255).astype(np.uint8)
    return rounded
