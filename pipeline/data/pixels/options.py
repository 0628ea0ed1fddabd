"""Options that decide how the pixels of a dataset are understood."""

from dataclasses import dataclass
from typing import Any, Literal

from pipeline.data.base import SourceError

DEFAULT_QUALITY = 95  # of JPEG

PolarityOption = Literal["auto", "dark", "light", "each"]
ColourOption = Literal["auto", "rgb", "grey"]


@dataclass(frozen=True)
class PixelOptions:
    """A user's decisions about pixels; the defaults decide nothing.

    `polarity` is dark (ink on light paper), light (on dark paper) or each: the most frequent value
    of each image is its paper. "auto" decides by all images of the dataset. `scale` are the grey
    levels of images of more than 8 bits that become 0 and 255. `allow_blank` accepts any number of
    blank images. `expected_polarity` is used where the images do not decide; images that decide
    otherwise are an error.

    `colour` is grey (grey levels, one ink), rgb, or auto: rgb if the images show more than one line
    of colours. `quality` is the JPEG quality, 1 to 100, of large images in colour; None stores JPEG
    files as they are, and other images by DEFAULT_QUALITY.
    """

    polarity: PolarityOption = "auto"
    scale: tuple[float, float] | None = None
    allow_blank: bool = False
    expected_polarity: Literal["dark", "light"] | None = None
    colour: ColourOption = "grey"
    quality: int | None = None

    def __post_init__(self) -> None:
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise SourceError(f"--quality {self.quality}: expected 1 to 100")

    def settings(self) -> dict[str, Any]:
        """Return the settings that determine a file's content, without defaults."""
        settings: dict[str, Any] = {}
        if self.polarity != "auto":
            settings["polarity"] = self.polarity
        if self.scale is not None:
            settings["scale"] = list(self.scale)
        if self.allow_blank:
            settings["allow_blank"] = True
        if self.colour != "grey":
            settings["colour"] = self.colour
        if self.quality is not None:
            settings["quality"] = self.quality
        return settings
