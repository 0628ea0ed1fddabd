"""Explanations of a network's predictions: errors, heat, nearest training images, labels.

Every image is explained alone, by the network as trained: adaptation to a writer depends on other
images. Heat is that of the image itself, also where predictions are means over several views.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from beton.reader import Reader
from pipeline.analysis.confident_learning import find_label_issues
from pipeline.evaluation.evaluate import Evaluation, TrainedModel, evaluation_of
from pipeline.evaluation.metrics import top_losses
from pipeline.evaluation.predict import Predictions
from pipeline.inspection.gradcam import grad_cam
from pipeline.inspection.neighbours import Neighbour, Neighbours
from pipeline.inspection.seen import Pixels, load_inputs, seen_images
from pipeline.loading.dataset import Floats, Ids, split_indices
from pipeline.pictures.files import find_pictures
from pipeline.pictures.predictor import PictureError, Predictor
from pipeline.runtime.hardware import Precision, precision_for

NEAREST = 3  # training images beside each image


@dataclass(frozen=True)
class ExplainedImage:
    """An image, what a network predicts, and why.

    `true` is its label and `loss` the loss in nats, None without a label. `probability` is that of
    the class `predicted`. `seen` is as in `seen_images`; `heat`, float32 (h, w), is that of the
    predicted class, and `true_heat` that of a label that was not predicted.
    """

    name: str
    true: str | None
    predicted: str
    probability: float
    loss: float | None
    seen: Pixels
    heat: Floats
    true_heat: Floats | None
    neighbours: tuple[Neighbour, ...]


@dataclass(frozen=True)
class Suspect:
    """An image with a suspicious label; `probability` is that of the class `suggested`."""

    image: ExplainedImage
    suggested: str
    probability: float


@dataclass(frozen=True)
class LabelledExplanation:
    """The explanation of labelled images; see `explain_labelled`.

    `errors` counts all misclassified images, of which `misclassified` are some. `noisy` says that
    the training takes labels for incorrect. `suspects` are images with suspicious labels, of the
    training images if `cross_validated`; they are None if the network was trained on the images or
    is `noisy`. `suspicious` is their number, `label_errors` the estimated fraction of incorrect
    labels.
    """

    evaluation: Evaluation
    split: str
    samples: int
    errors: int
    misclassified: tuple[ExplainedImage, ...]
    largest_losses: tuple[ExplainedImage, ...]
    suspects: tuple[Suspect, ...] | None
    suspicious: int
    label_errors: float
    cross_validated: bool
    noisy: bool
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class GivenExplanation:
    """The explanation of images without labels: `failed` are (name, reason) of unreadable ones.

    `images` are the first of `found` readable images.
    """

    images: tuple[ExplainedImage, ...]
    found: int
    failed: tuple[tuple[str, str], ...]


def explain_labelled(
    trained: TrainedModel,
    file: Reader,
    split: str,
    most: int,
    neighbours: Neighbours | None,
    device: torch.device,
    precision: Precision = "auto",
    held_out: Predictions | None = None,
) -> LabelledExplanation:
    """Explain predictions for a split of a file that passed `TrainedModel.check`.

    Returns at most `most` misclassified images, the most confident first, as many of the largest
    losses, and as many suspicious labels. Without `neighbours`, images have none. `held_out` are
    predictions by networks that were not trained on these images; their labels are examined in
    place of the split's.
    """
    both = trained.predict(file, split, device, precision_for(device, precision), adapt=True)
    predictions, _ = both
    class_ids = trained.class_ids(file)
    labels, logits = class_ids[predictions.labels], predictions.logits.float()
    probabilities = logits.softmax(dim=1)
    confidence, predicted = probabilities.max(dim=1)
    wrong = torch.nonzero(predicted != labels)[:, 0]
    wrong = wrong[confidence[wrong].argsort(descending=True, stable=True)]
    losses = [one.row for one in top_losses(logits, labels, trained.classes, most)]

    own, trained_on = _overlap(trained, file, predictions.ids.numpy())
    noisy = trained.config.recipe.expects_label_noise
    warnings = _warnings(own, trained_on, noisy, split)
    suspects: tuple[Suspect, ...] | None = None
    suspicious, rate = 0, 0.0
    examined = held_out or (None if trained_on or noisy else predictions)
    if examined is not None:
        estimates = examined.logits.double().softmax(dim=1)
        issues = find_label_issues(estimates.numpy(), class_ids[examined.labels].numpy())
        suspicious, rate = len(issues.suspicious), issues.rate
        chosen = issues.suspicious[:most]
        at = [one.row for one in chosen]
        images = _explain(
            trained,
            file,
            examined.ids[at].numpy(),
            estimates[at].float(),
            class_ids[examined.labels[at]],
            neighbours,
            own,
            device,
        )
        suspects = tuple(
            Suspect(image, trained.classes[one.suggested], one.probability)
            for image, one in zip(images, chosen, strict=True)
        )

    rows = sorted({*wrong[:most].tolist(), *losses})
    explained = dict(
        zip(
            rows,
            _explain(
                trained,
                file,
                predictions.ids[rows].numpy(),
                probabilities[rows],
                labels[rows],
                neighbours,
                own,
                device,
            ),
            strict=True,
        )
    )
    return LabelledExplanation(
        evaluation=evaluation_of(trained, file, *both),
        split=split,
        samples=len(labels),
        errors=len(wrong),
        misclassified=tuple(explained[row] for row in wrong[:most].tolist()),
        largest_losses=tuple(explained[row] for row in losses),
        suspects=suspects,
        suspicious=suspicious,
        label_errors=rate,
        cross_validated=held_out is not None,
        noisy=noisy,
        warnings=warnings,
    )


def explain_given(
    trained: TrainedModel,
    paths: Sequence[Path],
    most: int,
    neighbours: Neighbours | None,
    device: torch.device,
    precision: Precision = "auto",
) -> GivenExplanation:
    """Explain predictions for images without labels: files, folders or archives.

    Returns at most `most` images, in the order of their names. Raises UserError for a path without
    images.
    """
    predictor = Predictor(trained, 1, device, precision)
    names, prepared, failed = [], [], []
    for found in find_pictures(paths):
        try:
            prepared += predictor.prepare(found.read())
            names.append(found.name)
        except (PictureError, OSError) as error:
            failed.append((found.name, str(error)))
    images: list[ExplainedImage] = []
    if shown := prepared[:most]:
        predictions = predictor.predict(shown)
        inputs = predictor.inputs(shown)
        classes = torch.tensor([trained.classes.index(one.label) for one in predictions])
        heats = grad_cam(trained.network, inputs, classes)
        nearest = neighbours.nearest(inputs, NEAREST) if neighbours else [[] for _ in shown]
        images = [
            ExplainedImage(
                name, None, one.label, one.probability, None, one.seen, heat, None, tuple(near)
            )
            for name, one, heat, near in zip(names, predictions, heats, nearest, strict=False)
        ]
    return GivenExplanation(tuple(images), len(prepared), tuple(failed))


def _explain(
    trained: TrainedModel,
    file: Reader,
    ids: Ids,
    probabilities: Tensor,
    labels: Tensor,
    neighbours: Neighbours | None,
    own: bool,
    device: torch.device,
) -> list[ExplainedImage]:
    if not len(ids):
        return []
    inputs = load_inputs(trained, file, ids, device)
    confidence, predicted = probabilities.max(dim=1)
    losses = -probabilities[torch.arange(len(ids)), labels].clamp(min=1e-30).log()
    heats = grad_cam(trained.network, inputs, predicted)
    true_heats = grad_cam(trained.network, inputs, labels)
    seen = seen_images(inputs, trained.view)
    nearest: list[list[Neighbour]] = [[] for _ in ids]
    if neighbours:
        nearest = neighbours.nearest(inputs, NEAREST, ids if own else None)
    names, classes = file.column("name"), trained.classes
    return [
        ExplainedImage(
            bytes(names.decode(int(sample))).decode("utf-8", "replace"),
            classes[labels[i]],
            classes[predicted[i]],
            float(confidence[i]),
            float(losses[i]),
            seen[i],
            heats[i],
            true_heats[i] if labels[i] != predicted[i] else None,
            tuple(nearest[i]),
        )
        for i, sample in enumerate(ids)
    ]


def _overlap(trained: TrainedModel, file: Reader, ids: Ids) -> tuple[bool, int]:
    """Return whether a file is the training dataset, and how many samples were trained on."""
    config = trained.config
    if file.fingerprint() != config.fingerprint:
        return False, len(ids) if file.info["provenance"].get("digest") in _digests(trained) else 0
    trained_on = split_indices(file, config.learn_from, config.recipe.train_images)
    return True, int(np.isin(ids, trained_on).sum())


def _digests(trained: TrainedModel) -> list[str]:
    """Return the digests of the sources that a network was trained on."""
    auxiliary = trained.config.auxiliary
    origins = [trained.config.provenance, *([auxiliary.provenance] if auxiliary else [])]
    return [origin["digest"] for origin in origins if "digest" in origin]


def _warnings(own: bool, trained_on: int, noisy: bool, split: str) -> tuple[str, ...]:
    found = []
    if trained_on:
        of = f"images of the split {split}" if own else "images, or others of the same source"
        found.append(
            f"The network was trained on {trained_on:,} of these {of}. It may have memorised them: "
            "its accuracy and confidence are higher than on other images."
        )
    if noisy:
        found.append(
            "This training takes the labels of its dataset for incorrect. Where a prediction "
            "differs from such a label, the label may be the mistake."
        )
    return tuple(found)
