"""An image of any kind → the form of the training images."""

from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from beton.codec import jpeg
from beton.errors import SampleError
from pipeline.data.base import Decoded, ImageError, Pixels
from pipeline.data.pixels.colour import in_colour
from pipeline.data.pixels.image_decoder import decode
from pipeline.data.pixels.luma import luma
from pipeline.data.pixels.measures import ON_BLACK, measure, read_measures
from pipeline.data.pixels.scale import Scale, choose_scale
from pipeline.data.pixels.transparency import OPAQUE, blend, change_of, put_on_paper
from pipeline.data.prepare import RAW_MAX_PIXELS
from pipeline.evaluation.evaluate import TrainedModel
from pipeline.loading.dataset import PixelRules, View
from pipeline.pictures.errors import PictureError
from pipeline.pictures.framing import Framing

BLANK_CONTRAST = 16  # grey levels: compression leaves less than this on blank paper


@dataclass(frozen=True)
class Prepared:
    """An image, or a character in it, in the form of the training images.

    `stored` is uint8 (h, w) with the grey level `paper` of its paper, or in colour uint8 (h, w, 3),
    or the bytes of a JPEG file that is stored as it is. `box` is (x, y, width, height) of a
    separated character in pixels of the upright image.
    """

    name: str
    stored: NDArray[np.uint8] | bytes
    paper: int = 255
    box: tuple[int, int, int, int] | None = None


@dataclass(frozen=True)
class Preparation:
    """What is needed of a trained network to prepare images for it; it can be pickled."""

    view: View
    rules: PixelRules
    framing: Framing

    @classmethod
    def of(cls, trained: TrainedModel) -> "Preparation":
        """Return the preparation for a network."""
        return cls(trained.view, trained.config.pixels, Framing.of(trained))

    def prepare(
        self, picture: bytes | NDArray[np.uint8], separate: bool = False, name: str = ""
    ) -> list[Prepared]:
        """Return the image, or with `separate` each character in it. Raises PictureError."""
        decoded = _decode(picture)
        if self.view.channels == 3:
            return [Prepared(name, _colour(decoded, picture))]
        del separate
        grey = _to_8bit(decoded, self.rules)
        if int(grey.max()) - int(grey.min()) < BLANK_CONTRAST:
            raise PictureError("blank: no ink found")
        return [Prepared(name, grey, int(np.bincount(grey.ravel(), minlength=256).argmax()))]


def _decode(picture: bytes | NDArray[np.uint8]) -> Decoded:
    """Decode an image file, or describe an array of pixels in the same way."""
    if isinstance(picture, bytes | bytearray):
        try:
            return decode(picture)
        except ImageError as error:
            raise PictureError(str(error)) from error
    channels = 1 if picture.ndim == 2 else picture.shape[2] if picture.ndim == 3 else 0
    if picture.dtype != np.uint8 or channels not in (1, 3, 4) or not picture.size:
        raise PictureError(
            f"got {picture.dtype} {picture.shape}, expected uint8 (h, w), (h, w, 3) or (h, w, 4)"
        )
    if picture.ndim == 2:
        return Decoded(np.ascontiguousarray(picture))
    grey = np.ascontiguousarray(luma(picture[:, :, :3].transpose(2, 0, 1)))
    if channels == 3:
        return Decoded(grey, "RGB", colour=picture)
    paper = put_on_paper(grey, np.ascontiguousarray(picture[:, :, 3]))
    colour = picture[:, :, :3] if paper == OPAQUE else blend(np.ascontiguousarray(picture), paper)
    return Decoded(grey, "RGBA", change_of(paper), colour)


def _to_8bit(decoded: Decoded, rules: PixelRules) -> Pixels:
    """Return grey levels as uint8, deeper ones by the scale of the training or their own."""
    if decoded.grey.dtype == np.uint8:
        return np.ascontiguousarray(decoded.grey)
    if rules.scale is not None:
        return Scale(*rules.scale).to_8bit(decoded.grey)
    flat = np.zeros(decoded.grey.shape, np.uint8)
    scale = choose_scale(read_measures(measure(decoded, flat)))
    assert scale is not None
    return scale.to_8bit(decoded.grey)


def _colour(decoded: Decoded, picture: Any) -> Pixels | bytes:
    """Return an image in colour, on white paper where it is transparent, or its own JPEG file."""
    if ON_BLACK in decoded.changes:
        if isinstance(picture, bytes | bytearray):
            with Image.open(BytesIO(picture)) as image:
                picture = np.array(ImageOps.exif_transpose(image).convert("RGBA"))
        return blend(np.ascontiguousarray(picture), 255)
    if decoded.jpeg is not None and decoded.grey.size > RAW_MAX_PIXELS:
        try:
            jpeg.require_complete(decoded.jpeg, jpeg.read_size(decoded.jpeg))
        except SampleError:  # compressed again, as prep does
            pass
        else:
            return decoded.jpeg
    return in_colour(decoded, _to_8bit(decoded, PixelRules()))
