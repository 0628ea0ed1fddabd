"""Checkpoints, from which a killed training resumes: each is complete or does not exist.

A checkpoint is a folder `root`/step-NNNNNNNN with model.safetensors (the weights to evaluate),
state.json and state.safetensors (all other state), score.json, and last SHA256SUMS, the digests of
these files. It is written under another name, synced and renamed. The last few are kept, and the
best, to which the link `root`/best points.
"""

import io
import json
import re
import stat
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import msgspec
import torch
from torch import Tensor

from beton.errors import printable
from pipeline.errors import UserError, check_range
from pipeline.evaluation.metrics import EpochMetrics
from pipeline.runtime.files import (
    DIGESTS,
    convert,
    damaged,
    digests,
    memory,
    read,
    read_bytes,
    read_tensors,
    seal,
    tensor_bytes,
)
from pipeline.runtime.launch import is_main
from pipeline.runtime.storage import Folder, refused
from pipeline.runtime.trees import pack, unpack

STEP = re.compile(r"step-\d{8}")
LENGTH = 13  # of such a name
REPLACED = (
    ".replaced"  # ends the name of a checkpoint while another one of its step takes its place
)
FILES = {"model.safetensors", "state.json", "state.safetensors", "score.json"}
# What the state of a training holds, and more: tensors and plain data.
Count = Annotated[int, msgspec.Meta(ge=0)]
KINDS: dict[str, Any] = {
    "averaged": Count,
    "batch": Count,
    "batches": Count,
    "losses": list[float],
    "history": list[EpochMetrics],
    "seconds": dict[str, float],
    "optimizer": dict[str, Any],
}


@dataclass
class Checkpoints:
    """The checkpoints in the folder `root`, which need not exist yet, unlike the folder around it.

    One is due at the end of each epoch, after every `every_steps` steps (0: never) and after
    `every_minutes` minutes (0: never). The last `keep` and the best are kept. Raises UserError for
    numbers out of range; methods raise it for links in the place of folders and files.
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
        """Write the checkpoint of a step; `state` is plain data and tensors.

        Checkpoints of later steps are of a run that has since resumed from an earlier one, and are
        removed. One that cannot be removed stays, with a warning. Raises OSError with the path and
        the size of a file that cannot be written, and if the run directory is gone; earlier
        checkpoints then stay as they are.
        """
        name, new = f"step-{step:08d}", ".unfinished"
        with Folder(self.root.parent) as run, run.folder(self.root.name, create=True) as root:
            root.remove(new)  # of a process that was killed
            try:
                self._write(root.folder(new, create=True), weights, state, score)
                if root.kind(name) is not None:
                    root.remove(name + REPLACED)
                    root.rename(name, name + REPLACED)
                root.rename(new, name)
            except BaseException:
                root.remove(new)
                raise
            root.sync()
            root.remove(name + REPLACED)
            self._saved = time.monotonic()
            best = self._best(root, name)
            if best is None or (score is not None and score >= best[1]):
                root.remove("best")
                best = None
            if best is None and score is not None:
                root.point("best", name)
                best = name, score
            names = _steps(root)
            end = names.index(name) + 1
            kept = {*names[max(end - self.keep, 0) : end], best and best[0]}
            for other in names:
                if other not in kept:
                    _remove_old(root, other)
        return self.root / name

    def all(self) -> list[Path]:
        """Return the checkpoints, oldest first."""
        if not self.root.parent.is_dir():
            return []
        with Folder(self.root.parent) as run:
            if run.kind(self.root.name) is None:
                return []
            with run.folder(self.root.name) as root:
                return [self.root / name for name in _steps(root)]

    def last(self, device: torch.device) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Load weights to `device` and state of the last checkpoint, None if there is none.

        A damaged one gives way to the one before it, and a line on stderr names it. Raises
        UserError if all are damaged.
        """
        errors: list[UserError] = []
        for path in reversed(self.all()):
            try:
                loaded = _load(path, device)
            except UserError as error:
                errors.append(error)
                continue
            for line in errors:
                _warn(f"{line}; resumes from {path.name} instead")
            return loaded
        if errors:
            raise UserError(
                f"{errors[0]}; no checkpoint is whole: delete {self.root} to train from the start"
            ) from errors[0]
        return None

    def _write(
        self,
        folder: Folder,
        weights: Mapping[str, Tensor],
        state: Mapping[str, Any],
        score: float | None,
    ) -> None:
        plain, tensors = pack(dict(state))
        with folder:
            folder.write("model.safetensors", tensor_bytes(weights))
            folder.write("state.safetensors", tensor_bytes(tensors))
            folder.write("state.json", json.dumps(plain).encode())
            folder.write("score.json", json.dumps(score).encode())
            seal(folder)

    def _best(self, root: Folder, current: str) -> tuple[str, float] | None:
        """Return the name and score of the best checkpoint up to the current one.

        None without one, and for one without a readable score.
        """
        # A copy of the run without links has a folder in the place of the link.
        copied = root.kind("best") == stat.S_IFDIR
        name = "best" if copied else root.pointed("best", STEP)
        if name is None or root.kind(name) is None or (not copied and name > current):
            return None
        try:
            score = read(self.root / name / "score.json", _score)
        except UserError as error:
            _warn(f"{error}; it is not the best checkpoint any more")
            return None
        return None if score is None else (name, score)


def _remove_old(root: Folder, name: str) -> None:
    """Remove a checkpoint, or leave what another program holds open: NFS keeps that as .nfs*."""
    try:
        root.remove(name)
    except OSError as error:
        _warn(f"{root.path / name}: cannot be removed: {error.strerror}")


def _score(text: str) -> float | None:
    value = json.loads(text)
    return None if value is None else float(value)


def _steps(root: Folder) -> list[str]:
    """Return the names of checkpoints, oldest first. Raises UserError for a link among them."""
    names = [n for n in root.names() if STEP.fullmatch(n.removesuffix(REPLACED))]
    kinds = {name: root.kind(name) for name in names}
    for name, kind in kinds.items():
        if kind == stat.S_IFLNK:
            raise refused(root.path / name, kind, "a folder")
    # During a replacement, the old checkpoint of a step comes before the new one.
    folders = [name for name in names if kinds[name] == stat.S_IFDIR]
    return sorted(folders, key=lambda name: (name.removesuffix(REPLACED), len(name) == LENGTH))


def _load(path: Path, device: torch.device) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Load a checkpoint. Raises UserError if it is damaged."""
    with Folder(path) as folder:
        listed, names = digests(folder), folder.names()
    if listed and listed.keys() != FILES:
        raise UserError(f"{path / DIGESTS}: damaged: it does not list the files of a checkpoint")
    weights = read_tensors(path / "model.safetensors", device)
    if "state.pt" in names:
        state = _read_pickle(path / "state.pt")
    else:
        tensors = read_tensors(path / "state.safetensors")
        state = read(path / "state.json", lambda text: unpack(json.loads(text), tensors))
    try:
        _check_state(state)
    except ValueError as error:
        raise damaged(path, error) from error
    read(path / "score.json", _score)
    if not listed:
        _warn(f"{path}: has no {DIGESTS}: damage to its weights cannot be seen")
    return weights, state


def _read_pickle(path: Path) -> Any:
    """Return the state.pt of an earlier version; torch loads tensors and plain data only."""
    content = read_bytes(path, memory())
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # of any kind, for damaged bytes
        raise damaged(path, ValueError("torch cannot load it")) from error


def _check_state(state: Any) -> None:
    """Raise ValueError for a state whose values are not of the `KINDS`."""
    if not isinstance(state, dict):
        raise ValueError(f"got a {type(state).__name__}, expected a dictionary")
    for name, kind in KINDS.items():
        if name not in state:
            raise ValueError(f"the state has no {name}")
        try:
            convert(state[name], kind)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    if state["batch"] > state["batches"]:
        raise ValueError(f"batch: got {state['batch']} of {state['batches']} an epoch")
    local = state.get("local", state.get("sums"))  # earlier versions have the sums alone
    if not isinstance(local, Tensor):
        raise ValueError("the state has no local values")


@contextmanager
def errors_of_restoring(root: Path) -> Iterator[None]:
    """Raise UserError where a training cannot take up the state of a checkpoint in `root`."""
    try:
        yield
    except UserError:
        raise
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as e:
        reason = printable(str(e).partition("\n")[0])
        raise UserError(f"{root}: its state does not fit this training: {reason}") from e


def _warn(line: str) -> None:
    if is_main():
        print(f"warning: {line}", file=sys.stderr)
