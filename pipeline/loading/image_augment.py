"""Random augmentations of whole images, grey or in colour, per sample, on any device.

Those of handwriting, which move the ink, are in `pipeline.loading.augment`. Random numbers are
counter-based (`beton.rng`): a sample gets the same augmentation on any number of ranks, and after a
resume. They are drawn on the host, where they also say which rows an operation concerns, so that a
device never waits for the host. A strength of 0 costs nothing.

Operations and their strengths are those of torchvision.transforms.v2, on float images from 0 to 1.
Their order is fixed: random resized crop, pad and crop, flip, RandAugment, brightness, contrast,
saturation, hue, grey, normalisation, cutout. Pixels outside of an image are 0: black, or paper.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from beton import rng
from beton.crop import RandomResizedCrop
from pipeline.errors import UserError, check_range
from pipeline.loading import image_ops
from pipeline.loading.dataset import Ids, Normalize

PadMode = Literal["reflect", "constant"]


class ImageParameters(NamedTuple):
    """The augmentations of n images, in numpy arrays; None skips one.

    `windows`, float64 (n, 4), are the x, y, width and height of crops, in pixels. `offsets`, int64
    (n, 2), are the rows and columns by which crops of padded images start above and left of the
    image, at least -padding and at most padding; the image continues by `pad_mode`. `flipped` is
    bool (n,). `operations`, int64 (n, k), are those of RandAugment, as positions in
    `image_ops.OPERATIONS`; `signs`, float32 (n, k), are their directions, and `magnitude` is their
    common one. `jitter`, float32 (n, 4), has factors of brightness, contrast and saturation, and a
    fraction of a turn by which hues move; 1, 1, 1, 0 changes nothing. `grey` is bool (n,). `boxes`,
    int64 (n, 4), are the top, bottom, left and right of what cutout fills.
    """

    windows: NDArray[np.float64] | None = None
    offsets: Ids | None = None
    flipped: NDArray[np.bool_] | None = None
    operations: Ids | None = None
    signs: NDArray[np.float32] | None = None
    jitter: NDArray[np.float32] | None = None
    grey: NDArray[np.bool_] | None = None
    boxes: Ids | None = None
    pad_mode: PadMode = "reflect"
    magnitude: int = 0

    def select(self, rows: slice) -> "ImageParameters":
        """Return the parameters of some of the images."""
        parts: dict[str, Any] = self._asdict()
        arrays = {name: part[rows] for name, part in parts.items() if isinstance(part, np.ndarray)}
        return ImageParameters(**{**parts, **arrays})


@dataclass(frozen=True)
class ImageAugmentation:
    """Random augmentations, in the order in which they are applied; the defaults change nothing.

    `crop_scale` and `crop_ratio` are a random resized crop: its area as a fraction of the image's,
    and its width / height. `pad` is the number of pixels added on every side, by `pad_mode`, before
    the image's size is cropped at random. `flip` is the probability of a horizontal flip; with
    `alternate_flip`, an image is flipped in every second epoch instead, starting at random.
    `rand_augment` is the number of operations of RandAugment (Cubuk et al. 2020), of `magnitude` 0
    to 30. `brightness`, `contrast`, `saturation` and `hue` are the strengths of colour jitter, as
    torchvision defines them, applied with `jitter_probability`; `grey` is the probability that an
    image loses its colours. `cutout` is the side of a square, in pixels, that becomes the mean
    (DeVries and Taylor 2017). Raises UserError for a value out of range.
    """

    crop_scale: tuple[float, float] | None = None
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    pad: int = 0
    pad_mode: Literal["reflect", "constant"] = "reflect"
    flip: float = 0.0
    alternate_flip: bool = False
    rand_augment: int = 0
    magnitude: int = 9
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    jitter_probability: float = 1.0
    grey: float = 0.0
    cutout: int = 0

    def __post_init__(self) -> None:
        for name, high in (
            ("pad", 4096),
            ("flip", 1),
            ("rand_augment", 10),
            ("magnitude", 30),
            ("brightness", 10),
            ("contrast", 10),
            ("saturation", 10),
            ("hue", 0.5),
            ("jitter_probability", 1),
            ("grey", 1),
            ("cutout", 4096),
        ):
            check_range(name, getattr(self, name), 0, high)
        if self.pad_mode not in ("reflect", "constant"):
            raise UserError(f"pad_mode: got {self.pad_mode!r}, expected reflect or constant")
        if self.alternate_flip and self.flip:
            raise UserError("alternate_flip: got flip too, expected one of them")
        if self.crop_scale is not None:
            low, high = self.crop_scale
            if not 0 < low <= high <= 1:
                raise UserError(f"crop_scale: got {low}, {high}, expected 0 < low <= high <= 1")
        low, high = self.crop_ratio
        if not 0 < low <= high < math.inf:
            raise UserError(f"crop_ratio: got {low}, {high}, expected 0 < low <= high")

    def __bool__(self) -> bool:
        """Return whether any image can change."""
        jitter = self.brightness or self.contrast or self.saturation or self.hue
        return bool(
            self.crop_scale is not None
            or self.pad
            or self.flip
            or self.alternate_flip
            or self.rand_augment
            or (jitter and self.jitter_probability)
            or self.grey
            or self.cutout
        )

    def check(self, shape: tuple[int, int, int]) -> None:
        """Raise UserError for images of (channels, height, width) that this does not suit."""
        channels, *sides = shape
        if channels == 1:
            for name in ("saturation", "hue", "grey"):
                if value := getattr(self, name):
                    raise UserError(f"{name}: got {value}, expected 0: the images are grey")
        if self.pad_mode == "reflect" and self.pad >= min(sides):
            raise UserError(
                f"pad: got {self.pad}, expected less than {min(sides)}, the images' shorter side"
            )

    def sample(self, seed: int, epoch: int, ids: Ids, size: tuple[int, int]) -> ImageParameters:
        """Return the parameters of samples `ids` (n,), images of `size` (height, width)."""
        # Which number is for what is never changed: runs depend on it.
        count = 11 + 2 * self.rand_augment
        uniforms = rng.uniform(seed, epoch, ids, rng.IMAGE, count)
        parts: dict[str, Any] = {}
        if self.crop_scale is not None:
            crop = RandomResizedCrop(self.crop_scale, self.crop_ratio)
            sizes = np.broadcast_to(np.array(size, np.int64), (len(ids), 2))
            key = rng.Key(seed, epoch)
            parts["windows"] = crop.windows(key, ids, sizes, size[1] / size[0])
        if self.pad:
            moves = np.floor(uniforms[:, 0:2] * (2 * self.pad + 1)).astype(np.int64)
            parts |= {"offsets": moves - self.pad, "pad_mode": self.pad_mode}
        if self.flip:
            parts["flipped"] = uniforms[:, 2] < self.flip
        elif self.alternate_flip:
            first = rng.uniform(seed, 0, ids, rng.IMAGE, 3)[:, 2] < 0.5
            parts["flipped"] = first ^ bool(epoch % 2)
        if self.brightness or self.contrast or self.saturation or self.hue:
            parts["jitter"] = self._jitter(uniforms[:, 3:8])
        if self.grey:
            parts["grey"] = uniforms[:, 8] < self.grey
        if self.cutout:
            parts["boxes"] = self._boxes(uniforms[:, 9:11], size)
        if self.rand_augment:
            chosen, signs = uniforms[:, 11::2], uniforms[:, 12::2]
            operations = np.floor(chosen * len(image_ops.OPERATIONS)).astype(np.int64)
            signs = np.where(signs < 0.5, -1, 1).astype(np.float32)
            parts |= {"operations": operations, "signs": signs, "magnitude": self.magnitude}
        return ImageParameters(**parts)

    def _jitter(self, uniforms: NDArray[np.float64]) -> NDArray[np.float32]:
        """Return the factors (n, 4) from five numbers (n, 5); the first says whether to apply."""
        strengths = np.array([self.brightness, self.contrast, self.saturation])
        low, high = np.maximum(0, 1 - strengths), 1 + strengths
        jitter = np.empty((len(uniforms), 4))
        jitter[:, :3] = low + uniforms[:, 1:4] * (high - low)
        jitter[:, 3] = (2 * uniforms[:, 4] - 1) * self.hue
        jitter[uniforms[:, 0] >= self.jitter_probability] = 1, 1, 1, 0
        return jitter.astype(np.float32)

    def _boxes(self, uniforms: NDArray[np.float64], size: tuple[int, int]) -> Ids:
        """Return top, bottom, left and right (n, 4) of squares around a random pixel, clipped."""
        sides = np.array(size)
        starts = np.floor(uniforms * sides).astype(np.int64) - self.cutout // 2
        low, high = np.clip(starts, 0, sides), np.clip(starts + self.cutout, 0, sides)
        return np.stack([low[:, 0], high[:, 0], low[:, 1], high[:, 1]], axis=1)


UNCHANGED = ImageParameters()


def augment_images(
    images: Tensor, parameters: ImageParameters, normalize: Normalize | None = None
) -> Tensor:
    """Augment and normalise images, float32 (n, channels, height, width), 0 to 1 before.

    What cutout fills is 0 in the result: the mean if images are normalised, else black or paper.
    The result may share memory with `images`.
    """
    if parameters.windows is not None:
        images = image_ops.resized_crop(images, parameters.windows)
    if parameters.offsets is not None or parameters.flipped is not None:
        images = image_ops.move(images, parameters.offsets, parameters.flipped, parameters.pad_mode)
    if parameters.operations is not None and parameters.signs is not None:
        images = image_ops.rand_augment(
            images, parameters.operations, parameters.signs, parameters.magnitude
        )
    if parameters.jitter is not None:
        images = image_ops.colour_jitter(images, parameters.jitter)
    if parameters.grey is not None:
        rows = np.flatnonzero(parameters.grey)
        images = image_ops.on_rows(images, rows, image_ops.to_grey)
    if normalize is not None:
        mean, std = (
            torch.tensor(values).view(-1, 1, 1).to(images.device, non_blocking=True)
            for values in (normalize.mean, normalize.std)
        )
        images = (images - mean).div_(std)
    if parameters.boxes is not None:
        images = image_ops.cut_out(images, parameters.boxes)
    return images
