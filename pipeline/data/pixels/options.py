"""Options that decide how the pixels of a dataset are understood."""

from dataclasses import dataclass
from typing import Any, Literal

PolarityOption = Literal["auto", "dark", "light", "each"]


@dataclass(frozen=True)
class PixelOptions:
    """A user's decisions about pixels; the defaults decide nothing.

    `polarity` is dark (ink on light paper), light (on dark paper) or each: the most frequent value
    of each image is its paper. "auto" decides by all images of the dataset. `scale` are the grey
    levels of images of more than 8 bits that become 0 and 255. `allow_blank` accepts any number of
    blank images. `expected_polarity` is used where the images do not decide; images that decide
    otherwise are an error.
    """

    polarity: PolarityOption = "auto"
    scale: tuple[float, float] | None = None
    allow_blank: bool = False
    expected_polarity: Literal["dark", "light"] | None = None

    def settings(self) -> dict[str, Any]:
        """Return the settings that determine a file's content, without defaults."""
        settings: dict[str, Any] = {}
        if self.polarity != "auto":
            settings["polarity"] = self.polarity
        if self.scale is not None:
            settings["scale"] = list(self.scale)
        if self.allow_blank:
            settings["allow_blank"] = True
        return settings
