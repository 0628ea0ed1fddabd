"""The jobs that train one network on one dataset, as a table: recipes and published figures."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.recipes.presets import PART1, Preset


@dataclass(frozen=True)
class Published:
    """A figure that others reported, from 0 to 1; `what` names it, `note` says how it was measured.

    It belongs to the original data, and to one run unless the note says otherwise.
    """

    what: str
    value: float
    note: str = ""


@dataclass(frozen=True)
class System:
    """A job's named recipes for the dataset `dataset`, and published figures by recipe."""

    title: str
    question: str
    dataset: str
    recipes: Mapping[str, Preset]
    default: str
    published: Mapping[str, tuple[Published, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class DataFacts:
    """What decides how to train on a dataset: colour, median size in pixels, counts of training."""

    colour: bool
    height: int
    width: int
    classes: int
    images: int


SYSTEMS = {
    "part1": System(
        "62 classes of handwritten characters",
        "How accurately does a network classify single handwritten characters when it is trained "
        "from random weights, and how much training does it need?",
        "part1",
        PART1,
        "fast",
    ),
}

