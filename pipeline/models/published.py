"""Published networks for small images, layer by layer: those for EMNIST, LeNet and a small ResNet.

Their number of parameters is known, for images of the size that they were published for. Linear
layers after a convolution have as many inputs as images of another size need.
"""

from torch import nn

from pipeline.models.blocks import (
    DropSpareOutput,
    Network,
    Residual,
    Shape,
    convolution,
    features_of,
)

EMNIST_DROPOUT = 0.28


def emnist_first(classes: int, shape: Shape) -> Network:
    """Return the first published network for EMNIST: 90,213 parameters for 36 classes.

    Two 5×5 convolutions, each with ReLU, batch normalisation, dropout and max-pooling, and a linear
    layer. It has a spare output.
    """

    def block(inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(inputs, outputs, 5),
            nn.ReLU(inplace=True),
            nn.BatchNorm2d(outputs),
            nn.Dropout(EMNIST_DROPOUT),
            nn.MaxPool2d(2),
        )

    convolutions = block(shape[0], 32), nn.Sequential(*block(32, 64), nn.Flatten())
    features = features_of(nn.Sequential(*convolutions), shape)
    return Network(*convolutions, _spare_head(features, classes))


def emnist_first_xavier(classes: int, shape: Shape) -> Network:
    """Return `emnist_first` with the weights initialised by Glorot and Bengio (2010), uniformly."""
    network = emnist_first(classes, shape)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
    return network


def emnist_middle(classes: int, shape: Shape) -> Network:
    """Return the second published network for EMNIST: 286,917 parameters for 36 classes.

    Two blocks of two 5×5 convolutions turn 28 pixels into 24, 20, 10, 6, 2 and 1; a dense layer
    follows. It has a spare output.
    """
    convolutions = _emnist_block(shape[0], 32), _emnist_block(32, 64)
    features = features_of(nn.Sequential(*convolutions), shape)
    dense = (
        nn.Linear(features, 1024),
        nn.BatchNorm1d(1024),
        nn.ReLU(inplace=True),
        nn.Dropout(EMNIST_DROPOUT),
    )
    body = nn.Sequential(*convolutions[1], nn.Flatten(), *dense)
    return Network(convolutions[0], body, _spare_head(1024, classes))


def emnist_deeper(classes: int, shape: Shape) -> Network:
    """Return the third published network for EMNIST: 1,338,757 parameters for 36 classes.

    It is `emnist_middle` with a second batch normalisation in each block and a second dense layer.
    It has a spare output.
    """
    convolutions = _emnist_block(shape[0], 32, twice=True), _emnist_block(32, 64, twice=True)
    features = features_of(nn.Sequential(*convolutions), shape)
    dense = (
        *(nn.Linear(features, 1024), nn.ReLU(inplace=True), nn.BatchNorm1d(1024)),
        *(nn.Linear(1024, 1024), nn.ReLU(inplace=True), nn.BatchNorm1d(1024)),
        nn.Dropout(EMNIST_DROPOUT),
    )
    body = nn.Sequential(*convolutions[1], nn.Flatten(), *dense)
    return Network(convolutions[0], body, _spare_head(1024, classes))


def _emnist_block(inputs: int, outputs: int, twice: bool = False) -> nn.Sequential:
    """Return two convolutions and max-pooling, normalised before that and, if `twice`, after it."""
    return nn.Sequential(
        *(nn.Conv2d(inputs, outputs, 5), nn.ReLU(inplace=True)),
        *(nn.Conv2d(outputs, outputs, 5), nn.ReLU(inplace=True)),
        nn.BatchNorm2d(outputs),
        nn.MaxPool2d(2),
        *([nn.BatchNorm2d(outputs)] if twice else []),
        nn.Dropout(EMNIST_DROPOUT),
    )


def _spare_head(features: int, classes: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(features, classes + 1), DropSpareOutput())


def lenet(classes: int, shape: Shape) -> Network:
    """Return LeNet-5 (LeCun et al. 1998) with batch normalisation: 62,158 parameters.

    It has sigmoids and average pooling, and dropout of 0.1 % after the dense layers.
    """

    def block(inputs: int, outputs: int, padding: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(inputs, outputs, 5, padding=padding),
            nn.BatchNorm2d(outputs),
            nn.Sigmoid(),
            nn.AvgPool2d(2),
        )

    def dense(inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.Sigmoid(), nn.Dropout(1e-3)
        )

    stem, second = block(shape[0], 6, padding=2), block(6, 16, padding=0)
    features = features_of(nn.Sequential(stem, second), shape)
    body = nn.Sequential(*second, nn.Flatten(), *dense(features, 120), *dense(120, 84))
    return Network(stem, body, nn.Linear(84, classes))


def resnet9(classes: int, shape: Shape, width: int = 64) -> Network:
    """Return the published small ResNet for CIFAR-10: 6,573,130 parameters.

    Convolutions are without bias, and followed by max-pooling where there is one, batch
    normalisation and ReLU. The last max-pooling is over all positions: 4×4 for images of 32 pixels.
    `width` is that of the first convolution.
    """

    def residual(width: int) -> Residual:
        return Residual(nn.Sequential(convolution(width, width), convolution(width, width)))

    second, third, last = (width * factor for factor in (2, 4, 8))
    return Network(
        convolution(shape[0], width),
        nn.Sequential(
            nn.Sequential(convolution(width, second, pool=True), residual(second)),
            convolution(second, third, pool=True),
            nn.Sequential(convolution(third, last, pool=True), residual(last)),
        ),
        nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(last, classes)),
    )
