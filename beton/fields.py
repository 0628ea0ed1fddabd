"""Fields: how a value of each kind becomes a metadata record and, for most, a payload of bytes.

The seven kinds of FFCV 1.0 have its type ids, records and payloads, byte for byte; `InkField` is
ours, in FFCV's place for custom fields (type id 255, told apart by a tag in the arguments). A field
knows one sample at a time and nothing of files; `decode` is plain and slow, for single samples and
for tests. The loader's kernels read the same records and payloads.
"""

import dataclasses
import json
import math
import operator
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from beton import ink
from beton.errors import FormatError, SampleError

Array = NDArray[Any]
Bytes = NDArray[np.uint8]
Payload = bytes | bytearray | memoryview

ARGUMENTS_SIZE = 1024
MAX_PIXELS = 1 << 28  # per picture: what a damaged or hostile size can make a reader allocate
UNKNOWN = -1  # a region whose size only the allocation table knows


@dataclass(frozen=True)
class Field(ABC):
    """A column of a file: its settings, its record, and the way between a value and bytes.

    A field holds what it takes to write; `from_arguments` gives back what it takes to read.
    """

    type_id: ClassVar[int]
    metadata_dtype: ClassVar[np.dtype[Any]]

    def arguments(self) -> bytes:
        """Return what a reader must know, at most 1024 bytes."""
        return b""

    @classmethod
    def from_arguments(cls, arguments: bytes) -> Self:
        """Rebuild a field from the 1024 bytes of a descriptor. Raises FormatError."""
        if any(arguments):
            raise FormatError("arguments given to a kind of field that takes none")
        return cls()

    def settings(self) -> dict[str, Any]:
        """Return the settings as JSON values, for the manifest."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {"type": type(self).__name__} | {
            name: value.str if isinstance(value, np.dtype) else value
            for name, value in values.items()
        }

    @abstractmethod
    def encode(self, value: Any, record: Array, sample: int) -> Payload | None:
        """Fill `record`, an array of one element, all but its pointer; return the payload, if any.

        `sample` is the index of the value in its data set. Raises SampleError.
        """

    def regions(self, column: Array) -> tuple[Array, NDArray[np.int64]] | None:
        """Return where the payloads are: pointers (a view that can be set) and sizes in bytes."""
        del column
        return None

    def validate(self, column: Array) -> None:
        """Check the numbers of all records, pointers and region sizes aside. Raises FormatError."""
        del column

    def finish(self, column: Array) -> None:
        """Refuse a whole column that FFCV could not read though each value is sound."""
        del column

    @abstractmethod
    def decode(self, record: Any, payload: Bytes) -> Any:
        """Return the value of one sample. Raises BetonError if the payload is damaged."""


def _first(wrong: NDArray[np.bool_]) -> int | None:
    """Return the index of the first sample at fault."""
    return int(wrong.argmax()) if wrong.any() else None


@dataclass(frozen=True)
class FloatField(Field):
    """A number, stored as float64."""

    type_id = 0
    metadata_dtype = np.dtype("<f8")

    def encode(self, value: Any, record: Array, sample: int) -> None:
        """Store anything that `float` takes, text aside."""
        del sample
        if isinstance(value, str | bytes):
            raise SampleError("not a number", got=type(value).__name__)
        try:
            record[0] = float(value)
        except (TypeError, ValueError, OverflowError) as error:
            raise SampleError(f"not a number: {error}") from error

    def decode(self, record: Any, payload: Bytes) -> float:
        """Return a float."""
        del payload
        return float(record)


@dataclass(frozen=True)
class IntField(Field):
    """A whole number, stored as int64."""

    type_id = 1
    metadata_dtype = np.dtype("<i8")

    def encode(self, value: Any, record: Array, sample: int) -> None:
        """Store anything that counts as an index; a float is refused even if it is whole."""
        del sample
        try:
            number = operator.index(value)
        except TypeError as error:
            raise SampleError("not a whole number", got=type(value).__name__) from error
        if not -(2**63) <= number < 2**63:
            raise SampleError("number does not fit", got=number, expected="64 bits, signed")
        record[0] = number

    def decode(self, record: Any, payload: Bytes) -> int:
        """Return an int."""
        del payload
        return int(record)


@dataclass(frozen=True)
class RGBImageField(Field):
    """A colour picture, uint8 (h, w, 3): raw pixels or JPEG.

    `write_mode`: "raw"; "jpg"; "smart": JPEG where the pixels take more than `smart_threshold`
    bytes (None: never), as FFCV does in fact; "proportion": JPEG for a share
    `compress_probability` of the samples, chosen by a hash of the sample's index, so that the
    choice does not depend on who encodes it. `max_resolution` shrinks pictures to that longest
    side by area averaging in float64; OpenCV's, which FFCV uses, may differ from it by one level.

    JPEG comes from simplejpeg: libjpeg-turbo, built into its wheels, decoding into a caller's
    buffer, and with the fast inverse DCT that FFCV uses, which makes decoded pixels equal to
    FFCV's, bit by bit.
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
    JPG: ClassVar[int] = 0
    RAW: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.write_mode not in ("raw", "jpg", "smart", "proportion"):
            raise SampleError(
                "write_mode", got=repr(self.write_mode), expected="raw, jpg, smart or proportion"
            )
        if self.max_resolution is not None and not 1 <= self.max_resolution <= 65535:
            raise SampleError("max_resolution", got=self.max_resolution, expected="1 to 65535")
        if not 1 <= self.jpeg_quality <= 100:
            raise SampleError("jpeg_quality", got=self.jpeg_quality, expected="1 to 100")
        if not 0 <= self.compress_probability <= 1:
            raise SampleError(
                "compress_probability", got=self.compress_probability, expected="0 to 1"
            )

    def encode(self, value: Any, record: Array, sample: int) -> Payload:
        """Store a uint8 (h, w, 3) array, or what `np.asarray` makes one of (a Pillow picture)."""
        image = np.asarray(value)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise SampleError(
                "not a colour picture",
                got=f"{image.dtype} {image.shape}",
                expected="uint8 (h, w, 3)",
            )
        if self.max_resolution is not None:
            image = shrink(image, self.max_resolution)
        height, width = image.shape[:2]
        _check_sides(height, width)
        image = np.ascontiguousarray(image)
        compress = self._compresses(image.nbytes, sample)
        record["mode"] = self.JPG if compress else self.RAW
        record["width"], record["height"] = width, height
        if not compress:
            return image.tobytes()
        data: bytes = simplejpeg.encode_jpeg(
            image, quality=self.jpeg_quality, colorspace="RGB", colorsubsampling="420"
        )
        return data

    def _compresses(self, size: int, sample: int) -> bool:
        match self.write_mode:
            case "smart":
                return self.smart_threshold is not None and size > self.smart_threshold
            case "proportion":
                return splitmix64(sample) < self.compress_probability * 2**64
            case mode:
                return mode == "jpg"

    def regions(self, column: Array) -> tuple[Array, NDArray[np.int64]]:
        """Return where the pictures are; the size of a JPEG is for the allocation table to say."""
        pixels = column["width"].astype(np.int64) * column["height"]
        return column["data_ptr"], np.where(column["mode"] == self.RAW, 3 * pixels, UNKNOWN)

    def validate(self, column: Array) -> None:
        """Check modes and sides."""
        if (i := _first(column["mode"] > self.RAW)) is not None:
            raise FormatError("mode of a picture", sample=i, got=column["mode"][i], expected="0, 1")
        _validate_sides(column)

    def decode(self, record: Any, payload: Bytes) -> Bytes:
        """Return uint8 (h, w, 3)."""
        height, width = int(record["height"]), int(record["width"])
        if record["mode"] == self.RAW:
            return payload.reshape(height, width, 3).copy()
        try:
            found = simplejpeg.decode_jpeg_header(payload)[:2]
            if found != (height, width):  # before any pixel is made room for
                raise FormatError("height and width of a JPEG", got=found, expected=(height, width))
            image: Bytes = simplejpeg.decode_jpeg(payload, colorspace="RGB", fastdct=True)
        except FormatError:
            raise
        except ValueError as error:
            raise FormatError(f"JPEG cannot be decoded: {error}") from error
        return image


@dataclass(frozen=True)
class BytesField(Field):
    """Bytes of any number. Empty values are fine as long as one in the column is not."""

    type_id = 3
    metadata_dtype = np.dtype([("ptr", "<u8"), ("size", "<u8")])

    def encode(self, value: Any, record: Array, sample: int) -> Payload:
        """Store bytes, or a uint8 array of one dimension."""
        del sample
        if isinstance(value, np.ndarray):
            if value.dtype != np.uint8 or value.ndim != 1:
                raise SampleError(
                    "not bytes", got=f"{value.dtype} {value.shape}", expected="uint8 (n,)"
                )
            value = value.tobytes()
        if not isinstance(value, bytes | bytearray):
            raise SampleError(
                "not bytes", got=type(value).__name__, expected="bytes or a uint8 array"
            )
        record["size"] = len(value)
        return value

    def regions(self, column: Array) -> tuple[Array, NDArray[np.int64]]:
        """Return where the bytes are. A size beyond 63 bits comes out as the largest number."""
        return column["ptr"], np.minimum(column["size"], 2**63 - 1).astype(np.int64)

    def finish(self, column: Array) -> None:
        """Refuse a column of nothing: FFCV would copy a byte into rows of none."""
        if not column["size"].any():
            raise SampleError("every value is empty, which FFCV cannot read")

    def decode(self, record: Any, payload: Bytes) -> Any:
        """Return bytes."""
        del record
        return payload.tobytes()


@dataclass(frozen=True)
class JSONField(BytesField):
    """A JSON value: text in UTF-8 and a NUL, stored as bytes are."""

    type_id = 5

    def encode(self, value: Any, record: Array, sample: int) -> Payload:
        """Store what `json.dumps` takes."""
        try:
            text = json.dumps(value)
        except (TypeError, ValueError, RecursionError) as error:
            raise SampleError(f"not a JSON value: {error}") from error
        return super().encode(text.encode() + b"\0", record, sample)

    def decode(self, record: Any, payload: Bytes) -> Any:
        """Return the value."""
        text, end, _ = super().decode(record, payload).partition(b"\0")
        if not end:
            raise FormatError("JSON text without its closing NUL")
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise FormatError(f"JSON cannot be decoded: {error}") from error


# What np.dtype is given of a file: a plain dtype by its name, and nothing that it would interpret.
_DTYPE = re.compile(rb'\[\["", "([<>|][biufcmMSV][0-9]{1,9}(?:\[[0-9]{0,4}[A-Za-z]{1,2}\])?)"\]\]')
_NDARRAY = np.dtype([("shape", "<u8", 32), ("type_length", "<u8")])


@dataclass(frozen=True)
class NDArrayField(Field):
    """An array of one dtype and shape for all samples.

    Refused, since FFCV reads none of them back: structured dtypes, objects, text; no dimension,
    more than 32, sides of zero.
    """

    dtype: Any  # what np.dtype takes; an np.dtype from then on
    shape: tuple[int, ...]

    type_id = 4
    metadata_dtype = np.dtype("<u8")

    def __post_init__(self) -> None:
        try:
            dtype = np.dtype(self.dtype)
        except TypeError as error:
            raise SampleError("dtype of an array", got=repr(self.dtype)) from error
        if dtype.kind not in "biufcmMSV" or dtype.names or dtype.subdtype or not dtype.itemsize:
            raise SampleError("dtype of an array", got=dtype, expected="numbers, or fixed bytes")
        shape = tuple(operator.index(side) for side in self.shape)
        if not 1 <= len(shape) <= 32 or min(shape) < 1:
            raise SampleError(
                "shape of an array", got=shape, expected="1 to 32 dimensions, each at least 1"
            )
        object.__setattr__(self, "dtype", dtype)
        object.__setattr__(self, "shape", shape)
        if self.size >= 2**32:
            raise SampleError("size of an array", got=self.size, expected="below 2**32 bytes")

    @property
    def size(self) -> int:
        """Bytes of a sample."""
        return math.prod(self.shape) * int(self.dtype.itemsize)

    def arguments(self) -> bytes:
        """Return 32 sides (uint64), the length of a text (uint64), and the dtype as JSON text."""
        text = json.dumps(self.dtype.descr).encode()
        head = np.zeros(1, _NDARRAY)
        head["shape"][0, : len(self.shape)] = self.shape
        head["type_length"] = len(text)
        return head.tobytes() + text

    @classmethod
    def from_arguments(cls, arguments: bytes) -> Self:
        """Read dtype and shape; nothing of the text is interpreted but the name of a dtype."""
        head = np.frombuffer(arguments, _NDARRAY, 1)[0]
        rest = arguments[_NDARRAY.itemsize :]
        length = int(head["type_length"])
        text = rest[:length]
        name = _DTYPE.fullmatch(text)
        if length > len(rest) or any(rest[length:]) or name is None:
            raise FormatError("dtype of an array", got=text[:64], expected='such as [["", "<f4"]]')
        shape = head["shape"].tolist()
        while shape and shape[-1] == 0:  # what is left of 32 sides
            shape.pop()
        try:
            return cls(np.dtype(name[1].decode()), tuple(shape))
        except SampleError as error:
            raise FormatError(error.reason, got=error.got, expected=error.expected) from error
        except (TypeError, ValueError, OverflowError) as error:
            raise FormatError("dtype of an array", got=name[1]) from error

    def encode(self, value: Any, record: Array, sample: int) -> Payload:
        """Store an array of exactly this dtype and shape: a cast would hide a mistake."""
        del record, sample
        array = np.asarray(value)
        if array.dtype != self.dtype or array.shape != self.shape:
            raise SampleError(
                "array", got=f"{array.dtype} {array.shape}", expected=f"{self.dtype} {self.shape}"
            )
        return array.tobytes()

    def regions(self, column: Array) -> tuple[Array, NDArray[np.int64]]:
        """Return where the arrays are."""
        return column, np.full(len(column), self.size, np.int64)

    def decode(self, record: Any, payload: Bytes) -> Array:
        """Return an array of the field's dtype and shape."""
        del record
        array: Array = payload.view(self.dtype).reshape(self.shape).copy()
        return array


@dataclass(frozen=True)
class TorchTensorField(NDArrayField):
    """A tensor of one dtype and shape for all samples; read back as an array.

    `dtype` is a torch dtype, its name, or NumPy's; torch itself is not imported. bfloat16 and other
    dtypes that NumPy lacks are refused.
    """

    type_id = 6

    def __post_init__(self) -> None:
        name = str(self.dtype)
        if name.startswith("torch."):
            object.__setattr__(self, "dtype", name.removeprefix("torch."))
        super().__post_init__()

    def encode(self, value: Any, record: Array, sample: int) -> Payload:
        """Store a tensor, or an array."""
        to_numpy: Callable[[], Array] | None = getattr(value, "numpy", None)
        return super().encode(to_numpy() if to_numpy else value, record, sample)


@dataclass(frozen=True)
class InkField(Field):
    """A single-channel 8-bit picture, uint8 (h, w), stored losslessly as runs or as pixels.

    `mode`: "runs", "raw", or "auto" for whichever takes fewer bytes, per sample. The stream of runs
    is described in `beton.ink`.
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
            raise FormatError("version of an ink field", got=version, expected=cls.VERSION)
        mode = arguments[18]
        if mode >= len(ink.MODES) or any(arguments[19:]):
            raise FormatError("arguments of an ink field", got=arguments[18:26].hex())
        return cls(ink.MODES[mode])

    def encode(self, value: Any, record: Array, sample: int) -> Payload:
        """Store a uint8 (h, w) array, or what `np.asarray` makes one of (a Pillow picture)."""
        del sample
        image = np.asarray(value)
        if image.dtype != np.uint8 or image.ndim != 2:
            raise SampleError(
                "not a single-channel picture",
                got=f"{image.dtype} {image.shape}",
                expected="uint8 (h, w)",
            )
        _check_sides(*image.shape)
        encoded = ink.encode(image, self.mode)
        record["size"] = len(encoded.payload)
        for name in ("runs", "width", "height", "mode", "background", "ink"):
            record[name] = getattr(encoded, name)
        return encoded.payload

    def regions(self, column: Array) -> tuple[Array, NDArray[np.int64]]:
        """Return where the pictures are."""
        return column["ptr"], column["size"].astype(np.int64)

    def validate(self, column: Array) -> None:
        """Check modes, sides, and numbers of runs against bytes: none takes less than one."""
        _validate_sides(column)
        size, runs, mode = (column[name].astype(np.int64) for name in ("size", "runs", "mode"))
        pixels = column["width"].astype(np.int64) * column["height"]
        raw = mode == ink.RAW
        for reason, wrong in (
            ("mode of a picture", (mode > ink.GREY) | (column["reserved"] != 0)),
            ("size of a raw picture", raw & (size != pixels)),
            ("more runs than its bytes can hold", runs > size),
            ("no runs, yet bytes for them", ~raw & (runs == 0) & (size != 0)),
        ):
            if (i := _first(wrong)) is not None:
                raise FormatError(
                    reason, sample=i, got=f"mode {mode[i]}, {size[i]} bytes, {runs[i]} runs"
                )

    def decode(self, record: Any, payload: Bytes) -> Bytes:
        """Return uint8 (h, w)."""
        mode, background, value, runs, height, width = (
            int(record[name]) for name in ("mode", "background", "ink", "runs", "height", "width")
        )
        return ink.decode(
            ink.Encoded(mode, background, value, runs, height, width, payload.tobytes())
        )


def _check_sides(height: int, width: int) -> None:
    if not (1 <= height <= 65535 and 1 <= width <= 65535 and height * width <= MAX_PIXELS):
        raise SampleError(
            "sides of a picture",
            got=f"{height} x {width}",
            expected=f"1 to 65535, at most {MAX_PIXELS} pixels",
        )


def _validate_sides(column: Array) -> None:
    pixels = column["width"].astype(np.int64) * column["height"]
    if (i := _first((pixels < 1) | (pixels > MAX_PIXELS))) is not None:
        raise FormatError(
            "sides of a picture",
            sample=i,
            got=f"{column['height'][i]} x {column['width'][i]}",
            expected=f"at least 1, at most {MAX_PIXELS} pixels",
        )


def splitmix64(number: int) -> int:
    """Scramble a number into 64 bits (Steele, Lea & Flood, 2014): a hash that needs no state."""
    mask = 2**64 - 1
    z = (number + 1) * 0x9E3779B97F4A7C15 & mask
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & mask
    z = (z ^ z >> 27) * 0x94D049BB133111EB & mask
    return z ^ z >> 31


def shrink(image: Bytes, longest: int) -> Bytes:
    """Area-average a uint8 (h, w, c) picture so that its longest side is at most `longest`.

    The other side is cut to whole pixels, as FFCV does, but never to none.
    """
    ratio = longest / max(image.shape[:2])
    if ratio >= 1:
        return image
    result = image.astype(np.float64)
    for axis in (0, 1):
        side = image.shape[axis]
        edges = np.linspace(0, side, max(1, int(ratio * side)) + 1)
        whole = np.minimum(edges.astype(np.int64), side - 1)
        # The integral up to an edge: the pixels before it, and its share of the one it cuts.
        sums = np.cumsum(result, axis) - result
        cut = np.expand_dims(edges - whole, tuple({0, 1, 2} - {axis}))
        integral = sums.take(whole, axis) + cut * result.take(whole, axis)
        result = np.diff(integral, axis=axis) * (len(edges) - 1) / side
    rounded: Bytes = np.rint(result).clip(0, 255).astype(np.uint8)
    return rounded


KINDS: dict[int, type[Field]] = {
    kind.type_id: kind
    for kind in (
        FloatField,
        IntField,
        RGBImageField,
        BytesField,
        NDArrayField,
        JSONField,
        TorchTensorField,
    )
}
CUSTOM: dict[bytes, type[Field]] = {InkField.TAG: InkField}


def field_from(type_id: int, arguments: bytes) -> Field:
    """Return the field that a descriptor declares. Raises FormatError."""
    kind = KINDS.get(type_id) or (CUSTOM.get(arguments[:16]) if type_id == 255 else None)
    if kind is None:
        what = "custom field of a kind unknown here" if type_id == 255 else "type of a field"
        raise FormatError(what, got=type_id, expected=f"{min(KINDS)} to {max(KINDS)}")
    return kind.from_arguments(arguments)
