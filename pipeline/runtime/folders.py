"""Folders that a command writes: each appears whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import UserError

MARK = ".inkrun"  # the file that names the command which wrote a folder


@contextmanager
def output_folder(path: Path, command: str) -> Iterator[Path]:
    """Yield an empty folder that becomes `path` at the end; after an error, it is removed.

    A folder that the same `command` wrote before is replaced, and an empty one. Raises UserError,
    before anything is written, if `path` is a file or has other content.
    """
    path = path.resolve()
    _check(path, command)
    made = [one for one in path.parents if not one.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    new, old = (path.with_name(f".{path.name}-{kind}-{os.getpid()}") for kind in ("new", "old"))
    new.mkdir()
    try:
        yield new
        (new / MARK).write_text(f"{command}\n")
        _check(path, command)
        if path.exists():
            path.rename(old)
        new.rename(path)
    except BaseException:
        if old.exists() and not path.exists():
            old.rename(path)
        shutil.rmtree(new, ignore_errors=True)
        for folder in made:
            folder.rmdir()
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _check(path: Path, command: str) -> None:
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    mark = path / MARK
    if not mark.is_file() or mark.read_text(errors="replace").strip() != command:
        got = "a folder that it did not write" if path.is_dir() else "a file"
        raise UserError(f"{path}: got {got}, expected a new folder for {command}")
