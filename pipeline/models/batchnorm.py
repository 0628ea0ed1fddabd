"""Batch normalisation adapted to one writer (Li et al. 2017, Schneider et al. 2020)."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

PRIOR_PAGES = 62  # weight of the training's statistics, in pages


@contextmanager
def adapted_batchnorm(network: nn.Module, pages: int) -> Iterator[None]:
    """Mix the statistics of batch normalisation with those of each batch: pages of one writer.

    The training's statistics weigh as much as 62 pages, the batch's as much as `pages`. The layers'
    own statistics are restored on exit.
    """
    weight = pages / (pages + PRIOR_PAGES)
    layers = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    trained = [{n: t.clone() for n, t in layer.named_buffers()} for layer in layers]

    def adapt(index: int, inputs: tuple[Tensor, ...]) -> None:
        layer, before = layers[index], trained[index]
        variance, mean = torch.var_mean(inputs[0].float(), (0, 2, 3), correction=0)
        joint_mean = torch.lerp(before["running_mean"], mean, weight)
        # Variances about the joint mean.
        trained_variance = before["running_var"] + (before["running_mean"] - joint_mean) ** 2
        batch_variance = variance + (mean - joint_mean) ** 2
        assert layer.running_mean is not None
        assert layer.running_var is not None
        layer.running_mean.copy_(joint_mean)
        layer.running_var.copy_(torch.lerp(trained_variance, batch_variance, weight))

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
