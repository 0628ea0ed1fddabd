"""Ops for colour images."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
from every_field import smooth, without_manifest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import Image
from reference import box_resize_rgb

from beton.codec import area, jpeg
from beton.crop import CentreCrop, Crop, RandomResizedCrop
from beton.errors import BetonError
from beton.fields import IntField, RGBImageField
from beton.loader import Loader
from beton.ops import Op, Rgb, RgbNormalize, RgbResize, Scalar
from beton.order import Shard
from beton.reader import Reader
from beton.rng import Key
from beton.writer import write

Image8 = NDArray[np.uint8]
ROUNDING = 0.5 + 1e-3  # half a grey level, and the float32 sums of up to some hundred pixels
NORMALIZE = RgbNormalize((123.7, 116.3, 103.5), (58.4, 57.1, 57.4))
SAMPLES = 23


def photo(i: int, height: int, width: int) -> Image8:
    """An image of smooth colours with some noise, like a photo."""
    noise = np.random.default_rng(i).normal(0, 6, (height, width, 1))
    y, x, c = np.mgrid[:height, :width, :3]
    waves = np.sin((y * (c + 1) + x * (i % 3 + 1)) / 40)
    image: Image8 = (127.5 + 90 * waves + noise).clip(0, 255).astype(np.uint8)
    return image


def resize(
    image: Image8, window: NDArray[np.float64], height: int, width: int
) -> NDArray[np.float32]:
    out = np.empty((1, height, width, 3), np.float32)
    first, sides = np.zeros(1, np.int64), np.array([image.shape[:2]])
    data = image.reshape(-1)
    data.setflags(write=False)
    scale = np.ones(3, np.float32), np.zeros(3, np.float32)
    area.resize(data, first, sides, window[None], first, *scale, out)
    result: NDArray[np.float32] = out[0]
    return result


@given(
    hnp.arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40), st.just(3))),
    st.tuples(st.integers(1, 24), st.integers(1, 24)),
    st.tuples(*[st.floats(0, 1)] * 4),
)
@settings(max_examples=200)
def test_any_window_is_the_exact_area_average(
    image: Image8, output: tuple[int, int], part: tuple[float, float, float, float]
) -> None:
    h, w = image.shape[:2]
    width, height = max(part[0] * w, w / 50), max(part[1] * h, h / 50)
    window = np.array([part[2] * (w - width), part[3] * (h - height), width, height])
    expected = box_resize_rgb(image, window, *output)
    assert np.abs(resize(image, window, *output) - expected).max() < 1e-3


def test_a_window_of_the_output_size_is_copied() -> None:
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    window = np.array([7.0, 3, 20, 25])
    assert np.array_equal(resize(image, window, 25, 20), image[3:28, 7:27])


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of several sizes: raw, compressed, and given as JPEG files."""
    path = tmp_path_factory.mktemp("rgb") / "photos.beton"
    samples: list[tuple[Any, int]] = []
    for i in range(SAMPLES):
        image: Any = photo(i, 90 + 13 * (i % 5), 160 - 11 * (i % 7))
        if i % 3 == 0:
            file = io.BytesIO()
            Image.fromarray(image).save(file, "JPEG", progressive=i % 2 == 0, subsampling=i % 3)
            image = file.getvalue()
        samples.append((image, i))
    field = RGBImageField("proportion", jpeg_quality=95)
    write(path, {"image": field, "label": IntField()}, samples)
    with Reader(path) as reader:
        assert len(set(reader.column("image").metadata["mode"])) == 2
    return path


def load(path: Path, op: Op, epoch: int = 0, batch: int = 8, **options: Any) -> dict[int, bytes]:
    """Return each sample's bytes."""
    fields: dict[str, Op] = {"image": op, "label": Scalar()}
    found = {}
    with Loader(path, batch, fields, seed=3, **options) as loader:
        for made in loader.batches(epoch):
            for row, i in enumerate(made.ids.tolist()):
                if i >= 0:
                    assert made["label"][row] == i
                    found[i] = made["image"][row].tobytes()
    return found


def arrays(path: Path, op: RgbResize) -> NDArray[Any]:
    """Return all samples in order."""
    with Loader(path, SAMPLES, {"image": op}, order="sequential", seed=3) as loader:
        return next(loader.batches(0))["image"]


@pytest.mark.parametrize("crop", [None, CentreCrop(), CentreCrop(0.7), RandomResizedCrop()])
def test_full_scale_images_are_within_half_a_level(path: Path, crop: Crop | None) -> None:
    op = RgbResize(70, 90, crop)  # no window has twice the pixels in both directions
    found = arrays(path, op)
    with Reader(path) as reader:
        for i in range(SAMPLES):
            image = reader[i]["image"]
            sizes = np.array([image.shape[:2]])
            window = np.array([0, 0, sizes[0, 1], sizes[0, 0]], np.float64)
            if crop is not None:
                window = crop.windows(Key(3, 0), np.array([i]), sizes, 90 / 70)[0]
            expected = box_resize_rgb(image, window, 70, 90)
            assert np.abs(found[i] - expected).max() < ROUNDING


@pytest.mark.parametrize(("side", "mean", "largest"), [(40, 1.5, 10), (20, 2, 10), (10, 3.5, 15)])
def test_reduced_jpegs_are_close(path: Path, side: int, mean: float, largest: float) -> None:
    """Compare with the full decode; the bounds are measured, with some margin."""
    found = arrays(path, RgbResize(side, side))
    with Reader(path) as reader:
        for i in range(SAMPLES):
            image = reader[i]["image"]
            h, w = image.shape[:2]
            expected = box_resize_rgb(image, np.array([0.0, 0, w, h]), side, side)
            difference = np.abs(found[i] - expected)
            if reader.column("image").metadata["mode"][i] == RGBImageField.RAW:
                assert difference.max() < ROUNDING
            else:
                assert difference.mean() < mean
                assert difference.max() < largest


@pytest.mark.parametrize("reduction", jpeg.REDUCTIONS)
@pytest.mark.parametrize("size", [(8, 8), (9, 70), (64, 8), (33, 47), (400, 500)])
def test_a_reduction_gives_the_requested_scale(reduction: int, size: tuple[int, int]) -> None:
    data = np.frombuffer(simplejpeg.encode_jpeg(smooth(1, *size)), np.uint8)
    buffer = np.zeros(3 * size[0] * size[1], np.uint8)
    image = jpeg.decode(data, size, reduction, buffer)
    assert image.shape == (-(-size[0] // reduction), -(-size[1] // reduction), 3)
    assert np.array_equal(buffer[: image.size], image.reshape(-1))


def test_the_scale_leaves_the_output_pixels(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    asked: list[tuple[tuple[int, int], int]] = []
    decode = jpeg.decode

    def spy(data: Any, size: tuple[int, int], reduction: int = 1, buffer: Any = None) -> Any:
        asked.append((size, reduction))
        return decode(data, size, reduction, buffer)

    monkeypatch.setattr(jpeg, "decode", spy)
    for side in (100, 60, 45, 30, 20, 11, 3):
        arrays(path, RgbResize(side, side))
        for size, reduction in asked:
            assert reduction == 1 or min(size) / reduction >= side
            assert reduction == 8 or min(size) / (2 * reduction) < side
        asked.clear()


def test_batches_do_not_depend_on_threads_ranks_batch_size_or_start(path: Path) -> None:
    op = RgbResize(24, 32, RandomResizedCrop(), NORMALIZE)
    expected = load(path, op, epoch=1, threads=0)
    assert len(expected) == SAMPLES
    assert load(path, op, epoch=1, threads=3) == expected
    assert load(path, op, epoch=1, batch=6, threads=2) == expected
    parts = [load(path, op, epoch=1, shard=Shard(rank, 2)) for rank in range(2)]
    assert parts[0] | parts[1] == expected
    assert load(path, op, epoch=2) != expected
    fields: dict[str, Op] = {"image": op}
    with Loader(path, 8, fields, seed=3) as loader:
        resumed = {
            i: made["image"][row].tobytes()
            for made in loader.batches(1, start=1)
            for row, i in enumerate(made.ids.tolist())
            if i >= 0
        }
    assert resumed.items() <= expected.items()
    assert len(resumed) == SAMPLES - 8


def test_layouts_and_normalization_show_the_same_pixels(path: Path) -> None:
    grey = arrays(path, RgbResize(20, 30))
    assert grey.shape == (SAMPLES, 20, 30, 3)
    assert grey.dtype == np.uint8
    planar = arrays(path, RgbResize(20, 30, layout="NCHW"))
    assert np.array_equal(planar.transpose(0, 2, 3, 1), grey)
    floats = arrays(path, RgbResize(20, 30, normalize=NORMALIZE))
    assert floats.dtype == np.float32
    both = arrays(path, RgbResize(20, 30, normalize=NORMALIZE, layout="NCHW"))
    assert np.array_equal(both.transpose(0, 2, 3, 1), floats)
    levels = floats * np.array(NORMALIZE.std) + np.array(NORMALIZE.mean)
    assert np.abs(levels - grey).max() < ROUNDING


def test_images_as_stored(tmp_path: Path) -> None:
    field = RGBImageField("proportion")
    images = [smooth(i, 21, 34) for i in range(20)]
    write(tmp_path / "mixed.beton", {"image": field}, [(image,) for image in images])
    write(tmp_path / "raw.beton", {"image": RGBImageField()}, [(image,) for image in images])
    for name in ("mixed", "raw"):
        reader = Reader(tmp_path / f"{name}.beton")
        with reader, Loader(reader, 7, {"image": Rgb()}, seed=1) as loader:
            for batch in loader.batches(0):
                for row, i in enumerate(batch.ids[batch.valid]):
                    assert np.array_equal(batch["image"][row], reader[i]["image"])


def test_a_damaged_jpeg_is_named(tmp_path: Path) -> None:
    path = tmp_path / "images.beton"
    write(path, {"image": RGBImageField("jpg")}, [(photo(i, 40, 50),) for i in range(3)])
    with Reader(path) as reader:
        taken = reader.column("image").take(np.array([1]))
        start, size = int(taken.starts[0]), int(taken.sizes[0])
    data = bytearray(path.read_bytes())
    middle = start + size // 2
    data[middle : start + size] = bytes(start + size - middle)
    path.write_bytes(data)
    for op in (Rgb(), RgbResize(8, 8)):
        with Reader(path) as reader, Loader(reader, 3, {"image": op}) as loader:
            reader._unverified[:] = False  # as in a file without checksums
            with pytest.raises(BetonError, match="field 'image', sample 1: JPEG cannot") as caught:
                next(loader.batches(0))
            assert "sample 1 of" in caught.value.__notes__[0]


class Corner:
    """The upper left quarter of a quarter of an image."""

    def windows(self, _key: Key, ids: Any, sizes: Any, _proportion: float) -> Any:
        return np.array([[0.0, 0, width // 4, height // 4] for height, width in sizes[: len(ids)]])


@pytest.mark.parametrize("has_checksums", [True, False])
def test_damage_after_the_window_is_found(tmp_path: Path, has_checksums: bool) -> None:
    """The JPEG is decoded to its end if it has no checksum, which would show the damage."""
    path = tmp_path / "image.beton"
    write(path, {"image": RGBImageField("jpg")}, [(photo(1, 160, 160),)])
    with Reader(path) as reader:
        taken = reader.column("image").take()
        end = int(taken.starts[0] + taken.sizes[0])
    data = path.read_bytes()
    data = data if has_checksums else without_manifest(data)
    op = RgbResize(10, 10, Corner())
    for damage, message in ((b"", ""), (bytes(30), "has changed" if has_checksums else "decoded")):
        path.write_bytes(data[: end - 2 - len(damage)] + damage + data[end - 2 :])
        with Reader(path) as reader, Loader(reader, 1, {"image": op}) as loader:
            if damage:
                with pytest.raises(BetonError, match=message):
                    next(loader.batches(0))
            else:
                assert next(loader.batches(0))["image"].std() > 0


def test_a_jpeg_of_another_size_is_rejected_at_any_scale() -> None:
    data = np.frombuffer(simplejpeg.encode_jpeg(photo(0, 80, 160)), np.uint8)
    for reduction in (1, 2, 4):
        with pytest.raises(BetonError, match="JPEG of another size"):
            jpeg.decode(data, (40, 80), reduction)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RgbResize(0, 8), "resize: got"),
        (lambda: RgbResize(8, 65536), "resize: got"),
        (lambda: RgbResize(8, 8, layout="CHW"), "layout: got 'CHW'"),  # type: ignore[arg-type]
        (lambda: RgbNormalize((0, 0), (1, 1)), "expected 3 of each"),  # type: ignore[arg-type]
        (lambda: RgbNormalize((0, 0, 0), (1, 0, 1)), "normalize std"),
        (lambda: RgbNormalize((0, 0, np.nan), (1, 1, 1)), "normalize mean"),
        (lambda: CentreCrop(0), "crop fraction"),
        (lambda: CentreCrop(1.5), "crop fraction"),
        (lambda: RandomResizedCrop(scale=(0.5, 0.1)), "crop scale"),
        (lambda: RandomResizedCrop(scale=(0, 1)), "crop scale"),
        (lambda: RandomResizedCrop(ratio=(0, 1)), "crop ratio"),
    ],
)
def test_invalid_arguments(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_another_kind_of_field_is_rejected(path: Path) -> None:
    with pytest.raises(BetonError, match=r"RgbResize does not support.*expected RGBImageField"):
        Loader(path, 4, {"label": RgbResize(8, 8)})
