"""A network's layers as a table: shapes, parameters and arithmetic."""

from copy import deepcopy
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pipeline.models.blocks import Shape


class LayerRow(NamedTuple):
    """A layer of a network for one image.

    `name` is its place, such as "body.0.1", and `kind` its class, such as "Conv2d". `output` is the
    shape of its result without the batch, `parameters` the number of its own, trained or frozen; a
    layer that is used again has none the second time. `multiply_adds` are those of convolutions and
    matrix products; other operations count as none.
    """

    name: str
    kind: str
    output: tuple[int, ...]
    parameters: int
    multiply_adds: int


def layer_table(network: nn.Module, shape: Shape) -> tuple[LayerRow, ...]:
    """Return the layers of a network in the order in which an image of a shape leaves them.

    They are those of the train mode. A module that contains layers has a row where it has
    parameters or arithmetic of its own. The network stays unchanged, and nothing is computed.
    """
    outline = deepcopy(network).to("meta").train()
    originals = dict(network.named_modules())
    rows: list[LayerRow] = []
    counter = FlopCounterMode(display=False)
    open_modules: list[_OpenModule] = []
    counted: set[nn.Parameter] = set()

    def enter(*_: Any) -> None:
        open_modules.append(_OpenModule(counter.get_total_flops()))

    def leave(name: str, module: nn.Module, output: Tensor) -> None:
        opened = open_modules.pop()
        flops = counter.get_total_flops() - opened.flops_before
        if open_modules:
            open_modules[-1].flops_inside += flops
        # Those of the network itself: the outline does not share what the network shares.
        own = {*originals[name].parameters(recurse=False)} - counted
        counted.update(own)
        parameters = sum(parameter.numel() for parameter in own)
        # Two floating-point operations are one multiply-add; there are two images.
        multiply_adds = (flops - opened.flops_inside) // (2 * BATCH)
        is_layer = not any(module.children()) and not isinstance(module, nn.Sequential)
        if parameters or multiply_adds or is_layer:
            size, kind = tuple(output.shape[1:]), type(module).__name__
            rows.append(LayerRow(name, kind, size, parameters, multiply_adds))

    for name, module in outline.named_modules():
        module.register_forward_pre_hook(enter)
        module.register_forward_hook(
            lambda module, _, output, name=name: leave(name, module, output)
        )
    with torch.no_grad(), counter:
        outline(torch.empty(BATCH, *shape, device="meta"))
    return tuple(rows)


BATCH = 2  # images: batch normalisation needs several


@dataclass
class _OpenModule:
    """A module that computes: the operations before it, and those of the modules inside it."""

    flops_before: int
    flops_inside: int = 0
