"""Images of ink: from the pages of a file to the part of them that a view shows.

Each page becomes a canvas (the whole page, area-averaged), either in the loader's kernels or on the
device, from runs. The network's square is then cropped around the ink. Ink is the distance from the
page's paper, so black on white and white on black give equal images. Paper is also what surrounds a
page: next to a letterboxed page, and beyond the canvas.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from beton import ops
from beton.codec.resizing import WINDOW_HEIGHT, WINDOW_WIDTH
from beton.reader import Reader
from beton.transforms import coverage, full_geometry
from pipeline.loading.augment import Augmentation, Transforms, transform_images
from pipeline.loading.dataset import Floats, Ids, View, paper_greys
from pipeline.loading.rasterize import rasterize


class InkImages:
    """The images of an ink field in a view, changed by an `augmentation` if there is one.

    `scales`, float32 (samples of the file,), magnify each page. With `rasterizes`, canvases are
    made on the device.
    """

    def __init__(
        self,
        file: Reader,
        view: View,
        augmentation: Augmentation | None,
        scales: Floats | None,
        rasterizes: bool,
    ) -> None:
        self._view, self._augmentation, self._scales = view, augmentation, scales
        self._rasterizes = rasterizes
        records = file.column("image").metadata
        self._backgrounds, self._papers = records["background"], paper_greys(file)
        self._sizes = np.stack([records["height"], records["width"]], axis=1).astype(np.int64)
        self._refills = view.fit == "letterbox" and self._any_refill()

    @property
    def op(self) -> ops.Op:
        """The loader's op for the field."""
        if self._rasterizes:
            return ops.Runs(proportion=self._view.proportion)
        return ops.Resize(*self._view.canvas, proportion=self._view.proportion)

    def arrays(self, ids: Ids) -> dict[str, Tensor]:
        """Return what `canvases` needs of samples `ids` (b,), in addition to the op's arrays."""
        found = {"background": self._backgrounds[ids], "paper": self._papers[ids]}
        if self._refills:
            found["refill"] = self._refill(ids)
        return {name: torch.from_numpy(array) for name, array in found.items()}

    def sampled(self, ids: Ids, keys: Ids, seed: int, epoch: int) -> dict[str, Tensor]:
        """Return the transforms of samples `ids` (b,), whose random numbers are those of `keys`.

        Whole pages have none.
        """
        if self._view.whole:
            return {}
        if self._augmentation is None:
            transforms = Transforms.identity(len(ids))
        else:
            transforms = self._augmentation.sample(seed, epoch, keys)
        if self._scales is not None:
            affine = transforms.affine.clone()
            affine[:, :, :2] /= torch.from_numpy(self._scales[ids])[:, None, None]
            transforms = transforms._replace(affine=affine)
        return transforms.parts()

    def canvases(self, moved: Mapping[str, Tensor]) -> Tensor:
        """Return the ink of whole pages in grey levels, uint8 or float32 (b, 1, height, width)."""
        canvases, papers = moved["image"], moved["paper"].view(-1, 1, 1)
        if self._rasterizes:
            offsets, geometry = moved["image.offsets"], moved["image.geometry"]
            backgrounds, canvas = moved["background"], self._view.canvas
            canvases = rasterize(canvases, offsets, backgrounds, geometry, *canvas)[:, 0]
        if self._refills:
            canvases = canvases + moved["refill"]
        if canvases.dtype == torch.uint8:
            ink = torch.maximum(canvases, papers) - torch.minimum(canvases, papers)
        else:
            ink = canvases.sub_(papers.float()).abs_()
        return ink[:, None]

    def images(self, canvases: Tensor, sampled: Mapping[str, Tensor]) -> Tensor:
        """Return the images of canvases: float32 (b, 1, height, width), 0 to 1."""
        ink = canvases.to(torch.float32, copy=True).div_(255)
        if self._view.whole:
            return ink
        return transform_images(ink, Transforms(**sampled), self._view.size)

    def _any_refill(self) -> bool:
        """Return whether a page is letterboxed with a stored background that is not its paper."""
        others = self._sizes[self._papers != self._backgrounds]
        windows = full_geometry(others, self._view.proportion)
        return bool((windows[:, [WINDOW_HEIGHT, WINDOW_WIDTH]] != others).any())

    def _refill(self, ids: Ids) -> Floats:
        """Return what to add to canvases to replace background by paper outside of the pages.

        Area averaging is linear: the background's part of a pixel is what its page does not cover.
        The result is float32 (b, height, width), and 0 where the background is the paper.
        """
        sizes = self._sizes[ids]
        covered = coverage(sizes, full_geometry(sizes, self._view.proportion), *self._view.canvas)
        difference = self._papers[ids].astype(np.float64) - self._backgrounds[ids]
        refill: Floats = (difference[:, None, None] * (1 - covered)).astype(np.float32)
        return refill
