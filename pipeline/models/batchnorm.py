"""Adaptive batch normalisation."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

PRIOR = 62  # pages that the training's statistics count for


@contextmanager
def adapted_batchnorm(network: nn.Module, pages: int) -> Iterator[None]:
    """Let batch normalisation go by what it learned and by the batch that it sees, of one writer.

    The batch's `pages` count as many, what was learned counts for 62. Afterwards, all is as before.
    """
    share = pages / (pages + PRIOR)
    layers = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    learned = [{n: t.clone() for n, t in layer.named_buffers()} for layer in layers]

    def blend(index: int, inputs: tuple[Tensor, ...]) -> None:
        layer, before = layers[index], learned[index]
        variance, mean = torch.var_mean(inputs[0].float(), (0, 2, 3), correction=0)
        middle = torch.lerp(before["running_mean"], mean, share)
        # The variance of the two together.
        learned_variance = before["running_var"] + (before["running_mean"] - middle) ** 2
        own_variance = variance + (mean - middle) ** 2
        assert layer.running_mean is not None
        assert layer.running_var is not None
        layer.running_mean.copy_(middle)
        layer.running_var.copy_(torch.lerp(learned_variance, own_variance, share))

    hooks = [
        layer.register_forward_pre_hook(lambda _layer, inputs, i=i: blend(i, inputs))
        for i, layer in enumerate(layers)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for layer, before in zip(layers, learned, strict=True):
            for name, buffer in layer.named_buffers():
                buffer.copy_(before[name])
