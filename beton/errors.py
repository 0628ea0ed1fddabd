"""Errors of .beton files: one line that says what is wrong, and where (file, field, sample).

`BetonError` is about the content of a file. A missing file or a full disk raises `OSError`.
"""

import os
from contextlib import AbstractContextManager

StrPath = str | os.PathLike[str]


class BetonError(ValueError):
    """Invalid content of a .beton file, or a value that cannot be written to one.

    The arguments are attributes. `str()` is one line:
    `part1.beton: field 'image', sample 12: not bytes (got str, expected bytes)`.
    """

    def __init__(
        self,
        reason: str,
        *,
        file: StrPath | None = None,
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
        self, *, file: StrPath | None = None, field: str | None = None, sample: int | None = None
    ) -> None:
        """Add the location to an error; values that it already has stay."""
        if self.file is None and file is not None:
            self.file = os.fspath(file)
        if self.field is None:
            self.field = field
        if self.sample is None:
            self.sample = sample

    def __str__(self) -> str:
        field = None if self.field is None else repr(self.field)
        place = _listed(field=field, sample=self.sample)
        facts = _listed(got=self.got, expected=self.expected)
        line = ": ".join(part for part in (self.file, place, self.reason) if part)
        return printable(f"{line} ({facts})" if facts else line)


def printable(text: str) -> str:
    """Return a text with escapes for newlines and for all that a terminal would obey."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def _listed(**parts: object) -> str:
    return ", ".join(f"{name} {value}" for name, value in parts.items() if value is not None)


class FormatError(BetonError):
    """An invalid file structure or payload: the file is damaged, or its writer was faulty."""


class ChecksumError(BetonError):
    """Bytes that changed after they were written."""


class SampleError(BetonError):
    """A value that cannot be stored, or an invalid argument of a field or of `write`."""


class _Located:
    """A context manager as a class: it enters and leaves a block faster than a generator."""

    def __init__(self, file: StrPath | None, field: str | None, sample: int | None) -> None:
        self._place = file, field, sample

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, BetonError):
            file, field, sample = self._place
            error.at(file=file, field=field, sample=sample)


def located(
    *, file: StrPath | None = None, field: str | None = None, sample: int | None = None
) -> AbstractContextManager[None]:
    """Add the location to every BetonError of the block."""
    return _Located(file, field, sample)
