"""Where the time of a preparation by one process goes."""

import cProfile
from pathlib import Path
from typing import Any

from beton import writer
from beton.codec import ink
from beton.format.encoding import Job
from pipeline.benchmarks.prep.results import ProfilePart
from pipeline.benchmarks.prep.writers import PillowFiles, run_prep
from pipeline.data.pixels.measures import measure
from pipeline.data.pixels.png.rows import unfilter, unfilter_colours
from pipeline.data.sources.image_files import ImageFiles

INFLATE = "<built-in method deflate._deflate.zlib_decompress>"


def profile(files: type[ImageFiles], archive: Path, out: Path) -> dict[str, float]:
    """Return the milliseconds an image of each part of a preparation by one process."""
    run_prep(files, archive, out, 1)  # compiles the kernels
    profiler = cProfile.Profile()
    count = profiler.runcall(run_prep, files, archive, out, 1)
    seconds: dict[Any, float] = {entry.code: entry.totaltime for entry in profiler.getstats()}

    def spent(*functions: Any) -> float:
        codes = [getattr(f, "py_func", f).__code__ for f in functions]
        return sum(seconds.get(code, 0.0) for code in codes)

    inflate, rows = seconds.get(INFLATE, 0.0), spent(unfilter, unfilter_colours)
    decoded = spent(files.decoded)
    encoded = spent(measure) + spent(ink.encode)
    written = spent(writer.write) - spent(Job.encode)
    parts = {
        "inflate": inflate,
        "undo filters, convert to grey": rows,
        "the rest of reading and decoding": decoded - inflate - rows,
        "measure": spent(measure),
        "find and pack runs of ink": spent(ink.encode),
        "decide on pixels and splits, write the file": written,
    }
    total = spent(run_prep)
    parts["hash the archive, and the rest"] = total - decoded - encoded - written
    parts["in all"] = total
    return {part: 1e3 * time / count for part, time in parts.items()}


def profile_both(archive: Path, out: Path) -> tuple[ProfilePart, ...]:
    """Return where the time goes with either decoder."""
    old, new = (profile(files, archive, out) for files in (PillowFiles, ImageFiles))
    return tuple(ProfilePart(part, old[part], new[part]) for part in new)
