"""A finished run's network, asked about the pictures of another file; its answers are kept."""

from pathlib import Path

import torch
from safetensors import safe_open

from beton.reader import Reader
from pipeline.artifacts import read_tensors, write_tensors
from pipeline.errors import UserError
from pipeline.evaluate import Answers, answer, load, rows_for
from pipeline.feed import Feed, samples_of


def answers_to(
    run: Path, file: Reader, split: str, keep: Path, device: torch.device, precision: str = "no"
) -> Answers:
    """Return what a run's network answers to a split of a file, in the order of its classes.

    A network that knows more classes answers which of the file's it is. The answers are kept at
    `keep`, and only read if they are there already, to this file. Raises UserError for a folder
    that holds no finished run, classes that the network does not know, and a split without
    pictures.
    """
    asked = {"fingerprint": file.fingerprint(), "split": split, "run": str(run)}
    if keep.exists():
        with safe_open(keep, framework="pt") as kept:
            if kept.metadata() == asked:
                return Answers(**read_tensors(keep))
    trained, names = load(run), file.info["classes"]
    if unknown := [name for name in names if name not in trained.classes]:
        raise UserError(
            f"{run}: does not know {', '.join(unknown)}; it knows {', '.join(trained.classes)}"
        )
    indices = samples_of(file, split)
    if not len(indices):
        raise UserError(f"{file.path}: no pictures in its split {split!r}")
    network = trained.network.to(device).to(memory_format=torch.channels_last)
    view, views = trained.view_of(file), trained.config["recipe"]["views"]
    pages_scales, rows = trained.scales_of(file), rows_for(view)
    with Feed(file, indices, view, rows, device=device, scales=pages_scales) as feed:
        answers = answer(network, feed, precision, views)
    columns = [trained.classes.index(name) for name in names]
    answers = answers._replace(logits=answers.logits[:, columns])
    write_tensors(keep, answers._asdict(), asked)
    return answers
