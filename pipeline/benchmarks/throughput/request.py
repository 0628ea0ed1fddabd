"""What the benchmark asks of a worker process. Standard library only: workers must start fast."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Request:
    """One method of loading, and the images to load.

    `module` is one of `pipeline.benchmarks.peers`, `method` a key of its METHODS. `kind` is "pages"
    (grey PNG files), "photos" (colour JPEG files) or "digits" (an array in digits.npy). The folder
    `source` has one file for each image, in the order of the image numbers. The method keeps what
    it prepares in `folder`. `mean` and `std`, in grey levels for each channel, normalise to
    float32; without them, images are uint8. With `crop`, photos are random resized crops, otherwise
    whole images are resized to `size`.
    """

    module: str
    method: str
    kind: str
    source: str
    folder: str
    size: int
    batch_size: int
    threads: int
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    crop: bool = False

    def files(self) -> list[Path]:
        """Return the files of the source; the number of an image is its place."""
        return sorted(Path(self.source).iterdir())
