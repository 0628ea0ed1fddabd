"""The content of the page of `bench device`."""

from pipeline.benchmarks.device import tables
from pipeline.benchmarks.device.results import DeviceResult
from pipeline.reporting.html import Block, Section, Table

TITLE = "Decoding on the device"
QUESTION = "What does it gain to decode and augment images on the device that trains?"


def sections(result: DeviceResult) -> list[Section]:
    """Return the tables of the page, and how they were measured."""
    found = [
        Section(
            "Decode, resize and augmentation",
            [Table(f"{tables.place(result)}.", tables.DECODING, [*tables.decoding_rows(result)])],
        ),
        Section(
            "Training",
            [
                Table(
                    f"The first stage of each recipe; {tables.place(result)}.",
                    tables.TRAINING,
                    [*tables.training_rows(result)],
                    "llrlrrrrr",
                )
            ],
        ),
        Section("How it was measured", list(method_lines(result))),
    ]
    if result.skipped:
        found.append(Section("Not measured", list(result.skipped)))
    return found


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
