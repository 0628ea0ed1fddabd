"""SPDL: image files decoded and resized by FFmpeg, in threads."""

import random
from collections.abc import Iterator
from functools import partial
from typing import Any

import spdl.io
import torch
from spdl.pipeline import PipelineBuilder

from pipeline.benchmarks.peers.base import Method

AHEAD = 4  # batches that are ready


class Spdl(Method):
    """A pipeline whose threads each make a batch; FFmpeg's area filter resizes."""

    def batches(self) -> Iterator[tuple[Any, Any]]:
        """Yield the images and the numbers of each batch of the next epoch."""
        spdl.io.utils.get_ffmpeg_versions()  # raises the reason if FFmpeg's libraries are missing
        files = [str(file) for file in self.files()]
        order = random.sample(range(len(files)), len(files))
        step = self.request.batch_size
        parts = [order[start : start + step] for start in range(0, len(order), step)]
        pipeline = (
            PipelineBuilder()
            .add_source(parts)
            .pipe(
                partial(loaded, files=files, size=self.request.size),
                concurrency=self.request.threads,
            )
            .add_sink(AHEAD)
            .build(num_threads=self.request.threads)
        )
        with pipeline.auto_stop():
            for images, ids in pipeline:
                yield self.normalized(images), ids


def loaded(numbers: list[int], files: list[str], size: int) -> tuple[Any, Any]:
    """Load a batch: uint8 (b, size, size), and its numbers."""
    scale = f"scale={size}:{size}:flags=area,format=gray"
    buffer = spdl.io.load_image_batch(
        [files[number] for number in numbers],
        width=size,
        height=size,
        pix_fmt="gray",
        filter_desc=scale,
    )
    images = spdl.io.to_torch(buffer)
    return images.reshape(len(numbers), size, size), torch.tensor(numbers)


METHODS = {"SPDL": Spdl}
