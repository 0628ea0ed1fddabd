"""Results of `bench device`, as they are written to results.json and read back."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from pipeline.benchmarks.harness import Rates, Series

BARE = "bare loop"  # a method of training
JPEG = "JPEG"  # starts the names of methods that decode JPEGs


@dataclass(frozen=True)
class DecodingFigures(Rates):
    """One method to make augmented images of `size` pixels a side, and what was measured of it.

    `rates` are images/s in each round, on all of the way from the file to images on the device.
    `reference_rates` are those of the loader's kernels in the same rounds. `decode_seconds` and
    `augment_seconds` are the time for an image on the device alone: by events on a GPU, by the
    host's clock on a CPU. `bytes_moved` go to the device for an image, on average.
    `peak_memory` are the most bytes of the device in use, None on a CPU.
    """

    method: str
    size: int
    rates: tuple[float, ...]
    reference_rates: tuple[float, ...]
    decode_seconds: float
    augment_seconds: float
    bytes_moved: float
    peak_memory: int | None


@dataclass(frozen=True)
class TrainingFigures(Rates):
    """The first stage of a recipe, trained for some steps by one method.

    `method` is the decode, "loader" or "device", or "bare loop": images in memory, without the
    training engine. `rates` are images/s in each round, `reference_rates` those of decode "loader".
    `loader_share` is the fraction of the time that waits for the loader, a median over rounds.
    """

    recipe: str
    network: str
    size: int
    method: str
    rates: tuple[float, ...]
    reference_rates: tuple[float, ...]
    loader_share: float | None
    peak_memory: int | None


@dataclass(frozen=True)
class DeviceResult:
    """The results of `bench device`. `device` is "cpu" or "cuda", `name` that of the GPU.

    `threads` are those of the host. `load` is the machine's load average before and after.
    """

    REFERENCE: ClassVar[str] = "× decode by the loader"

    device: str
    name: str
    precision: str
    rounds: int
    threads: int
    batch_size: int
    load: tuple[float, float]
    decoding: tuple[DecodingFigures, ...]
    training: tuple[TrainingFigures, ...]
    skipped: tuple[str, ...]

    @property
    def on_gpu(self) -> bool:
        """Whether a GPU was measured."""
        return self.device != "cpu"

    def series(self) -> Iterator[Series]:
        """Yield the rates of decoding and of training, and their ratios to the loader's decode."""
        for one in self.decoding:
            yield one.series(f"decoding at {one.size}×{one.size}: {one.method}")
        for made in self.training:
            yield made.series(f"training, {made.recipe} at {made.size}×{made.size}: {made.method}")
