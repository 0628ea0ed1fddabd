"""Random augmentations of whole images, grey or in colour, per sample, on any device.

Those of handwriting, which move the ink, are in `pipeline.loading.augment`.
"""

from dataclasses import dataclass
from typing import Literal

from pipeline.errors import UserError, check_range


@dataclass(frozen=True)
class ImageAugmentation:
    """Random augmentations, in the order in which they are applied; the defaults change nothing.

    `crop_scale` and `crop_ratio` are a random resized crop: its area as a fraction of the image's,
    and its width / height. `pad` is the number of pixels added on every side, by `pad_mode`, before
    the image's size is cropped at random. `flip` is the probability of a horizontal flip; with
    `alternate_flip`, an image is flipped in every second epoch instead. `rand_augment` is the
    number of operations of RandAugment (Cubuk et al. 2020), of `magnitude` 0 to 30. `brightness`,
    `contrast`, `saturation` and `hue` are the strengths of colour jitter, as torchvision defines
    them, applied with `jitter_probability`; `grey` is the probability that an image loses its
    colours. `cutout` is the side of a square, in pixels, that becomes the mean (DeVries and Taylor
    2017). Raises UserError for a value out of range.
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
