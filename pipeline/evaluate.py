"""What a trained network answers, and what that is worth on pictures it has not seen."""

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from beton.reader import Reader
from pipeline import models
from pipeline.artifacts import read_json, read_tensors
from pipeline.errors import UserError
from pipeline.feed import Feed, View, open_set, samples_of
from pipeline.hardware import Precision, precision_for
from pipeline.metrics import Scores, score
from pipeline.prepare import prepare
from pipeline.sources import open_source
from pipeline.writers import adapted, scales, writers_of

ROWS, PIXELS = 256, 1 << 22  # at a time, where no gradient needs memory


def rows_for(view: View) -> int:
    """Return how many pictures to ask about at a time."""
    return max(1, min(ROWS, PIXELS // view.pixels))


class Answers(NamedTuple):
    """A network's answers, in the file's order and on the host.

    `ids` int64 (N,), `labels` int64 (N,), `logits` float32 (N, C).
    """

    ids: Tensor
    labels: Tensor
    logits: Tensor


def answer(
    network: nn.Module,
    feed: Feed,
    precision: str = "no",
    views: int = 1,
    gather: Callable[[Tensor], Tensor] = lambda tensor: tensor,
) -> Answers:
    """Ask the network about every sample of a feed, each exactly once.

    With several `views`, the logits are those of the mean over the picture slanted by so many even
    steps. `gather` joins the rows of all processes; padding goes by the validity mask after that.
    """
    was_training = network.training
    network.eval()
    parts = []
    with torch.no_grad():
        for inputs in feed.batches():
            with torch.autocast(feed.device.type, torch.bfloat16, precision == "bf16"):
                logits = _over_views(network, inputs.pictures, views)
            ids = torch.from_numpy(inputs.ids).to(feed.device)
            parts.append((ids, inputs.labels, logits.float(), inputs.valid))
    network.train(was_training)
    ids, labels, logits, valid = (gather(torch.cat(column)) for column in zip(*parts, strict=True))
    order = ids[valid].argsort()
    return Answers(*(column[valid][order].cpu() for column in (ids, labels, logits)))


def answer_by_writer(
    network: nn.Module, feed: Feed, writers: NDArray[np.int64], precision: str = "no"
) -> Answers:
    """Ask the network about every sample of a feed, adapted to each one's writer.

    The feed's samples must come writer by writer; `writers` (samples of the file,) says who that
    is, -1 where nobody knows: there it answers as it is. Raises ValueError for mixed writers.
    """
    network.eval()
    parts, seen = [], set[int]()
    rows = (
        (inputs, row) for inputs in feed.batches() for row in np.flatnonzero(inputs.valid.cpu())
    )
    with torch.no_grad():
        for writer, group in groupby(rows, key=lambda pair: int(writers[pair[0].ids[pair[1]]])):
            if writer in seen:
                raise ValueError(f"feed: got writer {writer} in two places, expected in one")
            seen.add(writer)
            pairs = list(group)
            pictures = torch.stack([inputs.pictures[row] for inputs, row in pairs])
            pictures = pictures.contiguous(memory_format=torch.channels_last)
            adaptation = adapted(network, len(pairs)) if writer >= 0 else nullcontext()
            with adaptation, torch.autocast(feed.device.type, torch.bfloat16, precision == "bf16"):
                logits = network(pictures).float().cpu()
            ids = torch.tensor([int(inputs.ids[row]) for inputs, row in pairs])
            labels = torch.stack([inputs.labels[row] for inputs, row in pairs]).cpu()
            parts.append((ids, labels, logits))
    ids, labels, logits = (torch.cat(column) for column in zip(*parts, strict=True))
    order = ids.argsort()
    return Answers(ids[order], labels[order], logits[order])


SLANT = 0.1  # of the outermost views, as a tangent


def _over_views(network: nn.Module, pictures: Tensor, views: int) -> Tensor:
    if views == 1:
        alone: Tensor = network(pictures)
        return alone
    chances = []
    for slant in torch.linspace(-SLANT, SLANT, views).tolist():
        theta = pictures.new_tensor([[1.0, slant, 0.0], [0.0, 1.0, 0.0]]).expand(
            len(pictures), 2, 3
        )
        grid = F.affine_grid(theta, list(pictures.shape), align_corners=False)
        slanted = F.grid_sample(pictures, grid, align_corners=False)
        chances.append(network(slanted).float().softmax(dim=1))
    return torch.stack(chances).mean(dim=0).log()


@dataclass(frozen=True)
class Trained:
    """A run's network, on the host, and what must be known to use it."""

    network: nn.Module
    classes: tuple[str, ...]
    view: View
    config: dict[str, Any]

    def view_of(self, file: Reader) -> View:
        """Return what it is to see of a file's pages: of whole ones, only what it was trained on.

        Else the canvas has the file's own proportions, so that nothing is stretched.
        """
        if self.view.whole:
            return self.view
        return View.of(file, self.view.size, self.config["recipe"]["window"])

    def scales_of(self, file: Reader) -> NDArray[np.float32] | None:
        """Return how much larger it is to see each of a file's pages, where its recipe says so."""
        hand = self.config["recipe"]["hand"]
        return scales(file, hand) if hand else None


def load(run: Path) -> Trained:
    """Read the checkpoint of a run folder.

    Raises UserError if the folder holds no finished run, or one of another version's network.
    """
    config, view = (read_json(run, f"{name}.json") for name in ("config", "view"))
    weights = read_tensors(run / "model.safetensors")
    if missing := {"classes", "network", "recipe", "provenance"} - config.keys():
        raise UserError(f"{run}: its config.json has no {', '.join(sorted(missing))}")
    classes = tuple(config["classes"])
    network = models.build(config["network"], len(classes), seed=0)
    load_weights(network, weights, run)
    view["canvas"] = tuple(view["canvas"])
    return Trained(network, classes, View(**view), config)


def load_weights(network: nn.Module, weights: Mapping[str, Tensor], run: Path) -> None:
    """Give a network the weights of a run. Raises UserError if they are of another network."""
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(
            f"{run}: its weights are of another network than this version's; train it anew"
        ) from error


@dataclass(frozen=True)
class Evaluation:
    """A trained network's scores on the pictures of `provenance`.

    `learned_from` is the provenance of what it was trained on, `auxiliary` of what it learned from
    besides, if anything. Where writers are known and the recipe goes by them, `scores` are of the
    network adapted to each writer's pages, all of them and no label, and `unadapted` of the network
    as it was trained. `skipped` are the names of pictures left out, with reasons.
    """

    scores: Scores
    unadapted: Scores | None
    provenance: dict[str, Any]
    learned_from: dict[str, Any]
    auxiliary: dict[str, Any] | None = None
    skipped: Sequence[tuple[str, str]] = ()

    @property
    def seen(self) -> bool:
        """Whether it was trained on pictures of the same source."""
        learned = [one["digest"] for one in (self.learned_from, self.auxiliary) if one]
        return self.provenance["digest"] in learned


def evaluate(
    trained: Trained,
    source: Path,
    *,
    split: str = "all",
    device: torch.device | None = None,
    precision: Precision = "auto",
    skip_bad: bool = False,
) -> Evaluation:
    """Score a network on the pictures at `source`: a .beton file, or anything that can be prepared.

    `split` is "train", "validation", "test" or "all". Raises ValueError, in one line, for a source
    that cannot be read or has classes that the network does not know.
    """
    if source.suffix == ".beton":
        return _evaluate_file(trained, source, source, split, device, precision)
    with tempfile.TemporaryDirectory(prefix="inkrun-") as folder:
        file = Path(folder) / "source.beton"
        workers = len(os.sched_getaffinity(0))
        prepare(open_source(source, classes=1), file, workers=workers, skip_bad=skip_bad)
        return _evaluate_file(trained, file, source, split, device, precision)


def _evaluate_file(
    trained: Trained,
    path: Path,
    source: Path,
    split: str,
    device: torch.device | None,
    wish: Precision,
) -> Evaluation:
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precision = precision_for(device, wish)
    with open_set(path) as file:
        names = file.info["classes"]
        if unknown := sorted(set(names) - set(trained.classes)):
            raise UserError(
                f"{source}: classes that the network does not know: {', '.join(unknown)}; "
                f"it knows {', '.join(trained.classes)}"
            )
        network = trained.network.to(device).to(memory_format=torch.channels_last)
        indices = samples_of(file, split)
        if not len(indices):
            raise UserError(f"{source}: no pictures in its split {split!r}")
        view, views = trained.view_of(file), trained.config["recipe"]["views"]
        writers, pages_scales = writers_of(file), trained.scales_of(file)
        rows = rows_for(view)
        with Feed(file, indices, view, rows, device=device, scales=pages_scales) as feed:
            answers = answer(network, feed, precision, views)
        by_writer = None
        if pages_scales is not None and (writers[indices] >= 0).any():
            indices = indices[np.argsort(writers[indices], kind="stable")]
            with Feed(file, indices, view, rows, device=device, scales=pages_scales) as feed:
                by_writer = answer_by_writer(network, feed, writers, precision)
        number = torch.tensor([trained.classes.index(name) for name in names])
        alone, *adapted_scores = (
            score(some.logits, number[some.labels], trained.classes)
            for some in (answers, by_writer)
            if some is not None
        )
        provenance = file.info["provenance"]
        skipped = file.info.get("prepare", {}).get("skipped", ())
    scores = adapted_scores[0] if adapted_scores else alone
    auxiliary = trained.config.get("auxiliary")
    return Evaluation(
        scores,
        alone if adapted_scores else None,
        provenance,
        trained.config["provenance"],
        auxiliary and auxiliary["provenance"],
        skipped,
    )
