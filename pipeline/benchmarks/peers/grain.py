"""Grain: records in an ArrayRecord file, decoded by Pillow."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import grain
import torch
from array_record.python.array_record_module import ArrayRecordWriter

from pipeline.benchmarks.peers.base import Method, decode

NUMBER = 8  # bytes of an image's number, before its record


class Grain(Method):
    """An ArrayRecord file, read by Grain's threads."""

    _epoch = 0

    def prepare(self) -> None:
        """Write the file, in groups of one record: the order of reading is random."""
        writer = ArrayRecordWriter(str(self.folder / "images.arrayrecord"), "group_size:1")
        for record, number in self.records():
            writer.write(number.to_bytes(NUMBER, "little") + record)
        writer.close()

    def batches(self) -> Iterator[tuple[Any, Any]]:
        """Yield the images and the numbers of each batch of the next epoch."""
        source = grain.sources.ArrayRecordDataSource([str(self.folder / "images.arrayrecord")])
        convert = partial(converted, size=self.request.size, kind=self.request.kind)
        data = grain.MapDataset.source(source).shuffle(seed=self._epoch).map(convert)
        self._epoch += 1
        # Its worker processes would start anew in each epoch, which takes seconds.
        options = grain.ReadOptions(num_threads=self.request.threads)
        for images, ids in data.batch(self.request.batch_size).to_iter_dataset(options):
            yield self.normalized(torch.from_numpy(images)), ids


def converted(record: bytes, size: int, kind: str) -> tuple[Any, int]:
    """Decode a record."""
    return decode(record[NUMBER:], size, kind), int.from_bytes(record[:NUMBER], "little")


METHODS = {"Grain": Grain}
