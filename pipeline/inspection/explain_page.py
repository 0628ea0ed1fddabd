"""The HTML page of explanations."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.evaluation.evaluate import TrainedModel
from pipeline.evaluation.metrics import accuracy_interval
from pipeline.inspection.explain import (
    ExplainedImage,
    GivenExplanation,
    LabelledExplanation,
    Suspect,
)
from pipeline.inspection.explain_files import panels
from pipeline.inspection.seen import Pixels
from pipeline.reporting.card_elements import SampleGrid, Strip, thumbnail
from pipeline.reporting.common import counted, origins, percent, training_source
from pipeline.reporting.html import Block, Facts, Page, Section, Sources, Table, Warnings

LONGEST = 22  # characters of an image's name that are shown
MOST_CONFUSIONS = 12
QUESTION = "What does the network get wrong, where does it look, and which labels are suspicious?"
LEGEND = (
    "Each row shows the image as the network saw it, and where in it the network finds the "
    "predicted class (Grad-CAM: grey without heat, yellow to dark red with it)"
)
NEAREST = (
    ", then the nearest training images by the cosine between outputs of the penultimate layer, "
    "with their labels"
)


def labelled_page(
    trained: TrainedModel, found: LabelledExplanation, source: str, warnings: Sequence[str]
) -> Page:
    """Return the page of labelled images from a `source`, as it is to be named."""
    scores, unadapted = found.evaluation.scores, found.evaluation.unadapted
    alone = unadapted or scores
    low, high = accuracy_interval(alone.accuracy, found.samples)
    answer = (
        f"The network misclassifies {found.errors:,} of {found.samples:,} images of {source}: "
        f"accuracy {percent(alone.accuracy)} (95 % interval, given the number of images: "
        f"{100 * low:.1f} to {100 * high:.1f} %)."
    )
    if unadapted:
        answer += f" Adapted to each writer, as evaluate reports, it is {percent(scores.accuracy)}."
    confusions = [
        [_shown(one.true), _shown(one.predicted), f"{one.count:,}"]
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
                f"{LEGEND}, where it finds the true class{_nearest(found.misclassified)}. Titles "
                "are the true class → the predicted class, with the predicted probability.",
                _grid(found.misclassified),
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
                _grid(found.largest_losses, with_loss=True),
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
    sections = [
        Section(
            "Given images",
            [
                f"{_some(len(found.images), found.found)}. {LEGEND}{_nearest(found.images)}. Titles "
                "are the predicted class with its probability.",
                _grid(found.images),
            ],
        )
    ]
    if found.failed:
        rows = [(_shown(name), reason) for name, reason in found.failed]
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
    used = Sources([training_source(trained.run, "the network, with its configuration")])
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
        "Confident learning (Northcutt et al. 2021), on predictions for images that the network "
        "was not trained on: an image counts as another class than its label if its probability "
        "of that class reaches the mean among images with that label. The labels of the images "
        "that it was trained on are not examined: its predictions for those follow their labels."
    )
    if not found.suspects:
        return [how, "No label is suspicious."]
    return [
        how,
        f"Estimated fraction of incorrect labels: {percent(found.label_errors, 1)}, an upper "
        "estimate: errors of the network count too. "
        f"{_some(len(found.suspects), found.suspicious, 'suspicious label')}, the most suspicious "
        "first. Titles are the label → the class suggested.",
        SampleGrid([_suspect(one) for one in found.suspects]),
    ]


def _suspect(one: Suspect) -> Strip:
    strip = _strip(one.image, with_loss=False)
    return Strip(
        f"{_shown(one.image.true or '')} → {_shown(one.suggested)}?",
        f"{one.probability:.2f} · {_short(one.image.name)}",
        f"label {_shown(one.image.true or '')}, suggested {_shown(one.suggested)}; {strip.alt}",
        strip.tiles,
    )


def _grid(images: Sequence[ExplainedImage], with_loss: bool = False) -> SampleGrid:
    return SampleGrid([_strip(one, with_loss) for one in images])


def _strip(one: ExplainedImage, with_loss: bool) -> Strip:
    true, predicted = _shown(one.true or ""), _shown(one.predicted)
    title = predicted if one.true is None else f"{true} → {predicted}"
    figure = f"loss {one.loss:.2f}" if with_loss else f"{one.probability:.2f}"
    near = ", ".join(_shown(neighbour.label) for neighbour in one.neighbours)
    remark = f"{figure} · {_short(one.name)}" + (f" · near: {near}" if near else "")
    alt = f"{_shown(one.name)}: predicted {predicted}, probability {one.probability:.2f}"
    alt += f", label {true}" * (one.true is not None) + f"; nearest: {near}" * bool(near)
    heats = panels(one)
    if one.true is not None and one.true_heat is None:
        heats.append(heats[-1])  # the true class is the predicted one
    tiles = [*heats, *(neighbour.image for neighbour in one.neighbours)]
    return Strip(title, remark, alt, [thumbnail(_coloured(tile), 255) for tile in tiles])


def _coloured(image: Pixels) -> Pixels:
    return image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)


def _nearest(images: Sequence[ExplainedImage]) -> str:
    return NEAREST if any(one.neighbours for one in images) else ""


def _some(shown: int, total: int, noun: str = "image") -> str:
    return counted(total, noun) if shown == total else f"{shown:,} of {counted(total, noun)}"


def _shown(name: str) -> str:
    """Return a name with control characters as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def _short(name: str) -> str:
    shown = _shown(Path(name).name)
    return shown if len(shown) <= LONGEST else f"…{shown[1 - LONGEST :]}"
