"""Writes a source's images, labels and splits to one .beton file.

All images are decoded once, in several processes, and measured meanwhile. What only pixels show is
decided for the whole dataset from these measures, after the last image and before the file is
written: grey or colour, scale, polarity, blank images, and splits that keep equal images together.
If the images were decoded for another decision, they are decoded again. If images cannot be
decoded, all of them are reported together and no file is written, unless they are skipped on
request. The file stores its source and settings, so that an up-to-date file is not written again.
"""

import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from beton import writer
from beton.codec import jpeg
from beton.errors import BetonError, SampleError
from beton.fields import BytesField, Field, InkField, IntField, RGBImageField
from beton.format import layout
from beton.reader import Reader
from pipeline.data.base import (
    SPLITS,
    TRAIN,
    Decoded,
    ImageError,
    Ints,
    LayoutError,
    Source,
    SourceError,
)
from pipeline.data.pixel_decisions import check_blank, check_scale, settle_polarity
from pipeline.data.pixels.colour import Colour, Colours, choose_colour, in_colour
from pipeline.data.pixels.measures import DEPTHS, Measures, measure, read_measures
from pipeline.data.pixels.options import DEFAULT_QUALITY, PixelOptions
from pipeline.data.pixels.polarity import (
    EACH,
    paper,
)
from pipeline.data.pixels.scale import Scale, full_scale
from pipeline.data.pixels.survey import Survey, copy_groups
from pipeline.data.splits import Split, assign_splits, check_trained, join_groups
from pipeline.runtime.files import convert

VERSION = 2  # of the file's content: raise it when files of the same source must be written again
RAW_MAX_PIXELS = 64 * 64  # images up to this size are stored raw, which makes batches fastest
PROBED = 8  # images from which the first attempt chooses grey or colour
# Starting a process takes a core for a second, so each one should get seconds of work.
SECONDS_PER_WORKER, SECONDS_PER_PIXEL = 2.0, 2e-9


class BadImagesError(SourceError):
    """Some images cannot be decoded: `bad` are their names and the reasons."""

    def __init__(self, message: str, bad: list[tuple[str, str]]) -> None:
        super().__init__(message, bad)  # both, for pickle
        self.message, self.bad = message, bad

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True)
class PrepareResult:
    """The file at `path`, and whether it was written (`built`) or up to date.

    `replaced` is whether it replaced another file, `raced` whether that file appeared or changed
    during the preparation. `images` are counts by split, `skipped` the
    names of images left out, with reasons; `survey` is what the pixels show; `source_bytes` is the
    size of the source's files.
    """

    path: Path
    built: bool
    replaced: bool
    raced: bool
    classes: int
    images: dict[str, int]
    skipped: list[tuple[str, str]]
    survey: Survey
    source_bytes: int
    file_bytes: int
    seconds: float


class _DecodeAgainError(Exception):
    """The dataset needs another scale or colour than the images were decoded with."""

    def __init__(self, scale: Scale | None, colour: Colour) -> None:
        self.scale, self.colour = scale, colour


@dataclass(frozen=True)
class _Samples:
    """The source as samples for the writer; each worker gets a copy.

    Splits are 0 until all images are measured. Without a `scale`, deep images have the range of
    their format. In colour, `keep_jpeg` stores the files of large JPEG images as they are.
    """

    source: Source
    scale: Scale | None
    colour: Colour
    keep_jpeg: bool

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> writer.Noted | writer.Skip:
        try:
            decoded = self.source.decoded(index)
        except ImageError as error:
            return writer.Skip(str(error))
        pixels = (self.scale or full_scale(decoded.grey.dtype)).to_8bit(decoded.grey)
        annotations = self.source.annotations
        stored = in_colour(decoded, pixels) if self.colour == "rgb" else None
        file = self._file(decoded) if stored is not None else None
        sample = {
            "image": file or (pixels if stored is None else stored),
            "label": int(annotations.labels[index]),
            "split": 0,
            "writer": int(annotations.writers[index]),
            "name": self.source.name(index).encode(),
        }
        return writer.Noted(sample, measure(decoded, pixels, stored, own_jpeg=file is not None))

    def _file(self, decoded: Decoded) -> bytes | None:
        """Return the JPEG file of an image if it is stored as it is."""
        if not self.keep_jpeg or decoded.jpeg is None or decoded.grey.size <= RAW_MAX_PIXELS:
            return None
        try:
            jpeg.require_complete(decoded.jpeg, jpeg.read_size(decoded.jpeg))
        except SampleError:  # Pillow decodes more kinds, and damaged ones: they are compressed
            return None
        return decoded.jpeg


def prepare(
    source: Source,
    out: Path,
    *,
    split: Split | None = None,
    seed: int = 0,
    pixels: PixelOptions | None = None,
    found_by: str = "--source",
    workers: int = 1,
    skip_bad: bool = False,
    force: bool = False,
    progress: Callable[[int], None] | None = None,
) -> PrepareResult:
    """Write a source to the file `out`, unless `out` is up to date.

    `found_by` says how the source was found, `workers` is the maximum number of processes, `force`
    writes the file in any case; `progress` is called with the number of images done since the last
    call. If an error is raised, `out` stays as it was. Raises BadImagesError if images cannot be
    decoded and `skip_bad` is not set; LayoutError for pixels or splits that need a decision;
    SourceError, BetonError or OSError for other failures.
    """
    start = time.perf_counter()
    split, pixels = split or Split(), pixels or PixelOptions()
    if pixels.quality is not None and pixels.colour == "grey":
        raise SourceError(f"{source.path}: --quality is for images in colour; leave it out")
    annotations = source.annotations
    # Before any image is decoded: splits can fail whatever the pixels are.
    rows = np.arange(len(source))
    check_trained(source.path, annotations, rows, assign_splits(annotations, split, seed))
    info = _info(source, split, seed, pixels, found_by)
    before = _version(out)
    raced = False
    built = force or not _is_up_to_date(out, info, skip_bad)
    if built:
        out.parent.mkdir(parents=True, exist_ok=True)
        scale = Scale(*pixels.scale) if pixels.scale else None
        colour = _probe_colour(source) if pixels.colour == "auto" else pixels.colour
        build = _Build(source, out, split, seed, pixels, skip_bad, info, scale, colour)
        try:
            latest = _write(build, workers, progress)
        except _DecodeAgainError as error:
            again = replace(build, scale=error.scale, colour=error.colour)
            latest = _write(again, workers, None)
        raced = latest != before
    with Reader(out) as reader:
        counts = np.bincount(reader.column("split").metadata, minlength=len(SPLITS)).tolist()
        return PrepareResult(
            path=out,
            built=built,
            replaced=built and (before is not None or raced),
            raced=raced,
            classes=len(annotations.classes),
            images=dict(zip(SPLITS, counts, strict=True)),
            skipped=[(name, reason) for name, reason in reader.info["prepare"]["skipped"]],
            survey=convert(reader.info["survey"], Survey),
            source_bytes=info["provenance"]["bytes"],
            file_bytes=out.stat().st_size,
            seconds=time.perf_counter() - start,
        )


@dataclass(frozen=True)
class _Build:
    """One attempt to write a file, and what is decided once all images are measured."""

    source: Source
    out: Path
    split: Split
    seed: int
    pixels: PixelOptions
    skip_bad: bool
    info: dict[str, Any]
    scale: Scale | None
    colour: Colour

    def finish(self, summary: writer.Summary) -> dict[str, Any]:
        """Decide on splits and pixels; return the content of the manifest.

        Raises SourceError, and _DecodeAgainError if the images must be decoded again.
        """
        source = self.source
        bad = [(source.name(index), reason) for index, reason in summary.skipped]
        kept = np.delete(np.arange(len(source)), [index for index, _ in summary.skipped])
        if bad and not (self.skip_bad and summary.samples):
            labels = source.annotations.labels
            advice = "; --skip-bad leaves them out"
            if not summary.samples:
                advice = ": none is left"
            elif not np.isin(labels, labels[kept]).all():
                advice = ", all of some class"
            raise BadImagesError(
                f"{source.path}: {len(bad)} of {len(source)} images cannot be decoded{advice}", bad
            )
        measures = read_measures(summary.notes)
        scale = self._decide_decoding(measures)
        check_blank(self.source, self.pixels, kept, measures, scale)
        polarity = EACH
        if self.colour == "grey":
            polarity = settle_polarity(self.source.path, self.pixels, measures)
        splits = self._splits(kept, copy_groups(measures))
        summary.records["split"][:] = splits
        colours = self._colours(measures, splits, summary)
        survey = Survey.of(
            measures,
            source.annotations.labels[kept],
            splits,
            source.annotations.classes,
            lambda row: source.name(int(kept[row])),
            polarity,
            scale,
            colours,
        )
        stored = {"polarity": polarity, "scale": [scale.low, scale.high] if scale else None}
        return {
            **self.info,
            "prepare": {**self.info["prepare"], "skipped": bad},
            "pixels": stored | self._about_pixels(measures, polarity, colours),
            "survey": survey.as_json(),
        }

    def _about_pixels(
        self, measures: Measures, polarity: str, colours: Colours | None
    ) -> dict[str, Any]:
        """Return what the manifest says of the stored pixels, in addition to polarity and scale."""
        if self.colour == "rgb":
            assert colours is not None
            return {"colour": "rgb", "fit": "crop", "mean": colours.mean, "std": colours.std}
        greys = paper(measures, polarity)
        others = np.flatnonzero(greys != measures["background"])
        samples = {"samples": others.tolist(), "greys": greys[others].tolist()}
        return {"fit": "letterbox", "paper": samples}

    def _decide_decoding(self, measures: Measures) -> Scale | None:
        """Return the scale of deep images. Raises _DecodeAgainError if decisions were others."""
        given = self.pixels.colour
        colour = choose_colour(measures) if given == "auto" else given
        if colour == "rgb" and self.pixels.polarity != "auto":
            raise LayoutError(
                f"{self.source.path}: --polarity {self.pixels.polarity} is for ink, and the images "
                "are in colour; leave it out",
                ["--colour grey"],
            )
        if colour == "grey" and self.pixels.quality is not None:
            raise SourceError(
                f"{self.source.path}: --quality is for images in colour, and these are grey; leave "
                "it out, or use --colour rgb"
            )
        scale = check_scale(self.source.path, self.pixels, measures)
        depths = np.unique(measures["depth"][measures["depth"] > 0])
        used = {self.scale or full_scale(np.dtype(DEPTHS[depth])) for depth in depths}
        if colour != self.colour or (scale is not None and used != {scale}):
            raise _DecodeAgainError(scale, colour)
        return scale

    def _colours(self, measures: Measures, splits: Ints, summary: writer.Summary) -> Colours | None:
        """Return what is known of the colours. Raises SourceError for --quality without effect."""
        colours = Colours.of(measures, self.colour, splits == TRAIN)
        if colours is None or self.colour == "grey":
            return colours
        modes = summary.records["image"]["mode"]
        compressed = int(np.count_nonzero(modes == RGBImageField.JPG)) - colours.own_jpeg
        if self.pixels.quality is not None and not compressed:
            raise SourceError(
                f"{self.source.path}: --quality is for images of more than {RAW_MAX_PIXELS:,} "
                "pixels, and there are none; leave it out"
            )
        return replace(colours, compressed=compressed, quality=self.quality)

    @property
    def quality(self) -> int:
        """The JPEG quality of images that are compressed."""
        return DEFAULT_QUALITY if self.pixels.quality is None else self.pixels.quality

    def _splits(self, kept: Ints, copies: Ints) -> Ints:
        """Return the splits of the images `kept`; a drawn split keeps copies together."""
        annotations = self.source.annotations
        groups = np.arange(len(self.source))
        groups[kept] = kept[copies]
        if self.source.groups is not None:
            groups = join_groups(groups, self.source.groups)
        splits = assign_splits(annotations, self.split, self.seed, groups)[kept]
        check_trained(self.source.path, annotations, kept, splits)
        return splits


def _version(path: Path) -> tuple[int, int] | None:
    """Return what changes when a file is replaced; None without a file."""
    with suppress(FileNotFoundError, NotADirectoryError):
        status = path.stat()
        return status.st_ino, status.st_mtime_ns
    return None


def _write(
    build: _Build, workers: int, progress: Callable[[int], None] | None
) -> tuple[int, int] | None:
    """Write the file. Returns the version of the file that it replaced."""
    source, replaced = build.source, _version(build.out)

    def finish(summary: writer.Summary) -> dict[str, Any]:
        nonlocal replaced
        info = build.finish(summary)
        replaced = _version(build.out)
        return info

    count = max(_pixels(source, index) for index in (0, len(source) // 2, len(source) - 1))
    image: Field = InkField("raw" if count <= RAW_MAX_PIXELS else "auto")
    if build.colour == "rgb":
        limit = 3 * RAW_MAX_PIXELS
        image = RGBImageField("smart", smart_threshold=limit, jpeg_quality=build.quality)
    fields: dict[str, Field] = {
        "image": image,
        **dict.fromkeys(("label", "split", "writer"), IntField()),
        "name": BytesField(),
    }
    writer.write(
        build.out,
        fields,
        _Samples(source, build.scale, build.colour, build.pixels.quality is None),
        info=finish,
        workers=min(workers, _useful_workers(len(source), count, source.seconds_per_image)),
        progress=progress,
    )
    return replaced


def _info(
    source: Source, split: Split, seed: int, pixels: PixelOptions, found_by: str
) -> dict[str, Any]:
    """Return what the file says of its source and settings."""
    info: dict[str, Any] = {
        "classes": list(source.annotations.classes),
        "splits": list(SPLITS),
        "writers": list(source.annotations.writer_names),
        "provenance": {
            "kind": source.origin,
            "source": source.path.resolve().name,
            "reader": source.kind,
            "digest": source.digest(),
            "bytes": source.size(np.arange(len(source))),
            "via": found_by,
        },
        "layout": asdict(source.layout),
        "prepare": {"version": VERSION, "split": str(split), "seed": seed, **pixels.settings()},
    }
    if source.generator is not None:
        info["generator"] = dict(source.generator)  # no analysis may use it, see `has_same_writers`
    return info


def _pixels(source: Source, index: int) -> int:
    try:
        return source.image(index).size
    except ImageError:  # reported later, with all others
        return RAW_MAX_PIXELS + 1


def _probe_colour(source: Source) -> Colour:
    """Return how some images of a source would be stored, which the others confirm or not."""
    records = []
    for row in np.unique(np.linspace(0, len(source) - 1, PROBED).astype(np.int64)).tolist():
        with suppress(ImageError):  # reported later, with all others
            decoded = source.decoded(row)
            records.append(measure(decoded, full_scale(decoded.grey.dtype).to_8bit(decoded.grey)))
    return choose_colour(read_measures(b"".join(records))) if records else "grey"


def _useful_workers(images: int, pixels: int, seconds_per_image: float) -> int:
    seconds = images * (seconds_per_image + SECONDS_PER_PIXEL * pixels)
    return 1 + int(seconds / SECONDS_PER_WORKER)


def _is_up_to_date(out: Path, info: dict[str, Any], skip_bad: bool) -> bool:
    """Return whether `out` is an undamaged file of the same data and settings."""
    if not out.exists():
        return False
    try:
        with Reader(out) as reader:
            reader.verify()
            found, is_ours = reader.info, reader.manifest is not None
    except BetonError as error:
        with out.open("rb") as file:
            if file.read(2) in (layout.VERSION.to_bytes(2, "little"), b""):
                return False  # damaged: write it again
        raise SourceError(f"{out}: exists and is no .beton file; --force overwrites it") from error
    if not is_ours:
        raise SourceError(f"{out}: was written by another program; --force overwrites it")
    try:
        convert(found.get("survey"), Survey)
        skipped = convert(found.get("prepare"), dict[str, Any]).get("skipped", [])
        convert(skipped, list[tuple[str, str]])
        digest = convert(found.get("provenance"), dict[str, Any]).get("digest")
    except ValueError:  # other entries than prep writes
        return False
    return (
        found["prepare"] == {**info["prepare"], "skipped": skipped}
        and all(found.get(name) == info[name] for name in ("classes", "splits", "writers"))
        and found.get("layout") == json.loads(json.dumps(info["layout"]))
        and digest == info["provenance"]["digest"]
        and (skip_bad or not skipped)
    )
