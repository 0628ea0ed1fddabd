"""Checkpoints, from which a killed training resumes: each is complete or does not exist.

A checkpoint is a folder `root`/step-NNNNNNNN with model.safetensors (the weights to evaluate),
state.pt (all other state) and score.json. It is written under another name, synced and renamed. The
last few are kept, and the best, to which the link `root`/best points.
"""

import json
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from pipeline.errors import UserError, check_range
from pipeline.runtime.files import read, read_tensors, write_tensors


@dataclass
class Checkpoints:
    """The checkpoints in the folder `root`, which need not exist yet.

    One is due at the end of each epoch, after every `every_steps` steps (0: never) and after
    `every_minutes` minutes (0: never). The last `keep` and the best are kept. Raises UserError for
    numbers out of range.
    """

    root: Path
    every_steps: int = 0
    every_minutes: float = 5.0
    keep: int = 2
    _saved: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        check_range("checkpoints, every_steps", self.every_steps, 0)
        if not self.every_minutes >= 0:
            raise UserError(
                f"checkpoints, every_minutes: got {self.every_minutes}, expected at least 0"
            )
        check_range("checkpoints, keep", self.keep, 1)

    def due(self, step: int) -> bool:
        """Return whether a checkpoint is due after this step, in the middle of an epoch."""
        return bool(self.every_steps and step % self.every_steps == 0)

    def late(self) -> bool:
        """Return whether the last save was too long ago; only the process that saves knows."""
        return time.monotonic() - self._saved > 60 * self.every_minutes > 0

    def save(
        self,
        step: int,
        weights: Mapping[str, Tensor],
        state: Mapping[str, Any],
        score: float | None = None,
    ) -> Path:
        """Write the checkpoint of a step; `state` is plain data and tensors."""
        path = self.root / f"step-{step:08d}"
        temporary = self.root / ".unfinished"
        shutil.rmtree(temporary, ignore_errors=True)  # of a process that was killed
        temporary.mkdir(parents=True)
        write_tensors(temporary / "model.safetensors", weights)
        torch.save(dict(state), temporary / "state.pt")
        (temporary / "score.json").write_text(json.dumps(score))
        for file in (*temporary.iterdir(), temporary):
            _sync(file)
        if path.exists():  # from before a resume
            shutil.rmtree(path)
        temporary.rename(path)
        _sync(self.root)
        self._saved = time.monotonic()
        best = self.root / "best"
        if score is not None and (not best.exists() or score >= _score(best)):
            if best.is_dir() and not best.is_symlink():  # a copy of the run without links
                shutil.rmtree(best)
            link = self.root / ".best"
            link.unlink(missing_ok=True)
            link.symlink_to(path.name)
            link.replace(best)
        for old in self.all()[: -self.keep]:
            if old.name != (best.readlink().name if best.is_symlink() else None):
                shutil.rmtree(old)
        return path

    def all(self) -> list[Path]:
        """Return the checkpoints, oldest first."""
        return sorted(path for path in self.root.glob("step-????????") if path.is_dir())

    def last(self, device: torch.device) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Load weights and state of the last checkpoint to `device`, None if there is none.

        Raises UserError if it is damaged.
        """
        if not (paths := self.all()):
            return None
        last = paths[-1]
        weights = read_tensors(last / "model.safetensors", device)
        try:
            state = torch.load(last / "state.pt", map_location=device, weights_only=True)
        except (RuntimeError, EOFError, KeyError, FileNotFoundError, UnpicklingError) as error:
            raise UserError(
                f"{last / 'state.pt'}: damaged; delete {last} to resume from the one before it"
            ) from error
        return weights, state


def _score(path: Path) -> float:
    return read(path / "score.json", lambda text: float(json.loads(text)))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
