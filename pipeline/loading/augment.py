"""Per-sample random changes of pictures, on a device: which, and how they are made.

The numbers are counter-based (`beton.rng`), so a sample is changed alike on any number of ranks or
threads and after a resume. Turning, scaling, slanting, moving, tilting and bending a picture, and
cutting out the square that the network sees, are one map, so a picture is resampled once. What a
strength of 0 switches off costs nothing.

What differs between hands is slant (shear), proportions (aspect) and above all the pen. Zoom must
stay modest: a letter's case often lies in its size alone (o and O, s and S).
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

Ids = NDArray[np.int64]


class Transforms(NamedTuple):
    """What to do to n pictures; a part that is None is left out. All are float32.

    A place is (x, y) measured from the middle in halves of a side. The place p of the new picture
    shows what is in the old one at maps (p / (1 + tilts · p)) + the displacement at p.

    `maps` (n, 2, 3): a row maps (x, y, 1). `pens` (n,), from -1 to 1: how far strokes shrink or
    grow by a pixel on every side. `tilts` (n, 2): the page seen at an angle, as a perspective map
    that keeps the middle. `bends` (n, 2, K, K): x and y of the displacements' spline coefficients,
    by row and column of a grid over the square. `lights` (n, 2): factors of the ink, and of its
    odds against the paper.
    """

    maps: Tensor
    pens: Tensor | None = None
    tilts: Tensor | None = None
    bends: Tensor | None = None
    lights: Tensor | None = None

    @classmethod
    def none(cls, count: int) -> "Transforms":
        """Return what leaves `count` pictures as they are."""
        return cls(torch.eye(2, 3).expand(count, 2, 3))

    def of(self, rows: slice) -> "Transforms":
        """Return the changes of some of the pictures."""
        return Transforms(**{name: part[rows] for name, part in self.parts().items()})

    def parts(self) -> dict[str, Tensor]:
        """Return the parts that are not None, by name."""
        return {name: part for name, part in self._asdict().items() if part is not None}


MOST = {  # of what has a limit
    "pen": 1,
    "warp": 0.4,
    "affine_probability": 1,
    "lighting_probability": 1,
}


@dataclass(frozen=True)
class Augmentation:
    """Strengths of random changes, each uniform from minus to plus its strength; 0 is none.

    `rotation` in degrees; `zoom` and `aspect` as logarithms of size and of width to height, nearly
    fractions; `shear` horizontal, as the tangent of the slant; `translation` as a share of the
    side of the square that the network sees; `pen` in pixels of that square, up to 1.

    `warp`, up to 0.4, is the perspective of a page tilted about both axes: opposite sides come to
    differ as 1 + warp to 1 - warp, as with fastai's magnitude, but the middle stays. `lighting`
    multiplies the ink by up to exp(lighting) (contrast) and moves half-tones by up to lighting / 2
    (brightness, as fastai's, on the log-odds); what bears no ink stays so.
    `magnification` is a logarithm of size that is uniform from 0 to its strength, never smaller:
    fastai's `max_zoom=1.1` is a magnification of log 1.1. `elastic` is the standard deviation of a
    smooth random displacement along x and y, as a share of the square's side (Simard, Steinkraus
    and Platt 2003, "Best practices for convolutional neural networks applied to visual document
    analysis", whose σ 4 and α 34 on 29 pixels come to nearly 0.05).

    A sample is moved at all (all but pen and lighting) with `affine_probability`, lit with
    `lighting_probability`.
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
        for strength in fields(self):
            most = MOST.get(strength.name, math.inf)
            check_range(strength.name, getattr(self, strength.name), 0, most)

    def draw(self, seed: int, epoch: int, ids: Ids) -> Transforms:
        """Return the changes of samples `ids` (n,) in an epoch."""
        # Which number is for what is never changed: runs depend on it.
        uniforms = rng.uniform(seed, epoch, ids, rng.AUGMENT, 14)
        numbers = 2 * uniforms - 1
        moved = uniforms[:, 12] < self.affine_probability
        lit = uniforms[:, 13] < self.lighting_probability
        maps = self._maps(numbers, uniforms[:, 11])
        parts = {"maps": np.where(moved[:, None, None], maps, np.eye(2, 3))}
        if self.pen:
            parts["pens"] = numbers[:, 6] * self.pen
        if self.warp:
            parts["tilts"] = moved[:, None] * numbers[:, 7:9] * self.warp
        if self.elastic:
            parts["bends"] = moved[:, None, None, None] * self._bends(seed, epoch, ids)
        if self.lighting:
            parts["lights"] = np.exp(lit[:, None] * numbers[:, 9:11] * self.lighting * (1, 2))
        return Transforms(**{n: torch.from_numpy(a.astype(np.float32)) for n, a in parts.items()})

    def _maps(
        self, numbers: NDArray[np.float64], magnified: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        angle = numbers[:, 0] * math.radians(self.rotation)
        scale = np.exp(numbers[:, 1] * self.zoom - magnified * self.magnification)
        stretch = np.exp(numbers[:, 2] * self.aspect / 2)
        slant = numbers[:, 3] * self.shear
        maps = np.zeros((len(numbers), 2, 3))
        cosine, sine = np.cos(angle), np.sin(angle)
        # rotation @ [[scale * stretch, scale * slant], [0, scale / stretch]]
        maps[:, 0, 0] = scale * stretch * cosine
        maps[:, 1, 0] = scale * stretch * sine
        maps[:, 0, 1] = scale * (slant * cosine - sine / stretch)
        maps[:, 1, 1] = scale * (slant * sine + cosine / stretch)
        maps[:, :, 2] = numbers[:, 4:6] * 2 * self.translation
        return maps

    def _bends(self, seed: int, epoch: int, ids: Ids) -> NDArray[np.float64]:
        uniforms = rng.uniform(seed, epoch, ids, rng.ELASTIC, 2 * KNOTS * KNOTS)
        bends = (2 * uniforms - 1).reshape(len(ids), 2, KNOTS, KNOTS)
        # A cubic B-spline of uniform numbers deviates by 151 / 315 of what each of them does, which
        # is 1 / √3. A share of the side is two of its half.
        return bends * (2 * self.elastic * math.sqrt(3) * 315 / 151)


def transform_images(images: Tensor, changes: Transforms, size: int) -> Tensor:
    """Cut a square around the ink of each picture, changed: (B, 1, H, W) → (B, 1, size, size).

    `pictures` are ink, float in [0, 1]; `changes` are on their device.
    """
    images = cut(images, changes.maps, size, changes.tilts, changes.bends)
    if changes.pens is not None:
        images = change_pens(images, changes.pens)
    if changes.lights is not None:
        images = change_lights(images, changes.lights)
    return images


def cut(
    images: Tensor,
    maps: Tensor,
    size: int,
    tilts: Tensor | None = None,
    bends: Tensor | None = None,
) -> Tensor:
    """Cut a square around the ink of each picture: (B, 1, H, W) → (B, 1, size, size).

    `pictures` are ink, float in [0, 1]; beyond their edges there is none. `maps`, `tilts` and
    `bends` are as in `Changes`, on the pictures' device. The scale is kept.
    """
    height, width = images.shape[2:]
    sides = torch.tensor([size / width, size / height], device=images.device)
    theta = maps * sides[:, None]
    theta[:, :, 2] += ink_centres(images)
    if tilts is not None:  # over the denominator, M (p / d) + t is (M p + t d) / d
        theta[:, :, :2] += theta[:, :, 2:] * tilts[:, None]
    grid = F.affine_grid(theta, [len(images), 1, size, size], align_corners=False)
    if tilts is not None:
        along = tilts[:, :, None] * _places(size, images.device)  # (B, 2, size)
        grid /= (1 + along[:, 1, :, None] + along[:, 0, None, :])[..., None]
    if bends is not None:
        grid += displacements(bends, size).movedim(1, 3) * sides
    return F.grid_sample(images, grid, padding_mode="zeros", align_corners=False)


KNOTS = 6  # a spline's coefficients along a side, a third of it apart


def displacements(bends: Tensor, size: int) -> Tensor:
    """Return smooth fields from `Changes.bends`: (B, 2, K, K) → (B, 2, size, size), in half sides.

    Random coefficients of a cubic B-spline are white noise under a filter that is all but a
    Gaussian, with a standard deviation of 0.19 of the side; what comes out varies nearly equally
    everywhere, as interpolated random numbers do not.
    """
    places = (_places(size, bends.device) + 1) / 2 * (KNOTS - 3) + 1  # from 1 to KNOTS - 2
    distances = (places[:, None] - torch.arange(KNOTS, device=bends.device)).abs()
    spline = (2 - distances).relu() ** 3 / 6 - (1 - distances).relu() ** 3 * (4 / 6)
    return spline @ bends @ spline.T


def _places(size: int, device: torch.device) -> Tensor:
    """Return the middles of a side's pixels, in half sides from its own middle: (size,)."""
    return (2 * torch.arange(size, device=device) + 1) / size - 1


def ink_centres(images: Tensor) -> Tensor:
    """Return the middles of the boxes around the ink: (B, 1, H, W) → (B, 2), x and y.

    They are in halves of the picture's width and height, from its middle; 0 where there is no ink.
    """
    middles = []
    for along in (2, 3):  # what is left after the maximum over it: columns, rows
        profile = images.amax(dim=(1, along)) > INK
        places = torch.linspace(-1, 1, profile.shape[1] + 1, device=images.device)
        first = torch.where(profile, places[:-1], 2.0).amin(dim=1)
        last = torch.where(profile, places[1:], -2.0).amax(dim=1)
        middles.append((first + last) / 2)
    return torch.stack(middles, dim=1)


INK = 0.25  # of a pixel's area, below which a pixel does not count as inked


def change_pens(images: Tensor, pens: Tensor) -> Tensor:
    """Make strokes of (B, 1, H, W) thinner or thicker by `pens` (B,), as in `Changes`.

    Part way to the maximum over each pixel's neighbourhood, or to the minimum: grey-level dilation
    and erosion, which are each other on the negative.
    """
    pens = pens.view(-1, 1, 1, 1)
    signs = torch.where(pens < 0, -1.0, 1.0)
    grown = F.pad(signs * images, (1, 1, 1, 1), value=-torch.inf)
    for axis in (2, 3):  # shifted views, since pooling is many times slower on a CPU
        n = grown.shape[axis] - 2
        before, here, after = (grown.narrow(axis, start, n) for start in range(3))
        grown = torch.maximum(torch.maximum(before, here), after)
    return torch.lerp(images, signs * grown, pens.abs())


def change_lights(images: Tensor, lights: Tensor) -> Tensor:
    """Light pictures (B, 1, H, W) by `lights` (B, 2), as in `Changes`: no ink stays none.

    Multiplying the odds x / (1 - x) adds to their logarithm, and needs no logarithm.
    """
    factors, odds = lights.view(-1, 2, 1, 1, 1).unbind(dim=1)
    ink = (images * factors).clamp_(max=1)
    brought = ink * odds
    return brought / (1 - ink).add_(brought)
