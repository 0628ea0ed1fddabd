"""A set's pictures as they lie in its folders: a row for each label that they were given."""

from pathlib import Path

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.figure import Figure
from numpy.typing import NDArray

from beton.reader import Reader
from pipeline.feed import Feed, View, samples_of
from pipeline.report import source_line

ACROSS = 12  # pictures of each label
CELL = 32  # pixels: their side


def draw_folders(file: Reader, path: Path, split: str = "train") -> None:
    """Draw some pictures of every label, evenly spread over the split, as a PNG."""
    labels = file.column("label").metadata
    indices = samples_of(file, split)
    classes, view = file.info["classes"], View.of(file, CELL, 1.0)
    sheet = np.zeros((len(classes) * CELL, ACROSS * CELL), np.float32)
    for row in range(len(classes)):
        own = indices[labels[indices] == row]
        if not len(own):
            continue
        chosen = own[np.unique(np.linspace(0, len(own) - 1, ACROSS).astype(np.int64))]
        with Feed(file, chosen, view, ACROSS, device=torch.device("cpu")) as feed:
            (inputs,) = feed.batches()
        for column, picture in enumerate(inputs.pictures[: len(chosen), 0].numpy()):
            place = slice(row * CELL, (row + 1) * CELL), slice(column * CELL, (column + 1) * CELL)
            sheet[place] = picture
    temporary = path.with_name(f".{path.name}")
    figure = _figure(sheet, classes, source_line(file.info["provenance"]))
    figure.savefig(temporary, format="png", dpi=110, bbox_inches="tight")
    temporary.replace(path)


@rc_context({"font.size": 11, "axes.spines.right": False, "axes.spines.top": False})
def _figure(sheet: NDArray[np.float32], classes: list[str], title: str) -> Figure:
    height, width = sheet.shape
    figure = Figure(figsize=(width / 48 + 1, height / 48))
    axes = figure.subplots()
    axes.imshow(sheet, cmap="gray_r", vmin=0, vmax=1)
    axes.set_title(title, fontsize=10)
    axes.set_yticks((np.arange(len(classes)) + 0.5) * CELL - 0.5, classes)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure
