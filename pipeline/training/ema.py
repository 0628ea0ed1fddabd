"""A moving average of a network's weights, which is what is validated and kept."""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

Weights = tuple[Tensor, ...] | list[Tensor]


def moving_average(network: nn.Module, decay: float) -> AveragedModel:
    """Return a moving average of a network's weights; the first steps count for more."""

    def blend(averages: Weights, news: Weights, count: Tensor | int) -> None:
        share = 1 - min(decay, (1 + int(count)) / (10 + int(count)))
        if averages[0].is_floating_point():
            torch._foreach_lerp_(averages, news, share)
        else:  # how often normalisation has counted
            torch._foreach_copy_(averages, news)

    return AveragedModel(network, multi_avg_fn=blend, use_buffers=True)
