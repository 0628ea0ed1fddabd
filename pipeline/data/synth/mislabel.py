"""Label noise: replaces labels by wrong ones, in ways that occur in practice."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from beton import rng
from pipeline.data import base
from pipeline.data.base import DerivedSource, Ints, Source, SourceError

Floats = NDArray[np.float64]

KINDS = ("none", "wrong", "permutation", "shuffled")
KINDS_WITH_RATE = ("symmetric", "pairs")
_RATE = r"(?:0?\.[0-9]+|1)"
_FLIP = rf"[0-9]+:[0-9]+:{_RATE}"


@dataclass(frozen=True)
class Flip:
    """A fraction `rate` of the labels of class `true` becomes `label`; classes are numbers."""

    true: int
    label: int
    rate: float

    def __str__(self) -> str:
        return f"{self.true}:{self.label}:{self.rate:g}"


@dataclass(frozen=True)
class LabelNoise:
    """A kind of label noise.

    - none: labels stay correct.
    - wrong: every label is one of the other classes, uniformly (complementary labels).
    - symmetric: the same, for a fraction `rate` of the labels.
    - pairs: a fraction `rate` of the labels becomes the next class, 0 after the last.
    - permutation: each class gets the name of one other class.
    - shuffled: the labels are permuted among the images.
    - flips: class-dependent noise, a tuple of `Flip`s.
    """

    kind: str = "none"
    rate: float = 1.0
    flips: tuple[Flip, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse "wrong", "symmetric=0.4", "flips=2:7:0.2,3:8:0.1" and so on. Raises SourceError."""
        if text in KINDS:
            return cls(text)
        if match := re.fullmatch(rf"({'|'.join(KINDS_WITH_RATE)})=({_RATE})", text):
            return cls(match[1], float(match[2]))
        if match := re.fullmatch(rf"flips=({_FLIP}(?:,{_FLIP})*)", text):
            flips = [one.split(":") for one in match[1].split(",")]
            return cls.of_flips([Flip(int(a), int(b), float(rate)) for a, b, rate in flips])
        raise SourceError(
            f"mislabel {text!r}: expected {', '.join(KINDS)}, "
            f"{', '.join(f'{kind}=RATE' for kind in KINDS_WITH_RATE)} with a rate from 0 to 1, "
            "or flips=CLASS:LABEL:RATE,… with numbers of classes"
        )

    @classmethod
    def of_flips(cls, flips: Sequence[Flip]) -> Self:
        """Return class-dependent noise. Raises SourceError for flips that exclude each other."""
        noise = cls("flips", flips=tuple(flips))
        totals: dict[int, float] = {}
        for flip in flips:
            totals[flip.true] = totals.get(flip.true, 0) + flip.rate
            if flip.true == flip.label:
                raise SourceError(f"mislabel '{noise}': got {flip}, expected another label")
        for true, total in totals.items():
            if total > 1 + 1e-9:
                raise SourceError(
                    f"mislabel '{noise}': got rates of class {true} with the sum {total:g}, "
                    "expected at most 1"
                )
        return noise

    def __str__(self) -> str:
        if self.kind == "flips":
            return f"flips={','.join(map(str, self.flips))}"
        return f"{self.kind}={self.rate:g}" if self.kind in KINDS_WITH_RATE else self.kind

    def apply(self, labels: Ints, classes: int, seed: int) -> Ints:
        """Return noisy labels (n,) for the labels (n,), all from 0 to `classes` - 1.

        Raises SourceError for flips of other classes.
        """
        numbers = rng.uniform(seed, 1, np.arange(len(labels)), rng.LABEL, 2)
        other = (labels + 1 + (numbers[:, 0] * (classes - 1)).astype(np.int64)) % classes
        chosen = numbers[:, 1] < self.rate
        match self.kind:
            case "wrong" | "symmetric":
                return np.where(chosen, other, labels)
            case "pairs":
                return np.where(chosen, (labels + 1) % classes, labels)
            case "permutation":
                # Along a cycle through all classes, so that no class keeps its name.
                cycle = np.argsort(rng.bits(seed, 2, np.arange(classes), rng.LABEL)[:, 0])
                names = np.empty(classes, np.int64)
                names[cycle] = np.roll(cycle, 1)
                return names[labels]
            case "shuffled":
                return labels[np.argsort(numbers[:, 0], kind="stable")]
            case "flips":
                return self._flip(labels, classes, numbers[:, 1])
            case _:
                return labels

    def _flip(self, labels: Ints, classes: int, numbers: Floats) -> Ints:
        noisy, start = labels.copy(), np.zeros(classes)
        for flip in self.flips:
            if max(flip.true, flip.label) >= classes:
                raise SourceError(f"mislabel '{self}': got {flip}, expected 0 to {classes - 1}")
            numbered = numbers - start[flip.true]
            noisy[(labels == flip.true) & (numbered >= 0) & (numbered < flip.rate)] = flip.label
            start[flip.true] += flip.rate
        return noisy


class MislabelledSource(DerivedSource):
    """A source with label noise in all images but its predefined test split.

    Images, names and `origin` are those of the source; `path` says that the source is mislabelled.
    Raises SourceError for a seed outside 0 to 2^63 - 1.
    """

    def __init__(self, source: Source, label_noise: LabelNoise, seed: int = 0) -> None:
        base.check_seed(seed)
        annotations = source.annotations
        rows = np.flatnonzero(annotations.splits != base.TEST)
        labels = annotations.labels.copy()
        labels[rows] = label_noise.apply(labels[rows], len(annotations.classes), seed)
        super().__init__(source, np.arange(len(source)), replace(annotations, labels=labels))
        # The path does not name the kind of noise: no analysis may depend on it.
        self.path = Path(f"{source.path.resolve()}, mislabelled on purpose")
        self.generator = {
            **(source.generator or {}),
            "mislabelling": str(label_noise),
            "mislabelling_seed": seed,
        }

    def digest(self) -> str:
        """Return the digest of the source's digest and the noise's settings."""
        return base.digest_of(self._source.digest(), self.generator)
