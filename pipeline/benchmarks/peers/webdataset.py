"""WebDataset: shards of records in tar files, shuffled in a buffer, decoded by Pillow."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import webdataset
from torch.utils.data import DataLoader

from pipeline.benchmarks.peers.base import Method, decode

SHARDS = 4  # for each worker process
BUFFER = 1000  # samples that are shuffled together, as in its documentation


class WebDataset(Method):
    """Tar files and a DataLoader, whose processes make batches of their own shards."""

    _loader: Any = None

    def prepare(self) -> None:
        """Write the shards."""
        most = -(-self.count() // (SHARDS * self.request.threads))
        pattern = str(self.folder / "%06d.tar")
        with webdataset.ShardWriter(pattern, maxcount=most, verbose=0) as shards:
            for record, number in self.records():
                shards.write({"__key__": f"{number:08}", "image": record, "id": str(number)})

    def batches(self) -> Iterator[tuple[Any, Any]]:
        """Yield the images and the numbers of each batch of the next epoch."""
        if self._loader is None:
            shards = sorted(map(str, self.folder.glob("*.tar")))
            samples = webdataset.WebDataset(shards, shardshuffle=len(shards)).shuffle(BUFFER)
            convert = partial(converted, size=self.request.size, kind=self.request.kind)
            self._loader = DataLoader(
                samples.map(convert).batched(self.request.batch_size),
                batch_size=None,
                num_workers=self.request.threads,
                persistent_workers=True,
            )
        for images, ids in self._loader:
            yield self.normalized(images), ids


def converted(sample: dict[str, Any], size: int, kind: str) -> tuple[Any, int]:
    """Decode a sample."""
    return decode(sample["image"], size, kind), int(sample["id"])


METHODS = {"WebDataset": WebDataset}
