"""The one family of errors: what is wrong, and where (file, field, sample), in one line.

A missing file stays an `OSError` and a full disk too: those say already what happened. `BetonError`
is for what is in a file, or was meant to go into one.
"""

import os


class BetonError(ValueError):
    """Something in a .beton file, or meant for one, is not as it must be.

    The arguments stay as attributes. `str()` is one line:
    `part1.beton: field 'image', sample 12: pointer to no region (got 99, expected 4096)`.
    """

    def __init__(
        self,
        reason: str,
        *,
        file: str | os.PathLike[str] | None = None,
        field: str | None = None,
        sample: int | None = None,
        got: object = None,
        expected: object = None,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.file = None if file is None else os.fspath(file)
        self.field = field
        self.sample = sample
        self.got = got
        self.expected = expected

    def at(
        self,
        *,
        file: str | os.PathLike[str] | None = None,
        field: str | None = None,
        sample: int | None = None,
    ) -> None:
        """Fill in what the place that raised could not know; what it did say stays."""
        if self.file is None and file is not None:
            self.file = os.fspath(file)
        if self.field is None:
            self.field = field
        if self.sample is None:
            self.sample = sample

    def __str__(self) -> str:
        place = []
        if self.field is not None:
            place.append(f"field {self.field!r}")
        if self.sample is not None:
            place.append(f"sample {self.sample}")
        parts = [self.file, ", ".join(place), self.reason]
        facts = []
        if self.got is not None:
            facts.append(f"got {self.got}")
        if self.expected is not None:
            facts.append(f"expected {self.expected}")
        line = ": ".join(part for part in parts if part)
        return f"{line} ({', '.join(facts)})" if facts else line


class FormatError(BetonError):
    """The structure of a file is wrong: it was not written by a sound writer, or was damaged."""


class ChecksumError(BetonError):
    """Bytes are not those that were written."""


class SampleError(BetonError):
    """A value, or a setting of a field, that cannot be stored."""
