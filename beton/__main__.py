"""Command line for .beton files: `python -m beton inspect FILE`, `verify FILE`, `show FILE -o PNG`.

Exit status: 0 success; 1 the file is damaged; 2 the command is invalid. Errors are one line.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps
from rich.box import SIMPLE
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from beton.arrays import Array
from beton.errors import BetonError, printable
from beton.fields import FloatField, InkField, IntField, NDArrayField, RGBImageField
from beton.reader import NO_CHECKSUMS, Column, Reader

CELL, CAPTION, GAP = 128, 18, 6  # pixels, in the grid of `show`


class UsageError(Exception):
    """An invalid command; the message says why."""


class Parser(argparse.ArgumentParser):
    """An argument parser that reports errors in one line."""

    def error(self, message: str) -> NoReturn:
        """Raise UsageError instead of printing the usage."""
        raise UsageError(f"{message}; see --help")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = Parser(prog="python -m beton", description="Inspect, verify and show .beton files.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in (
        ("inspect", "print the fields, sizes and metadata of a file"),
        ("verify", "check every byte of a file by its checksums; exit status 1 if it is damaged"),
        ("show", "save an image of some samples with their labels"),
    ):
        command = commands.add_parser(name, help=text, description=f"{text.capitalize()}.")
        command.add_argument("file", metavar="FILE", type=Path, help="a .beton file")
        if name == "show":
            add = command.add_argument
            add("-o", "--out", type=Path, required=True, metavar="PNG", help="image file to write")
            add("--count", type=int, default=40, help="number of samples (default: %(default)s)")
            add("--field", help="name of the image field (default: the first image field)")
            add("--label", help="name of the int field of labels (default: label, if it exists)")
    if isinstance(sys.stdout, TextIOWrapper):  # for characters that its encoding lacks
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        options = parser.parse_args(arguments)
        with Reader(options.file) as reader:
            if options.command == "inspect":
                inspect(reader)
            elif options.command == "verify":
                verify(reader)
            else:
                show(reader, options.out, options.count, options.field, options.label)
    except BetonError as error:
        print(error, file=sys.stderr)
        return 1
    except (UsageError, OSError) as error:
        print(f"python -m beton: {error}", file=sys.stderr)
        return 2
    return 0


def inspect(reader: Reader) -> None:
    """Print tables of the fields and of the metadata."""
    console = Console(highlight=False, markup=False)  # names in a file may contain brackets
    size = reader.path.stat().st_size
    console.print(f"{reader.path}: {len(reader):,} samples, {decimal(size)}", style="bold")
    fields = Table(box=SIMPLE)
    for title in ("field", "type", "values"):
        fields.add_column(title, overflow="fold")
    for title in ("stored", "per sample", "raw per sample", "stored/raw"):
        fields.add_column(title, justify="right", no_wrap=True)
    for name in reader.fields:
        column = reader.column(name)
        stored = int(column.take().sizes.sum())
        pixels = raw_bytes(column)
        fields.add_row(
            name,
            type(column.field).__name__.removesuffix("Field"),
            describe(column),
            decimal(stored) if stored else "",
            f"{stored / len(reader):,.0f} B" if stored else "",
            f"{pixels / len(reader):,.0f} B" if pixels else "",
            f"{stored / pixels:.2%}" if pixels else "",
        )
    console.print(fields)
    about = Table(box=SIMPLE, show_header=False)
    about.add_column(style="bold")
    about.add_column(overflow="fold")
    about.add_row("page size", decimal(reader.page_size))
    about.add_row("checksums", "every byte" if reader.manifest else NO_CHECKSUMS)
    for row in flatten(reader.info):
        about.add_row(*row)
    console.print(about)


def raw_bytes(column: Column) -> int:
    """Return the bytes of a column of images as raw pixels; 0 for another column."""
    if not isinstance(column.field, InkField | RGBImageField):
        return 0
    sides = column.metadata["width"].astype(np.int64) * column.metadata["height"]
    return int(sides.sum()) * (3 if isinstance(column.field, RGBImageField) else 1)


def describe(column: Column) -> str:
    """Return a short description of a column's values."""
    match column.field:
        case IntField() | FloatField():
            values = column.metadata
            return f"{values.min():,} to {values.max():,}, {len(np.unique(values)):,} distinct"
        case InkField() | RGBImageField():
            width, height = (span(column.metadata[side]) for side in ("width", "height"))
            return f"{width} × {height} pixels"
        case NDArrayField() as field:
            return f"{field.dtype} {field.shape}"
        case _:
            return f"{span(column.take().sizes)} bytes"


def span(numbers: Array) -> str:
    """Return the range of integers as text."""
    low, high = int(numbers.min()), int(numbers.max())
    return f"{low:,}" if low == high else f"{low:,}–{high:,}"


def flatten(info: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Yield the keys, prefixed by `above`, and values of nested JSON objects as text."""
    for key, value in info.items():
        match value:
            case dict():
                yield from flatten(value, f"{above}{key} ")
            case list():
                listed = f"{len(value)}: {', '.join(map(str, value))}" if value else "none"
                yield printable(f"{above}{key}"), printable(listed)
            case _:
                yield printable(f"{above}{key}"), printable(str(value))


def verify(reader: Reader) -> None:
    """Check every byte and print the result. Raises BetonError if the file is damaged."""
    reader.verify()
    checked = "every byte matches its checksum"
    if reader.manifest is None:  # then only decoding can find damage
        for sample in range(len(reader)):
            reader[sample]
        checked = f"{NO_CHECKSUMS}; every sample can be decoded"
    print(f"{reader.path}: {len(reader):,} samples, {checked}")


def show(reader: Reader, out: Path, count: int, field: str | None, label: str | None) -> None:
    """Save an image of samples, evenly spaced in the file, with their labels."""
    if count < 1:
        raise UsageError(f"--count: got {count}, expected at least 1")
    images = choose(reader, "--field", field, InkField, RGBImageField)
    labels = None
    if label is not None or isinstance(reader.fields.get("label"), IntField):
        labels = choose(reader, "--label", label or "label", IntField)
    if Image.registered_extensions().get(out.suffix.lower()) not in Image.SAVE:
        raise UsageError(f"--out: got {out.name!r}, expected an image file, such as grid.png")
    count = min(count, len(reader))
    samples = np.unique(np.linspace(0, len(reader) - 1, count).round().astype(np.int64))
    reader.check(samples)
    columns = int(np.ceil(np.sqrt(len(samples) * 1.6)))
    rows = -(-len(samples) // columns)
    provenance = reader.info.get("provenance", {})
    origin = ", ".join(str(provenance[key]) for key in ("kind", "source") if key in provenance)
    width = columns * (CELL + GAP) + GAP
    height = rows * (CELL + CAPTION + GAP) + GAP + (CAPTION if origin else 0)
    grid = Image.new("RGB", (width, height), (235, 235, 235))
    draw = ImageDraw.Draw(grid)
    font = ImageFont.load_default(13)
    for position, sample in enumerate(samples.tolist()):
        y, x = divmod(position, columns)
        left, top = x * (CELL + GAP) + GAP, y * (CELL + CAPTION + GAP) + GAP
        image = Image.fromarray(images.decode(sample)).convert("RGB")
        image.thumbnail((CELL, CELL), Image.Resampling.BOX)
        # Small images grow by a whole factor, so that pixels stay square.
        image = ImageOps.scale(image, CELL // max(image.size), Image.Resampling.NEAREST)
        grid.paste(image, (left + (CELL - image.width) // 2, top + (CELL - image.height) // 2))
        caption = str(sample) if labels is None else name_of(int(labels.metadata[sample]), reader)
        middle = left + CELL / 2, top + CELL + CAPTION / 2
        draw.text(middle, caption, (0, 0, 0), font, anchor="mm")
    draw.text((GAP, height - GAP), origin, (0, 0, 0), font, anchor="ls")
    grid.save(out)
    line = f"{out}: {len(samples)} samples of {len(reader):,}{origin and f' ({origin})'}"
    print(printable(line))


def choose(reader: Reader, option: str, name: str | None, *kinds: type) -> Column:
    """Return the column `name`, or the first whose field is of one of the kinds."""
    suitable = [each for each, field in reader.fields.items() if isinstance(field, kinds)]
    if name is None and suitable:
        return reader.column(suitable[0])
    if name not in suitable:
        expected = f"a field of {reader.path}: {', '.join(suitable) or 'it has no suitable field'}"
        raise UsageError(f"{option}: got {name or 'none'}, expected {expected}")
    return reader.column(name)


def name_of(label: int, reader: Reader) -> str:
    """Return the name of a class, or its number if the file has no name for it."""
    names = reader.info.get("classes")
    return str(names[label]) if isinstance(names, list) and 0 <= label < len(names) else str(label)


if __name__ == "__main__":
    sys.exit(main())
