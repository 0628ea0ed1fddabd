"""Predictions of a network, optionally averaged over views or adapted to writers."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from beton.reader import Reader
from pipeline.errors import UserError
from pipeline.evaluation.metrics import balanced_accuracy
from pipeline.loading.batches import DeviceLoader
from pipeline.loading.dataset import Floats, View, eval_batch_size, split_indices
from pipeline.models.batchnorm import adapted_batchnorm
from pipeline.runtime.hardware import autocast


class Predictions(NamedTuple):
    """The predictions of a network, in the order of the file and on the host.

    `ids` int64 (N,), `labels` int64 (N,), `logits` float32 (N, C).
    """

    ids: Tensor
    labels: Tensor
    logits: Tensor

    @property
    def accuracy(self) -> float:
        """The fraction of correct predictions."""
        return int((self.logits.argmax(dim=1) == self.labels).sum()) / len(self.labels)

    @property
    def balanced_accuracy(self) -> float:
        """The mean recall of the classes that occur."""
        return balanced_accuracy(self.logits.argmax(dim=1), self.labels)

    def select(self, ids: Tensor) -> "Predictions":
        """Return the predictions of some of the samples: `ids` int64 (n,), which all occur."""
        rows = torch.isin(self.ids, ids)
        assert int(rows.sum()) == len(ids), "samples without a prediction"
        return Predictions(self.ids[rows], self.labels[rows], self.logits[rows])


def predict(
    network: nn.Module,
    loader: DeviceLoader,
    precision: str = "no",
    views: int = 1,
    mirrored: bool = False,
    gather: Callable[[Tensor], Tensor] = lambda tensor: tensor,
) -> Predictions:
    """Predict every sample of a loader once, in eval mode.

    With several `views`, the logits are the logarithm of the mean probabilities over the image at
    evenly spaced slants; with `mirrored`, over each of them and its mirror image. `gather` joins
    the rows of all processes; padding is removed afterwards.
    """
    was_training = network.training
    network.eval()
    parts = []
    with torch.no_grad():
        for inputs in loader.micro_batches():
            with autocast(loader.device, precision):
                logits = view_logits(network, inputs.images, views, mirrored)
            ids = torch.from_numpy(inputs.ids).to(loader.device)
            parts.append((ids, inputs.labels, logits.float(), inputs.valid))
    network.train(was_training)
    ids, labels, logits, valid = (gather(torch.cat(column)) for column in zip(*parts, strict=True))
    order = ids[valid].argsort()
    return Predictions(*(column[valid][order].cpu() for column in (ids, labels, logits)))


def predict_split(
    network: nn.Module,
    file: Reader,
    split: str,
    view: View,
    *,
    device: torch.device,
    precision: str = "no",
    views: int = 1,
    mirrored: bool = False,
    scales: Floats | None = None,
) -> Predictions:
    """Move a network to a device and predict a split of a dataset, which must not be empty.

    `views` and `mirrored` are as in `predict`, `scales` as in `DeviceLoader`.
    """
    network.to(device).to(memory_format=torch.channels_last)
    indices, rows = split_indices(file, split), eval_batch_size(view)
    with DeviceLoader(file, indices, view, rows, device=device, scales=scales) as loader:
        return predict(network, loader, precision, views, mirrored)


def predict_by_writer(
    network: nn.Module, loader: DeviceLoader, writers: NDArray[np.int64], precision: str = "no"
) -> Predictions:
    """Predict every sample of a loader with batch normalisation adapted to its writer.

    `writers` int64 (samples of the file,) is the writer of each sample, -1 if unknown; for unknown
    writers nothing is adapted. Raises ValueError unless the samples are sorted by writer.
    """
    network.eval()
    parts, seen = [], set[int]()
    rows = (
        (inputs, row)
        for inputs in loader.micro_batches()
        for row in np.flatnonzero(inputs.valid.cpu())
    )
    with torch.no_grad():
        for writer, group in groupby(rows, key=lambda pair: int(writers[pair[0].ids[pair[1]]])):
            if writer in seen:
                raise ValueError(f"loader: got writer {writer} in two places, expected in one")
            seen.add(writer)
            pairs = list(group)
            images = torch.stack([inputs.images[row] for inputs, row in pairs])
            images = images.contiguous(memory_format=torch.channels_last)
            adapted = adapted_batchnorm(network, len(pairs)) if writer >= 0 else nullcontext()
            with adapted, autocast(loader.device, precision):
                logits = network(images).float().cpu()
            ids = torch.tensor([int(inputs.ids[row]) for inputs, row in pairs])
            labels = torch.stack([inputs.labels[row] for inputs, row in pairs]).cpu()
            parts.append((ids, labels, logits))
    ids, labels, logits = (torch.cat(column) for column in zip(*parts, strict=True))
    order = ids.argsort()
    return Predictions(ids[order], labels[order], logits[order])


SLANT = 0.1  # tangent of the slant of the outermost views


def view_logits(network: nn.Module, images: Tensor, views: int, mirrored: bool) -> Tensor:
    """Return the logits of images (n, channels, height, width): (n, C), as in `predict`."""
    if views == 1 and not mirrored:
        logits: Tensor = network(images)
        return logits
    probabilities = []
    for slant in torch.linspace(-SLANT, SLANT, views).tolist() if views > 1 else [0.0]:
        shown = _slanted(images, slant) if views > 1 else images
        for view in (shown, shown.flip(3)) if mirrored else (shown,):
            probabilities.append(network(view).float().softmax(dim=1))
    return torch.stack(probabilities).mean(dim=0).log()


def _slanted(images: Tensor, slant: float) -> Tensor:
    # new_tensor and len(images) would be constants in an exported program.
    theta = torch.tensor([[1.0, slant, 0.0], [0.0, 1.0, 0.0]]).to(images)
    theta = theta.expand(images.shape[0], 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def load_weights(network: nn.Module, weights: Mapping[str, Tensor], run: Path) -> None:
    """Load the weights of a run. Raises UserError if they belong to another network."""
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(
            f"{run}: its weights do not fit this version's network; train it again"
        ) from error
