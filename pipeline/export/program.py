"""A trained network with its preprocessing, as one module that can be exported."""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from pipeline.evaluation.evaluate import TrainedModel
from pipeline.evaluation.predict import view_logits
from pipeline.loading.augment import Transforms, transform_images

FITS = {
    "stretch": "stretched to height × width, averaging areas",
    "letterbox": "resized in proportion into height × width, averaging areas, centred, and filled "
    "up with 255",
    "crop": "cut to the largest centred window of the proportion width : height, then resized to "
    "it, averaging areas",
}


class WindowMaxPool(nn.Module):
    """`nn.AdaptiveMaxPool2d` to more than one pixel, in operations that ONNX has."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, channels, *size), the maximum of each window."""
        for axis, count in zip((2, 3), self.size, strict=True):
            side = images.shape[axis]
            windows = [(i * side // count, -(-(i + 1) * side // count)) for i in range(count)]
            parts = [images.narrow(axis, low, high - low).amax(axis) for low, high in windows]
            images = torch.stack(parts, dim=axis)
        return images


def exportable(network: nn.Module) -> nn.Module:
    """Return a network without layers that ONNX lacks: a copy, if it has some."""
    pools = [
        name
        for name, layer in network.named_modules()
        if isinstance(layer, nn.AdaptiveMaxPool2d) and layer.output_size not in (1, (1, 1))
    ]
    if pools:
        network = deepcopy(network)
    for name in pools:
        layer = network.get_submodule(name)
        assert isinstance(layer, nn.AdaptiveMaxPool2d)
        size = layer.output_size
        rows, columns = size if isinstance(size, tuple) else (size, size)
        assert isinstance(rows, int)
        assert isinstance(columns, int)
        network.set_submodule(name, WindowMaxPool((rows, columns)))
    return network


class Program(nn.Module):
    """Turns pages of the canvas size into logits, each page on its own.

    `scale` magnifies every page about the centre of its ink, as `writer_scales` does by writer.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, trained: TrainedModel, scale: float) -> None:
        super().__init__()
        self.view, recipe = trained.view, trained.config.recipe
        self.network, self.scale = exportable(trained.network), scale
        self.views, self.mirrored = recipe.views, recipe.mirrored
        normalize = self.view.normalize
        mean, std = (normalize.mean, normalize.std) if normalize else ((0.0,), (1.0,))
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))
        self.eval()

    def forward(self, pages: Tensor) -> Tensor:
        """Return logits, float32 (N, classes), for pages, uint8 (N, channels, height, width).

        Grey pages have ink in dark greys on paper of grey level 255.
        """
        levels = pages.to(torch.float32)
        images = (255 - levels if self.view.channels == 1 else levels) / 255
        if not self.view.whole:
            affine = torch.eye(2, 3, device=pages.device) / self.scale
            transforms = Transforms(affine.expand(pages.shape[0], 2, 3))
            images = transform_images(images, transforms, self.view.size)
        images = (images - self.mean) / self.std
        return view_logits(self.network, images, self.views, self.mirrored)

    def export(self) -> ExportedProgram:
        """Return the program as a graph for batches of any size."""
        pages = torch.zeros(2, self.view.channels, *self.view.canvas, dtype=torch.uint8)
        with torch.no_grad():
            return torch.export.export(self, (pages,), dynamic_shapes=({0: Dim("batch")},))

    def description(self, classes: tuple[str, ...]) -> dict[str, Any]:
        """Return what a user of the exported program has to know, as JSON values."""
        height, width = self.view.canvas
        grey = self.view.channels == 1
        return {
            "input": "pages: uint8 (batch, channels, height, width)",
            "channels": self.view.channels,
            "height": height,
            "width": width,
            "colours": "grey: dark ink on paper of 255" if grey else "RGB",
            "fit": FITS[self.view.fit],
            "output": "logits: float32 (batch, classes)",
            "classes": list(classes),
        }
