"""Images in colour: from the RGB field of a file to the canvases that a view shows.

Images are area-averaged to the canvas, in the loader's kernels. Random resized crops are cut out of
the stored images in the same pass, so that they keep all details. If all stored images have
the canvas' size, the device cuts them out instead (`image_ops.resized_crop`).
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from beton import ops
from beton.reader import Reader
from pipeline.loading.dataset import Ids, View
from pipeline.loading.image_augment import ImageAugmentation


class ColourImages:
    """The images of an RGB field in a view.

    `crops` says whether the loader makes the random resized crops of the `augmentation`.
    """

    def __init__(self, file: Reader, view: View, augmentation: ImageAugmentation) -> None:
        self._view = view
        records = file.column("image").metadata
        sizes = np.stack([records["height"], records["width"]], axis=1)
        stored = bool((sizes == view.canvas).all())
        self.crops = augmentation.crop_scale is not None and not stored
        crop: ops.CentreCrop | ops.RandomResizedCrop | None = None
        if augmentation.crop_scale is not None and not stored:
            crop = ops.RandomResizedCrop(augmentation.crop_scale, augmentation.crop_ratio)
        elif view.fit == "crop":
            crop = ops.CentreCrop()
        self._op = ops.RgbResize(*view.canvas, crop=crop)

    @property
    def op(self) -> ops.Op:
        """The loader's op for the field."""
        return self._op

    def arrays(self, _ids: Ids) -> dict[str, Tensor]:
        """Return nothing: the op's arrays are enough."""
        return {}

    def sampled(self, _ids: Ids, _keys: Ids, _seed: int, _epoch: int) -> dict[str, Tensor]:
        """Return nothing: the op and `ImageAugmentation` have all random numbers."""
        return {}

    def canvases(self, moved: Mapping[str, Tensor]) -> Tensor:
        """Return images of the view's canvas: uint8 (b, 3, height, width), channels last."""
        return moved["image"].permute(0, 3, 1, 2)

    def images(self, canvases: Tensor, _sampled: Mapping[str, Tensor]) -> Tensor:
        """Return the images of canvases: float32 (b, 3, height, width), 0 to 1."""
        return canvases.to(torch.float32, copy=True).div_(255)
