"""An exponential moving average of a network's weights, to be validated and saved."""

from copy import deepcopy

import torch
from torch import Tensor, nn


class MovingAverage:
    """The moving average `module` of a network's weights, after `count` updates.

    The first update copies the weights. The decay is smaller in the first steps. Buffers are
    averaged as well, except for integers: batch normalisation's number of batches is copied. The
    count stays on the host, so that an update waits for no device.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.module, self.count = deepcopy(network), 0
        self._decay = decay

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Add the weights of the network."""
        pairs = list(zip(_tensors(self.module), _tensors(network), strict=True))
        decay = min(self._decay, (1 + self.count) / (10 + self.count)) if self.count else 0.0
        moved = [pair for pair in pairs if decay and pair[0].is_floating_point()]
        copied = [pair for pair in pairs if not decay or not pair[0].is_floating_point()]
        if moved:
            averages, weights = map(list, zip(*moved, strict=True))
            torch._foreach_lerp_(averages, weights, 1 - decay)
        if copied:
            averages, weights = map(list, zip(*copied, strict=True))
            torch._foreach_copy_(averages, weights)
        self.count += 1


def _tensors(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]
