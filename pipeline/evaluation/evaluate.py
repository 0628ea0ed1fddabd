"""What a trained network answers, and what that is worth on pictures it has not seen."""

import os
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
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
from pipeline.evaluation.run_config import RunConfig
from pipeline.evaluation.run_dir import RunDir
from pipeline.loading.batches import DeviceLoader
from pipeline.loading.dataset import View, eval_batch_size, open_dataset, split_indices
from pipeline.loading.writer_scale import writer_scales, writers_of
from pipeline.models import networks
from pipeline.runtime.files import read_as, read_tensors, write_tensors
from pipeline.runtime.hardware import Precision, precision_for


@dataclass(frozen=True)
class TrainedModel:
    """A run's network, on the host, and what must be known to use it."""

    network: nn.Module
    classes: tuple[str, ...]
    view: View
    config: RunConfig

    def view_of(self, file: Reader) -> View:
        """Return what it is to see of a file's pages: of whole ones, only what it was trained on.

        Else the canvas has the file's own proportions, so that nothing is stretched.
        """
        if self.view.whole:
            return self.view
        return View.of(file, self.view.size, self.config.recipe.window)

    def scales_of(self, file: Reader) -> NDArray[np.float32] | None:
        """Return how much larger it is to see each of a file's pages, where its recipe says so."""
        hand = self.config.recipe.hand
        return writer_scales(file, hand) if hand else None

    def check(self, file: Reader, split: str, source: Path) -> None:
        """Raise UserError if `file` has classes it does not know, or a split without pictures."""
        if unknown := sorted(set(file.info["classes"]) - set(self.classes)):
            raise UserError(
                f"{source}: classes that the network does not know: {', '.join(unknown)}; "
                f"it knows {', '.join(self.classes)}"
            )
        if not len(split_indices(file, split)):
            raise UserError(f"{source}: no pictures in its split {split!r}")

    def predict(
        self, file: Reader, split: str, device: torch.device, precision: str, adapt: bool = False
    ) -> tuple[Predictions, Predictions | None]:
        """Predict a split of a file that passed `check`; with `adapt`, for each writer as well.

        The second is None if no writers are known, or the recipe does not go by them.
        """
        view, scales = self.view_of(file), self.scales_of(file)
        predictions = predict_split(
            self.network,
            file,
            split,
            view,
            device=device,
            precision=precision,
            views=self.config.recipe.views,
            scales=scales,
        )
        indices, writers = split_indices(file, split), writers_of(file)
        if not adapt or scales is None or (writers[indices] < 0).all():
            return predictions, None
        indices = indices[np.argsort(writers[indices], kind="stable")]
        rows = eval_batch_size(view)
        with DeviceLoader(file, indices, view, rows, device=device, scales=scales) as loader:
            return predictions, predict_by_writer(self.network, loader, writers, precision)


def load_model(run: Path) -> TrainedModel:
    """Read the checkpoint of a run folder.

    Raises UserError if the folder holds no finished run, or one of another version's network.
    """
    view, config = read_as(run / "view.json", View), RunDir(run).config()
    network = networks.build(config.network, len(config.classes), seed=0)
    load_weights(network, read_tensors(run / "model.safetensors"), run)
    return TrainedModel(network, config.classes, view, config)


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
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    path = source
    with ExitStack() as stack:
        if source.suffix != ".beton":
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="inkrun-"))
            path, workers = Path(folder) / "source.beton", len(os.sched_getaffinity(0))
            prepare(open_source(source, classes=1), path, workers=workers, skip_bad=skip_bad)
        file = stack.enter_context(open_dataset(path))
        trained.check(file, split, source)
        both = trained.predict(file, split, device, precision_for(device, precision), adapt=True)
        number = torch.tensor([trained.classes.index(name) for name in file.info["classes"]])
        alone, *adapted = (
            score(some.logits, number[some.labels], trained.classes)
            for some in both
            if some is not None
        )
        auxiliary = trained.config.auxiliary
        return Evaluation(
            scores=adapted[0] if adapted else alone,
            unadapted=alone if adapted else None,
            provenance=file.info["provenance"],
            learned_from=trained.config.provenance,
            auxiliary=auxiliary.provenance if auxiliary else None,
            skipped=file.info.get("prepare", {}).get("skipped", ()),
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
    trained = load_model(run)
    trained.check(file, split, file.path)
    predictions, _ = trained.predict(file, split, device, precision)
    columns = [trained.classes.index(name) for name in file.info["classes"]]
    predictions = predictions._replace(logits=predictions.logits[:, columns])
    write_tensors(keep, predictions._asdict(), asked)
    return predictions
