"""A run's folder: all that a figure in a report came from. Knows files, concludes nothing."""

import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from pipeline.train import Epoch


class Record:
    """The folder `root`/<time> of a new run, made on construction.

    Files appear in it whole or not at all, but for the growing metrics.jsonl; `root`/latest points
    to it once it is finished.
    """

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.path = _new_folder(root)

    def write_json(self, name: str, value: Mapping[str, Any], indent: int | None = 2) -> None:
        """Write a JSON file; without `indent`, for programs alone."""
        text = json.dumps(value, indent=indent, ensure_ascii=False)
        self._write(name, f"{text}\n".encode())

    def add_epoch(self, epoch: Epoch) -> None:
        """Append a line to metrics.jsonl."""
        with (self.path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(asdict(epoch)) + "\n")

    def write_checkpoint(self, network: nn.Module, state: Mapping[str, Any]) -> None:
        """Write the weights as model.safetensors, and what else training would go on from."""
        weights = {n: tensor.contiguous().cpu() for n, tensor in network.state_dict().items()}
        self._write("model.safetensors", save(weights))
        temporary = self.path / ".state.pt"
        torch.save(dict(state), temporary)
        temporary.replace(self.path / "state.pt")

    def finish(self) -> None:
        """Let `latest` point here."""
        link = self.path.parent / f".latest-{os.getpid()}"
        link.symlink_to(self.path.name)
        link.replace(self.path.parent / "latest")

    def _write(self, name: str, content: bytes) -> None:
        temporary = self.path / f".{name}"
        temporary.write_bytes(content)
        temporary.replace(self.path / name)


def _new_folder(root: Path) -> Path:
    """Make a folder named after the time; two runs of one second get different ones."""
    now = time.strftime("%Y-%m-%d_%H-%M-%S")
    for number in range(1, 1000):
        path = root / (now if number == 1 else f"{now}-{number}")
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path
    raise AssertionError("a thousand runs in one second")
