"""Results of `bench device` as rows: for the terminal and for the page."""

from collections.abc import Iterator, Sequence

from pipeline.benchmarks.device.results import DeviceResult
from pipeline.benchmarks.harness import rate_cells

DECODING = [
    "",
    "size",
    "images/s",
    "slowest to fastest",
    "× loader's kernels",
    "decode (µs)",
    "augment (µs)",
    "bytes moved",
    "peak memory (MB)",
]
TRAINING = [
    "",
    "network",
    "size",
    "decode",
    "images/s",
    "slowest to fastest",
    "× decode by the loader",
    "waiting",
    "peak memory (MB)",
]


def place(result: DeviceResult) -> str:
    """Return where everything was measured; without a GPU, that is what a reader must know."""
    if result.on_gpu:
        return f"on {result.name}, {result.precision}"
    return f"no GPU: the same code, measured on the CPU with {result.threads} threads"


def decoding_rows(result: DeviceResult) -> Iterator[Sequence[str]]:
    """Return a row for each method and size with the columns DECODING."""
    for one in result.decoding:
        yield [
            one.method,
            f"{one.size}×{one.size}",
            *rate_cells(one.rates),
            str(one.factor),
            f"{1e6 * one.decode_seconds:,.1f}",
            f"{1e6 * one.augment_seconds:,.1f}",
            f"{one.bytes_moved:,.0f}",
            _megabytes(one.peak_memory),
        ]


def training_rows(result: DeviceResult) -> Iterator[Sequence[str]]:
    """Return a row for each recipe and method with the columns TRAINING."""
    for one in result.training:
        share = one.loader_share
        yield [
            one.recipe,
            one.network,
            f"{one.size}×{one.size}",
            one.method,
            *rate_cells(one.rates),
            str(one.factor),
            "–" if share is None else f"{share:.1%}",
            _megabytes(one.peak_memory),
        ]


def answer(result: DeviceResult) -> str:
    """Return how fast decoding on the device is, in one line."""
    parts = [
        f"{one.size}×{one.size}: {one.rate:,.0f} images/s ({one.factor.value:.2f} × the loader's "
        "kernels)"
        for one in result.decoding
        if one.method == "decode on the device"
    ]
    return f"Decoded on the device ({place(result)}): {'; '.join(parts)}"


def _megabytes(size: int | None) -> str:
    return "–" if size is None else f"{size / 1e6:,.0f}"
