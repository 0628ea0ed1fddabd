"""The data of a part: a .beton file for our loader, the same pages as PNG files for Pillow's."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from beton.loader import Loader
from beton.ops import Resize
from beton.reader import Reader
from pipeline.benchmarks.convergence.parts import Part
from pipeline.benchmarks.convergence.pillow import PillowPages, page_file
from pipeline.data.catalog import AUXILIARY, SourceFinder, SyntheticData, default_split
from pipeline.data.pixels.options import PixelOptions
from pipeline.data.prepare import prepare
from pipeline.data.sources import Source
from pipeline.data.splits import Split
from pipeline.data.synth.garments import SyntheticGarments
from pipeline.data.synth.handwriting import DigitCounts, SyntheticDigits
from pipeline.data.synth.mislabel import LabelNoise, MislabelledSource
from pipeline.data.synth.source import ImageCounts
from pipeline.errors import UserError
from pipeline.loading.dataset import Ids, View, open_dataset, split_indices
from pipeline.loading.writer_scale import writers_of
from pipeline.runtime.cgroup import usable_cores

DATA, CLEAN, PAGES = "data", "clean", "pages"  # files and a folder of a part's data
COMPARED = 64  # pages, whose canvases by both loaders are compared
BLOCK = 64  # pages that are in memory at a time
FEW = 1_000  # images that one process prepares sooner than several
QUICK_IMAGES = 4_000, 1_000  # to train on, to validate on
QUICK_WRITERS, QUICK_AUXILIARY = 3, 1


@dataclass(frozen=True)
class Prepared:
    """What `prepare_part` made, and the time in seconds that it took; see `PartResult`."""

    provenance: dict[str, str]
    trained: int
    validated: int
    prepared: float
    written: float
    largest_difference: float
    mean_difference: float


@dataclass(frozen=True)
class DataPlan:
    """Which data to take: those at `source`, or else what `./launch.sh prep` would take.

    With `quick`, few synthetic images. `writers` and `auxiliary_writers` are those of synthetic
    pages of part 1, `held_out` is the number of its writers to validate on.
    """

    source: Path | None
    writers: int
    auxiliary_writers: int
    held_out: int
    quick: bool


def source_of(part: Part, plan: DataPlan) -> tuple[Source, str]:
    """Return the source of a part's dataset, and how it was found."""
    if plan.source is not None or not plan.quick:
        synthetic = SyntheticData(plan.writers)
        return SourceFinder(source=plan.source, synthetic=synthetic).find(part.dataset)
    train, test = QUICK_IMAGES
    match part.dataset:
        case "fashion":
            return SyntheticGarments(ImageCounts(train, test)), "--quick"
        case "mnist":
            return SyntheticDigits(DigitCounts(train, test, 1_000)), "--quick"
    return SyntheticData(QUICK_WRITERS).source(part.dataset), "--quick"


def prepare_part(
    part: Part, plan: DataPlan, folder: Path, report: Callable[[str], None]
) -> Prepared:
    """Write the .beton and PNG files of a part to the new folder `folder`.

    Raises UserError if a writer of the validation split is in training too, and what `prepare`
    raises.
    """
    found, found_by = source_of(part, plan)
    report(f"part {part.name}: {found.origin} data: {found}")
    folder.mkdir()
    split = default_split(part.dataset, found)
    if part.dataset == "part1":
        split = Split(writers=1 if plan.quick else plan.held_out)
    given = found
    if part.below_ceiling is not None:
        _prepare(found, folder / f"{CLEAN}.beton", split, found_by)
        given = MislabelledSource(found, LabelNoise("wrong"))
    start = time.perf_counter()
    _prepare(given, folder / f"{DATA}.beton", split, found_by)
    prepared = time.perf_counter() - start
    written = 0.0
    with open_dataset(folder / f"{DATA}.beton") as file:
        check_writers(file, part)
        ids = split_indices(file, part.learn_from)
        written += write_pages(file, ids, folder / PAGES / DATA, part.colour)
        validated = len(split_indices(file, part.validate_on))
        difference = canvas_difference(file, ids[:COMPARED], part, folder / PAGES / DATA)
        provenance = {name: file.info["provenance"][name] for name in ("kind", "source")}
    if part.ours.recipe.auxiliary:
        writers = QUICK_AUXILIARY if plan.quick else plan.auxiliary_writers
        auxiliary = SyntheticData(auxiliary_writers=writers).source(AUXILIARY)
        _prepare(auxiliary, folder / f"{AUXILIARY}.beton", Split(), found_by)
        with open_dataset(folder / f"{AUXILIARY}.beton") as file:
            everything = np.arange(len(file))
            written += write_pages(file, everything, folder / PAGES / AUXILIARY, part.colour)
    return Prepared(provenance, len(ids), validated, prepared, written, *difference)


def _prepare(source: Source, out: Path, split: Split, found_by: str) -> None:
    workers = 1 if len(source) < FEW else usable_cores()
    pixels = PixelOptions(colour="grey")
    prepare(source, out, split=split, pixels=pixels, found_by=found_by, workers=workers)


def check_writers(file: Reader, part: Part) -> None:
    """Raise UserError if a validation page has a writer of training pages; unknown ones differ."""
    writers = writers_of(file)
    train, validation = (
        set(writers[split_indices(file, split)].tolist()) - {-1}
        for split in (part.learn_from, part.validate_on)
    )
    if shared := train & validation:
        raise UserError(
            f"{file.path}: got {len(shared)} writers of both training and validation pages, "
            "expected none"
        )


def canvas_difference(file: Reader, ids: Ids, part: Part, folder: Path) -> tuple[float, float]:
    """Return the largest and the mean difference of both loaders' canvases, in grey levels.

    They are those of our recipe.
    """
    recipe = part.ours.recipe
    canvas = View.of(file, recipe.stages[-1].size, recipe.window).canvas
    images = {"image": Resize(*canvas)}
    with Loader(file, len(ids), images, order="sequential", indices=ids, threads=0) as loader:
        (batch,) = loader
    pages = PillowPages(folder, canvas)
    theirs = np.stack([pages[number][0].numpy() for number in ids.tolist()])
    difference = np.abs(batch["image"].astype(np.int16) - theirs)
    return float(difference.max()), float(difference.mean())


def write_pages(file: Reader, ids: Ids, folder: Path, colour: bool) -> float:
    """Write pages of one size to PNG files, in RGB if `colour`; return the seconds it took.

    Raises UserError for pages of several sizes.
    """
    start = time.perf_counter()
    records = file.column("image").metadata[ids]
    sizes = np.unique(np.stack([records["height"], records["width"]], axis=1), axis=0)
    if len(sizes) != 1:
        raise UserError(f"{file.path}: got pages of {len(sizes)} sizes, expected one")
    height, width = sizes[0].tolist()
    folder.mkdir(parents=True)

    def save(page: np.ndarray, number: int) -> None:
        image = Image.fromarray(page)
        (image.convert("RGB") if colour else image).save(page_file(folder, number))

    images = {"image": Resize(height, width)}  # of their own size: as they are
    with (
        Loader(file, BLOCK, images, order="sequential", indices=ids, threads=1) as loader,
        ThreadPoolExecutor(usable_cores()) as pool,
    ):
        for batch in loader:
            rows = np.flatnonzero(batch.valid)
            list(pool.map(save, batch["image"][rows], batch.ids[rows].tolist()))
    return time.perf_counter() - start
