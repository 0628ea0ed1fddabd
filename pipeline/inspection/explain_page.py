"""The HTML page of explanations."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from beton.errors import printable
from pipeline.evaluation.evaluate import TrainedModel
from pipeline.evaluation.metrics import accuracy_interval
from pipeline.inspection.explain import (
    ExplainedImage,
    GivenExplanation,
    LabelledExplanation,
    Suspect,
)
from pipeline.inspection.explain_cards import Card, Cards
from pipeline.reporting.common import command, counted, origins, percent
from pipeline.reporting.html import (
    Block,
    Facts,
    Page,
    Section,
    SourceRun,
    Sources,
    Table,
    Warnings,
)

MOST_LOSSES = 24  # on the page
MOST_CONFUSIONS = 12
QUESTION = "What does the network get wrong, where does it look, and which labels are suspicious?"
LEGEND = (
    "Beside each image as the network saw it is its heat (Grad-CAM): where the network finds "
    "{what}, the darker red the more"
)
BOTH = "the predicted class and, if that is another, the true class"
NEAREST = (
    ". Below are the nearest training images with their labels and similarity: the cosine between "
    "outputs of the penultimate layer"
)


def labelled_page(
    trained: TrainedModel, found: LabelledExplanation, source: str, warnings: Sequence[str]
) -> Page:
    """Return the page of labelled images from a `source`, as it is to be named."""
    scores, unadapted = found.evaluation.scores, found.evaluation.unadapted
    alone = unadapted or scores
    low, high = accuracy_interval(alone.accuracy, found.samples)
    verb = "contradicts the given labels of" if found.noisy else "misclassifies"
    answer = (
        f"The network {verb} {found.errors:,} of {found.samples:,} images of {source}: "
        f"accuracy {percent(alone.accuracy)} (95 % interval, given the number of images: "
        f"{100 * low:.1f} to {100 * high:.1f} %)."
    )
    if unadapted:
        answer += f" Adapted to each writer, as evaluate reports, it is {percent(scores.accuracy)}."
    confusions = [
        [printable(one.true), printable(one.predicted), f"{one.count:,}"]
        for one in alone.confusions[:MOST_CONFUSIONS]
    ]
    table = Table(
        "The most frequent confusions.", ["class", "predicted instead", "images"], confusions, "llr"
    )
    sections = [
        Section(
            "Misclassified images",
            [
                f"{_some(len(found.misclassified), found.errors)}, the most confident first. "
                f"{LEGEND.format(what=BOTH)}{_nearest(found.misclassified)}. Titles "
                "are the true class → the predicted class, with the predicted probability.",
                _cards(found.misclassified),
                *([table] if confusions else []),
            ]
            if found.errors
            else ["No image is misclassified."],
        ),
        Section(
            "Largest losses",
            [
                "The loss of an image is −log p of its label, in nats: it is large where the "
                "network is sure of another class, also where a label is incorrect.",
                _cards(found.largest_losses[:MOST_LOSSES], with_loss=True),
            ],
        ),
        Section("Suspicious labels", _suspects(found)),
    ]
    return _page(
        trained, answer, sections, [*found.warnings, *warnings], found.evaluation.provenance
    )


def given_page(
    trained: TrainedModel, found: GivenExplanation, source: str, warnings: Sequence[str]
) -> Page:
    """Return the page of images without labels from a `source`, as it is to be named."""
    answer = (
        f"The network predicts {counted(found.found, 'image')} of {source}, which have no labels, "
        "so nothing is known of its accuracy on them."
    )
    legend = LEGEND.format(what="the predicted class")
    sections = [
        Section(
            "Given images",
            [
                f"{_some(len(found.images), found.found)}. {legend}{_nearest(found.images)}. "
                "Titles are the predicted class with its probability.",
                _cards(found.images),
            ],
        )
    ]
    if found.failed:
        rows = [(printable(name), reason) for name, reason in found.failed]
        sections.append(Section("Images that cannot be predicted", [Facts(rows)]))
    return _page(trained, answer, sections, warnings, None)


def _page(
    trained: TrainedModel,
    answer: str,
    sections: Sequence[Section],
    warnings: Sequence[str],
    provenance: Mapping[str, Any] | None,
) -> Page:
    config = trained.config
    name = f"{Path(config.data).stem}: {config.network}"
    notes: list[Block] = [
        "Every image is explained alone, by the network as trained. Heat is where the last feature "
        "map of at least 4×4 pixels speaks for a class: it is coarser than the image, relative to "
        "its own maximum, and shows no cause. An image without any such place stays grey.",
    ]
    if config.recipe.views > 1 or config.recipe.mirrored:
        notes.append(
            "Predictions are means over several views of an image; heat and neighbours are those "
            "of the first view."
        )
    folder = "/".join(trained.run.resolve().parts[-2:])
    portable = config.portable()
    used = Sources(
        [
            SourceRun(
                folder, command(config.job, portable.options), portable.as_json(), "the network"
            )
        ]
    )
    before = [Section("Read first", [Warnings(warnings)])] if warnings else []
    return Page(
        f"Trial: explanations of {name}" if config.is_trial else f"Explanations of {name}",
        QUESTION,
        answer,
        origins([config.provenance, *([provenance] if provenance else [])]),
        [*before, *sections, Section("How to read it", notes), Section("Sources", [used])],
    )


def _suspects(found: LabelledExplanation) -> list[Block]:
    if found.suspects is None:
        return [
            "They are not estimated: the network was trained on these images or takes their "
            "labels for incorrect, so its predictions are no independent evidence about them."
        ]
    how = (
        "Confident learning (Northcutt et al. 2021), on predictions of images that were not "
        "trained on: an image counts as another class than its label if its probability of that "
        "class reaches the mean among images with that label, or 0.8. "
    )
    if found.cross_validated:
        how += (
            "These are the training images: by cross-validation, each was predicted by a network "
            "that was trained, by the same recipe, without it."
        )
    else:
        how += (
            "The labels of the training images are not examined: the network's predictions for "
            "those follow their labels. --folds examines them, by cross-validation."
        )
    if not found.suspects:
        return [how, "No label is suspicious."]
    return [
        how,
        f"Estimated fraction of incorrect labels: {percent(found.label_errors, 1)}, an upper "
        "estimate: errors of the network count too. "
        f"{_some(len(found.suspects), found.suspicious, 'suspicious label')}, the most suspicious "
        "first. Titles are the label → the class suggested.",
        Cards([_suspect(one) for one in found.suspects]),
    ]


def _suspect(one: Suspect) -> Card:
    title = f"{printable(one.image.true or '')} → {printable(one.suggested)}?"
    return Card(one.image, title, f"{one.probability:.2f}")


def _cards(images: Sequence[ExplainedImage], with_loss: bool = False) -> Cards:
    cards = []
    for one in images:
        title = printable(one.predicted)
        if one.true is not None:
            title = f"{printable(one.true)} → {title}"
        figure = f"{one.probability:.2f}"
        cards.append(Card(one, title, f"loss {one.loss:.2f}" if with_loss else figure))
    return Cards(cards)


def _nearest(images: Sequence[ExplainedImage]) -> str:
    return NEAREST if any(one.neighbours for one in images) else ""


def _some(shown: int, total: int, noun: str = "image") -> str:
    return counted(total, noun) if shown == total else f"{shown:,} of {counted(total, noun)}"
