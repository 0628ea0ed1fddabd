"""Hugging Face datasets: an Arrow table with image files, decoded by Pillow, or with pixels."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import datasets
import numpy as np
import torch
from PIL import Image

from pipeline.benchmarks.peers.base import DIGIT, Method
from pipeline.benchmarks.peers.files import workers


class HuggingFace(Method):
    """A dataset on disk in a DataLoader, which reads whole batches of it."""

    _loader: Any = None

    def prepare(self) -> None:
        """Write the dataset."""
        datasets.disable_progress_bars()
        image: Any = datasets.Image()
        if self.request.kind == "digits":
            image = datasets.Array2D(DIGIT, "uint8")
        features = datasets.Features({"image": image, "id": datasets.Value("int64")})
        made = datasets.Dataset.from_generator(
            self._samples,
            features=features,
            cache_dir=str(self.folder / "cache"),
            keep_in_memory=True,
        )
        made.save_to_disk(str(self.folder / "table"))

    def _samples(self) -> Iterator[dict[str, Any]]:
        for record, number in self.records():
            image: Any = {"bytes": record, "path": None}
            if self.request.kind == "digits":
                image = np.frombuffer(record, np.uint8).reshape(DIGIT)
            yield {"image": image, "id": number}

    def batches(self) -> Iterator[tuple[Any, Any]]:
        """Yield the images and the numbers of each batch of the next epoch."""
        if self._loader is None:
            table = datasets.load_from_disk(str(self.folder / "table"))
            if self.request.kind == "digits":
                table = table.with_format("torch")
            else:
                table = table.with_transform(partial(resized, size=self.request.size))
            self._loader = workers(table, self.request)
        for batch in self._loader:
            yield self.normalized(batch["image"]), batch["id"]


def resized(samples: dict[str, Any], size: int) -> dict[str, Any]:
    """Resize the images of samples by Pillow's box filter."""
    images = [
        torch.from_numpy(np.array(one.convert("L").resize((size, size), Image.Resampling.BOX)))
        for one in samples["image"]
    ]
    return {**samples, "image": images}


METHODS = {"Hugging Face datasets": HuggingFace}
