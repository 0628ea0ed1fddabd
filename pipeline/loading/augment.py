"""Random augmentations of images, per sample, on any device.

Random numbers are counter-based (`beton.rng`): a sample gets the same augmentation on any number of
ranks or threads, and after a resume. Rotation, scaling, shear, translation, perspective, elastic
displacement and the crop around the ink are one map, so an image is resampled once. A strength of 0
costs nothing.

Writers differ in slant (shear), proportions (aspect) and above all in the pen. Zoom must stay
modest: often only size tells a capital from a small letter (o and O, s and S).
"""

import math
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from beton import rng
from pipeline.errors import check_range
from pipeline.loading.dataset import Ids


class Transforms(NamedTuple):
    """The augmentations of n images, float32; None skips an augmentation.

    Coordinates (x, y) are in half sides from the image's centre, so they run from -1 to 1. The new
    image at p shows the old image at affine (p / (1 + perspective · p)) + the displacement at p.

    `affine` (n, 2, 3): the rows of each matrix act on (x, y, 1). `pen` (n,), from -1 to 1: pixels
    by which strokes shrink or grow on every side. `perspective` (n, 2): the tilt of the page about
    its centre. `elastic` (n, 2, K, K): spline coefficients of the displacements along x and y, by
    row and column of a grid over the square. `lighting` (n, 2): factors of the ink, and of its odds
    ink / (1 - ink).
    """

    affine: Tensor
    pen: Tensor | None = None
    perspective: Tensor | None = None
    elastic: Tensor | None = None
    lighting: Tensor | None = None

    @classmethod
    def identity(cls, count: int) -> "Transforms":
        """Return transforms that change none of `count` images."""
        return cls(torch.eye(2, 3).expand(count, 2, 3))

    def select(self, rows: slice) -> "Transforms":
        """Return the transforms of some of the images."""
        return Transforms(**{name: part[rows] for name, part in self.parts().items()})

    def parts(self) -> dict[str, Tensor]:
        """Return the tensors that are not None, by name."""
        return {name: part for name, part in self._asdict().items() if part is not None}


LIMITS = {"pen": 1, "warp": 0.4, "affine_probability": 1, "lighting_probability": 1}


@dataclass(frozen=True)
class Augmentation:
    """Strengths of random augmentations, each uniform in [-strength, strength]; 0 is off.

    `rotation` is in degrees. `zoom` and `aspect` are logarithms of size and of width to height,
    nearly fractions. `shear` is horizontal, as the tangent of the slant. `translation` is a
    fraction of the side of the square that the network sees. `pen` is in pixels of that square, at
    most 1.

    `warp`, at most 0.4, is the perspective of a page tilted about both axes: opposite sides differ
    as 1 + warp to 1 - warp. The magnitude is that of fastai; the centre stays fixed. `lighting`
    multiplies the ink by up to exp(lighting) (contrast) and moves half-tones by up to lighting / 2
    (brightness, on the log-odds, as in fastai); pixels without ink stay without ink.
    `magnification` is a logarithm of size, uniform between 0 and the strength: fastai's
    `max_zoom=1.1` is a magnification of log 1.1, and -log 2 shrinks to half the size at most.
    `elastic` is the standard deviation of a smooth random displacement
    along x and y, as a fraction of the square's side (Simard, Steinkraus and Platt 2003, "Best
    practices for convolutional neural networks applied to visual document analysis"; their σ 4 and
    α 34 on 29 pixels are nearly 0.05).

    `affine_probability` is the probability that a sample is moved (everything except pen and
    lighting), `lighting_probability` that its lighting changes. Raises UserError for a value out of
    range.
    """

    rotation: float = 0.0
    zoom: float = 0.0
    aspect: float = 0.0
    shear: float = 0.0
    translation: float = 0.0
    pen: float = 0.0
    warp: float = 0.0
    lighting: float = 0.0
    magnification: float = 0.0
    elastic: float = 0.0
    affine_probability: float = 1.0
    lighting_probability: float = 1.0

    def __post_init__(self) -> None:
        for field in fields(self):
            high = LIMITS.get(field.name, math.inf)
            low = -math.inf if field.name == "magnification" else 0
            check_range(field.name, getattr(self, field.name), low, high)

    def sample(self, seed: int, epoch: int, ids: Ids) -> Transforms:
        """Return the transforms of samples `ids` (n,) in an epoch."""
        # Which number is for what is never changed: runs depend on it.
        uniforms = rng.uniform(seed, epoch, ids, rng.AUGMENT, 14)
        signed = 2 * uniforms - 1
        moved = uniforms[:, 12] < self.affine_probability
        lit = uniforms[:, 13] < self.lighting_probability
        affine = self._affine(signed, uniforms[:, 11])
        parts = {"affine": np.where(moved[:, None, None], affine, np.eye(2, 3))}
        if self.pen:
            parts["pen"] = signed[:, 6] * self.pen
        if self.warp:
            parts["perspective"] = moved[:, None] * signed[:, 7:9] * self.warp
        if self.elastic:
            parts["elastic"] = moved[:, None, None, None] * self._coefficients(seed, epoch, ids)
        if self.lighting:
            parts["lighting"] = np.exp(lit[:, None] * signed[:, 9:11] * self.lighting * (1, 2))
        return Transforms(**{n: torch.from_numpy(a.astype(np.float32)) for n, a in parts.items()})

    def _affine(
        self, signed: NDArray[np.float64], magnified: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        angle = signed[:, 0] * math.radians(self.rotation)
        scale = np.exp(signed[:, 1] * self.zoom - magnified * self.magnification)
        stretch = np.exp(signed[:, 2] * self.aspect / 2)
        slant = signed[:, 3] * self.shear
        matrices = np.zeros((len(signed), 2, 3))
        cosine, sine = np.cos(angle), np.sin(angle)
        # rotation @ [[scale * stretch, scale * slant], [0, scale / stretch]]
        matrices[:, 0, 0] = scale * stretch * cosine
        matrices[:, 1, 0] = scale * stretch * sine
        matrices[:, 0, 1] = scale * (slant * cosine - sine / stretch)
        matrices[:, 1, 1] = scale * (slant * sine + cosine / stretch)
        matrices[:, :, 2] = signed[:, 4:6] * 2 * self.translation
        return matrices

    def _coefficients(self, seed: int, epoch: int, ids: Ids) -> NDArray[np.float64]:
        uniforms = rng.uniform(seed, epoch, ids, rng.ELASTIC, 2 * KNOTS * KNOTS)
        signed = (2 * uniforms - 1).reshape(len(ids), 2, KNOTS, KNOTS)
        # A cubic B-spline of independent coefficients has 151 / 315 of their standard deviation,
        # which is 1 / √3. A fraction of the side is twice that fraction of the half side.
        return signed * (2 * self.elastic * math.sqrt(3) * 315 / 151)


def transform_images(images: Tensor, transforms: Transforms, size: int) -> Tensor:
    """Crop a square around the ink and augment it: (B, 1, H, W) → (B, 1, size, size).

    `images` are ink, float in [0, 1]; `transforms` are on the same device.
    """
    images = crop(images, transforms, size)
    if transforms.pen is not None:
        images = change_stroke_width(images, transforms.pen)
    if transforms.lighting is not None:
        images = change_lighting(images, transforms.lighting)
    return images


def crop(images: Tensor, transforms: Transforms, size: int) -> Tensor:
    """Crop a square around the ink and move it: (B, 1, H, W) → (B, 1, size, size).

    Images are 0 beyond their edges. A pixel keeps its scale. Pen and lighting stay unchanged.
    """
    affine, _, perspective, elastic, _ = transforms
    height, width = images.shape[2:]
    # Numbers, for a tensor of them would be copied to the device, and the host would wait.
    sides = size / width, size / height
    theta = torch.stack([affine[:, axis] * side for axis, side in enumerate(sides)], dim=1)
    theta[:, :, 2] += ink_centres(images)
    if perspective is not None:  # with the denominator d, M (p / d) + t is (M p + t d) / d
        theta[:, :, :2] += theta[:, :, 2:] * perspective[:, None]
    # len(images) would be a constant in an exported program.
    grid = F.affine_grid(theta, [images.shape[0], 1, size, size], align_corners=False)
    if perspective is not None:
        along = perspective[:, :, None] * _pixel_centres(size, images.device)  # (B, 2, size)
        grid /= (1 + along[:, 1, :, None] + along[:, 0, None, :])[..., None]
    if elastic is not None:
        moved = displacements(elastic, size).unbind(1)
        grid += torch.stack([part * side for part, side in zip(moved, sides, strict=True)], dim=3)
    return F.grid_sample(images, grid, padding_mode="zeros", align_corners=False)


KNOTS = 6  # spline coefficients along a side; knots are a third of the side apart


def displacements(coefficients: Tensor, size: int) -> Tensor:
    """Return smooth fields from `Transforms.elastic`: (B, 2, K, K) → (B, 2, size, size).

    Displacements are in half sides. A cubic B-spline of random coefficients is white noise under a
    nearly Gaussian filter with a standard deviation of 0.19 sides. Its variance is nearly the same
    everywhere, unlike that of interpolated random numbers.
    """
    centres = _pixel_centres(size, coefficients.device)
    places = (centres + 1) / 2 * (KNOTS - 3) + 1  # from 1 to KNOTS - 2
    distances = (places[:, None] - torch.arange(KNOTS, device=coefficients.device)).abs()
    spline = (2 - distances).relu() ** 3 / 6 - (1 - distances).relu() ** 3 * (4 / 6)
    return spline @ coefficients @ spline.T


def _pixel_centres(size: int, device: torch.device) -> Tensor:
    """Return the centres of a side's pixels, in half sides from the side's centre: (size,)."""
    return (2 * torch.arange(size, device=device) + 1) / size - 1


def ink_centres(images: Tensor) -> Tensor:
    """Return the centres (x, y) of the bounding boxes of the ink: (B, 1, H, W) → (B, 2).

    They are in half widths and half heights from the image's centre; 0 without ink.
    """
    centres = []
    for reduced in (2, 3):  # the maximum over rows leaves columns, and the other way round
        profile = images.amax(dim=(1, reduced)) > INK_THRESHOLD
        edges = torch.linspace(-1, 1, profile.shape[1] + 1, device=images.device)
        first = torch.where(profile, edges[:-1], 2.0).amin(dim=1)
        last = torch.where(profile, edges[1:], -2.0).amax(dim=1)
        centres.append((first + last) / 2)
    return torch.stack(centres, dim=1)


INK_THRESHOLD = 0.25  # a pixel with less ink does not count as inked


def change_stroke_width(images: Tensor, pen: Tensor) -> Tensor:
    """Make strokes of (B, 1, H, W) thinner or thicker by `pen` (B,), as in `Transforms`.

    Interpolates towards the maximum or the minimum over each pixel's 3×3 neighbourhood: grey-level
    dilation and erosion, each of which is the other on the negative.
    """
    pen = pen.view(-1, 1, 1, 1)
    signs = torch.where(pen < 0, -1.0, 1.0)
    grown = F.pad(signs * images, (1, 1, 1, 1), value=-torch.inf)
    for axis in (2, 3):  # shifted views, since pooling is many times slower on a CPU
        n = grown.shape[axis] - 2
        before, here, after = (grown.narrow(axis, start, n) for start in range(3))
        grown = torch.maximum(torch.maximum(before, here), after)
    return torch.lerp(images, signs * grown, pen.abs())


def change_lighting(images: Tensor, lighting: Tensor) -> Tensor:
    """Change contrast and brightness of (B, 1, H, W) by `lighting` (B, 2), as in `Transforms`.

    Pixels without ink stay without ink. Multiplying the odds x / (1 - x) adds to the log-odds
    without computing a logarithm.
    """
    factors, odds = lighting.view(-1, 2, 1, 1, 1).unbind(dim=1)
    ink = (images * factors).clamp_(max=1)
    weighted = ink * odds
    return weighted / (1 - ink).add_(weighted)
