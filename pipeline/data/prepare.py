"""Writes a source's images, labels and splits to one .beton file.

All images are decoded, in several processes. If some cannot be decoded, all of them are reported
together and no file is written, unless they are skipped on request. The file stores its source and
settings, so that an up-to-date file is not written again.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from beton import writer
from beton.errors import BetonError
from beton.fields import BytesField, Field, InkField, IntField
from beton.format import layout
from beton.reader import Reader
from pipeline.data.base import SPLITS, ImageError, Ints, Source, SourceError
from pipeline.data.pixels.options import PixelOptions
from pipeline.data.splits import Split, assign_splits

VERSION = 1  # of the file's content: raise it when files of the same source must be written again
RAW_MAX_PIXELS = 64 * 64  # images up to this size are stored raw, which makes batches fastest
# Starting a process takes a core for a second, so each one should get seconds of work.
SECONDS_PER_WORKER, SECONDS_PER_IMAGE, SECONDS_PER_PIXEL = 2.0, 40e-6, 2e-9


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

    `replaced` is whether it replaced another file. `images` are counts by split, `skipped` the
    names of images left out, with reasons; `source_bytes` is the size of the source's files.
    """

    path: Path
    built: bool
    replaced: bool
    classes: int
    images: dict[str, int]
    skipped: list[tuple[str, str]]
    source_bytes: int
    file_bytes: int
    seconds: float


@dataclass(frozen=True)
class _Samples:
    """The source as samples for the writer; each worker gets a copy."""

    source: Source
    splits: Ints

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any] | writer.Skip:
        try:
            image = self.source.image(index)
        except ImageError as error:
            return writer.Skip(str(error))
        annotations = self.source.annotations
        return {
            "image": image,
            "label": int(annotations.labels[index]),
            "split": int(self.splits[index]),
            "writer": int(annotations.writers[index]),
            "name": self.source.name(index).encode(),
        }


def prepare(
    source: Source,
    out: Path,
    *,
    split: Split | None = None,
    seed: int = 0,
    found_by: str = "--source",
    workers: int = 1,
    skip_bad: bool = False,
    force: bool = False,
    progress: Callable[[int], None] | None = None,
    pixels: PixelOptions | None = None,
) -> PrepareResult:
    """Write a source to the file `out`, unless `out` is up to date.

    `found_by` says how the source was found, `workers` is the maximum number of processes, `force`
    writes the file in any case; `progress` is called with the number of images done since the last
    call. If an error is raised, `out` stays as it was. Raises BadImagesError if images cannot be
    decoded and `skip_bad` is not set; SourceError, BetonError or OSError for other failures.
    """
    start = time.perf_counter()
    split = split or Split()
    samples = _Samples(source, assign_splits(source.annotations, split, seed))
    info = _info(source, split, seed, found_by)
    existed = out.exists()
    built = force or not _is_up_to_date(out, info, skip_bad)

    def info_with_skipped(summary: writer.Summary) -> dict[str, Any]:
        bad = [(source.name(index), reason) for index, reason in summary.skipped]
        if bad and not (skip_bad and summary.samples):
            raise BadImagesError(
                f"{source.path}: {len(bad)} of {len(source)} images cannot be decoded", bad
            )
        return {**info, "prepare": {**info["prepare"], "skipped": bad}}

    if built:
        out.parent.mkdir(parents=True, exist_ok=True)
        area = max(_pixels(source, index) for index in (0, len(source) // 2, len(source) - 1))
        fields: dict[str, Field] = {
            "image": InkField("raw" if area <= RAW_MAX_PIXELS else "auto"),
            **dict.fromkeys(("label", "split", "writer"), IntField()),
            "name": BytesField(),
        }
        workers = min(workers, _useful_workers(len(source), area))
        writer.write(
            out, fields, samples, info=info_with_skipped, workers=workers, progress=progress
        )
    with Reader(out) as reader:
        counts = np.bincount(reader.column("split").metadata, minlength=len(SPLITS)).tolist()
        return PrepareResult(
            path=out,
            built=built,
            replaced=existed and built,
            classes=len(source.annotations.classes),
            images=dict(zip(SPLITS, counts, strict=True)),
            skipped=[(name, reason) for name, reason in reader.info["prepare"]["skipped"]],
            source_bytes=info["provenance"]["bytes"],
            file_bytes=out.stat().st_size,
            seconds=time.perf_counter() - start,
        )


def _info(source: Source, split: Split, seed: int, found_by: str) -> dict[str, Any]:
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
        "prepare": {"version": VERSION, "split": str(split), "seed": seed},
    }
    if source.generator is not None:
        info["generator"] = dict(source.generator)  # for people: no analysis may use it
    return info


def _pixels(source: Source, index: int) -> int:
    try:
        return source.image(index).size
    except ImageError:  # reported later, with all others
        return RAW_MAX_PIXELS + 1


def _useful_workers(images: int, pixels: int) -> int:
    seconds = images * (SECONDS_PER_IMAGE + SECONDS_PER_PIXEL * pixels)
    return 1 + int(seconds / SECONDS_PER_WORKER)


def _is_up_to_date(out: Path, info: dict[str, Any], skip_bad: bool) -> bool:
    """Return whether `out` is an undamaged file of the same data and settings."""
    if not out.exists():
        return False
    try:
        with Reader(out) as reader:
            reader.verify()
            found = reader.info
    except BetonError as error:
        with out.open("rb") as file:
            if file.read(2) in (layout.VERSION.to_bytes(2, "little"), b""):
                return False  # damaged: write it again
        raise SourceError(f"{out}: exists and is no .beton file; --force overwrites it") from error
    settings = dict(found.get("prepare", {}))
    skipped = settings.pop("skipped", None)
    return (
        settings == info["prepare"]
        and found.get("classes") == info["classes"]
        and found.get("provenance", {}).get("digest") == info["provenance"]["digest"]
        and (skip_bad or not skipped)
    )
