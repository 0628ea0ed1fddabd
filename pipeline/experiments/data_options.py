"""Options of every command that reads raw images: what paths, tables and pixels mean."""

from dataclasses import dataclass
from typing import Annotated

from tyro import conf

from pipeline.data.catalog import AUXILIARY, stored_grey
from pipeline.data.layout.options import LayoutOptions
from pipeline.data.pixels.options import ColourOption, PixelOptions, PolarityOption
from pipeline.runtime import launch


def default_colour(name: str) -> ColourOption:
    """Return how a dataset of this name is stored: as grey, or as its images decide."""
    return "grey" if name == AUXILIARY or stored_grey(name) else "auto"


@dataclass(frozen=True)
class DataOptions:
    """How to understand raw images; each option overrides what is inferred."""

    class_from: Annotated[str | None, conf.arg(metavar="RULE")] = None
    """Where the class comes from. folder:N is a folder of the path: 0 the outermost below the
    source, -1 the innermost; folder:N,M joins two. name:REGEX is the one group of a regular
    expression in the relative path. table:FILE.csv is a table in the source, or one of yours."""
    split_from: Annotated[str | None, conf.arg(metavar="RULE")] = None
    """Where the split comes from, likewise: train, validation or test, or a common synonym."""
    writer_from: Annotated[str | None, conf.arg(metavar="RULE")] = None
    """Where the writer comes from, likewise."""
    columns: Annotated[str | None, conf.arg(metavar="NAME=COLUMN,…")] = None
    """Columns of the table, some of file=…, label=…, split=…, writer=…. Default: inferred."""
    exclude: Annotated[tuple[str, ...], conf.UseAppendAction, conf.arg(metavar="PATTERN")] = ()
    """Leave out the files, and folders with all their files, whose relative path matches a shell
    pattern; * also matches slashes. May be given several times."""
    include: Annotated[tuple[str, ...], conf.UseAppendAction, conf.arg(metavar="PATTERN")] = ()
    """Use only the files and folders that match. May be given several times."""
    allow_gaps: bool = False
    """Accept label numbers with large gaps: the numbers that occur are the classes."""
    shape: Annotated[str | None, conf.arg(metavar="HEIGHTxWIDTH")] = None
    """Size of images that are stored as rows of pixels, such as 28x28; in colour, 3x32x32 for rows
    of all red, all green and all blue values, 32x32x3 for three values a pixel."""
    polarity: PolarityOption = "auto"
    """dark: dark ink on light paper; light: light ink on dark paper; each: the most frequent grey
    level of each image is its paper; auto: dark or light, whichever the images show."""
    allow_blank: bool = False
    """Accept blank images, whatever their number."""

    def layout(self) -> LayoutOptions:
        """Return the options of paths and tables. Raises SourceError for one that is invalid."""
        return LayoutOptions.parse(
            class_from=self.class_from,
            split_from=self.split_from,
            writer_from=self.writer_from,
            columns=self.columns,
            exclude=self.exclude,
            include=self.include,
            allow_gaps=self.allow_gaps,
            shape=self.shape,
            folder=launch.caller_folder(),
        )

    def pixels(self, colour: ColourOption = "grey", quality: int | None = None) -> PixelOptions:
        """Return the options of pixels. Raises SourceError for a quality out of range."""
        return PixelOptions(
            self.polarity, allow_blank=self.allow_blank, colour=colour, quality=quality
        )
