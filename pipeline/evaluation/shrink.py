"""The accuracy of a trained network as its test images shrink.

A network for images of 28 pixels gets smaller characters on a canvas of its own size: each image is
averaged over areas to fewer pixels and placed in the middle of paper.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from beton.reader import Reader
from pipeline.errors import UserError
from pipeline.evaluation.evaluate import load_model
from pipeline.evaluation.predict import predict
from pipeline.evaluation.run_dir import RunDir
from pipeline.evaluation.run_files import read_view
from pipeline.loading.batches import DeviceLoader
from pipeline.loading.dataset import Normalize, eval_batch_size, split_indices
from pipeline.runtime.files import read_as

FILE = "shrink.json"
FRACTIONS = (1, 24 / 28, 20 / 28, 16 / 28, 12 / 28, 8 / 28)  # of the side
MAX_IMAGES = 2_000  # of the split: an accuracy within 2 points


@dataclass(frozen=True)
class ShrinkCurve:
    """The accuracy on `samples` images of a split of the dataset, shrunk to each of `sides` pixels.

    The first side is that of the network's input.
    """

    split: str
    samples: int
    sides: tuple[int, ...]
    accuracies: tuple[float, ...]


class Shrunk(nn.Module):
    """A network that sees images of ink (n, 1, h, w) shrunk to `side` × `side`, on paper.

    `normalize` is applied to what remains.
    """

    def __init__(self, network: nn.Module, side: int, normalize: Normalize | None) -> None:
        super().__init__()
        self.network, self.side, self.normalize = network, side, normalize

    def forward(self, ink: Tensor) -> Tensor:
        """Return the logits of the shrunk images."""
        images = shrink(ink, self.side)
        if self.normalize is not None:
            mean, std = images.new_tensor([self.normalize.mean, self.normalize.std])
            images = (images - mean.view(-1, 1, 1)) / std.view(-1, 1, 1)
        logits: Tensor = self.network(images.contiguous(memory_format=torch.channels_last))
        return logits


def shrink(ink: Tensor, side: int) -> Tensor:
    """Return images (n, c, h, w) of ink, averaged to `side` × `side`, in the middle of paper."""
    height, width = ink.shape[2:]
    down, across = (area_weights(size, side).to(ink) for size in (height, width))
    small = down @ ink @ across.T
    top, left = (height - side) // 2, (width - side) // 2
    shrunk = torch.zeros_like(ink)
    shrunk[:, :, top : top + side, left : left + side] = small
    return shrunk


def area_weights(size: int, side: int) -> Tensor:
    """Return the weight of each of `size` pixels in each of `side` means: float32 (side, size)."""
    edges = torch.arange(side + 1, dtype=torch.float64) * size / side
    pixels = torch.arange(size, dtype=torch.float64)
    last = torch.minimum(edges[1:, None], pixels + 1)
    overlap = (last - torch.maximum(edges[:-1, None], pixels)).clamp(min=0)
    return (overlap * side / size).float()


def shrink_curve(run: Path, file: Reader, most: int = MAX_IMAGES) -> ShrinkCurve:
    """Evaluate the network of a run on shrunk images of its dataset: of test, else of validation.

    Raises UserError for a network of other images than grey squares, and for a dataset with neither
    split.
    """
    trained = load_model(run)
    view = trained.view_of(file)
    channels, side, width = view.input_shape
    if channels != 1 or side != width:
        raise UserError(
            f"{run}: got a network for images of {channels} × {side} × {width}, expected grey "
            "squares"
        )
    splits = [split for split in ("test", "validation") if len(split_indices(file, split))]
    if not splits:
        raise UserError(f"{file.path}: has neither a test nor a validation split")
    indices = split_indices(file, splits[0], most)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = trained.network.to(device).to(memory_format=torch.channels_last)
    plain, rows = replace(view, normalize=None), eval_batch_size(view)
    sides = tuple(round(fraction * side) for fraction in FRACTIONS)
    with DeviceLoader(file, indices, plain, rows, device=device) as loader:
        networks = (Shrunk(network, one, view.normalize) for one in sides)
        accuracies = tuple(predict(one, loader).accuracy for one in networks)
    return ShrinkCurve(splits[0], len(indices), sides, accuracies)


def write_shrink_curve(run: Path, file: Reader) -> None:
    """Write the curve of a run to its shrink.json, unless its images have none.

    Images of another shape than grey squares have none, nor has a dataset without images to test
    or validate on.
    """
    channels, height, width = read_view(run).input_shape
    held_out = any(len(split_indices(file, split)) for split in ("test", "validation"))
    if (channels, height) != (1, width) or not held_out:
        return
    RunDir(run).write_json(FILE, asdict(shrink_curve(run, file)))


def read_shrink_curve(run: Path) -> ShrinkCurve | None:
    """Return the curve of a run's shrink.json, None without one."""
    return read_as(run / FILE, ShrinkCurve) if (run / FILE).exists() else None
