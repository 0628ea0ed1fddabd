"""What a run's folder keeps, written whole or not at all; what is damaged is said in a line."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.errors import UserError

T = TypeVar("T")


def read(path: Path, parse: Callable[[str], T]) -> T:
    """Return what `parse` makes of a text file in a run's folder.

    Raises UserError if it is not there, or if `parse` raises ValueError or TypeError.
    """
    try:
        return parse(path.read_text())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _missing(path) from error
    except (ValueError, TypeError) as error:
        raise _damaged(path, error) from error


def read_json(run: Path, name: str) -> dict[str, Any]:
    """Return what a JSON file of a run's folder holds. Raises UserError if it holds no object."""
    value = read(run / name, json.loads)
    if not isinstance(value, dict):
        raise UserError(f"{run / name}: got a {type(value).__name__}, expected an object")
    return value


def read_tensors(path: Path, device: torch.device | None = None) -> dict[str, Tensor]:
    """Return the tensors of a file in a run's folder. Raises UserError if it holds none."""
    try:
        return load_file(path, device=str(device or "cpu"))
    except FileNotFoundError as error:
        raise _missing(path) from error
    except SafetensorError as error:
        raise _damaged(path, error) from error


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], about: dict[str, str] | None = None
) -> None:
    """Write tensors in the safetensors format, with what they are `about`."""
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    temporary.touch()
    mode = temporary.stat().st_mode  # of new files; safetensors makes one for its owner alone
    save_file({n: t.detach().contiguous().cpu() for n, t in tensors.items()}, temporary, about)
    temporary.chmod(mode)
    temporary.replace(path)


def _missing(path: Path) -> UserError:
    return UserError(f"{path.parent}: not the folder of a run: it has no {path.name}")


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: damaged: {error}")
