"""Whether an exported network computes the logits of its run."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from beton.arrays import Uint8Array
from beton.reader import Reader
from pipeline.errors import UserError
from pipeline.evaluation.evaluate import TrainedModel
from pipeline.evaluation.predict import predict
from pipeline.export.program import Program
from pipeline.loading.batches import DeviceLoader
from pipeline.loading.dataset import Floats, eval_batch_size, split_indices

TOLERANCE = 1e-4  # of logits
MOST_IMAGES, MOST_VALUES = 1000, 1 << 26  # that are compared
CPU = torch.device("cpu")
Run = Callable[[Uint8Array], Floats]  # pages (N, channels, height, width) → logits (N, classes)


@dataclass(frozen=True)
class Reference:
    """What a run says of N images of its dataset, each page on its own.

    `pages` uint8 (N, channels, height, width) are the input of `Program`, `logits` float32
    (N, classes) the run's, `labels` int64 (N,). `split` is that of the images. `own_accuracy` is
    that of the run, which may scale pages by writer.
    """

    split: str
    pages: Uint8Array
    logits: Floats
    labels: NDArray[np.int64]
    own_accuracy: float

    @property
    def accuracy(self) -> float:
        """The accuracy of each page on its own."""
        return float((self.logits.argmax(1) == self.labels).mean())


def reference(trained: TrainedModel, program: Program, file: Reader) -> Reference:
    """Return the predictions of a run for the validation images of its dataset `file`.

    They are those of the loader and the network that `evaluate` uses. Of many images, evenly spaced
    ones are taken; without validation images, some of all images.
    """
    config, view = trained.config, trained.view
    limit = max(64, min(MOST_IMAGES, MOST_VALUES // math.prod(view.input_shape)))
    split = config.validate_on if len(split_indices(file, config.validate_on)) else "all"
    ids = split_indices(file, split, limit)
    recipe, rows = config.recipe, eval_batch_size(view)
    scales = np.full(len(file), program.scale, np.float32)
    with DeviceLoader(file, ids, view, rows, device=CPU, scales=scales, decode="loader") as loader:
        predictions = predict(trained.network, loader, "no", recipe.views, recipe.mirrored)
        logits, exact, parts = predictions.logits.numpy(), True, []
        for batch in loader.canvases():
            canvases = batch.canvases[batch.valid]
            exact &= canvases.dtype == torch.uint8
            levels = canvases.round().clamp(0, 255).to(torch.uint8).numpy()
            parts.append(255 - levels if view.channels == 1 else levels)
    pages = np.concatenate(parts)
    if not exact:  # canvases between grey levels: the rounded ones are compared
        logits = run_program(program, pages)
    own, _ = trained.predict(file, split, CPU, "no")
    return Reference(
        split,
        pages,
        logits,
        predictions.labels.numpy(),
        own.select(predictions.ids).accuracy,
    )


def run_program(program: torch.nn.Module, pages: Uint8Array) -> Floats:
    """Return the logits of pages by a module such as `Program`."""
    with torch.no_grad():
        logits: Floats = program(torch.from_numpy(np.ascontiguousarray(pages))).numpy()
    return logits


def largest_difference(run: Run, expected: Reference, name: str) -> float:
    """Return the largest difference of logits between an exported network and its run.

    Batches have different sizes, 1 among them. Raises UserError, which starts with `name`, for
    logits of another type or shape, and for a difference above 1e-4.
    """
    start, differences = 0, [0.0]
    for rows in _batch_sizes(len(expected.pages)):
        chunk = slice(start, start + rows)
        start += rows
        got, logits = run(expected.pages[chunk]), expected.logits[chunk]
        if got.dtype != np.float32 or got.shape != logits.shape:
            raise UserError(
                f"{name}: got {got.dtype} logits of shape {got.shape}, expected float32 of "
                f"{logits.shape}"
            )
        differences.append(float(np.abs(got - logits).max()))
    worst = float(np.max(differences))  # NaN stays NaN
    if not worst <= TOLERANCE:
        raise UserError(
            f"{name}: got logits that differ from the run's by up to {worst:.1e}, expected at most "
            f"{TOLERANCE:.0e}; nothing is written"
        )
    return worst


def _batch_sizes(images: int) -> list[int]:
    """Return batch sizes whose sum is `images`: 1, 3, then 64 each."""
    sizes: list[int] = []
    while images:
        rows = min(images, (1, 3)[len(sizes)] if len(sizes) < 2 else 64)
        sizes.append(rows)
        images -= rows
    return sizes
