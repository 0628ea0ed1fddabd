"""Files of a run directory: each appears whole or not at all; a damaged one is a UserError.

Files are written under a temporary name and renamed. JSON becomes the dataclass that was written,
checked field by field (msgspec); tensors are in the safetensors format.
"""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.errors import UserError

T = TypeVar("T")


def convert(value: object, kind: type[T]) -> T:
    """Make a dataclass of plain data. Raises ValueError that names the field, got and expected.

    A field that the dataclass does not have is an error too: it may be misspelt.
    """
    try:
        made = msgspec.convert(value, kind, dec_hook=lambda kind, value: kind(value))
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from error
    _check_fields(value, made, "$")
    return made


def _check_fields(value: Any, made: object, where: str) -> None:
    if is_dataclass(made):
        if unknown := value.keys() - {field.name for field in fields(made)}:
            raise ValueError(f"Object contains unknown field `{min(unknown)}` - at `{where}`")
        for name, one in value.items():
            _check_fields(one, getattr(made, name), f"{where}.{name}")
    elif isinstance(made, dict):
        for name, one in made.items():
            _check_fields(value[name], one, f"{where}.{name}")
    elif isinstance(made, list | tuple):
        for old, new in zip(value, made, strict=True):
            _check_fields(old, new, f"{where}[]")


def read(path: Path, parse: Callable[[str], T]) -> T:
    """Return the result of `parse` on a text file of a run directory.

    Raises UserError if the file is missing, or if `parse` raises ValueError or TypeError.
    """
    try:
        return parse(path.read_text())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _missing(path) from error
    except (ValueError, TypeError) as error:
        raise _damaged(path, error) from error


def read_as(path: Path, kind: type[T]) -> T:
    """Return a JSON file of a run directory as a dataclass. Raises UserError if it does not fit."""
    return read(path, lambda text: convert(json.loads(text), kind))


def read_json(run: Path, name: str) -> dict[str, Any]:
    """Return the object in a JSON file of a run directory. Raises UserError for anything else."""
    value = read(run / name, json.loads)
    if not isinstance(value, dict):
        raise UserError(f"{run / name}: got a {type(value).__name__}, expected an object")
    return value


def read_tensors(path: Path, device: torch.device | None = None) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file. Raises UserError if it is missing or damaged."""
    try:
        return load_file(path, device=str(device or "cpu"))
    except FileNotFoundError as error:
        raise _missing(path) from error
    except SafetensorError as error:
        raise _damaged(path, error) from error


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Write tensors and their metadata as a safetensors file."""
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    temporary.touch()
    mode = temporary.stat().st_mode  # of new files; safetensors lets only the owner read
    tensors = {name: t.detach().contiguous().cpu() for name, t in tensors.items()}
    save_file(tensors, temporary, metadata)
    temporary.chmod(mode)
    temporary.replace(path)


def _missing(path: Path) -> UserError:
    return UserError(f"{path.parent}: not a run directory: it has no {path.name}")


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: damaged: {error}")
