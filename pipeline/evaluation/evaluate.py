"""Evaluation of a trained network on a dataset file or any source that can be prepared."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from beton.reader import Reader
from pipeline.data.base import is_dataset_file
from pipeline.data.inflated import working_folder
from pipeline.data.layout.options import LayoutOptions
from pipeline.data.pixels.options import PixelOptions
from pipeline.data.prepare import prepare
from pipeline.data.sources import open_source
from pipeline.errors import UserError
from pipeline.evaluation.equal_counts import contradictions, with_equal_counts
from pipeline.evaluation.framing import Framing
from pipeline.evaluation.metrics import Scores, score
from pipeline.evaluation.predict import Predictions, load_weights, predict_by_writer, predict_split
from pipeline.evaluation.run_config import RunConfig
from pipeline.evaluation.run_dir import (
    RunDir,
    TrainingResult,
    check_finished,
    latest_in,
    read_result,
)
from pipeline.evaluation.run_files import predictions_of, read_framing, read_view, read_weights
from pipeline.loading.batches import DeviceLoader
from pipeline.loading.dataset import (
    PixelRules,
    Provenance,
    View,
    eval_batch_size,
    open_dataset,
    split_indices,
)
from pipeline.loading.writer_scale import writer_scales, writers_of
from pipeline.models import networks
from pipeline.runtime.cgroup import usable_cores
from pipeline.runtime.files import read_cached, write_tensors
from pipeline.runtime.hardware import Precision, precision_for

MOST_NAMES = 8  # of trainings in an error


@dataclass(frozen=True)
class TrainedModel:
    """The network of a finished training, with its classes, view, config and run directory.

    `framing` is that of the training images, None in colour and for runs of earlier versions.
    """

    network: nn.Module
    classes: tuple[str, ...]
    view: View
    config: RunConfig
    framing: Framing | None = None
    run: Path = Path()

    def view_of(self, file: Reader) -> View:
        """Return the view of a file's pages, in the scale and the fit of the training."""
        return self.view.on(file, self.config.recipe.window)

    def class_ids(self, file: Reader) -> Tensor:
        """Return the network's number of each class of a file: int64 (classes of the file,)."""
        return torch.tensor([self.classes.index(name) for name in file.info["classes"]])

    def check(self, file: Reader, split: str, source: Path) -> None:
        """Raise UserError if a network cannot be evaluated on a split of `file`.

        It has other classes than the network, grey images for colour or the reverse, other grey
        levels for the same ink, or an empty split.
        """
        if unknown := sorted(set(file.info["classes"]) - set(self.classes)):
            raise UserError(
                f"{source}: got classes that the network was not trained on: {', '.join(unknown)}; "
                f"expected some of {', '.join(self.classes)}"
            )
        rules, trained = PixelRules.of(file), self.config.pixels
        if rules.colour != trained.colour:
            words = {"grey": "grey", "rgb": "in colour"}
            raise UserError(
                f"{source}: got images that are stored {words[rules.colour]}, expected them "
                f"{words[trained.colour]}, as in the training; evaluate the raw images instead"
            )
        got, expected = rules.scale, trained.scale
        if got and expected and got != expected:
            raise UserError(
                f"{source}: got grey levels scaled from {got[0]:g} to {got[1]:g}, expected those "
                f"of the training, {expected[0]:g} to {expected[1]:g}; evaluate the raw images "
                "instead, which are scaled as in the training"
            )
        if not len(split_indices(file, split)):
            raise UserError(f"{source}: no images in its split {split!r}")

    def predict(
        self, file: Reader, split: str, device: torch.device, precision: str, adapt: bool = False
    ) -> tuple[Predictions, Predictions | None]:
        """Predict a split of a file that passed `check`; with `adapt`, also adapted to each writer.

        The second value is None without `adapt`, known writers, or a recipe that scales by writer.
        """
        view, hand = self.view_of(file), self.config.recipe.hand
        scales = writer_scales(file, hand, view.proportion) if hand else None
        predictions = predict_split(
            self.network,
            file,
            split,
            view,
            device=device,
            precision=precision,
            views=self.config.recipe.views,
            mirrored=self.config.recipe.mirrored,
            scales=scales,
        )
        if not adapt or scales is None:
            return predictions, None
        indices, writers = split_indices(file, split), writers_of(file)
        if (writers[indices] < 0).all():
            return predictions, None
        indices = indices[np.argsort(writers[indices], kind="stable")]
        rows = eval_batch_size(view)
        with DeviceLoader(file, indices, view, rows, device=device, scales=scales) as loader:
            return predictions, predict_by_writer(self.network, loader, writers, precision)


def load_model(run: Path) -> TrainedModel:
    """Read the network of a run directory; a folder of run directories stands for its latest.

    Raises UserError if it is not that of a finished training, or has another version's network.
    """
    run = latest_in(run)
    check_finished(run)
    _check_one_training(run)
    view, config = read_view(run), RunDir(run).config()
    read_result(run, TrainingResult)
    weights = read_weights(run)
    network = networks.build(config.network, len(config.classes), 0, view.input_shape)
    load_weights(network, weights, run)
    return TrainedModel(network, config.classes, view, config, read_framing(run), run)


def _check_one_training(run: Path) -> None:
    """Raise UserError for a run directory of several trainings."""
    if (run / "view.json").exists():
        return
    if found := sorted(path.parent.relative_to(run) for path in run.rglob("view.json")):
        names = ", ".join(map(str, found[:MOST_NAMES])) + ", …" * (len(found) > MOST_NAMES)
        raise UserError(
            f"{run}: got a run of {len(found)} trainings, expected one of its folders: {names}"
        )


@dataclass(frozen=True)
class Evaluation:
    """The scores of a trained network on images of `provenance`.

    `learned_from` is the provenance of the training dataset, `auxiliary` that of the auxiliary
    dataset, if any. If writers are known and the recipe scales pages by writer, `scores` are of the
    network adapted to all pages of each writer, without labels, and `unadapted` of the network as
    trained. `equal_counts`, if asked for, are those of `scores` under the assumption that each
    writer wrote each of the dataset's classes equally often, and no other. `skipped` lists the
    names of omitted images with reasons, `warnings` what preparation doubts about the source, and
    what contradicts the assumption.
    """

    scores: Scores
    unadapted: Scores | None
    provenance: Provenance
    learned_from: Provenance
    auxiliary: Provenance | None = None
    equal_counts: Scores | None = None
    skipped: Sequence[tuple[str, str]] = ()
    warnings: Sequence[str] = ()

    @property
    def seen(self) -> bool:
        """Whether the network was trained on images of the same source."""
        trained_on = [one.get("digest") for one in (self.learned_from, self.auxiliary) if one]
        return self.provenance["digest"] in trained_on


@contextmanager
def open_images(
    trained: TrainedModel,
    source: Path,
    *,
    split: str = "all",
    skip_bad: bool = False,
    layout: LayoutOptions | None = None,
    pixels: PixelOptions | None = None,
) -> Iterator[Reader]:
    """Open the images at `source`, a .beton file or a source that can be prepared, for a network.

    Options and errors are those of `evaluate`.
    """
    path = source
    with ExitStack() as stack:
        if not is_dataset_file(source):
            folder = stack.enter_context(working_folder())
            path, workers = folder / "source.beton", usable_cores()
            prepare(
                open_source(source, layout or LayoutOptions(), min_classes=1),
                path,
                workers=workers,
                skip_bad=skip_bad,
                pixels=_as_trained(pixels or PixelOptions(), trained.config.pixels),
            )
        file = stack.enter_context(open_dataset(path))
        trained.check(file, split, source)
        yield file


def evaluate(
    trained: TrainedModel,
    source: Path,
    *,
    split: str = "all",
    device: torch.device | None = None,
    precision: Precision = "auto",
    skip_bad: bool = False,
    layout: LayoutOptions | None = None,
    pixels: PixelOptions | None = None,
    equal_counts: bool = False,
) -> Evaluation:
    """Score a network on the images at `source`: a .beton file, or a source that can be prepared.

    `split` is "train", "validation", "test" or "all". A source is prepared by the options `layout`
    and `pixels`, with the colour, scale and polarity of the training dataset. With `equal_counts`,
    it is also scored on the assumption that each writer wrote each class equally often. Raises
    ValueError, in one line, for a source that cannot be read, contradicts the training, has classes
    that the network was not trained on, or names no writers although `equal_counts` needs them.
    """
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with open_images(
        trained, source, split=split, skip_bad=skip_bad, layout=layout, pixels=pixels
    ) as file:
        if equal_counts and (writers_of(file)[split_indices(file, split)] < 0).all():
            raise UserError(f"{source}: got no writers, expected some for equal counts")
        both = trained.predict(file, split, device, precision_for(device, precision), adapt=True)
        return evaluation_of(trained, file, *both, equal_counts=equal_counts)


def evaluation_of(
    trained: TrainedModel,
    file: Reader,
    predictions: Predictions,
    adapted: Predictions | None,
    *,
    equal_counts: bool = False,
) -> Evaluation:
    """Score the predictions that `TrainedModel.predict` makes of a file; see `evaluate`."""
    class_ids, warnings, counted = trained.class_ids(file), _warnings(file), None
    alone = score(predictions.logits, class_ids[predictions.labels], trained.classes)
    scores = alone
    if adapted is not None:
        scores = score(adapted.logits, class_ids[adapted.labels], trained.classes)
    if equal_counts:
        writers, best = writers_of(file), adapted or predictions
        changed = with_equal_counts(best, writers, class_ids)
        counted = score(changed.logits, class_ids[changed.labels], trained.classes)
        warnings += contradictions(best, writers, len(class_ids))
    auxiliary = trained.config.auxiliary
    return Evaluation(
        scores=scores,
        unadapted=alone if adapted else None,
        provenance=file.info["provenance"],
        learned_from=trained.config.provenance,
        auxiliary=auxiliary.provenance if auxiliary else None,
        equal_counts=counted,
        skipped=file.info.get("prepare", {}).get("skipped", ()),
        warnings=warnings,
    )


def _warnings(file: Reader) -> list[str]:
    """Return what preparation doubts about a file, and that colours became grey."""
    found = [
        warning
        for part in ("layout", "survey")
        for warning in file.info.get(part, {}).get("warnings", ())
    ]
    colour = file.info.get("survey", {}).get("colour")
    if colour and PixelRules.of(file).colour == "grey" and colour["in_colour"] == len(file):
        found.append(
            f"all {len(file):,} images are in colour; they are made grey, as in the training"
        )
    return found


def _as_trained(options: PixelOptions, rules: PixelRules) -> PixelOptions:
    """Return the options of pixels, completed by the rules of a training dataset."""
    options = replace(options, scale=rules.scale, colour=rules.colour)
    if options.polarity != "auto" or rules.colour == "rgb":
        return options
    if rules.polarity == "each":
        return replace(options, polarity="each")
    return replace(options, expected_polarity=rules.polarity)


def cached_predictions(
    run: Path, file: Reader, split: str, path: Path, device: torch.device, precision: str = "no"
) -> Predictions:
    """Return a run's predictions for a split of a file, with logits in the order of its classes.

    Logits of other classes are dropped. The predictions are cached at `path` and read from there if
    run, file and split are the same. Raises UserError as `load_model` and `TrainedModel.check` do.
    """
    key = {"fingerprint": file.fingerprint(), "split": split, "run": str(run)}
    if (cached := read_cached(path, key)) is not None:
        return predictions_of(cached, path, file.info["classes"])
    trained = load_model(run)
    trained.check(file, split, file.path)
    predictions, _ = trained.predict(file, split, device, precision)
    columns = [trained.classes.index(name) for name in file.info["classes"]]
    predictions = predictions._replace(logits=predictions.logits[:, columns])
    write_tensors(path, predictions._asdict(), key)
    return predictions
