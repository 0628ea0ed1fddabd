"""A network that trains on CIFAR-10 in seconds on a GPU (Jordan 2024).

"94% on CIFAR-10 in 3.29 seconds on a single GPU": its first layer whitens patches of the training
images, and it has neither skips nor strides.
"""

import torch
from torch import Tensor, nn

from pipeline.models.blocks import Network, Shape

WIDTHS = (64, 256, 256)
PATCH = 2  # side of the patches that the first layer whitens
CHUNK = 64  # images
INITIAL_IMAGES = 5000  # that the first layer is computed from
WHITENING_EPS = 5e-4  # added to the variances of the patches
STATISTICS_MOMENTUM = 0.4  # of batch normalisation: a training has few steps


def airbench(classes: int, shape: Shape) -> Network:
    """Return the network, whose first layer `initialize` sets from training images.

    A 2×2 whitening layer, three groups of two 3×3 convolutions with GELU and batch normalisation,
    max-pooling, and a linear layer whose logits are scaled by 1 / its inputs. With three channels
    and ten classes, it has 1.97 M weights.
    """
    whitening = Whitening(shape[0])
    outputs = (whitening.outputs, *WIDTHS)
    groups = [_group(*widths) for widths in zip(outputs, WIDTHS, strict=False)]
    body = nn.Sequential(*groups, nn.AdaptiveMaxPool2d(1), nn.Flatten())
    return Airbench(nn.Sequential(whitening, nn.GELU()), body, _linear(WIDTHS[-1], classes))


class Airbench(Network):
    """A network that begins with a whitening layer."""

    def initialize(self, images: Tensor) -> None:
        """Set the first layer from training images as the network sees them, unaugmented.

        `images` are float (n, channels, H, W).
        """
        assert isinstance(self.stem, nn.Sequential)
        whitening = self.stem[0]
        assert isinstance(whitening, Whitening)
        whitening.initialize(images)


class Whitening(nn.Module):
    """A convolution whose outputs are uncorrelated over the patches of the training images.

    Its kernels are the patches' principal components, scaled to a variance of 1, and their
    negatives. They are not trained; the biases are.
    """

    weight: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        values = channels * PATCH**2
        self.outputs = 2 * values
        self.register_buffer("weight", torch.empty(2 * values, channels, PATCH, PATCH))
        self.bias = nn.Parameter(torch.zeros(2 * values))
        self._set(torch.eye(values))

    def _set(self, components: Tensor) -> None:
        kernels = components.view(-1, *self.weight.shape[1:])
        self.weight.copy_(torch.cat([kernels, -kernels]))

    @torch.no_grad()
    def initialize(self, images: Tensor) -> None:
        """Compute the kernels from images, float (n, channels, H, W)."""
        values = images.shape[1] * PATCH**2
        products, count = images.new_zeros(values, values, dtype=torch.float64), 0
        for some in torch.split(images, CHUNK):  # patches take eight times the memory of images
            patches = some.double().unfold(2, PATCH, 1).unfold(3, PATCH, 1)
            rows = patches.permute(0, 2, 3, 1, 4, 5).reshape(-1, values)
            products += rows.T @ rows
            count += len(rows)
        variances, vectors = torch.linalg.eigh(products / count)
        # An eigenvector's sign is arbitrary: its largest value becomes positive.
        largest = vectors.gather(0, vectors.abs().argmax(dim=0, keepdim=True))
        components = vectors * largest.sign() / (variances + WHITENING_EPS).sqrt()
        self._set(components.T.flip(0).contiguous().to(self.weight.dtype))

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, 2 × channels × 4, H - 1, W - 1)."""
        return nn.functional.conv2d(images, self.weight, self.bias)


class UnscaledBatchNorm(nn.BatchNorm2d):
    """Batch normalisation with a trained bias, but no trained factor."""

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=1e-12, momentum=STATISTICS_MOMENTUM)
        del self.weight
        self.register_buffer("weight", torch.ones(width))


class Scaled(nn.Module):
    """Multiplies by a number."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """Return the product."""
        return x * self.factor


def _group(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        _convolution(inputs, outputs),
        *(nn.MaxPool2d(2), UnscaledBatchNorm(outputs), nn.GELU()),
        _convolution(outputs, outputs),
        *(UnscaledBatchNorm(outputs), nn.GELU()),
    )


def _convolution(inputs: int, outputs: int) -> nn.Conv2d:
    """Return a 3×3 convolution whose first outputs are its inputs."""
    layer = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    nn.init.dirac_(layer.weight[: min(inputs, outputs)])
    return layer


def _linear(inputs: int, outputs: int) -> nn.Sequential:
    layer = nn.Linear(inputs, outputs, bias=False)
    with torch.no_grad():
        layer.weight.div_(layer.weight.std())
    return nn.Sequential(layer, Scaled(1 / inputs))
