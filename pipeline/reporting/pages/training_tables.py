"""Tables of the report of trainings: results, published figures, confusions, classes, layers."""

import re
from collections.abc import Callable, Sequence
from operator import attrgetter

from pipeline.analysis.stats import estimate, first_reached
from pipeline.evaluation.run_dir import FinishedRun
from pipeline.evaluation.run_files import read_view
from pipeline.loading.dataset import source_line
from pipeline.models import networks
from pipeline.models.blocks import Shape
from pipeline.models.layers import layer_table
from pipeline.recipes.systems import SYSTEMS, Published
from pipeline.reporting.common import (
    ABSENT,
    class_table,
    hardware,
    layers_table,
    number,
    percent,
    with_interval,
)
from pipeline.reporting.html import Block, Table
from pipeline.reporting.run_groups import RunGroup
from pipeline.runtime.files import read_json

# Accuracies whose first epoch and time are reported, of part 1 and of other jobs.
PART1_THRESHOLDS = (0.5, 0.8, 0.85, 0.88, 0.9)
THRESHOLDS = (0.5, 0.8, 0.9, 0.93, 0.95, 0.98)
PAIRS = 15  # confused pairs of classes in the table
final_accuracy = attrgetter("scores.accuracy")
Value = Callable[[FinishedRun], float | None]


def figures_table(groups: Sequence[RunGroup]) -> Table:
    """Return the main results of all groups."""
    rows: list[tuple[str, Value, Callable[[float], str]]] = [
        ("accuracy", final_accuracy, percent),
        ("balanced accuracy", attrgetter("scores.balanced_accuracy"), percent),
        ("accuracy, case ignored", attrgetter("scores.accuracy_ignoring_case"), percent),
        ("accuracy in train mode", _in_train_mode, percent),
        ("loss (nats)", attrgetter("scores.loss"), lambda value: f"{value:.3f}"),
        ("calibration error (ECE)", attrgetter("scores.calibration_error"), percent),
        ("test images", _of_test("samples"), number),
        ("accuracy, test", _of_test("accuracy"), percent),
        ("balanced accuracy, test", _of_test("balanced_accuracy"), percent),
        ("loss (nats), test", _of_test("loss"), lambda value: f"{value:.3f}"),
        ("epochs", attrgetter("result.epochs"), number),
        ("training images, all epochs", attrgetter("result.images"), number),
        ("training time (s)", attrgetter("result.seconds_training"), number),
        ("training images per second", attrgetter("result.images_per_second"), number),
        ("training time spent waiting for data", attrgetter("result.loader_share"), percent),
    ]
    for threshold in _thresholds(groups):
        mark = f"{100 * threshold:.4g} %"
        rows.append((f"epochs to {mark} accuracy", _reached(threshold, "epoch"), number))
        rows.append((f"time to {mark} accuracy (s)", _reached(threshold, "seconds"), number))
    table = [[name, *(mean(g.values(of), form) for g in groups)] for name, of, form in rows]
    table = [row for row in table if set(row[1:]) != {ABSENT}]
    if any(group.config.until is not None for group in groups):
        table.append(["--until", *(_until(group) for group in groups)])
    table.append(
        ["hardware", *(hardware(read_json(g.first.path, "environment.json")) for g in groups)]
    )
    samples = groups[0].samples
    seeds = " and ".join(f"{len(group.runs)}" for group in groups)
    return Table(
        f"Results on {samples:,} validation images; runs: {seeds}. Several runs: the mean, with "
        "its 95 % interval over seeds in brackets. Times are training time only. A dash: never "
        f"reached, or undefined.{_legend(table)}{_views(groups)}",
        ["", *(group.name for group in groups)],
        table,
        "l" * (len(groups) + 1),
        wide=len(groups) > 2,
    )


def _legend(rows: Sequence[Sequence[str]]) -> str:
    """Return sentences about the rows that not every page has."""
    sentences = {
        "accuracy in train mode": "In train mode, batch normalisation uses the statistics of the "
        "batch, and dropout is on.",
        "accuracy, test": "Test images are evaluated once, after the training.",
    }
    return "".join(f" {sentences[row[0]]}" for row in rows if row[0] in sentences)


def _views(groups: Sequence[RunGroup]) -> str:
    """Return a sentence about each group whose predictions are means over views of an image."""
    sentences = []
    for group in groups:
        recipe = group.config.recipe
        views = [f"{recipe.views} slants"] if recipe.views > 1 else []
        if recipe.mirrored:
            views.append("the image and its mirror image")
        if views:
            sentences.append(f" Predictions of {group.name}: means over {' and '.join(views)}.")
    return "".join(sentences)


def _thresholds(groups: Sequence[RunGroup]) -> list[float]:
    own = PART1_THRESHOLDS if groups[0].config.job == "part1" else THRESHOLDS
    asked = (group.config.until for group in groups)
    return sorted({*own, *(accuracy for accuracy in asked if accuracy is not None)})


def _reached(threshold: float, x: str) -> Value:
    return lambda run: first_reached(
        [e.epoch + 1 if x == "epoch" else e.seconds for e in run.history],
        [e.accuracy or 0.0 for e in run.history],
        threshold,
    )


def _in_train_mode(run: FinishedRun) -> float | None:
    return run.history[-1].train_mode_accuracy if run.history else None


def _of_test(name: str) -> Value:
    return lambda run: None if run.result.test is None else getattr(run.result.test, name)


def _until(group: RunGroup) -> str:
    """Say whether the accuracy that ends a training was reached."""
    until, runs = group.config.until, group.runs.values()
    if until is None:
        return ABSENT
    reached = sum(bool(run.result.reached) for run in runs)
    if len(runs) == 1:
        return f"{percent(until)}: {'reached' if reached else 'never reached'}"
    return f"{percent(until)}: reached by {reached} of {len(runs)} runs"


def stage_tables(groups: Sequence[RunGroup]) -> list[Block]:
    """Return a table of accuracy by stage for each recipe of several stages."""
    tables: list[Block] = []
    for group in groups:
        stages = group.config.recipe.stages
        if len(stages) == 1:
            continue
        # By run, then by stage; a stage's last epoch replaces those before it.
        at_end = [{e.stage: e for e in run.history} for run in group.runs.values()]
        places = range(len(stages))
        columns = {
            "stage": [f"{place + 1}" for place in places],
            "size (pixels)": [f"{stage.size}" for stage in stages],
            "epochs": [f"{stage.epochs}" for stage in stages],
            **{
                f"{name} after the stage": [
                    mean([getattr(e.get(i), attribute, None) for e in at_end], percent)
                    for i in places
                ]
                for name, attribute in (
                    ("accuracy", "accuracy"),
                    ("balanced accuracy", "balanced_accuracy"),
                )
            },
        }
        caption = f"{group.name}: accuracy after each stage"
        published = {
            int(match[1]) - 1: one.value
            for one in published_of(group)
            if (match := re.fullmatch(r"accuracy after stage (\d+)", one.what))
        }
        if published:
            columns["published"] = [
                percent(published[place]) if place in published else ABSENT for place in places
            ]
            caption += "; published: reported by others, on the original data"
        rows = [*zip(*columns.values(), strict=True)]
        tables.append(Table(f"{caption}.", [*columns], rows, "r" * len(columns)))
    return tables


# Options that make another training than the published one, and their values that do not.
CHANGES = (
    "network",
    "optimizer",
    "learning_rate",
    "momentum",
    "weight_decay",
    "size",
    "batch_size",
)
AS_IN_RECIPE = (None, "auto", "find")


def published_of(group: RunGroup) -> Sequence[Published]:
    """Return the published figures of a group's recipe, none if options changed the recipe."""
    system, options = SYSTEMS.get(group.config.job), group.config.options
    if system is None or any(options.get(name) not in AS_IN_RECIPE for name in CHANGES):
        return ()
    return system.published.get(str(options.get("recipe")), ())


def published_tables(groups: Sequence[RunGroup]) -> list[Block]:
    """Return a table of published figures beside ours, for the groups that have some."""
    rows = []
    for group in groups:
        for one in published_of(group):
            if one.what.startswith("accuracy after stage"):  # in the table of stages
                continue
            value, in_train_mode = (
                mean(group.values(measured(one.what, mode)), percent) for mode in (False, True)
            )
            what = one.what
            if in_train_mode != ABSENT:  # the mode in which the published figure was measured
                rows.append([group.name, what, ABSENT, value, ""])
                what, value = f"{what} (in train mode)", in_train_mode
            rows.append([group.name, what, percent(one.value), value, one.note])
    if not rows:
        return []
    data = source_line(groups[0].config.provenance)
    caption = (
        "Published figures, reported by others on the original data, in one run unless the note "
        f"says otherwise; ours on {data}. Accuracies after epochs are those of validation images. "
        "None is a balanced accuracy, because none was published. A dash: not measured."
    )
    return [
        Table(caption, ["recipe", "figure", "published", "ours", "note"], rows, "llrrl", wide=True)
    ]


def measured(what: str, train_mode: bool = False) -> Value:
    """Return the value of a run that a published figure's name stands for, None if it has none."""

    def value(run: FinishedRun) -> float | None:
        if match := re.fullmatch(r"accuracy after (?:(\d+) epochs|the first epoch)", what):
            place = int(match[1] or 1) - 1
            if place >= len(run.history):
                return None
            epoch = run.history[place]
            return epoch.train_mode_accuracy if train_mode else epoch.accuracy
        if train_mode:
            return None
        match what:
            case "accuracy on test images":
                return None if run.result.test is None else run.result.test.accuracy
            case "accuracy on training images":
                return run.history[-1].train_accuracy
        return None

    return value


def pairs_table(groups: Sequence[RunGroup]) -> Block:
    """Return the most frequent confusions of the most accurate group, with those of the others."""
    classes = list(groups[0].config.classes)
    rows = []
    for pair in groups[0].scores.confusions[:PAIRS]:
        true, predicted = classes.index(pair.true), classes.index(pair.predicted)
        counts = (group.scores.matrix[true] for group in groups)
        cells = [f"{row[predicted]} of {sum(row)}" for row in counts]
        rows.append([f"{pair.true} → {pair.predicted}", *cells])
    if not rows:
        return "No image was classified incorrectly."
    return Table(
        f"The most frequent confusions of {groups[0].name}: how many images of the true class were "
        "classified as the other, over all seeds.",
        ["true → predicted", *(group.name for group in groups)],
        rows,
    )


def class_results(groups: Sequence[RunGroup]) -> Table:
    """Return the results of each class."""
    if len(groups) == 1:
        return class_table(groups[0].scores)
    return Table(
        "F1 of each class, over all seeds.",
        ["class", "images", *(group.name for group in groups)],
        [
            [ones[0].name, str(ones[0].samples), *(percent(one.f1, 1) for one in ones)]
            for ones in zip(*(group.scores.per_class for group in groups), strict=True)
            if ones[0].samples
        ],
    )


def layer_tables(groups: Sequence[RunGroup]) -> list[Block]:
    """Return a table of the layers of each network, for runs that have a view.json."""
    names: dict[tuple[str, Shape], list[str]] = {}  # of groups, by network and input
    for group in groups:
        if (group.first.path / "view.json").exists():
            view = read_view(group.first.path)
            names.setdefault((group.config.network, view.input_shape), []).append(group.name)
    classes = len(groups[0].config.classes)
    return [
        _layer_table(network, classes, shape, " and ".join(own))
        for (network, shape), own in names.items()
    ]


def _layer_table(network: str, classes: int, shape: Shape, groups: str) -> Table:
    layers = layer_table(networks.build(network, classes, 0, shape), shape)
    size = " × ".join(map(str, shape))
    return layers_table(
        layers,
        f"The layers of {network}, the network of {groups}, for an input of {size} (channels × "
        "height × width): outputs, parameters, and multiply-adds of one image forward.",
    )


def calibration_error(group: RunGroup) -> float:
    """Return the mean over a group's runs; pooled predictions would hide part of the error."""
    errors = [run.scores.calibration_error for run in group.runs.values() if run.scores]
    return estimate(errors).mean


def mean(values: Sequence[float | None], form: Callable[[float], str], name: str = "") -> str:
    """Format a mean over seeds with its interval, and the number of seeds that have a value."""
    known = [value for value in values if value is not None]
    if not known:
        return ABSENT
    text = with_interval(estimate(known), form, name)
    return text if len(known) == len(values) else f"{text}, in {len(known)} of {len(values)}"
