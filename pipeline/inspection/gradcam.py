"""Grad-CAM: where in an image a network finds a class (Selvaraju et al. 2017).

"Grad-CAM: visual explanations from deep networks via gradient-based localization". The gradients of
a class's logit, averaged over positions, weight the channels of a feature map; their sum, where
positive, is the heat.
"""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.errors import UserError
from pipeline.loading.dataset import Floats

LEAST_SIDE = 4  # pixels of a feature map
CHUNK = 32  # images whose gradients are in memory at once
OPACITY = 0.65  # of the hottest pixel in an overlay
LUMINANCE = (0.299, 0.587, 0.114)  # of red, green and blue (ITU-R BT.601)
HEAT = ((1.0, 0.93, 0.63), (0.99, 0.55, 0.23), (0.74, 0.0, 0.15))  # from low to high


def grad_cam(network: nn.Module, inputs: Tensor, classes: Tensor) -> Floats:
    """Return the heat of a class in each image: float32 (N, h, w) in [0, 1], 1 at its maximum.

    `inputs` are the network's, float32 (N, channels, h, w), and `classes`, int64 (N,), of any kind:
    predicted, true, or another. An image without a feature that speaks for its class has no heat,
    all zeros. The network is explained in eval mode and stays unchanged. Raises UserError if the
    extra `explain` is missing, or the network has no feature map of at least 4×4.
    """
    try:
        from captum.attr import LayerGradCam
    except ImportError as error:
        raise UserError("captum is not installed: ./launch.sh setup explain") from error

    was_training = network.training
    network.eval()
    try:
        cam = LayerGradCam(network, feature_layer(network, inputs[:1]))
        parts = []
        for images, targets in zip(
            torch.split(inputs, CHUNK), torch.split(classes, CHUNK), strict=True
        ):
            with torch.enable_grad():
                heat = cam.attribute(
                    images.detach(), targets.to(images.device), relu_attributions=True
                )
            heat = F.interpolate(
                heat.detach().float(), images.shape[2:], mode="bilinear", align_corners=False
            )[:, 0]
            highest = heat.amax((1, 2), keepdim=True)
            parts.append((heat / highest.clamp(min=1e-12)).cpu().numpy())
    finally:
        network.train(was_training)
    result: Floats = np.concatenate(parts)
    return result


def feature_layer(network: nn.Module, image: Tensor) -> nn.Module:
    """Return the layer whose output Grad-CAM explains.

    It is the last convolution whose output is at least 4×4 pixels, together with the normalisation,
    activation and sum that follow at this size: the sign of a convolution alone means nothing if a
    normalisation follows. `image` is one input, (1, channels, h, w). Layers that are used several
    times do not count. Raises UserError for a network without one.
    """
    finished: list[tuple[nn.Module, tuple[int, ...]]] = []

    def record(layer: nn.Module, _inputs: object, output: Tensor) -> None:
        finished.append((layer, tuple(output.shape[2:]) if output.ndim == 4 else ()))

    hooks = [layer.register_forward_hook(record) for layer in network.modules()]
    try:
        with torch.no_grad():
            network(image)
    finally:
        for hook in hooks:
            hook.remove()
    last = max(
        (
            place
            for place, (layer, size) in enumerate(finished)
            if isinstance(layer, nn.Conv2d) and size and min(size) >= LEAST_SIDE
        ),
        default=None,
    )
    if last is None:
        raise UserError(
            f"network: got no convolution with an output of at least {LEAST_SIDE}×{LEAST_SIDE} "
            "pixels, which Grad-CAM needs"
        )
    chosen, size = finished[last]
    calls = [layer for layer, _ in finished]
    for layer, other in finished[last + 1 :]:
        if isinstance(layer, nn.Conv2d):
            break
        if other == size and calls.count(layer) == 1:
            chosen = layer
    return chosen


def overlay(seen: NDArray[np.uint8], heat: Floats) -> NDArray[np.uint8]:
    """Return an image in grey with its heat in colour: uint8 (h, w, 3).

    `seen` is uint8 (h, w) or (h, w, 3), `heat` float32 (h, w) in [0, 1]. Pixels without heat stay
    grey: warm colours of a photo would look like heat.
    """
    grey = seen if seen.ndim == 2 else seen @ np.array(LUMINANCE)
    levels = np.linspace(0, 1, len(HEAT))
    colours = np.stack([np.interp(heat, levels, [c[i] for c in HEAT]) for i in range(3)], axis=2)
    opacity = OPACITY * heat[..., None]
    mixed = (1 - opacity) * grey[..., None] + opacity * 255 * colours
    result: NDArray[np.uint8] = np.rint(mixed).clip(0, 255).astype(np.uint8)
    return result
