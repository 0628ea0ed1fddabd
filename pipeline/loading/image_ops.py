"""Operations on batches of images, with parameters of their own for every image.

Images are float32 (n, channels, height, width), 0 to 1, of one or three channels. The definitions
are those of torchvision.transforms.v2.functional, which has one parameter for a whole batch.
Parameters are numpy arrays on the host. Results depend on nothing else in a batch.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

Ids = NDArray[np.int64]
Floats = NDArray[np.float32]


def _on(images: Tensor, array: NDArray[Any]) -> Tensor:
    """Copy an array to the device of images; a GPU does not wait for it."""
    return torch.from_numpy(np.ascontiguousarray(array)).to(images.device, non_blocking=True)


def _per_image(images: Tensor, values: NDArray[Any]) -> Tensor:
    """Return values (n,) as a tensor (n, 1, 1, 1) of the images' dtype and device."""
    return _on(images, values).to(images.dtype).view(-1, 1, 1, 1)


def on_rows(images: Tensor, rows: Ids, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Return images of which those in `rows` are changed."""
    if not len(rows):
        return images
    if len(rows) == len(images):
        return change(images)
    places = _on(images, rows)
    return images.index_copy(0, places, change(images.index_select(0, places)))


def move(
    images: Tensor,
    offsets: Ids | None,
    flipped: NDArray[np.bool_] | None,
    pad_mode: Literal["reflect", "constant"],
) -> Tensor:
    """Crop windows at `offsets` (n, 2) from padded images, then flip some of them horizontally.

    Pixels are copied, not interpolated. `pad_mode` "reflect" mirrors an image about the centre of
    its outermost pixels, "constant" surrounds it with 0.
    """
    count, _, height, width = images.shape
    rows = torch.arange(height, device=images.device).expand(count, -1)
    columns = torch.arange(width, device=images.device).expand(count, -1)
    if flipped is not None:
        columns = torch.where(_on(images, flipped)[:, None], width - 1 - columns, columns)
    if offsets is not None:
        starts = _on(images, offsets)
        rows, columns = rows + starts[:, :1], columns + starts[:, 1:]
    inside = None
    if offsets is not None and pad_mode == "reflect":
        rows, columns = (
            last - (last - places.abs()).abs()
            for places, last in ((rows, height - 1), (columns, width - 1))
        )
    elif offsets is not None:
        down = (rows >= 0) & (rows < height)
        inside = down[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
        rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    batch = torch.arange(count, device=images.device)[:, None, None]
    moved = images.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None, :]]
    if inside is not None:
        moved = moved * inside[..., None]
    return moved.permute(0, 3, 1, 2)


def resized_crop(images: Tensor, windows: NDArray[np.float64]) -> Tensor:
    """Resize windows (n, 4) of x, y, width and height, in pixels, to the size of the images.

    It is bilinear interpolation, with a filter as wide as a pixel of the result where that is
    larger than one of the window: torchvision's resized_crop with antialias. Pixels outside of a
    window have no effect. Sums are in float64, so that they do not depend on the batch.
    """
    height, width = images.shape[2:]
    x, y, wide, high = windows.T
    down, across = (
        _on(images, _filters(start, length, side))[:, None]
        for start, length, side in ((y, high, height), (x, wide, width))
    )
    return (down @ images.double() @ across.mT).to(images.dtype)


def _filters(starts: NDArray[Any], lengths: NDArray[Any], side: int) -> NDArray[np.float64]:
    """Return the weights of source pixels in each pixel of a resized side: (n, side, side)."""
    scales = (lengths / side)[:, None, None]
    pixels = np.arange(side) + 0.5
    centres = starts[:, None, None] + pixels[:, None] * scales
    weights = np.clip(1 - np.abs(pixels - centres) / np.maximum(scales, 1), 0, None)
    first, last = starts[:, None, None], (starts + lengths)[:, None, None]
    weights *= (pixels > first) & (pixels < last)
    weights /= weights.sum(axis=2, keepdims=True)
    return weights


def cut_out(images: Tensor, boxes: Ids) -> Tensor:
    """Fill boxes (n, 4) of top, bottom, left and right with 0."""
    top, bottom, left, right = _on(images, boxes)[..., None].unbind(1)
    rows, columns = (torch.arange(n, device=images.device) for n in images.shape[2:])
    high, wide = (rows >= top) & (rows < bottom), (columns >= left) & (columns < right)
    return images.masked_fill((high[:, :, None] & wide[:, None, :])[:, None], 0)


def colour_jitter(images: Tensor, jitter: Floats) -> Tensor:
    """Change brightness, contrast, saturation and hue by `jitter` (n, 4), in this order."""
    changes = (adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue)
    for change, values, nothing in zip(changes, jitter.T, (1, 1, 1, 0), strict=True):
        rows = np.flatnonzero(values != nothing)
        images = on_rows(images, rows, partial(change, factors=values[rows]))
    return images


def _blend(images: Tensor, others: Tensor | float, factors: Floats) -> Tensor:
    """Return images × factors + others × (1 - factors), clipped to 0 to 1; factors are (n,)."""
    weights = _per_image(images, factors)
    return (images * weights + (1 - weights) * others).clamp_(0, 1)


def _luminance(images: Tensor) -> Tensor:
    """Return the grey levels (n, 1, height, width) of images."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.unbind(1)
    return (red * 0.2989 + green * 0.587 + blue * 0.114)[:, None]


def to_grey(images: Tensor) -> Tensor:
    """Return images without colours, with as many channels."""
    return _luminance(images).expand_as(images)


def adjust_brightness(images: Tensor, factors: Floats) -> Tensor:
    """Multiply images by factors (n,)."""
    return _blend(images, 0.0, factors)


def adjust_contrast(images: Tensor, factors: Floats) -> Tensor:
    """Multiply the distances from an image's mean grey level by factors (n,)."""
    # A mean in float64 does not depend on the order of its sums, after rounding.
    means = _luminance(images).mean(dim=(1, 2, 3), keepdim=True, dtype=torch.float64)
    return _blend(images, means.to(images.dtype), factors)


def adjust_saturation(images: Tensor, factors: Floats) -> Tensor:
    """Multiply the distances of pixels from their grey level by factors (n,)."""
    return _blend(images, _luminance(images), factors)


def adjust_hue(images: Tensor, factors: Floats) -> Tensor:
    """Turn the hues of images (n, 3, height, width) by `factors` (n,) of a whole turn."""
    red, green, blue = images.unbind(1)
    value, least = images.amax(dim=1), images.amin(dim=1)
    chroma = value - least
    divisor = torch.where(chroma == 0, 1.0, chroma)
    sixths = torch.where(
        value == red,
        (green - blue) / divisor,
        torch.where(value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    sixths = sixths + 6 * _per_image(images, factors)[:, 0]
    channels = []
    for start in (5, 3, 1):  # of red, green and blue: where on the circle they begin to fall
        place = (start + sixths).remainder(6)
        part = torch.minimum(place, 4 - place).clamp(0, 1)
        channels.append(value - chroma * part)
    return torch.stack(channels, dim=1).clamp_(0, 1)


def adjust_sharpness(images: Tensor, factors: Floats) -> Tensor:
    """Multiply the distances from smoothed images by factors (n,); border pixels are unchanged."""
    height, width = images.shape[2:]
    if min(height, width) <= 2:
        return images
    inner = images[:, :, 1:-1, 1:-1]
    total = inner * 4
    for row in range(3):  # shifted views: the sum of a pixel does not depend on the batch
        for column in range(3):
            total += images[:, :, row : height - 2 + row, column : width - 2 + column]
    sharp = images.clone()
    sharp[:, :, 1:-1, 1:-1] = _blend(inner, total / 13, factors)
    return sharp


OPERATIONS = (
    "identity",
    "shear x",
    "shear y",
    "translate x",
    "translate y",
    "rotate",
    "brightness",
    "saturation",
    "contrast",
    "sharpness",
    "posterize",
    "solarize",
    "autocontrast",
    "equalize",
)
BINS = 31  # magnitudes 0 to 30
MOVES = OPERATIONS[1:6]
BLENDS = {
    "brightness": adjust_brightness,
    "saturation": adjust_saturation,
    "contrast": adjust_contrast,
    "sharpness": adjust_sharpness,
}


def rand_augment(images: Tensor, operations: Ids, signs: Floats, magnitude: int) -> Tensor:
    """Apply k operations of RandAugment to each image, one after another.

    `operations`, int64 (n, k), are positions in OPERATIONS, and `signs`, float32 (n, k), directions
    of shears, moves, rotations and blends. A `magnitude` of 0 to 30 is of torchvision's 31 bins.
    Images move by the nearest pixel, and 0 comes in from outside.
    """
    strength = magnitude / (BINS - 1)
    for chosen, sign in zip(operations.T, signs.T, strict=True):
        numbers = [OPERATIONS.index(name) for name in MOVES]
        rows = np.flatnonzero(np.isin(chosen, numbers))
        maps = _moves(chosen[rows], sign[rows], strength, *images.shape[2:])
        images = on_rows(images, rows, partial(_map_nearest, maps=maps))
        for name, blend in BLENDS.items():
            rows = np.flatnonzero(chosen == OPERATIONS.index(name))
            factors = 1 + sign[rows] * np.float32(0.9 * strength)
            images = on_rows(images, rows, partial(blend, factors=factors))
        for name, change in _fixed(strength).items():
            rows = np.flatnonzero(chosen == OPERATIONS.index(name))
            images = on_rows(images, rows, change)
    return images


def _fixed(strength: float) -> dict[str, Callable[[Tensor], Tensor]]:
    """Return the operations that are the same for all images."""
    from torchvision.transforms.v2 import functional  # takes long to import

    bits = 8 - round(4 * strength)
    return {
        "posterize": lambda part: functional.posterize(part, bits),
        "solarize": lambda part: functional.solarize(part, 1 - strength),
        "autocontrast": functional.autocontrast,
        "equalize": functional.equalize,
    }


def _moves(
    operations: Ids, signs: Floats, strength: float, height: int, width: int
) -> NDArray[np.float64]:
    """Return maps (n, 2, 3) from pixels of a result to pixels of its image.

    Coordinates (x, y) are in pixels from the image's centre. Shears keep the top left corner.
    """
    maps = np.zeros((len(operations), 2, 3))
    maps[:, 0, 0] = maps[:, 1, 1] = 1
    shear, angle = 0.3 * strength * signs, np.radians(30 * strength * signs)
    name = np.array(OPERATIONS)[operations]
    maps[:, 0, 1] = np.where(name == "shear x", shear, 0)
    maps[:, 0, 2] = np.where(name == "shear x", shear * height / 2, 0)
    maps[:, 1, 0] = np.where(name == "shear y", shear, 0)
    maps[:, 1, 2] = np.where(name == "shear y", shear * width / 2, 0)
    for axis, side in enumerate((width, height)):
        pixels = math.floor(150 / 331 * side * strength)
        moved = name == ("translate x", "translate y")[axis]
        maps[moved, axis, 2] = -signs[moved] * pixels
    turned = name == "rotate"
    cosine, sine = np.cos(angle[turned]), np.sin(angle[turned])
    maps[turned, :, :2] = np.stack([cosine, -sine, sine, cosine], axis=1).reshape(-1, 2, 2)
    return maps


def _map_nearest(images: Tensor, maps: NDArray[np.float64]) -> Tensor:
    """Return images (n, C, H, W) that show, at every pixel, the nearest one to where it maps."""
    height, width = images.shape[2:]
    x, y = (torch.arange(n, device=images.device) - (n - 1) / 2 for n in (width, height))
    matrix = _per_image(images, maps.reshape(-1)).view(-1, 2, 3, 1, 1)
    places = matrix[:, :, 0] * x + matrix[:, :, 1] * y[:, None] + matrix[:, :, 2]
    grid = torch.stack([places[:, 0] * (2 / width), places[:, 1] * (2 / height)], dim=3)
    return F.grid_sample(images, grid, mode="nearest", padding_mode="zeros", align_corners=False)
