"""Results of `bench convergence` as rows: for the terminal and for the page."""

from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import mean

from pipeline.analysis.stats import UNIT_INTERVAL, Estimate, estimate
from pipeline.benchmarks.convergence.outcome import (
    ArmResult,
    Convergence,
    PartResult,
    Reached,
    State,
)
from pipeline.reporting.common import percent, with_interval

TIMES = [
    "",
    "target",
    "reached by",
    "seconds",
    "fastest",
    "with start-up",
    "images",
    "× inkrun on inkrun's loader",
]
TRAININGS = [
    "",
    "network, size",
    "epochs",
    "images/s",
    "waiting for the loader",
    "start-up (s)",
    "trained (s)",
    "accuracy at the end",
    "lowest",
]
NONE = "–"
WORDS: dict[State, str] = {
    "measured": "measured",
    "extrapolated": "extrapolated",
    "not reached": "never",
    "inferred not reached": "≈ never",
    "unknown": "unknown: cut short",
}


def time_rows(part: PartResult) -> Iterator[Sequence[str]]:
    """Return a row for each arm and target with the columns TIMES."""
    for result in part.arms:
        for one in result.reached:
            yield [result.arm.name, one.target, *_time_cells(one)]


def state_words(one: Reached) -> str:
    """Return how many seeds reach a target, and how that is known."""
    counts = Counter(time.state for time in one.times)
    if not one.known and len(counts) == 1:
        return WORDS[one.times[0].state]
    text = f"{len(one.known)} of {len(one.times)}"
    if {*counts} == {"measured"}:
        return text
    if {*counts} == {"extrapolated"}:
        return f"{text} (extrapolated)"
    parts = (f"{counts[state]} {word}" for state, word in WORDS.items() if state in counts)
    return f"{text} ({', '.join(parts)})"


def _time_cells(one: Reached) -> list[str]:
    fastest = one.fastest
    if fastest is None:
        return [state_words(one), *[NONE] * 5]
    images = mean(time.images for time in one.known if time.images is not None)
    return [
        state_words(one),
        _marked(_seconds(one.estimate(start_up=False)), one.extrapolated),
        _marked(f"{fastest.seconds:,.1f}", fastest.state == "extrapolated"),
        _marked(_seconds(one.estimate(start_up=True)), one.extrapolated),
        _marked(f"{images:,.0f}", one.extrapolated),
        NONE
        if one.factor is None
        else _marked(str(one.factor.ratio), one.factor.state == "extrapolated"),
    ]


def _marked(text: str, extrapolated: bool) -> str:
    return f"≈ {text}" if extrapolated else text


def _seconds(found: Estimate | None) -> str:
    return NONE if found is None else with_interval(found, lambda value: f"{value:,.1f}")


def training_rows(part: PartResult) -> Iterator[Sequence[str]]:
    """Return a row for each arm with the columns TRAININGS."""
    for result in part.arms:
        if result.trainings:
            yield [result.arm.name, f"{result.network}, {result.size}", *_training_cells(result)]
        else:
            yield [result.arm.name, f"{result.network}, {result.size}", *[NONE] * 7]


def _training_cells(result: ArmResult) -> list[str]:
    own = result.trainings
    epochs = mean(one.images / one.epoch_images for one in own)
    planned = own[0].epochs
    finals = [one.points[-1].accuracy for one in own if one.whole]
    seconds = sum(one.seconds for one in own)
    end = [NONE, NONE]
    if finals:
        end = [with_interval(estimate(finals, UNIT_INTERVAL)), percent(min(finals))]
    elif any(one.points for one in own):
        last = mean(one.points[-1].accuracy for one in own if one.points)
        end = [f"cut short at {percent(last)}", NONE]
    return [
        f"{planned}" if len(finals) == len(own) else f"{epochs:.2f} of {planned}",
        f"{sum(one.images for one in own) / seconds:,.0f}" if seconds else NONE,
        percent(mean(one.loader_share for one in own), 1),
        f"{mean(one.start_up for one in own):,.1f}",
        f"{mean(one.seconds for one in own):,.1f}",
        *end,
    ]


def notes(result: Convergence, part: PartResult) -> list[str]:
    """Return what a reader must know about the figures of a part."""
    lines = [
        f"{part.trained:,} training images, {part.validated:,} to validate on. Seconds are those "
        "of training, without validation. A target is reached at the end of the first epoch whose "
        "accuracy is at or above it; nothing is interpolated.",
        f"Not included, once for each dataset: {part.prepared:,.1f} s to make the .beton file, "
        "which Pillow's loader does not need.",
        f"The canvases of both loaders differ by at most {part.largest_difference:.0f} grey "
        f"levels, {part.mean_difference:.3f} in the mean: Pillow's box filter does not divide "
        "pixels between two others."
        if part.largest_difference
        else "The canvases of both loaders are equal.",
    ]
    if result.quick:
        lines.insert(0, "A quick run: few images and epochs. It shows no accuracy.")
    fewer = [arm for arm in part.arms if len(arm.trainings) < result.seeds]
    if fewer:
        counts = "; ".join(f"{arm.arm.name}: {len(arm.trainings)}" for arm in fewer)
        lines.append(f"There was no time for all {result.seeds} seeds: {counts}.")
    found = [one for arm in part.arms for one in arm.reached]
    if any(0 < len(one.known) < len(one.times) for one in found):
        lines.append("Where some seeds have no time, means and ratios are those of the others.")
    states = {time.state for one in found for time in one.times}
    if "extrapolated" in states:
        lines.append(
            "≈ is extrapolated: a training that was cut short needs as many epochs as the same "
            "recipe and seed on the other loader, which shows it the same images; else its whole "
            "schedule, if the accuracy reported for its end is at or above the target."
        )
    if "not reached" in states:
        lines.append("never: the training ran to the end of its schedule below the target.")
    if "inferred not reached" in states:
        lines.append(
            "≈ never: the training was cut short. The same recipe and seed on the other loader ran "
            "to its end below the target, or else the accuracy reported for the end of the "
            "schedule is below it."
        )
    if "unknown" in states:
        lines.append(
            "unknown: the training was cut short below the target, and nothing says what it would "
            "have reached."
        )
    return lines
