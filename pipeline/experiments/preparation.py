"""The preparation of one dataset as a user sees it: what is understood, progress, result, card."""

from pathlib import Path

from rich.console import Console

from beton.errors import printable
from pipeline.data.base import SYNTHETIC, Source
from pipeline.data.pixels.options import PixelOptions
from pipeline.data.prepare import PrepareResult, prepare
from pipeline.data.splits import Split
from pipeline.reporting.data_card import write_card
from pipeline.reporting.data_tables import layout_lines, survey_lines
from pipeline.runtime.progress import progress


def prepare_dataset(
    console: Console,
    name: str,
    source: Source,
    out: Path,
    card: Path,
    *,
    found_by: str,
    split: Split | None,
    pixels: PixelOptions,
    workers: int,
    seed: int = 0,
    skip_bad: bool = False,
    force: bool = False,
) -> PrepareResult:
    """Write a source to the file `out` and its data card to `card`, and print what both show.

    The settings are those of `prepare`. Raises what that raises.
    """
    console.print(f"{name}: {found_by} {source.path}, {source}")
    if source.layout.reader != SYNTHETIC:
        console.print(layout_lines(source.layout, source.annotations))
    with progress(console, name, len(source)) as advance:
        result = prepare(
            source,
            out,
            split=split,
            seed=seed,
            pixels=pixels,
            found_by=found_by,
            workers=workers,
            skip_bad=skip_bad,
            force=force,
            progress=advance,
        )
    if result.raced:
        console.print(f"{name}: replaced {result.path}, which another process wrote meanwhile")
    elif result.replaced and not force:
        console.print(f"{name}: replaced {result.path}, which had other data or settings")
    if not result.built:
        console.print(f"{name}: {result.path} is up to date; --force writes it again")
    for image, reason in result.skipped:
        console.print(printable(f"{name}: skipped {image}: {reason}"))
    console.print(survey_lines(result.survey))
    card.parent.mkdir(parents=True, exist_ok=True)
    # Also of an up-to-date file: its card may be of other settings.
    write_card(card, out, name=name)
    console.print(f"{name}: data card {card}")
    return result
