import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
from every_field import FIELDS, EveryField, same, smooth
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import Image
from reference import cover

from beton import fields
from beton.errors import BetonError, FormatError, SampleError
from beton.fields import (
    BytesField,
    Field,
    FloatField,
    InkField,
    IntField,
    JSONField,
    NDArrayField,
    RGBImageField,
    TorchTensorField,
)
from beton.fields.base import UNKNOWN
from beton.fields.image import shrink

DTYPES = st.one_of(
    hnp.boolean_dtypes(),
    hnp.integer_dtypes(endianness="?"),
    hnp.floating_dtypes(endianness="?"),
    hnp.complex_number_dtypes(),
    hnp.datetime64_dtypes(),
    hnp.byte_string_dtypes(min_len=1),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def store(field: Field, value: Any, sample: int = 0) -> tuple[Any, NDArray[np.uint8]]:
    """Return the record and payload of a value, as in a file."""
    record = np.zeros(1, field.metadata_dtype)
    payload = field.encode(value, record, sample)
    return record[0], np.frombuffer(payload or b"", np.uint8)


def round_trip(field: Field, value: Any, sample: int = 0) -> Any:
    return field.decode(*store(field, value, sample))


@given(st.floats())
def test_floats_come_back(value: float) -> None:
    assert np.float64(round_trip(FloatField(), value)).tobytes() == np.float64(value).tobytes()


@given(st.integers(-(2**63), 2**63 - 1))
def test_ints_come_back(value: int) -> None:
    assert round_trip(IntField(), value) == value


@given(st.binary())
def test_bytes_come_back(value: bytes) -> None:
    assert round_trip(BytesField(), value) == value
    assert round_trip(BytesField(), np.frombuffer(value, np.uint8)) == value


@given(JSON)
def test_json_comes_back(value: Any) -> None:
    assert round_trip(JSONField(), value) == json.loads(json.dumps(value))


@given(st.data(), DTYPES, hnp.array_shapes(max_dims=5, max_side=4))
def test_arrays_come_back_and_so_do_their_fields(
    data: st.DataObject, dtype: np.dtype[Any], shape: tuple[int, ...]
) -> None:
    field = NDArrayField(dtype, shape)
    assert NDArrayField.from_arguments(field.arguments().ljust(1024, b"\0")) == field
    array = data.draw(
        hnp.arrays(dtype, shape, elements={"allow_nan": False} if dtype.kind in "fc" else None)
    )
    assert same(round_trip(field, array), array)


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))))
def test_raw_images_come_back(image: NDArray[np.uint8]) -> None:
    assert same(round_trip(RGBImageField(), image), image)


@given(
    hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9))),
    st.sampled_from(["auto", "runs", "raw"]),
)
def test_ink_comes_back(image: NDArray[np.uint8], mode: str) -> None:
    assert same(round_trip(InkField(mode), image), image)


@given(st.sampled_from(list(FIELDS)), st.integers(0, 40))
def test_records_contain_the_position_of_payloads(name: str, i: int) -> None:
    field = FIELDS[name]
    record, payload = store(field, EveryField()[i][name])
    column = np.array([record], field.metadata_dtype)
    field.validate(column)
    found = field.regions(column)
    assert (found is None) == (name in ("float", "int"))
    if found:
        pointers, sizes = found
        assert sizes[0] == (UNKNOWN if name == "jpg" else len(payload))
        pointers[:] = 2**64 - 2
        assert (2**64 - 2).to_bytes(8, "little") in column.tobytes()


def jpeg_file(mode: str = "RGB", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(smooth(3, 50, 37)).convert(mode).save(file, "JPEG", **options)
    return file.getvalue()


JPEG_FILES = {
    "baseline": jpeg_file(),
    "progressive": jpeg_file(progressive=True),
    "4:4:4": jpeg_file(subsampling=0),
    "RGB": jpeg_file(keep_rgb=True),
    "restart markers": jpeg_file(restart_marker_blocks=2),
    "comment": jpeg_file(comment=b"c" * 999),
    "bytes behind it": jpeg_file() + b"\0" * 9,
}


@pytest.mark.parametrize("kind", JPEG_FILES)
@pytest.mark.parametrize("write_mode", ["raw", "jpg", "smart", "proportion"])
def test_jpeg_files_are_stored_as_they_are(kind: str, write_mode: str) -> None:
    data = JPEG_FILES[kind]
    for value in (data, bytearray(data)):
        record, payload = store(RGBImageField(write_mode), value)
        assert record["mode"] == RGBImageField.JPG
        assert payload.tobytes() == data
        expected = simplejpeg.decode_jpeg(data, fastdct=True)
        assert same(RGBImageField().decode(record, payload), expected)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not a JPEG file that can be decoded"),
        (b"\x89PNG\r\n", "not a JPEG file that can be decoded"),
        (jpeg_file()[:40], "not a JPEG file that can be decoded"),
        (jpeg_file()[:-200], "JPEG cannot be decoded: Premature end"),
        (jpeg_file()[:-2], "JPEG cannot be decoded: Premature end"),
        (jpeg_file("L"), r"not a colour JPEG \(got Gray, expected YCbCr or RGB\)"),
        (jpeg_file("CMYK"), r"not a colour JPEG \(got CMYK, expected YCbCr or RGB\)"),
        (jpeg_file().replace(b"\xff\xc0", b"\xff\xc9"), "JPEG"),  # arithmetic coding
    ],
    ids=["empty", "PNG", "head", "cut short", "no end", "grey", "CMYK", "arithmetic"],
)
def test_other_files_are_rejected(data: bytes, reason: str) -> None:
    with pytest.raises(SampleError, match=reason) as caught:
        store(RGBImageField("raw"), data)
    assert "\n" not in str(caught.value)


def test_a_jpeg_file_is_not_shrunk() -> None:
    assert store(RGBImageField(max_resolution=50), jpeg_file())[0]["height"] == 50
    with pytest.raises(SampleError, match=r"got \(50, 37\), expected sides of at most 49"):
        store(RGBImageField(max_resolution=49), jpeg_file())


def test_jpeg_is_close_and_has_the_requested_quality() -> None:
    y, x, c = np.mgrid[:40, :50, :3]
    image = (3 * y + x + 20 * c + 7 * (x % 3)).astype(np.uint8)
    sizes = [len(store(RGBImageField("jpg", jpeg_quality=q), image)[1]) for q in (20, 60, 95)]
    assert sizes == sorted(set(sizes))
    record, payload = store(RGBImageField("jpg", jpeg_quality=95), image)
    assert simplejpeg.decode_jpeg_header(payload) == (40, 50, "YCbCr", "420")
    difference = RGBImageField().decode(record, payload).astype(int) - image
    assert abs(difference).mean() < 3


def test_smart_compresses_above_its_threshold_only() -> None:
    image = smooth(0, 10, 10)
    for threshold, mode in ((None, 1), (299, 0), (300, 1)):
        record, _ = store(RGBImageField("smart", smart_threshold=threshold), image)
        assert record["mode"] == mode


def test_proportion_is_a_function_of_the_index() -> None:
    field = RGBImageField("proportion", compress_probability=0.3)
    image = smooth(0, 2, 2)
    modes = np.array([store(field, image, i)[0]["mode"] for i in range(1000)])
    assert 0.25 < (modes == RGBImageField.JPG).mean() < 0.35
    assert all(store(field, image, i)[0]["mode"] == modes[i] for i in reversed(range(20)))
    for probability, mode in ((0.0, 1), (1.0, 0)):
        always = RGBImageField("proportion", compress_probability=probability)
        assert {int(store(always, image, i)[0]["mode"]) for i in range(50)} == {mode}


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 70), st.integers(0, 99))
def test_shrink_is_a_box_filter(height: int, width: int, longest: int, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    small = shrink(image, longest)
    if longest >= max(height, width):
        assert small is image
        return
    assert max(small.shape[:2]) in (longest, longest - 1)  # like FFCV's rounding
    assert min(small.shape[:2]) >= 1
    rows, columns = cover(height, 0, height, small.shape[0]), cover(width, 0, width, small.shape[1])
    exact = np.einsum("hy,wx,yxc->hwc", rows, columns, image)
    assert np.abs(small - exact).max() <= 0.5 + 1e-6


def test_max_resolution_shrinks_what_is_stored() -> None:
    record, payload = store(RGBImageField(max_resolution=20), smooth(0, 40, 30))
    assert (record["height"], record["width"], len(payload)) == (20, 15, 900)


def test_metadata_equals_ffcv_s() -> None:
    packed = {"raw": 13, "jpg": 13, "bytes": 16, "json": 16, "float": 8, "int": 8, "array": 8}
    assert {name: FIELDS[name].metadata_dtype.itemsize for name in packed} == packed
    assert [FIELDS[n].type_id for n in FIELDS] == [0, 1, 2, 2, 3, 4, 5, 6, 255]
    assert InkField.metadata_dtype.itemsize == 24
    assert InkField.metadata_dtype.alignment == 8


def test_torch_names_a_dtype_without_torch() -> None:
    for dtype in ("torch.int64", "int64", np.int64, np.dtype("<i8")):
        assert TorchTensorField(dtype, (2,)).dtype == np.dtype("<i8")


def test_settings_are_json() -> None:
    settings = {name: field.settings() for name, field in FIELDS.items()}
    assert json.loads(json.dumps(settings))["array"] == {
        "type": "NDArrayField", "dtype": "<i2", "shape": [2, 3],
    }  # fmt: skip


class Unfit:
    """A value that no field accepts."""


REJECTED_VALUES: list[tuple[Field, Any, str]] = [
    (FloatField(), "1.5", "not a number"),
    (FloatField(), Unfit(), "not a number"),
    (FloatField(), 10**400, "not a number"),
    (IntField(), 1.0, "not an integer"),
    (IntField(), "1", "not an integer"),
    (IntField(), 2**63, "out of range"),
    (BytesField(), "text", "not bytes .*got str"),
    (BytesField(), np.zeros((2, 2), np.uint8), "not bytes"),
    (BytesField(), np.zeros(2), "not bytes"),
    (JSONField(), Unfit(), "not a JSON value"),
    (JSONField(), b"x", "not a JSON value"),
    (FIELDS["array"], np.zeros((2, 3), "<i4"), r"got int32 \(2, 3\), expected int16 \(2, 3\)"),
    (FIELDS["array"], np.zeros((3, 2), "<i2"), "array"),
    (FIELDS["array"], [[1, 2, 3]], "array"),
    (FIELDS["tensor"], np.zeros(4), "array"),
    (RGBImageField(), smooth(0, 4, 4)[:, :, 0], "not a colour image"),
    (RGBImageField(), smooth(0, 4, 4).astype(float), "not a colour image"),
    (RGBImageField(), np.zeros((4, 0, 3), np.uint8), "image size"),
    (RGBImageField(), np.zeros((1, 65536, 3), np.uint8), "image size"),
    (InkField(), smooth(0, 4, 4), "not a single-channel image"),
    (InkField(), np.zeros((4, 4), bool), "not a single-channel image"),
    (InkField(), np.zeros((0, 4), np.uint8), "image size"),
    (InkField(), np.broadcast_to(np.uint8(0), (65535, 65535)), "image size"),
]


@pytest.mark.parametrize(("field", "value", "pattern"), REJECTED_VALUES)
def test_rejects_values(field: Field, value: Any, pattern: str) -> None:
    with pytest.raises(SampleError, match=pattern):
        store(field, value)


REJECTED_SETTINGS: list[Callable[[], Field]] = [
    lambda: NDArrayField("O", (1,)),
    lambda: NDArrayField("U3", (1,)),
    lambda: NDArrayField([("a", "i4")], (1,)),
    lambda: NDArrayField(("i4", (2,)), (1,)),
    lambda: NDArrayField("S0", (1,)),
    lambda: NDArrayField("no such", (1,)),
    lambda: NDArrayField("i4", ()),
    lambda: NDArrayField("i4", (1,) * 33),
    lambda: NDArrayField("i4", (3, 0)),
    lambda: NDArrayField("i4", (1 << 15, 1 << 15)),
    lambda: TorchTensorField("torch.bfloat16", (1,)),
    lambda: RGBImageField("png"),
    lambda: RGBImageField(max_resolution=0),
    lambda: RGBImageField(jpeg_quality=101),
    lambda: RGBImageField(compress_probability=1.5),
    lambda: InkField("grey"),
]


def test_a_dtype_of_another_package_is_rejected() -> None:
    import ml_dtypes

    with pytest.raises(SampleError, match="invalid array dtype"):
        NDArrayField(ml_dtypes.bfloat16, (1,))


@pytest.mark.parametrize("make", REJECTED_SETTINGS)
def test_rejects_settings(make: Callable[[], Field]) -> None:
    with pytest.raises(SampleError):
        make()


def jpeg(height: int, width: int) -> bytes:
    return store(RGBImageField("jpg"), smooth(0, height, width))[1].tobytes()


# The field and value, the damaged payload, and a pattern of the error. FORMAT.md lists the cases.
DAMAGED: dict[str, tuple[Field, Any, bytes, str]] = {
    "JPEG of another size": (
        RGBImageField("jpg"), smooth(0, 8, 9), jpeg(8000, 9), r"another size .*\(8000, 9\)",
    ),
    "JPEG cut short": (
        RGBImageField("jpg"), smooth(0, 40, 40), jpeg(40, 40)[:-100], "JPEG cannot be decoded",
    ),
    "not a JPEG": (RGBImageField("jpg"), smooth(0, 8, 9), b"GIF89a", "JPEG cannot be decoded"),
    "JSON without its NUL": (JSONField(), 1, b"1", "terminating NUL"),
    "JSON not UTF-8": (JSONField(), 1, b'"\xff"\0', "JSON cannot be decoded"),
    "not JSON": (JSONField(), 1, b"{1}\0", "JSON cannot be decoded"),
    "JSON too deep": (JSONField(), 1, b"[" * 100_000 + b"\0", "JSON cannot be decoded"),
    "JSON of a huge number": (JSONField(), 1, b"9" * 5000 + b"\0", "JSON cannot be decoded"),
    "ink cut short": (InkField(), EveryField()[0]["ink"], b"\x05\x0f", "ends early"),
    "ink outside the image": (
        InkField(), EveryField()[0]["ink"], b"\x05\x7f\x01\x01\x01", "outside the image",
    ),
    "ink of other runs": (
        InkField(), EveryField()[0]["ink"], b"\x05\x01\x01\x01\x01", "number of runs differs",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGED)
def test_rejects_payloads(what: str) -> None:
    field, value, payload, pattern = DAMAGED[what]
    record, _ = store(field, value)
    with pytest.raises(BetonError, match=pattern):
        field.decode(record, np.frombuffer(payload, np.uint8))


def test_the_format_lists_every_damage() -> None:
    text = (Path(fields.__file__).parents[1] / "FORMAT.md").read_text()
    assert sorted(re.findall(r"`test_fields\[([^\]]+)\]`", text)) == sorted(DAMAGED)


@given(st.binary(max_size=900))
def test_arguments_are_never_interpreted(text: bytes) -> None:
    for head in (b"", bytes(256) + len(text).to_bytes(8, "little"), InkField.TAG):
        arguments = (head + text).ljust(1024, b"\0")[:1024]
        for type_id in (*range(8), 255):
            try:
                field = fields.field_from(type_id, arguments)
            except FormatError:
                continue
            assert field.arguments().ljust(1024, b"\0") == arguments
