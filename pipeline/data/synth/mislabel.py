"""Label noise: replaces labels by wrong ones, in ways that occur in practice."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np

from beton import rng
from pipeline.data import base
from pipeline.data.base import DerivedSource, Ints, Source, SourceError

KINDS = ("none", "wrong", "permutation", "shuffled")
KINDS_WITH_RATE = ("symmetric", "pairs")


@dataclass(frozen=True)
class LabelNoise:
    """A kind of label noise.

    - none: labels stay correct.
    - wrong: every label is one of the other classes, uniformly (complementary labels).
    - symmetric: the same, for a fraction `rate` of the labels.
    - pairs: a fraction `rate` of the labels becomes the next class, 0 after the last.
    - permutation: each class gets the name of one other class.
    - shuffled: the labels are permuted among the images.
    """

    kind: str = "none"
    rate: float = 1.0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse "wrong", "symmetric=0.4" and so on. Raises SourceError."""
        if text in KINDS:
            return cls(text)
        if match := re.fullmatch(rf"({'|'.join(KINDS_WITH_RATE)})=(0?\.[0-9]+|1)", text):
            return cls(match[1], float(match[2]))
        raise SourceError(
            f"mislabel {text!r}: expected {', '.join(KINDS)}, "
            f"or {' or '.join(f'{kind}=RATE' for kind in KINDS_WITH_RATE)} with a rate from 0 to 1"
        )

    def __str__(self) -> str:
        return f"{self.kind}={self.rate:g}" if self.kind in KINDS_WITH_RATE else self.kind

    def apply(self, labels: Ints, classes: int, seed: int) -> Ints:
        """Return noisy labels (n,) for the labels (n,), all from 0 to `classes` - 1."""
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
            case _:
                return labels


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
