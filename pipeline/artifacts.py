"""Reading what a run's folder keeps; what is damaged is said in a line."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pipeline.errors import UserError


def read_json(run: Path, name: str) -> dict[str, Any]:
    """Return what a JSON file of a run's folder holds. Raises UserError if it holds no object."""
    try:
        value = json.loads((run / name).read_text())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _missing(run / name) from error
    except ValueError as error:
        raise _damaged(run / name, error) from error
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


def _missing(path: Path) -> UserError:
    return UserError(f"{path.parent}: not the folder of a run: it has no {path.name}")


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: damaged: {error}")
