"""Files of a finished training, checked so that the code behind can trust them.

The files may be of an earlier version, or of a stranger. `runtime.files` checks their types and
digests; here are the ranges.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from beton.codec import ink
from pipeline.errors import UserError, check_range
from pipeline.evaluation.framing import Framing
from pipeline.evaluation.metrics import EpochMetrics
from pipeline.evaluation.predict import Predictions
from pipeline.evaluation.run_config import RunConfig
from pipeline.loading.dataset import MAX_CANVAS, MAX_PROPORTION, View
from pipeline.models import networks
from pipeline.runtime.files import damaged, read_as, read_tensors

MAX_SIZE = 4096  # of a stage's images, in pixels


def read_view(run: Path) -> View:
    """Return the view.json of a run.

    Raises UserError if it is missing or out of range, or if the run's network cannot compute it.
    """
    path = run / "view.json"
    view, config = read_as(path, View), read_as(run / "config.json", RunConfig)
    try:
        check_range("size", view.size, 1, MAX_SIZE)
        for side in view.canvas:
            check_range("canvas", side, 1, ink.LIMIT)
        check_range("pixels of the canvas", math.prod(view.canvas), 1, MAX_CANVAS)
        if view.channels not in (1, 3):
            raise UserError(f"channels: got {view.channels}, expected 1 or 3")
        if view.proportion is not None:
            check_range("proportion", view.proportion, 1 / MAX_PROPORTION, MAX_PROPORTION)
        elif view.fit == "letterbox":
            raise UserError("proportion: got none, expected that of the training images")
        if view.normalize is not None and len(view.normalize.mean) != view.channels:
            raise UserError(f"normalize: got {len(view.normalize.mean)} channels")
        networks.check_shape(config.network, len(config.classes), view.input_shape)
    except UserError as error:
        raise damaged(path, error) from error
    return view


def read_framing(run: Path) -> Framing | None:
    """Return the framing.json of a run, None without one. Raises UserError if out of range."""
    path = run / "framing.json"
    if not path.exists():
        return None
    framing = read_as(path, Framing)
    try:
        for name in ("size", "x", "y"):
            low, typical, high = getattr(framing, name)
            check_range(f"{name}, low", low, -MAX_PROPORTION, MAX_PROPORTION)
            check_range(f"{name}, typical", typical, low, MAX_PROPORTION)
            check_range(f"{name}, high", high, typical, MAX_PROPORTION)
        check_range("size, low", framing.size.low, 1e-6)
        if framing.pen is not None:
            check_range("pen, low", framing.pen.low, 1e-6)
            check_range("pen, typical", framing.pen.typical, framing.pen.low, 1)
        check_range("tall", framing.tall, 1e-6, 1)
        check_range("pixels", framing.pixels, 1, ink.LIMIT)
    except UserError as error:
        raise damaged(path, error) from error
    return framing


def read_weights(run: Path) -> dict[str, Tensor]:
    """Return the weights of a run. Raises UserError if one of them is not finite."""
    path = run / "model.safetensors"
    weights = read_tensors(path)
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise UserError(f"{path}: got weights that are not finite, in {name}; train it again")
    return weights


def check_history(path: Path, history: Sequence[EpochMetrics], stages: int) -> None:
    """Raise UserError for epochs that are out of order or not finite, in the file `path`.

    A gradient's norm may be infinite, where a step in fp16 was skipped.
    """
    for number, epoch in enumerate(history):
        if epoch.epoch != number or not 0 <= epoch.stage < stages:
            raise UserError(f"{path}: damaged: got epoch {epoch.epoch} of stage {epoch.stage}")
        check_finite(path, {**asdict(epoch), "gradient_norm": None})


def check_finite(path: Path, value: object) -> None:
    """Raise UserError if plain data of the file `path` holds a number that is not finite."""
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{path}: damaged: got {value}, expected a finite number")
    if isinstance(value, dict | list | tuple):
        for one in value.values() if isinstance(value, dict) else value:
            check_finite(path, one)


def predictions_of(tensors: dict[str, Tensor], path: Path, classes: Sequence[str]) -> Predictions:
    """Return the predictions in the tensors of a file `path`.

    Raises UserError for other tensors than those of a network with these classes.
    """
    kinds = {"ids": (torch.int64, 1), "labels": (torch.int64, 1), "logits": (torch.float32, 2)}
    if {name: (one.dtype, one.dim()) for name, one in tensors.items()} != kinds:
        raise UserError(f"{path}: damaged: got other tensors than those of predictions")
    predictions = Predictions(**tensors)
    shapes = {len(predictions.ids), len(predictions.labels), len(predictions.logits)}
    labels = predictions.labels
    if len(shapes) > 1 or predictions.logits.shape[1] != len(classes) or not len(labels):
        raise UserError(f"{path}: damaged: got shapes that do not fit {len(classes)} classes")
    if not (int(labels.min()) >= 0 and int(labels.max()) < len(classes)):
        raise UserError(f"{path}: damaged: got labels of no class")
    if not predictions.logits.isfinite().all() or int(predictions.ids.min()) < 0:
        raise UserError(f"{path}: damaged: got numbers that are not finite")
    return predictions
