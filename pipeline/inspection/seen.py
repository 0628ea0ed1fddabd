"""Images as a network saw them, for people."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from beton.reader import Reader
from pipeline.evaluation.evaluate import TrainedModel
from pipeline.loading.batches import DeviceLoader, display_images
from pipeline.loading.dataset import Ids, View, eval_batch_size
from pipeline.loading.writer_scale import writer_scales

Pixels = NDArray[np.uint8]


def seen_images(inputs: Tensor, view: View) -> list[Pixels]:
    """Return a network's inputs (N, channels, h, w) without normalisation.

    Each is uint8 (h, w), where ink is dark on white, or (h, w, 3) in colour.
    """
    shown = display_images(inputs, view)
    levels = np.rint(255 * (shown if view.channels == 3 else 1 - shown)).astype(np.uint8)
    return list(levels)


@contextmanager
def inputs_of(
    trained: TrainedModel, file: Reader, ids: Ids, device: torch.device
) -> Iterator[DeviceLoader]:
    """Open a loader of samples of a file as inputs of a network, as `evaluate` shows them to it."""
    view, hand = trained.view_of(file), trained.config.recipe.hand
    scales = writer_scales(file, hand, view.proportion) if hand else None
    rows = eval_batch_size(view)
    with DeviceLoader(file, ids, view, rows, device=device, scales=scales) as loader:
        yield loader


def load_inputs(trained: TrainedModel, file: Reader, ids: Ids, device: torch.device) -> Tensor:
    """Return samples `ids` (n,) of a file as inputs, float32 (n, channels, h, w), in this order."""
    order = np.argsort(ids, kind="stable")
    with inputs_of(trained, file, np.asarray(ids)[order], device) as loader:
        batches = [batch.images[batch.valid] for batch in loader.micro_batches()]
    inputs = torch.cat(batches)
    return inputs[torch.from_numpy(np.argsort(order)).to(inputs.device)]
