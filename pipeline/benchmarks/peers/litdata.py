"""LitData: records in chunks, decoded by Pillow."""

import os
import shutil
from collections.abc import Iterator
from functools import partial
from typing import Any

import litdata

from pipeline.benchmarks.peers.base import Method, decode


class LitData(Method):
    """Chunks and LitData's own DataLoader."""

    _loader: Any = None

    def prepare(self) -> None:
        """Write the chunks, by worker processes."""
        # `optimize` deletes folders below the temporary one: it gets folders of its own.
        scratch = self.folder.with_name(f"{self.folder.name}-scratch")
        for name in ("CACHE", "DATA_CACHE"):
            os.environ[f"DATA_OPTIMIZER_{name}_FOLDER"] = str(scratch / name)
        litdata.optimize(
            Sample(self),
            list(range(self.count())),
            str(self.folder / "chunks"),
            chunk_bytes="64MB",
            num_workers=self.request.threads,
            verbose=False,
        )
        shutil.rmtree(scratch, ignore_errors=True)

    def batches(self) -> Iterator[tuple[Any, Any]]:
        """Yield the images and the numbers of each batch of the next epoch."""
        if self._loader is None:
            convert = partial(converted, size=self.request.size, kind=self.request.kind)
            samples = litdata.StreamingDataset(
                str(self.folder / "chunks"), shuffle=True, drop_last=False, transform=convert
            )
            self._loader = litdata.StreamingDataLoader(
                samples,
                batch_size=self.request.batch_size,
                num_workers=self.request.threads,
                persistent_workers=True,
            )
        for images, ids in self._loader:
            yield self.normalized(images), ids


class Sample:
    """Reads the record of a number, in a worker process of `optimize`."""

    def __init__(self, method: Method) -> None:
        self._digits = method.request.kind == "digits"
        self._source: Any = method.digits() if self._digits else method.request.files()

    def __call__(self, number: int) -> dict[str, Any]:
        """Return the sample."""
        one = self._source[number]
        return {"image": one.tobytes() if self._digits else one.read_bytes(), "id": number}


def converted(sample: dict[str, Any], size: int, kind: str) -> tuple[Any, int]:
    """Decode a sample."""
    return decode(sample["image"], size, kind), sample["id"]


METHODS = {"LitData": LitData}
