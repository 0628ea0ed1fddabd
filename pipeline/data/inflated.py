"""Unnamed temporary files of inflated data, which the processes of a preparation share.

The process that reads a compressed source first inflates it. Its workers open the same file through
/proc, so that there is one copy. The file has no name: nothing stays of it when the processes end,
even if they are killed.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import IO, cast

from beton.format.storage import naming, temporary_folder

_beside: ContextVar[Path | None] = ContextVar("beside", default=None)


@contextmanager
def inflating_into(folder: Path) -> Iterator[None]:
    """Place temporary files in a folder, or in the one above it that exists, unless TMPDIR is set.

    The system's temporary folder is often a small disk, or memory.
    """
    token = _beside.set(folder)
    try:
        yield
    finally:
        _beside.reset(token)


def temporary_place() -> str:
    """Return the folder of temporary files."""
    folder = _beside.get()
    if folder is None or os.environ.get("TMPDIR"):
        return tempfile.gettempdir()
    return str(next(path for path in (folder, *folder.absolute().parents) if path.is_dir()))


def temporary_file() -> IO[bytes]:
    """Return an empty unnamed file. Raises OSError with the folder's path if its disk is full."""
    folder = temporary_place()
    with naming(folder):
        return cast(IO[bytes], tempfile.TemporaryFile(dir=folder))


def working_folder() -> AbstractContextManager[Path]:
    """Return a context of an empty folder among the temporary files, which is removed at the end.

    Removes those of killed processes first.
    """
    return temporary_folder(Path(temporary_place()) / "inkrun")


def shared_path(file: IO[bytes] | None) -> str | None:
    """Return the path under which another process can open an unnamed file; None for others."""
    if file is None or os.fstat(file.fileno()).st_nlink:
        return None
    return f"/proc/{os.getpid()}/fd/{file.fileno()}"


def open_shared(path: str | None) -> IO[bytes] | None:
    """Open the file of another process; None if there is none, or the system does not allow it."""
    try:
        return None if path is None else Path(path).open("rb", buffering=0)
    except OSError:  # this process then inflates a copy of its own
        return None
