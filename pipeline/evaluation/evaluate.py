"""What a trained network answers, and what that is worth on pictures it has not seen."""

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from torch import nn

from beton.reader import Reader
from pipeline.data.prepare import prepare
from pipeline.data.sources import open_source
from pipeline.errors import UserError
from pipeline.evaluation.metrics import Scores, score
from pipeline.evaluation.predict import Predictions, load_weights, predict_by_writer, predict_split
from pipeline.loading.batches import DeviceLoader
from pipeline.loading.dataset import View, eval_batch_size, open_dataset, split_indices
from pipeline.loading.writer_scale import writer_scales, writers_of
from pipeline.models import networks
from pipeline.runtime.files import read_json, read_tensors, write_tensors
from pipeline.runtime.hardware import Precision, precision_for


@dataclass(frozen=True)
class TrainedModel:
    """A run's network, on the host, and what must be known to use it."""

    network: nn.Module
    classes: tuple[str, ...]
    view: View
    config: dict[str, Any]

    def view_of(self, file: Reader) -> View:
        """Return what it is to see of a file's pages: of whole ones, only what it was trained on.

        Else the canvas has the file's own proportions, so that nothing is stretched.
        """
        if self.view.whole:
            return self.view
        return View.of(file, self.view.size, self.config["recipe"]["window"])

    def scales_of(self, file: Reader) -> NDArray[np.float32] | None:
        """Return how much larger it is to see each of a file's pages, where its recipe says so."""
        hand = self.config["recipe"]["hand"]
        return writer_scales(file, hand) if hand else None


def load_model(run: Path) -> TrainedModel:
    """Read the checkpoint of a run folder.

    Raises UserError if the folder holds no finished run, or one of another version's network.
    """
    config, view = (read_json(run, f"{name}.json") for name in ("config", "view"))
    weights = read_tensors(run / "model.safetensors")
    if missing := {"classes", "network", "recipe", "provenance"} - config.keys():
        raise UserError(f"{run}: its config.json has no {', '.join(sorted(missing))}")
    classes = tuple(config["classes"])
    network = networks.build(config["network"], len(classes), seed=0)
    load_weights(network, weights, run)
    view["canvas"] = tuple(view["canvas"])
    return TrainedModel(network, classes, View(**view), config)


@dataclass(frozen=True)
class Evaluation:
    """A trained network's scores on the pictures of `provenance`.

    `learned_from` is the provenance of what it was trained on, `auxiliary` of what it learned from
    besides, if anything. Where writers are known and the recipe goes by them, `scores` are of the
    network adapted to each writer's pages, all of them and no label, and `unadapted` of the network
    as it was trained. `skipped` are the names of pictures left out, with reasons.
    """

    scores: Scores
    unadapted: Scores | None
    provenance: dict[str, Any]
    learned_from: dict[str, Any]
    auxiliary: dict[str, Any] | None = None
    skipped: Sequence[tuple[str, str]] = ()

    @property
    def seen(self) -> bool:
        """Whether it was trained on pictures of the same source."""
        learned = [one["digest"] for one in (self.learned_from, self.auxiliary) if one]
        return self.provenance["digest"] in learned


def evaluate(
    trained: TrainedModel,
    source: Path,
    *,
    split: str = "all",
    device: torch.device | None = None,
    precision: Precision = "auto",
    skip_bad: bool = False,
) -> Evaluation:
    """Score a network on the pictures at `source`: a .beton file, or anything that can be prepared.

    `split` is "train", "validation", "test" or "all". Raises ValueError, in one line, for a source
    that cannot be read or has classes that the network does not know.
    """
    if source.suffix == ".beton":
        return _evaluate_file(trained, source, source, split, device, precision)
    with tempfile.TemporaryDirectory(prefix="inkrun-") as folder:
        file = Path(folder) / "source.beton"
        workers = len(os.sched_getaffinity(0))
        prepare(open_source(source, classes=1), file, workers=workers, skip_bad=skip_bad)
        return _evaluate_file(trained, file, source, split, device, precision)


def _evaluate_file(
    trained: TrainedModel,
    path: Path,
    source: Path,
    split: str,
    device: torch.device | None,
    wish: Precision,
) -> Evaluation:
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precision = precision_for(device, wish)
    with open_dataset(path) as file:
        names = file.info["classes"]
        if unknown := sorted(set(names) - set(trained.classes)):
            raise UserError(
                f"{source}: classes that the network does not know: {', '.join(unknown)}; "
                f"it knows {', '.join(trained.classes)}"
            )
        indices = split_indices(file, split)
        if not len(indices):
            raise UserError(f"{source}: no pictures in its split {split!r}")
        view, scales, writers = trained.view_of(file), trained.scales_of(file), writers_of(file)
        predictions = predict_split(
            trained.network,
            file,
            split,
            view,
            device=device,
            precision=precision,
            views=trained.config["recipe"]["views"],
            scales=scales,
        )
        by_writer = None
        if scales is not None and (writers[indices] >= 0).any():
            indices = indices[np.argsort(writers[indices], kind="stable")]
            rows = eval_batch_size(view)
            with DeviceLoader(file, indices, view, rows, device=device, scales=scales) as loader:
                by_writer = predict_by_writer(trained.network, loader, writers, precision)
        number = torch.tensor([trained.classes.index(name) for name in names])
        alone, *adapted_scores = (
            score(some.logits, number[some.labels], trained.classes)
            for some in (predictions, by_writer)
            if some is not None
        )
        provenance = file.info["provenance"]
        skipped = file.info.get("prepare", {}).get("skipped", ())
    scores = adapted_scores[0] if adapted_scores else alone
    auxiliary = trained.config.get("auxiliary")
    return Evaluation(
        scores,
        alone if adapted_scores else None,
        provenance,
        trained.config["provenance"],
        auxiliary and auxiliary["provenance"],
        skipped,
    )


def cached_predictions(
    run: Path, file: Reader, split: str, keep: Path, device: torch.device, precision: str = "no"
) -> Predictions:
    """Return what a run's network answers to a split of a file, in the order of its classes.

    A network that knows more classes answers which of the file's it is. The answers are kept at
    `keep`, and only read if they are there already, to this file. Raises UserError for a folder
    that holds no finished run, classes that the network does not know, and a split without
    pictures.
    """
    asked = {"fingerprint": file.fingerprint(), "split": split, "run": str(run)}
    if keep.exists():
        with safe_open(keep, framework="pt") as kept:
            if kept.metadata() == asked:
                return Predictions(**read_tensors(keep))
    trained, names = load_model(run), file.info["classes"]
    if unknown := [name for name in names if name not in trained.classes]:
        raise UserError(
            f"{run}: does not know {', '.join(unknown)}; it knows {', '.join(trained.classes)}"
        )
    if not len(split_indices(file, split)):
        raise UserError(f"{file.path}: no pictures in its split {split!r}")
    predictions = predict_split(
        trained.network,
        file,
        split,
        trained.view_of(file),
        device=device,
        precision=precision,
        views=trained.config["recipe"]["views"],
        scales=trained.scales_of(file),
    )
    columns = [trained.classes.index(name) for name in names]
    predictions = predictions._replace(logits=predictions.logits[:, columns])
    write_tensors(keep, predictions._asdict(), asked)
    return predictions
