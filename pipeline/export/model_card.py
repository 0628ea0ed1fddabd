"""The model card of a trained network: data, figures with intervals, intended use and limits."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.evaluation.evaluate import TrainedModel
from pipeline.evaluation.metrics import accuracy_interval
from pipeline.evaluation.run_config import RunConfig
from pipeline.evaluation.run_dir import TestResult, TrainingResult
from pipeline.loading.dataset import source_line
from pipeline.recipes.systems import SYSTEMS
from pipeline.reporting.common import counted, percent

MOST_CLASSES = 100  # that the card lists
FRAMING = "\n| `framing.json` | size and place of the ink in the training images, for predict |"
FIGURES = ("result.json", "scores.json", "test.json")

CARD = """---
{front}
---

# {title}

{summary}

## Data

{data}

Images become the network's input by the rules in `view.json` and `config.json` (`pixels`): {input}

## Figures

| images | accuracy | 95 % interval | balanced accuracy | loss (nats) | calibration error |
|---|---|---|---|---|---|
{figures}

{caveats}

## Intended use

{use}

## Limits

{limits}

## Use

With inkrun, in a checkout, where FOLDER is this folder:

    ./launch.sh evaluate FOLDER --source labelled-images.zip
    ./launch.sh predict FOLDER image.png

| file | content |
|---|---|
| `model.safetensors` | the weights, {parameters:,} trained parameters |
| `config.json` | network, classes, recipe, rules for pixels, origin of the data |
| `view.json` | the image size and the normalisation that the network expects |
| {scores} | the figures, also for each class |{framing}
"""


def model_card(
    config: RunConfig, result: TrainingResult, trained: TrainedModel, files: Sequence[str]
) -> str:
    """Return the README.md of a trained network: front matter (YAML), then Markdown.

    `files` are the names of those beside it.
    """
    name = Path(config.data).stem
    system = SYSTEMS.get(config.job)
    title = f"{name}: {config.network}" + (" (trial)" if config.is_trial else "")
    what = system.title if system else f"{counted(len(config.classes), 'class')[:-1]}es of images"
    if system is None:
        what = f"{len(config.classes)} classes of images"
    figures = _figures(result)
    synthetic = any(one["kind"] == "synthetic" for one in _origins(config))
    return CARD.format(
        front=_front(name, config, figures, synthetic),
        title=title,
        summary=(
            f"The network `{config.network}` of inkrun, for {what}. It was trained for "
            f"{counted(result.epochs, 'epoch')} on {result.images:,} images, repeated ones "
            f"included."
            + (" It is a trial, on some of the images and for few epochs." * config.is_trial)
        ),
        data=_data(config),
        input=_input(trained),
        figures="\n".join(map(_row, figures)) or "| none | – | – | – | – | – |",
        caveats=_caveats(result, synthetic),
        use=(
            f"Classify images that show one of these classes each, and look like those it was "
            f"trained on: {_listed(config.classes)}."
        ),
        limits=_limits(config, synthetic),
        framing=FRAMING if "framing.json" in files else "",
        scores=", ".join(f"`{name}`" for name in FIGURES if name in files),
        parameters=sum(parameter.numel() for parameter in trained.network.parameters()),
    )


def _origins(config: RunConfig) -> list[Mapping[str, Any]]:
    return [config.provenance, *([config.auxiliary.provenance] if config.auxiliary else [])]


def _data(config: RunConfig) -> str:
    lines = [f"- Trained on the split {config.learn_from} of `{Path(config.data).name}`: "]
    lines[0] += f"{source_line(config.provenance)}."
    if config.auxiliary:
        lines.append(
            f"- Part of each batch is of `{config.auxiliary.data}`: "
            f"{source_line(config.auxiliary.provenance)}."
        )
    if config.start:
        lines.append(f"- It started from the weights of the run `{config.start}`.")
    if config.recipe.expects_label_noise:
        lines.append("- Its training labels are known to be incorrect; the loss corrects for it.")
    return "\n".join(lines)


def _input(trained: TrainedModel) -> str:
    view = trained.view
    channels, height, width = view.input_shape
    colours = "RGB" if channels == 3 else "grey levels of ink, 0 for paper and 1 for ink"
    part = "the whole image" if view.whole else "a square around the ink"
    return f"float32 ({channels}, {height}, {width}), {colours}; {part}."


Figure = tuple[str, TrainingResult | TestResult]


def _figures(result: TrainingResult) -> list[Figure]:
    """Return the names of evaluated splits with their figures."""
    figures: list[Figure] = [] if result.samples is None else [("validation", result)]
    return figures + ([("test", result.test)] if result.test else [])


def _row(figure: Figure) -> str:
    name, one = figure
    assert one.accuracy is not None
    assert one.balanced_accuracy is not None
    assert one.samples is not None
    low, high = accuracy_interval(one.accuracy, one.samples)
    return (
        f"| {one.samples:,} of {name} | {percent(one.accuracy)} | {100 * low:.1f} to "
        f"{100 * high:.1f} % | {percent(one.balanced_accuracy)} | {one.loss:.3f} | "
        f"{one.calibration_error:.3f} |"
    )


def _caveats(result: TrainingResult, synthetic: bool) -> str:
    lines = [
        "Intervals are Wilson's, of the number of images. Several images by one writer or of one "
        "object are not independent, so the true interval is wider."
    ]
    if result.until is not None:
        lines.append("The training ended at an epoch chosen by its validation accuracy.")
    if synthetic:
        lines.append(
            f"**The data are synthetic** ({result.provenance.get('source')}), at least in part. "
            "Figures on synthetic images say nothing about images of other origin."
            if result.provenance.get("kind") == "synthetic"
            else "The auxiliary data are synthetic; the figures are of real images."
        )
    return " ".join(lines)


def _limits(config: RunConfig, synthetic: bool) -> str:
    lines = [
        "- Every image gets one of the classes, also one that shows none of them.",
        "- Probabilities are those of a network: see the calibration error. They are less reliable "
        "for images unlike the training images.",
        "- Writers, pens, cameras and lighting that the training images lack lower the accuracy.",
        "- It is not made for decisions about persons.",
    ]
    if synthetic:
        lines.append("- Synthetic images vary less than real ones.")
    if config.is_trial:
        lines.append("- A trial shows that everything works; its accuracy is not the recipe's.")
    return "\n".join(lines)


def _listed(classes: tuple[str, ...]) -> str:
    shown = ", ".join(
        f"`{json.dumps(name, ensure_ascii=False)[1:-1]}`" for name in classes[:MOST_CLASSES]
    )
    more = len(classes) - MOST_CLASSES
    return shown + (f" and {more:,} more (`config.json`)" if more > 0 else "")


def _front(name: str, config: RunConfig, figures: list[Figure], synthetic: bool) -> str:
    """Return the front matter; JSON strings are YAML strings."""
    tags = ["inkrun", "safetensors", *(["synthetic-data"] if synthetic else [])]
    lines = [
        "library_name: inkrun",
        "pipeline_tag: image-classification",
        f"tags: {json.dumps(tags)}",
    ]
    if figures:
        source = json.dumps(f"{name}, {source_line(config.provenance)}", ensure_ascii=False)
        lines += [
            "model-index:",
            f"- name: {json.dumps(f'{name}-{config.network}', ensure_ascii=False)}",
            "  results:",
        ]
        for split, one in figures:
            lines += [
                "  - task: {type: image-classification}",
                f"    dataset: {{name: {source}, type: {json.dumps(name)}, split: {split}}}",
                "    metrics:",
                f"    - {{type: accuracy, value: {one.accuracy:.4f}}}",
            ]
    return "\n".join(lines)
