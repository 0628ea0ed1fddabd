"""The training images that a network finds most similar to an image.

Similarity is the cosine between outputs of the penultimate layer: the input of the last linear
layer.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from beton.reader import Reader
from pipeline.errors import UserError
from pipeline.evaluation.evaluate import TrainedModel
from pipeline.evaluation.run_data import open_run_data
from pipeline.inspection.seen import Pixels, inputs_of, load_inputs, seen_images
from pipeline.loading.dataset import Ids, split_indices
from pipeline.runtime.files import read_cached, write_tensors

CACHE = "embeddings.safetensors"


@dataclass(frozen=True)
class Neighbour:
    """A training image: its sample number in the file, label, cosine similarity, and image.

    `image` is uint8 (h, w) or (h, w, 3), as in `seen_images`.
    """

    index: int
    label: str
    similarity: float
    image: Pixels


@contextmanager
def penultimate(network: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the inputs of the last linear layer, each (batch, features), while `with` lasts."""
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    collected: list[Tensor] = []

    def collect(_layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        collected.append(inputs[0].detach().float())

    hook = layers[-1].register_forward_pre_hook(collect)
    try:
        yield collected
    finally:
        hook.remove()


def embed(network: nn.Module, images: Tensor) -> Tensor:
    """Return unit vectors, float32 (N, features), of a network's inputs (N, channels, h, w)."""
    network.eval()
    with torch.no_grad(), penultimate(network) as collected:
        network(images)
    return F.normalize(torch.cat(collected), dim=1)


class Neighbours:
    """The embedded training images of a run. `close` or `with` closes the run's dataset."""

    def __init__(
        self, trained: TrainedModel, file: Reader, ids: Ids, vectors: Tensor, device: torch.device
    ) -> None:
        self._trained, self._file, self._ids = trained, file, ids
        self._vectors, self._device = vectors.to(device), device

    @classmethod
    def of(cls, trained: TrainedModel, device: torch.device) -> Self:
        """Embed the images that a run was trained on, or read their embeddings from its directory.

        They are cached in the run directory as float16, with the dataset's fingerprint, unless that
        cannot be written. Raises UserError and BetonError as `open_run_data` does.
        """
        config, run = trained.config, trained.run
        file = open_run_data(config)
        try:
            ids = split_indices(file, config.learn_from, config.recipe.train_images)
            key = {"fingerprint": config.fingerprint, "images": str(len(ids))}
            layers = [one for one in trained.network.modules() if isinstance(one, nn.Linear)]
            vectors = _cached(run / CACHE, key, (len(ids), layers[-1].in_features))
            if vectors is None:
                vectors = _embed_all(trained, file, ids, device)
                with suppress(OSError):  # a run directory of others
                    write_tensors(run / CACHE, {"vectors": vectors}, key)
        except BaseException:
            file.close()
            raise
        return cls(trained, file, ids, vectors, device)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the run's dataset."""
        self._file.close()

    def nearest(
        self, inputs: Tensor, count: int, leave_out: Ids | None = None
    ) -> list[list[Neighbour]]:
        """Return the nearest training images of each input (N, channels, h, w), nearest first.

        `leave_out`, int64 (N,), are sample numbers that are no neighbours of their own input.
        """
        inputs = inputs.to(self._device)
        count = min(count, len(self._ids))
        vectors = embed(self._trained.network.to(self._device), inputs)
        similarities = (vectors @ self._vectors.float().T).clamp(-1, 1)  # rounding exceeds 1
        if leave_out is not None:
            own = torch.from_numpy(self._ids[None] == np.asarray(leave_out)[:, None])
            similarities[own.to(similarities.device)] = -2
        values, places = (part.cpu() for part in similarities.topk(count, dim=1))
        ids = self._ids[places.numpy()]
        images = self._images(ids)
        labels, classes = self._file.column("label").metadata, self._file.info["classes"]
        return [
            [
                Neighbour(int(i), classes[labels[i]], float(value), images[int(i)])
                for i, value in zip(row, similar, strict=True)
            ]
            for row, similar in zip(ids, values, strict=True)
        ]

    def _images(self, ids: Ids) -> dict[int, Pixels]:
        unique = np.unique(ids)
        inputs = load_inputs(self._trained, self._file, unique, torch.device("cpu"))
        images = seen_images(inputs, self._trained.view)
        return dict(zip(unique.tolist(), images, strict=True))


def _cached(path: Path, key: dict[str, str], shape: tuple[int, int]) -> Tensor | None:
    try:
        found = read_cached(path, key)
    except UserError:  # damaged: it is written again
        return None
    vectors = None if found is None else found.get("vectors")
    return vectors if vectors is not None and vectors.shape == shape else None


def _embed_all(trained: TrainedModel, file: Reader, ids: Ids, device: torch.device) -> Tensor:
    network = trained.network.to(device)
    with inputs_of(trained, file, ids, device) as loader:
        parts = [
            embed(network, batch.images)[batch.valid].half().cpu()
            for batch in loader.micro_batches()
        ]
    return torch.cat(parts)
