"""A source → one .beton file, once.

Every picture is decoded, in several processes; if any cannot be, all such are reported together and
nothing is written, unless they are to be left out. The file keeps where it comes from and how it
was made, so that preparing it again can be seen to be unnecessary.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from beton import layout, writer
from beton.errors import BetonError
from beton.fields import BytesField, Field, InkField, IntField
from beton.reader import Reader
from pipeline.data.sources.base import SPLITS, ImageError, Ints, Source, SourceError
from pipeline.data.splits import Split, assign_splits

VERSION = 1  # of what is stored: raised when the same source must be prepared again
RAW_MAX_PIXELS = 64 * 64  # pixels up to which a picture is stored raw, where gathering is fastest
# Starting a process takes a core for a second, so it should have some seconds' work.
SECONDS_PER_WORKER, SECONDS_PER_IMAGE, SECONDS_PER_PIXEL = 2.0, 40e-6, 2e-9


class BadImagesError(SourceError):
    """Some pictures cannot be decoded: `bad` are their names and the reasons."""

    def __init__(self, message: str, bad: list[tuple[str, str]]) -> None:
        super().__init__(message, bad)
        self.message, self.bad = message, bad

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True)
class PrepareResult:
    """What is at `path` now; `built` is False if it was there already.

    `replaced` is whether another file was. `pictures` are counted by split, `skipped` are the names
    of those left out, with reasons; `source_bytes` is the size of the source's files.
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
    """The source as the writer's data set; workers get a copy each."""

    source: Source
    splits: Ints

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any] | writer.Skip:
        try:
            image = self.source.image(index)
        except ImageError as error:
            return writer.Skip(str(error))
        entries = self.source.annotations
        return {
            "image": image,
            "label": int(entries.labels[index]),
            "split": int(self.splits[index]),
            "writer": int(entries.writers[index]),
            "name": self.source.name(index).encode(),
        }


def prepare(
    source: Source,
    out: Path,
    *,
    split: Split | None = None,
    seed: int = 0,
    via: str = "--source",
    workers: int = 1,
    skip_bad: bool = False,
    force: bool = False,
    progress: Callable[[int], None] | None = None,
) -> PrepareResult:
    """Write the pictures of `source` to `out`, unless the same is there already.

    `via` says how the source was found, `workers` is the greatest number of processes, `progress`
    is called with numbers of pictures done. Raises BadPicturesError if some cannot be decoded and
    `skip_bad` is not set; SourceError, BetonError or OSError for what stops it all. Whatever it
    raises, `out` stays as it was. With `force`, it is written again, whatever it is.
    """
    start = time.perf_counter()
    splits = assign_splits(source.annotations, split or Split(), seed)
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
            "via": via,
        },
        "prepare": {"version": VERSION, "split": str(split or Split()), "seed": seed},
    }
    if source.generator is not None:
        info["generator"] = dict(source.generator)  # for people: no conclusion may rest on it
    before = out.exists()
    built = force or not _is_up_to_date(out, info, skip_bad)
    if built:
        _write(source, splits, out, info, workers, skip_bad, progress)
    with Reader(out) as reader:
        counts = np.bincount(reader.column("split").metadata, minlength=len(SPLITS)).tolist()
        return PrepareResult(
            path=out,
            built=built,
            replaced=before and built,
            classes=len(source.annotations.classes),
            images=dict(zip(SPLITS, counts, strict=True)),
            skipped=[(name, reason) for name, reason in reader.info["prepare"]["skipped"]],
            source_bytes=info["provenance"]["bytes"],
            file_bytes=out.stat().st_size,
            seconds=time.perf_counter() - start,
        )


def _write(
    source: Source,
    splits: Ints,
    out: Path,
    info: dict[str, Any],
    workers: int,
    skip_bad: bool,
    progress: Callable[[int], None] | None,
) -> None:
    def finish(summary: writer.Summary) -> dict[str, Any]:
        bad = [(source.name(index), reason) for index, reason in summary.skipped]
        if bad and not (skip_bad and summary.samples):
            raise BadImagesError(
                f"{source.path}: {len(bad)} of {len(source)} pictures cannot be decoded",
                bad,
            )
        return {**info, "prepare": {**info["prepare"], "skipped": bad}}

    out.parent.mkdir(parents=True, exist_ok=True)
    pixels = _some_pixel_counts(source)
    fields: dict[str, Field] = {
        "image": InkField("raw" if max(pixels) <= RAW_MAX_PIXELS else "auto"),
        "label": IntField(),
        "split": IntField(),
        "writer": IntField(),
        "name": BytesField(),
    }
    writer.write(
        out,
        fields,
        _Samples(source, splits),
        info=finish,
        workers=min(workers, _useful_workers(len(source), max(pixels))),
        progress=progress,
    )


def _some_pixel_counts(source: Source) -> list[int]:
    """Return the numbers of pixels of the first, the middle and the last picture."""
    pixels = []
    for index in (0, len(source) // 2, len(source) - 1):
        try:
            pixels.append(source.image(index).size)
        except ImageError:  # it is reported when it is its turn
            pixels.append(RAW_MAX_PIXELS + 1)
    return pixels


def _useful_workers(images: int, pixels: int) -> int:
    seconds = images * (SECONDS_PER_IMAGE + SECONDS_PER_PIXEL * pixels)
    return 1 + int(seconds / SECONDS_PER_WORKER)


def _is_up_to_date(out: Path, info: dict[str, Any], skip_bad: bool) -> bool:
    """Say whether `out` is a sound file, made from the same data in the same way."""
    if not out.exists():
        return False
    try:
        with Reader(out) as reader:
            reader.verify()
            found = reader.info
    except BetonError as error:
        beginning = layout.VERSION.to_bytes(2, "little")
        with out.open("rb") as file:
            if file.read(2) in (beginning, b""):
                return False  # damaged: it is written again
        raise SourceError(f"{out}: is there, and no .beton file; --force writes over it") from error
    settings = dict(found.get("prepare", {}))
    skipped = settings.pop("skipped", None)
    return (
        settings == info["prepare"]
        and found.get("classes") == info["classes"]
        and found.get("provenance", {}).get("digest") == info["provenance"]["digest"]
        and (skip_bad or not skipped)
    )
