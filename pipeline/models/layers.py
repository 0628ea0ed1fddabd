"""A network's layers as a table: shapes, parameters and arithmetic."""

from copy import deepcopy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pipeline.models.blocks import Shape


class LayerRow(NamedTuple):
    """A layer of a network for one image.

    `name` is its place, such as "body.0.1", and `kind` its class, such as "Conv2d". `output` is the
    shape of its result without the batch, `parameters` the number of trained ones. `multiply_adds`
    are those of convolutions and linear layers; other layers count as none.
    """

    name: str
    kind: str
    output: tuple[int, ...]
    parameters: int
    multiply_adds: int


def layer_table(network: nn.Module, shape: Shape) -> tuple[LayerRow, ...]:
    """Return the layers of a network in the order in which an image of a shape passes them.

    They are those of the train mode. The network stays unchanged, and nothing is computed.
    """
    outline = deepcopy(network).to("meta").train()
    rows: list[LayerRow] = []

    def record(name: str, layer: nn.Module, output: Tensor) -> None:
        parameters = sum(parameter.numel() for parameter in layer.parameters())
        shape = tuple(output.shape[1:])
        kind = type(layer).__name__
        rows.append(LayerRow(name, kind, shape, parameters, _multiply_adds(layer, output)))

    for name, layer in outline.named_modules():
        if not any(layer.children()):
            layer.register_forward_hook(
                lambda layer, _, output, name=name: record(name, layer, output)
            )
    with torch.no_grad():
        outline(torch.empty(2, *shape, device="meta"))
    return tuple(rows)


def _multiply_adds(layer: nn.Module, output: Tensor) -> int:
    """Return the multiply-adds of a layer for one image, from its kernel or matrix, if any."""
    positions = output[0, 0].numel()
    weights = (*layer.parameters(), *layer.buffers())
    return sum(weight.numel() * positions for weight in weights if weight.ndim > 1)
