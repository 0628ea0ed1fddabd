"""Ways to mislabel a set: the kinds that are met in practice, made on purpose."""

import hashlib
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np

from beton import rng
from pipeline.data.sources.base import TEST, Ints, Pixels, Source, SourceError

KINDS = ("none", "wrong", "permutation", "shuffled")
KINDS_WITH_RATE = ("symmetric", "pairs")


@dataclass(frozen=True)
class LabelNoise:
    """What becomes of true labels.

    - none: nothing.
    - wrong: every label is one of the other classes, all as likely (complementary labels).
    - symmetric: so with the share `rate` of the labels.
    - pairs: the share `rate` of the labels is the next class's; the last's is the first's.
    - permutation: each class bears the name of one other.
    - shuffled: the labels are dealt out anew, whatever the picture.
    """

    kind: str = "none"
    rate: float = 1.0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "wrong", "symmetric=0.4" and so on. Raises SourceError for other texts."""
        if text in KINDS:
            return cls(text)
        if match := re.fullmatch(rf"({'|'.join(KINDS_WITH_RATE)})=(0?\.[0-9]+|1)", text):
            return cls(match[1], float(match[2]))
        raise SourceError(
            f"mislabelling {text!r}: expected {', '.join(KINDS)}, "
            f"or {' or '.join(f'{kind}=RATE' for kind in KINDS_WITH_RATE)} with a rate from 0 to 1"
        )

    def __str__(self) -> str:
        return f"{self.kind}={self.rate:g}" if self.kind in KINDS_WITH_RATE else self.kind

    def apply(self, labels: Ints, classes: int, seed: int) -> Ints:
        """Return what the labels (n,), from 0 to `classes` - 1, become."""
        numbers = rng.uniform(seed, 1, np.arange(len(labels)), rng.LABEL, 2)
        other = (labels + 1 + (numbers[:, 0] * (classes - 1)).astype(np.int64)) % classes
        chosen = numbers[:, 1] < self.rate
        match self.kind:
            case "wrong" | "symmetric":
                return np.where(chosen, other, labels)
            case "pairs":
                return np.where(chosen, (labels + 1) % classes, labels)
            case "permutation":
                # Along a cycle through all classes, so that none keeps its name.
                cycle = np.argsort(rng.bits(seed, 2, np.arange(classes), rng.LABEL)[:, 0])
                names = np.empty(classes, np.int64)
                names[cycle] = np.roll(cycle, 1)
                return names[labels]
            case "shuffled":
                return labels[np.argsort(numbers[:, 0], kind="stable")]
            case _:
                return labels


class MislabelledSource(Source):
    """A source that is mislabelled but for the test set that it comes with, if any.

    The pictures, their names and whether they are real stay the source's own; what it is called
    says, wherever it is shown, what was done to it. Raises SourceError for a seed that makes no
    sense.
    """

    expected_layout = "another source"

    def __init__(self, source: Source, mislabelling: LabelNoise, seed: int = 0) -> None:
        if not 0 <= seed < 1 << 63:
            raise SourceError(f"seed {seed}: expected 0 to 2^63 - 1")
        entries = source.annotations
        rows = np.flatnonzero(entries.splits != TEST)
        labels = entries.labels.copy()
        labels[rows] = mislabelling.apply(labels[rows], len(entries.classes), seed)
        self._source = source
        self.annotations = replace(entries, labels=labels)
        self.kind, self.origin = source.kind, source.origin
        # How it was done is not said: no conclusion may rest on it.
        self.path = Path(f"{source.path.resolve()}, mislabelled on purpose")
        self.ignored_files = source.ignored_files
        self.generator = {
            **(source.generator or {}),
            "mislabelling": str(mislabelling),
            "mislabelling_seed": seed,
        }

    def name(self, index: int) -> str:
        """Return what the other source calls the picture."""
        return self._source.name(index)

    def image(self, index: int) -> Pixels:
        """Have the other source decode the picture."""
        return self._source.image(index)

    def size(self, rows: Ints) -> int:
        """Return the bytes of the files that hold the pictures `rows` (n,)."""
        return self._source.size(rows)

    def digest(self) -> str:
        """Return the digest of the other source's digest and of what was done to its labels."""
        made_from = json.dumps([self._source.digest(), self.generator], sort_keys=True)
        return f"sha256:{hashlib.sha256(made_from.encode()).hexdigest()}"
