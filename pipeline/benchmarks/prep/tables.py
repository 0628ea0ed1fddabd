"""Results of `bench prep` as rows: for the terminal and for the page."""

from collections.abc import Iterator, Sequence

from pipeline.benchmarks.harness import rate_cells, ratio
from pipeline.benchmarks.prep.results import (
    DECODES,
    OURS,
    REPLACED,
    DatasetFigures,
    PrepResult,
)

RATES = ["", "images/s", "range", f"× {DECODES}", f"× {REPLACED}", "bytes an image"]
PROFILE = ["ms an image, profiled", "Pillow's decoder", "inkrun"]


def rate_rows(result: DatasetFigures) -> Iterator[Sequence[str]]:
    """Return a row for each task, and one for the files, with the columns RATES."""
    yield ["image files", "–", "–", "–", "–", f"{result.file_bytes:,.0f}"]
    for one in result.figures:
        yield [
            one.name,
            *rate_cells(one.rates),
            *(str(ratio(one.rates, result.rates(base))) for base in (DECODES, REPLACED)),
            "–" if one.written is None else f"{one.written:,.0f}",
        ]


def profile_rows(result: DatasetFigures) -> Iterator[Sequence[str]]:
    """Return a row for each part of a preparation with the columns PROFILE."""
    return ([one.name, f"{one.pillow:.3f}", f"{one.inkrun:.3f}"] for one in result.profile)


def answer(result: PrepResult) -> str:
    """Return how many times as fast as Pillow decodes each dataset is prepared."""
    parts = (
        f"{one.title}: {ratio(one.rates(OURS), one.rates(DECODES)).value:.2f} times as fast as "
        "Pillow decodes the files"
        for one in result.datasets
    )
    return "; ".join(parts)
