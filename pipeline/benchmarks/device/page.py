"""The content of the page of `bench device`."""

from matplotlib.figure import Figure

from pipeline.benchmarks.device import tables
from pipeline.benchmarks.device.results import BARE, JPEG, DeviceResult
from pipeline.benchmarks.plots import RANGES, RateBar, plot_rates
from pipeline.reporting.html import Block, Plot, Section, Table

TITLE = "Decoding on the device"
QUESTION = "What does it gain to decode and augment images on the device that trains?"


def sections(result: DeviceResult) -> list[Section]:
    """Return the tables of the page, and how they were measured."""
    place = tables.place(result)
    decoding, training = plots(result).values()
    found = [
        Section(
            "Decode, resize and augmentation",
            [
                Plot(decoding, f"Images per second of each method and size; {place}", RANGES),
                Table(f"{place}.", tables.DECODING, [*tables.decoding_rows(result)]),
            ],
        ),
        Section(
            "Training",
            [
                Plot(
                    training,
                    f"Images per second of trainings with each decode; {place}",
                    f"The first stage of each recipe. {RANGES}",
                ),
                Table(
                    f"The first stage of each recipe; {place}.",
                    tables.TRAINING,
                    [*tables.training_rows(result)],
                    "llrlrrrrr",
                ),
            ],
        ),
        Section("How it was measured", list(method_lines(result))),
    ]
    if result.skipped:
        found.append(Section("Not measured", list(result.skipped)))
    return found


def plots(result: DeviceResult) -> dict[str, Figure]:
    """Return the plots of decoding and of training by name, with a panel for each size, recipe."""
    decoding: dict[str, list[RateBar]] = {}
    for one in result.decoding:
        bar = RateBar(one.method, one.rates, not one.method.startswith(JPEG))
        decoding.setdefault(f"{one.size}×{one.size}", []).append(bar)
    training: dict[str, list[RateBar]] = {}
    for made in result.training:
        name = BARE if made.method == BARE else f"decode: {made.method}"
        bar = RateBar(name, made.rates, made.method != BARE)
        title = f"{made.recipe}, {made.size}×{made.size}"
        training.setdefault(title, []).append(bar)
    return {"device-decoding": plot_rates(decoding), "device-training": plot_rates(training)}


def method_lines(result: DeviceResult) -> list[Block]:
    """Return what a reader must know about the figures."""
    clock = "CUDA events" if result.on_gpu else "the host's clock"
    return [
        f"Batches of {result.batch_size} shuffled pages come from the file, are resized, and are "
        "augmented as in part 1. After a warm-up, the methods take turns for "
        f"{result.rounds} rounds; rates are medians, ratios are geometric means over the rounds. "
        f"The host loads with {result.threads} threads on a GPU, and with one on a CPU.",
        f"The times of decode and augmentation are those of the device alone, by {clock}. For the "
        "loader's kernels, decode on the device is only the subtraction of the paper.",
        "JPEGs are the same pages at full size and quality 90, in memory.",
        "Trainings use one dataset and no scale of writers; the time excludes start and "
        "validation. The bare loop has all canvases in memory, and no loader, log or checks: the "
        "rest is the overhead of the engine.",
    ]
