"""An image of any kind → the form of the training images."""

from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from scipy import ndimage

from beton.codec import jpeg
from beton.codec.packing import histogram
from beton.errors import SampleError
from pipeline.data.base import Decoded, ImageError, Pixels
from pipeline.data.pixels.colour import in_colour
from pipeline.data.pixels.image_decoder import decode
from pipeline.data.pixels.luma import luma
from pipeline.data.pixels.measures import ON_BLACK, measure, read_measures
from pipeline.data.pixels.polarity import BORDER_INK
from pipeline.data.pixels.scale import Scale, choose_scale
from pipeline.data.pixels.transparency import OPAQUE, blend, change_of, put_on_paper
from pipeline.data.prepare import RAW_MAX_PIXELS
from pipeline.evaluation.evaluate import TrainedModel
from pipeline.evaluation.framing import Framing, Range, stroke_width
from pipeline.loading.augment import INK_THRESHOLD
from pipeline.loading.dataset import PixelRules, View
from pipeline.pictures.characters import INKED, Character, Mask, find_characters, find_object
from pipeline.pictures.errors import PictureError
from pipeline.pictures.ink import BLANK, Floats, Ink, clean_ink, find_ink
from pipeline.pictures.specks import has_specks

BLANK_CONTRAST = 16  # grey levels: compression leaves less than this on blank paper
LEAST_PIXELS = 320  # of the longest side in which ink is measured
DIRTY, FULL_CONTRAST = 40, 225  # grey levels from the paper
# By which factors a framing may exceed that of the training, and by which fraction of a side.
PROPORTION, SIZE, PLACE = 1.1, 1.2, 0.06
THINNER = 0.4  # of the typical pen: thinner strokes are those of a page made smaller
TALLER = 1.3  # of the shortest character: then the longest is a tall one
SOFT_EDGE = 3  # pixels around a stroke
SMALL_CANVAS = 40  # pixels: lower images are digits cut out, not pages


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
    """What is needed of a trained network to prepare images for it; it can be pickled.

    With `characters`, the classes are single characters, drawn in strokes of full ink.
    """

    view: View
    rules: PixelRules
    framing: Framing
    characters: bool

    @classmethod
    def of(cls, trained: TrainedModel) -> "Preparation":
        """Return the preparation for a network."""
        framing = trained.framing or default_framing(trained)
        characters = all(len(name) == 1 for name in trained.classes)
        return cls(trained.view, trained.config.pixels, framing, characters)

    def prepare(
        self, picture: bytes | NDArray[np.uint8], separate: bool = False, name: str = ""
    ) -> list[Prepared]:
        """Return the image, or with `separate` each character in it. Raises PictureError."""
        decoded = _decode(picture)
        if self.view.channels == 3:
            return [Prepared(name, _colour(decoded, picture))]
        grey = _to_8bit(decoded, self.rules)
        if int(grey.max()) - int(grey.min()) < BLANK_CONTRAST and decoded.colour is None:
            raise PictureError(BLANK)
        longest = max(LEAST_PIXELS, 4 * max(self.view.canvas))
        paper = _clean_paper(grey, strokes=self.characters)
        if paper is not None:
            found = clean_ink(grey, paper, longest, strokes=self.characters)
            characters = self._characters(found.ink)
            if self._is_block(characters) or (self.characters and _is_stray(found, characters)):
                paper = None
            elif len(characters) == 1 and not separate and self._keeps(grey, found, characters[0]):
                return [Prepared(name, grey, paper)]
        if paper is None or not characters:
            pixels = grey if decoded.colour is None else decoded.colour
            found = find_ink(pixels, longest, strokes=self.characters)
            characters = self._characters(found.ink)
        if not characters:
            raise PictureError(BLANK)
        if self._is_block(characters):
            raise PictureError("no strokes found: the ink is a filled area")
        if len(characters) > 1 and not separate:
            raise PictureError(f"{len(characters)} separate characters: one is expected")
        return [
            Prepared(name, page, 255, found.box(one.box) if separate else None)
            for one, page in zip(characters, self._pages(found, characters), strict=True)
        ]

    def _characters(self, ink: Floats) -> list[Character]:
        """Return the characters in ink; any other object is one, whatever its parts are."""
        return find_characters(ink) if self.characters else find_object(ink)

    def _is_block(self, characters: list[Character]) -> bool:
        """Return whether the largest of the characters is no character."""
        largest = max(characters, key=lambda one: one.box.longest, default=None)
        return self.characters and largest is not None and largest.is_block

    def _keeps(self, grey: Pixels, found: Ink, character: Character) -> bool:
        """Return whether a clean image is in the form of the training as it is."""
        smaller = grey.shape[0] < min(self.framing.pixels, self.view.canvas[0])
        return not (found.thin or smaller) and self._is_framed(found.ink, character)

    def _is_framed(self, ink: Floats, character: Character) -> bool:
        """Return whether a character has the place and size of those of the training images."""
        height, width = ink.shape
        if not 1 / PROPORTION <= width / height / self._proportion <= PROPORTION:
            return False
        size, x, y = self._place(ink, character)
        low, _, high = self.framing.size
        if not low / SIZE <= size / height <= high * SIZE:
            return False
        pen, usual = self._pen(ink, character), self.framing.pen
        if pen is not None and usual is not None and pen / height < THINNER * usual.typical:
            by_pen = size / pen * usual.typical
            if low <= by_pen <= high:  # it would be a usual character on a page made larger again
                return False
        if not self.view.whole:
            return True
        places = ((x / width, self.framing.x), (y / height, self.framing.y))
        return all(low - PLACE <= at <= high + PLACE for at, (low, _, high) in places)

    @property
    def _proportion(self) -> float:
        height, width = self.view.canvas
        return self.view.proportion or width / height

    def _place(self, ink: Floats, character: Character) -> tuple[float, float, float]:
        """Return the size and the centre (x, y) of a character, in pixels."""
        box = character.box
        if not self.framing.by_mass:
            return box.longest, (box.left + box.right) / 2, (box.top + box.bottom) / 2
        weights = np.where(character.mask, ink, 0)
        total = weights.sum()
        x = float(weights.sum(axis=0) @ (np.arange(ink.shape[1]) + 0.5) / total)
        y = float(weights.sum(axis=1) @ (np.arange(ink.shape[0]) + 0.5) / total)
        return box.longest, x, y

    def _pen(self, ink: Floats, character: Character) -> float | None:
        """Return the width of a character's strokes in pixels, where the framing has one."""
        if self.framing.pen is None or self.framing.by_mass:
            return None
        top, bottom, left, right = character.box
        # With paper around it, so that all edges count.
        part = ink[max(top - 2, 0) : bottom + 2, max(left - 2, 0) : right + 2]
        return stroke_width(np.pad(part, 1))

    def _size(self, found: Ink, character: Character) -> float:
        """Return the size of a character on a page of the training, as a fraction of its height.

        The pen is the ruler, since the image is none: o and O differ in size alone.
        """
        low, typical, high = self.framing.size
        pen = None if found.thin else self._pen(found.ink, character)
        if pen is None or self.framing.pen is None:
            return typical
        return float(np.clip(character.box.longest / pen * self.framing.pen.typical, low, high))

    def _pages(self, found: Ink, characters: list[Character]) -> list[Pixels]:
        """Return a page in the framing of the training for each character: uint8 (h, w)."""
        ink = found.ink
        alone = len(characters) == 1
        size = self._size(found, characters[0]) if alone else self.framing.size.typical
        scale = max(one.box.longest for one in characters)
        shortest = min(one.box.longest for one in characters)
        if scale > TALLER * shortest:
            size = max(size, self.framing.tall)
        pages = []
        for one in characters:
            # The soft edges of strokes, without other characters, specks and residues of shadows.
            others = ndimage.binary_dilation((ink > INKED) & ~one.mask, iterations=2) & ~one.mask
            own = np.where(_around(one.mask, found) & ~others, ink, 0)
            if alone and self._is_framed(own, one):
                pages.append(_page(own, 0, 0, own.shape[0], own.shape[1], self.view.canvas[0]))
                continue
            _, x, y = self._place(own, one)
            height = scale / size
            width = height * self._proportion
            left, top = x - self.framing.x.typical * width, y - self.framing.y.typical * height
            pages.append(_page(own, top, left, height, width, self.view.canvas[0]))
        return pages


def default_framing(trained: TrainedModel) -> Framing:
    """Return the framing for a run that has none: that of written pages, or of MNIST's digits."""
    view, hand = trained.view, trained.config.recipe.hand
    if view.canvas[0] > SMALL_CANVAS or not (view.whole or view.canvas == view.shape):
        middle = Range(0.4, 0.5, 0.6)
        size = Range(0.18, hand or 0.45, 0.75)
        return Framing(size, middle, middle, by_mass=False, tall=hand or 0.47, pixels=900)
    middle = Range(0.46, 0.51, 0.56)
    return Framing(Range(0.65, 0.72, 0.85), middle, middle, by_mass=True, tall=0.72, pixels=28)


def _around(strokes: Mask, found: Ink) -> Mask:
    """Return strokes (h, w) with the soft edges around them, also in an enlarged image."""
    reach = max(round(SOFT_EDGE / found.block), SOFT_EDGE)
    around: Mask = ndimage.binary_dilation(strokes, iterations=reach)
    return around


def _is_stray(found: Ink, characters: list[Character]) -> bool:
    """Return whether ink that the loader counts lies outside the characters, as lines do."""
    own = np.zeros(found.ink.shape, bool)
    for one in characters:
        own |= one.mask
    soft = _around(own, found)
    # A line of one pixel covers a part of a block.
    least = INK_THRESHOLD / max(found.block, 1)
    return bool((found.ink[~soft] > least).any())


def _clean_paper(grey: Pixels, *, strokes: bool) -> int | None:
    """Return the grey level of even paper under ink of full contrast, None for anything else.

    Objects that are not drawn in `strokes` may have any shades and cover more of the edge.
    """
    ring = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    paper = int(np.bincount(ring, minlength=256).argmax())
    most = BORDER_INK if strokes else 0.5
    if min(paper, 255 - paper) > 2 or (ring == paper).mean() < 1 - most:
        return None
    counts = histogram(grey.reshape(-1))
    distances = np.bincount(abs(np.arange(256) - paper), counts, minlength=256)
    if not strokes:
        return paper if distances[BLANK_CONTRAST:].sum() else None
    full = distances[FULL_CONTRAST:].sum() >= max(sum(grey.shape) // 16, 1)
    even = distances[1:DIRTY].sum() <= 0.3 * distances[DIRTY:].sum()
    return paper if full and even and not has_specks(grey) else None


def _page(ink: Floats, top: float, left: float, height: float, width: float, least: int) -> Pixels:
    """Return a window of ink as a page: dark on white, of at least twice the `least` height."""
    rows, columns = max(round(height), 1), max(round(width), 1)
    page = np.zeros((rows, columns), np.float32)
    y, x = round(top), round(left)
    from_y, from_x = max(y, 0), max(x, 0)
    to_y, to_x = min(y + rows, ink.shape[0]), min(x + columns, ink.shape[1])
    if from_y < to_y and from_x < to_x:
        page[from_y - y : to_y - y, from_x - x : to_x - x] = ink[from_y:to_y, from_x:to_x]
    levels = np.rint(255 * (1 - page)).astype(np.uint8)
    if rows >= least:
        return levels
    factor = -(-2 * least // rows)
    image = Image.fromarray(levels).resize(
        (columns * factor, rows * factor), Image.Resampling.BICUBIC
    )
    return np.array(image)


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
