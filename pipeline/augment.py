"""Per-sample random changes of pictures, on a device: which, and how they are made.

The numbers are counter-based (`beton.rng`), so a sample is changed alike on any number of ranks or
threads and after a resume. Turning, scaling, slanting and moving a picture, and cutting out the
square that the network sees, are one affine map, so a picture is resampled once.

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
from pipeline.errors import UserError

Ids = NDArray[np.int64]


class Changes(NamedTuple):
    """What to do to n pictures.

    `maps` float32 (n, 2, 3): a row maps the place (x, y, 1) in the new picture to its place in the
    old one, both measured from the middle in halves of a side. `pens` float32 (n,), from -1 to 1:
    how far strokes shrink or grow by a pixel on every side.
    """

    maps: Tensor
    pens: Tensor

    @classmethod
    def none(cls, count: int) -> "Changes":
        """Return what leaves `count` pictures as they are."""
        return cls(torch.eye(2, 3).expand(count, 2, 3), torch.zeros(count))


@dataclass(frozen=True)
class Augmentation:
    """Strengths of random changes, each uniform from minus to plus its strength; 0 is none.

    `rotation` in degrees; `zoom` and `aspect` as logarithms of size and of width to height, nearly
    fractions; `shear` horizontal, as the tangent of the slant; `translation` as a share of the
    side of the square that the network sees; `pen` in pixels of that square, up to 1.
    """

    rotation: float = 0.0
    zoom: float = 0.0
    aspect: float = 0.0
    shear: float = 0.0
    translation: float = 0.0
    pen: float = 0.0

    def __post_init__(self) -> None:
        for strength in fields(self):
            value = getattr(self, strength.name)
            most = 1 if strength.name == "pen" else math.inf
            if not 0 <= value <= most:
                raise UserError(f"{strength.name}: got {value}, expected 0 to {most}")

    def draw(self, seed: int, epoch: int, ids: Ids) -> Changes:
        """Return the changes of samples `ids` (n,) in an epoch."""
        numbers = 2 * rng.uniform(seed, epoch, ids, rng.AUGMENT, 7) - 1
        angle = numbers[:, 0] * math.radians(self.rotation)
        scale = np.exp(numbers[:, 1] * self.zoom)
        stretch = np.exp(numbers[:, 2] * self.aspect / 2)
        slant = numbers[:, 3] * self.shear
        maps = np.zeros((len(ids), 2, 3))
        cosine, sine = np.cos(angle), np.sin(angle)
        # rotation @ [[scale * stretch, scale * slant], [0, scale / stretch]]
        maps[:, 0, 0] = scale * stretch * cosine
        maps[:, 1, 0] = scale * stretch * sine
        maps[:, 0, 1] = scale * (slant * cosine - sine / stretch)
        maps[:, 1, 1] = scale * (slant * sine + cosine / stretch)
        maps[:, :, 2] = numbers[:, 4:6] * 2 * self.translation
        pens = numbers[:, 6] * self.pen
        return Changes(*(torch.from_numpy(array.astype(np.float32)) for array in (maps, pens)))


def cut(pictures: Tensor, maps: Tensor, size: int) -> Tensor:
    """Cut a square around the ink of each picture: (B, 1, H, W) → (B, 1, size, size).

    `pictures` are ink, float in [0, 1]; beyond their edges there is none. `maps` are as in
    `Changes`, on the pictures' device. The scale is kept.
    """
    height, width = pictures.shape[2:]
    sides = torch.tensor([size / width, size / height], device=pictures.device)
    theta = maps * sides[:, None]
    theta[:, :, 2] += ink_centres(pictures)
    grid = F.affine_grid(theta, [len(pictures), 1, size, size], align_corners=False)
    return F.grid_sample(pictures, grid, padding_mode="zeros", align_corners=False)


def ink_centres(pictures: Tensor) -> Tensor:
    """Return the middles of the boxes around the ink: (B, 1, H, W) → (B, 2), x and y.

    They are in halves of the picture's width and height, from its middle; 0 where there is no ink.
    """
    middles = []
    for along in (2, 3):  # what is left after the maximum over it: columns, rows
        profile = pictures.amax(dim=(1, along)) > INK
        places = torch.linspace(-1, 1, profile.shape[1] + 1, device=pictures.device)
        first = torch.where(profile, places[:-1], 2.0).amin(dim=1)
        last = torch.where(profile, places[1:], -2.0).amax(dim=1)
        middles.append((first + last) / 2)
    return torch.stack(middles, dim=1)


INK = 0.25  # of a pixel's area, below which a pixel does not count as inked


def change_pens(pictures: Tensor, pens: Tensor) -> Tensor:
    """Make strokes of (B, 1, H, W) thinner or thicker by `pens` (B,), as in `Changes`.

    Part way to the maximum over each pixel's neighbourhood, or to the minimum: grey-level dilation
    and erosion, which are each other on the negative.
    """
    pens = pens.view(-1, 1, 1, 1)
    signs = torch.where(pens < 0, -1.0, 1.0)
    grown = F.pad(signs * pictures, (1, 1, 1, 1), value=-torch.inf)
    for axis in (2, 3):  # shifted views, since pooling is many times slower on a CPU
        n = grown.shape[axis] - 2
        before, here, after = (grown.narrow(axis, start, n) for start in range(3))
        grown = torch.maximum(torch.maximum(before, here), after)
    return torch.lerp(pictures, signs * grown, pens.abs())
