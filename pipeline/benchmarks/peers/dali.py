"""NVIDIA DALI: image files decoded and resized on the CPU, or on a GPU where there is one."""

from collections.abc import Iterator
from typing import Any

import torch
from nvidia.dali import fn, pipeline_def, types
from nvidia.dali.plugin.base_iterator import LastBatchPolicy
from nvidia.dali.plugin.pytorch import DALIGenericIterator

from pipeline.benchmarks.peers.base import Method


@pipeline_def  # type: ignore[untyped-decorator]
def grey_pages(files: list[str], size: int, device: str) -> Any:
    """Decode and resize grey pages; antialiased, by a triangular filter."""
    encoded, numbers = fn.readers.file(
        files=files,
        labels=list(range(len(files))),
        shuffle_after_epoch=True,  # its random_shuffle mixes the samples of two epochs
        pad_last_batch=True,  # otherwise it is filled with samples that the next epoch then lacks
        name="reader",
    )
    images = fn.decoders.image(
        encoded, device="mixed" if device == "gpu" else "cpu", output_type=types.GRAY
    )
    return fn.resize(images, resize_x=size, resize_y=size, antialias=True), numbers


class Dali(Method):
    """DALI's own iterator for torch."""

    _iterator: Any = None

    def batches(self) -> Iterator[tuple[Any, Any]]:
        """Yield the images and the numbers of each batch of the next epoch."""
        if self._iterator is None:
            on_gpu = torch.cuda.is_available()
            pipeline = grey_pages(
                files=[str(file) for file in self.files()],
                size=self.request.size,
                device="gpu" if on_gpu else "cpu",
                batch_size=self.request.batch_size,
                num_threads=self.request.threads,
                device_id=0 if on_gpu else None,
            )
            self._iterator = DALIGenericIterator(
                [pipeline],
                ["image", "id"],
                reader_name="reader",
                last_batch_policy=LastBatchPolicy.PARTIAL,
                auto_reset=True,
            )
        for (batch,) in self._iterator:
            yield self.normalized(batch["image"][..., 0]), batch["id"][:, 0]


METHODS = {"DALI": Dali}
