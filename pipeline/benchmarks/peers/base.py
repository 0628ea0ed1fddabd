"""What all methods of loading have in common."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.benchmarks.throughput.request import Request


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

    def prepare(self) -> None:
        """Make the files that `batches` reads; by default it reads the source itself."""

    def batches(self) -> Iterator[tuple[Any, Any]]:
        """Yield the images and the numbers of each batch of the next epoch."""
        raise NotImplementedError
