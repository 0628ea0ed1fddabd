"""Batch normalisation adapted to one writer (Li et al. 2017, Schneider et al. 2020)."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

PRIOR = 62  # pages: the weight of the training statistics


@contextmanager
def adapted_batchnorm(network: nn.Module, pages: int) -> Iterator[None]:
    """Mix the training statistics with those of a batch of `pages` pages of one writer.

    The training statistics count as 62 pages. On exit, all statistics are restored.
    """
    weight = pages / (pages + PRIOR)
    layers = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    trained = [{n: t.clone() for n, t in layer.named_buffers()} for layer in layers]

    def adapt(index: int, inputs: tuple[Tensor, ...]) -> None:
        layer, before = layers[index], trained[index]
        variance, mean = torch.var_mean(inputs[0].float(), (0, 2, 3), correction=0)
        middle = torch.lerp(before["running_mean"], mean, weight)
        # The variance of the mixture of both distributions.
        trained_variance = before["running_var"] + (before["running_mean"] - middle) ** 2
        own_variance = variance + (mean - middle) ** 2
        assert layer.running_mean is not None
        assert layer.running_var is not None
        layer.running_mean.copy_(middle)
        layer.running_var.copy_(torch.lerp(trained_variance, own_variance, weight))

    hooks = [
        layer.register_forward_pre_hook(lambda _layer, inputs, i=i: adapt(i, inputs))
        for i, layer in enumerate(layers)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for layer, before in zip(layers, trained, strict=True):
            for name, buffer in layer.named_buffers():
                buffer.copy_(before[name])
