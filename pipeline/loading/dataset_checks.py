"""Checks of a dataset file when a job opens it: fields, labels, splits and manifest.

The reader has checked the file's structure and checksums. Here its content is checked, once, so
that the code behind can trust it: another program may have written it.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NoReturn

import msgspec
import numpy as np

from beton.errors import BetonError
from beton.fields import Field, InkField, IntField, RGBImageField
from beton.reader import NO_CHECKSUMS, Reader
from pipeline.data.base import SPLITS, TRAIN, UNKNOWN_WRITER

IMAGE: dict[str, type[Field]] = {"grey": InkField, "rgb": RGBImageField}  # by colour
FIELDS: dict[str, type[Field]] = {"image": InkField, "label": IntField, "split": IntField}
OPTIONAL: dict[str, type[Field]] = {"writer": IntField}
FOREIGN = "not a file that prep writes"

Fit = Literal["stretch", "letterbox", "crop"]
Polarity = Literal["dark", "light", "each"]
Colour = Literal["grey", "rgb"]
Text = Annotated[str, msgspec.Meta(min_length=1)]
_Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]


@dataclass(frozen=True)
class _Paper:
    samples: tuple[int, ...]
    greys: tuple[Annotated[int, msgspec.Meta(ge=0, le=255)], ...]


@dataclass(frozen=True)
class _Pixels:
    polarity: Polarity
    fit: Fit
    scale: tuple[float, float] | None = None
    paper: _Paper = _Paper((), ())
    colour: Colour = "grey"
    mean: tuple[_Fraction, _Fraction, _Fraction] | None = None
    std: tuple[_Fraction, _Fraction, _Fraction] | None = None


@dataclass(frozen=True)
class _Provenance:
    kind: Literal["real", "synthetic"]
    source: Text
    digest: Text


@dataclass(frozen=True)
class _Prepare:
    skipped: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class _Warned:
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Info:
    """What the jobs use of a manifest; it may hold more."""

    classes: Annotated[tuple[Text, ...], msgspec.Meta(min_length=1)]
    provenance: _Provenance
    prepare: _Prepare = _Prepare()
    pixels: _Pixels | None = None
    layout: _Warned = _Warned()
    survey: _Warned = _Warned()


def check_dataset(file: Reader) -> None:
    """Raise BetonError, in one line, unless a file is a sound dataset.

    It has an image, a label and a split for every sample, all of the correct type. Labels index the
    classes, which are distinct names; splits index SPLITS. Its provenance is known. The entries
    that only some versions write are sound where they exist.
    """
    if file.manifest is None:
        raise BetonError(f"{FOREIGN}: {NO_CHECKSUMS}", file=file.path)
    if missing := [name for name in FIELDS if name not in file.fields]:
        _refuse(file, FOREIGN, got=f"fields {_listed(file.fields)}", expected=_listed(missing))
    image = IMAGE[_colour(file)]
    for name, kind in (FIELDS | OPTIONAL | {"image": image}).items():
        if name in file.fields and not isinstance(file.fields[name], kind):
            got = type(file.fields[name]).__name__
            _refuse(file, "another type of field", field=name, got=got, expected=kind.__name__)
    if not len(file):
        _refuse(file, "no samples", got=0, expected="at least one")
    try:
        info = msgspec.convert(file.info, _Info)
    except msgspec.ValidationError as error:
        reason = str(error).replace("`$", "`info").replace("Object missing", "missing")
        _refuse(file, f"{FOREIGN}: its manifest: {reason}")
    if repeated := [name for name, count in Counter(info.classes).items() if count > 1]:
        _refuse(file, "classes of one name", got=_listed(sorted(repeated)), expected="one of each")
    _check_range(file, "label", 0, len(info.classes) - 1, f"for {len(info.classes)} classes")
    _check_range(file, "split", 0, len(SPLITS) - 1, f"for {_listed(SPLITS)}")
    if "writer" in file.fields:
        _check_range(file, "writer", UNKNOWN_WRITER, np.iinfo(np.int64).max, "")
    if info.pixels is not None:
        _check_pixels(file, info.pixels)


def _colour(file: Reader) -> Colour:
    """Return the colour of a file's images that its manifest states; grey if it states none."""
    pixels = file.info.get("pixels")
    return "rgb" if isinstance(pixels, dict) and pixels.get("colour") == "rgb" else "grey"


def _check_range(file: Reader, name: str, low: int, high: int, what: str) -> None:
    values = file.column(name).metadata
    outside = np.flatnonzero((values < low) | (values > high))
    if len(outside):
        sample = int(outside[0])
        expected = f"{low} to {high} {what}" if what else f"at least {low}"
        _refuse(
            file, "out of range", field=name, sample=sample, got=values[sample], expected=expected
        )


def _check_pixels(file: Reader, pixels: _Pixels) -> None:
    samples, greys = pixels.paper.samples, pixels.paper.greys
    if len(samples) != len(greys) or len(samples) != len(set(samples)):
        got = f"{len(samples)} samples, {len(set(samples))} of them distinct, {len(greys)} greys"
        _refuse(file, "pixels.paper of the manifest", got=got, expected="one grey a sample")
    if wrong := [sample for sample in samples if not 0 <= sample < len(file)]:
        expected = f"samples 0 to {len(file) - 1}"
        _refuse(file, "pixels.paper of the manifest", got=f"sample {wrong[0]}", expected=expected)
    if pixels.scale is not None:
        low, high = pixels.scale
        if not (np.isfinite([low, high]).all() and low < high):
            got = f"{low:g} to {high:g}"
            _refuse(file, "pixels.scale of the manifest", got=got, expected="low to high")
    _check_colour(file, pixels)


def _check_colour(file: Reader, pixels: _Pixels) -> None:
    """Check what belongs to images in colour alone, and what to grey images alone."""
    in_colour = pixels.colour == "rgb"
    if (pixels.fit == "crop") != in_colour:
        expected = "crop" if in_colour else "stretch or letterbox"
        _refuse(file, "pixels.fit of the manifest", got=pixels.fit, expected=expected)
    if in_colour and pixels.paper.samples:
        got = f"paper of {len(pixels.paper.samples)} samples"
        _refuse(file, "pixels.paper of the manifest", got=got, expected="none in colour")
    trained = bool((file.column("split").metadata == TRAIN).any())
    statistics = pixels.mean is not None and pixels.std is not None
    if in_colour and trained and not statistics:
        expected = "a mean and a std of three channels"
        _refuse(file, "pixels of the manifest", got="no statistics", expected=expected)


def _refuse(file: Reader, reason: str, **facts: Any) -> NoReturn:
    raise BetonError(reason, file=file.path, **facts)


def _listed(names: Any) -> str:
    return ", ".join(map(str, names))
