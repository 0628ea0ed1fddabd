"""What all methods of loading have in common."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.benchmarks.throughput.request import Request

DIGIT = (28, 28)


class Method:
    """A method of loading the images of a request, in shuffled batches."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.folder = Path(request.folder)

    def count(self) -> int:
        """Return the number of images."""
        if self.request.kind == "digits":
            return len(self.digits())
        return len(self.request.files())

    def digits(self) -> Any:
        """Return the digits: uint8 (n, 28, 28)."""
        return np.load(Path(self.request.source) / "digits.npy", mmap_mode="r")

    def files(self) -> list[Path]:
        """Return the image files in the order of their numbers; digits need `prepare` before."""
        if self.request.kind == "digits":
            return sorted(self.folder.glob("*.png"))
        return self.request.files()

    def prepare(self) -> None:
        """Make the files that `batches` reads; by default, digits as PNG files, written by Pillow.

        Pages and photos are files already.
        """
        from PIL import Image

        for number, digit in enumerate(self.digits()):
            Image.fromarray(digit).save(self.folder / f"{number:06}.png")

    def batches(self) -> Iterator[tuple[Any, Any]]:
        """Yield the images and the numbers of each batch of the next epoch."""
        raise NotImplementedError

    def records(self) -> Iterator[tuple[bytes, int]]:
        """Yield what libraries that store bytes keep of each image, and its number.

        A record is the image's file, or the pixels of a digit.
        """
        if self.request.kind == "digits":
            yield from ((digit.tobytes(), number) for number, digit in enumerate(self.digits()))
        else:
            yield from ((f.read_bytes(), number) for number, f in enumerate(self.request.files()))

    def normalized(self, images: Any) -> Any:
        """Return a tensor of images as they are asked for: normalised float32, or as they are."""
        if not self.request.mean:
            return images
        return images.float().sub_(self.request.mean[0]).div_(self.request.std[0])


def decode(record: bytes, size: int, kind: str) -> Any:
    """Return the image of a record: uint8 (size, size), resized by Pillow's box filter."""
    if kind == "digits":
        return np.frombuffer(record, np.uint8).reshape(DIGIT).copy()
    from PIL import Image

    with Image.open(io.BytesIO(record)) as image:
        return np.array(image.convert("L").resize((size, size), Image.Resampling.BOX))
