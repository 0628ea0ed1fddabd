"""Another source's pictures under labels that are wrong on purpose."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from pipeline.sources.base import TEST, Ints, Pixels, Source, SourceError
from pipeline.synth.labels import Mislabelling


class Mislabelled(Source):
    """A source that is mislabelled but for the test set that it comes with, if any.

    The pictures, their names and whether they are real stay the source's own; what it is called
    says, wherever it is shown, what was done to it. Raises SourceError for a seed that makes no
    sense.
    """

    looks_for = "another source"

    def __init__(self, source: Source, mislabelling: Mislabelling, seed: int = 0) -> None:
        if not 0 <= seed < 1 << 63:
            raise SourceError(f"seed {seed}: expected 0 to 2^63 - 1")
        entries = source.entries
        rows = np.flatnonzero(entries.given != TEST)
        labels = entries.labels.copy()
        labels[rows] = mislabelling.apply(labels[rows], len(entries.classes), seed)
        self._source = source
        self.entries = replace(entries, labels=labels)
        self.kind, self.origin = source.kind, source.origin
        # How it was done is not said: no conclusion may rest on it.
        self.path = Path(f"{source.path.resolve()}, mislabelled on purpose")
        self.passed_over = source.passed_over
        self.generator = {
            **(source.generator or {}),
            "mislabelling": str(mislabelling),
            "mislabelling_seed": seed,
        }

    def name(self, index: int) -> str:
        """Return what the other source calls the picture."""
        return self._source.name(index)

    def picture(self, index: int) -> Pixels:
        """Have the other source decode the picture."""
        return self._source.picture(index)

    def size(self, rows: Ints) -> int:
        """Return the bytes of the files that hold the pictures `rows` (n,)."""
        return self._source.size(rows)

    def digest(self) -> str:
        """Return the digest of the other source's digest and of what was done to its labels."""
        made_from = json.dumps([self._source.digest(), self.generator], sort_keys=True)
        return f"sha256:{hashlib.sha256(made_from.encode()).hexdigest()}"
