"""MosaicML Streaming: records in shards, decoded by Pillow."""

from collections.abc import Iterator
from typing import Any

from streaming import MDSWriter, StreamingDataset
from streaming.base.util import clean_stale_shared_memory
from torch.utils.data import DataLoader

from pipeline.benchmarks.peers.base import Method, decode


class Samples(StreamingDataset):  # type: ignore[misc]
    """Decodes samples as they are read."""

    def __init__(self, size: int, kind: str, **options: Any) -> None:
        super().__init__(**options)
        self._size, self._kind = size, kind

    def __getitem__(self, at: Any) -> tuple[Any, int]:
        sample = super().__getitem__(at)
        return decode(sample["image"], self._size, self._kind), sample["id"]


class Mosaic(Method):
    """Shards and a DataLoader."""

    _loader: Any = None

    def prepare(self) -> None:
        """Write the shards."""
        columns = {"image": "bytes", "id": "int"}
        with MDSWriter(out=str(self.folder / "shards"), columns=columns) as writer:
            for record, number in self.records():
                writer.write({"image": record, "id": number})

    def batches(self) -> Iterator[tuple[Any, Any]]:
        """Yield the images and the numbers of each batch of the next epoch."""
        if self._loader is None:
            clean_stale_shared_memory()
            samples = Samples(
                self.request.size,
                self.request.kind,
                local=str(self.folder / "shards"),
                shuffle=True,
                batch_size=self.request.batch_size,
            )
            self._loader = DataLoader(
                samples,
                self.request.batch_size,
                num_workers=self.request.threads,
                persistent_workers=True,
            )
        for images, ids in self._loader:
            yield self.normalized(images), ids


METHODS = {"MosaicML Streaming": Mosaic}
