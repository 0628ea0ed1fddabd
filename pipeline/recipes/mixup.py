"""Mixup and cutmix of images in pairs, on any device.

Row i is mixed with row i ^ 1. A shuffled batch has random neighbours, and a pair stays in one
process and one micro-batch if these have an even number of rows. The mixing of a pair depends only
on the seed, the epoch and the sample in its even row (`beton.rng`). So any number of processes and
micro-batches gives the same images.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import betaincinv
from torch import Tensor

from beton import rng
from pipeline.errors import UserError, check_range
from pipeline.loading.dataset import Ids

Floats = NDArray[np.float64]


class Mixed(NamedTuple):
    """Mixed `images` (n, C, H, W), their two labels, and the weight of the first.

    `labels` and `partners`, int64 (n,), are the classes of an image and of its partner. `weights`,
    float32 (n,), are the fractions of the image itself. The loss is weights × the loss of labels +
    (1 - weights) × the loss of partners.
    """

    images: Tensor
    labels: Tensor
    partners: Tensor
    weights: Tensor


@dataclass(frozen=True)
class Mixing:
    """The strengths of mixup and cutmix: α of Beta(α, α), the distribution of weights; 0 is off.

    `mixup` blends images (Zhang et al. 2018, "mixup: Beyond empirical risk minimization").
    `cutmix` swaps a rectangle with the image's proportions; the weight is the exact area outside it
    (Yun et al. 2019, "CutMix: Regularization strategy to train strong classifiers with localizable
    features"). With both, each pair gets either at random. `probability` is the probability that a
    pair is mixed. Raises UserError for a value out of range.
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    probability: float = 1.0

    def __post_init__(self) -> None:
        check_range("mixup", self.mixup, 0)
        check_range("cutmix", self.cutmix, 0)
        check_range("probability", self.probability, 0, 1)

    def __bool__(self) -> bool:
        """Return whether any pair can be mixed."""
        return self.probability > 0 and (self.mixup > 0 or self.cutmix > 0)

    def check(self, rows: int) -> None:
        """Raise UserError if the rows of a process or micro-batch cannot be paired."""
        if self and rows % 2:
            raise UserError(f"mixing: got {rows} rows at a time, expected an even number")

    def mix(self, images: Tensor, labels: Tensor, ids: Ids, seed: int, epoch: int) -> Mixed:
        """Mix images (n, C, H, W) with labels (n,) in pairs; `ids` (n,) are on the host.

        The arguments stay unchanged.
        """
        if not self:
            return Mixed(images, labels, labels, torch.ones(len(labels), device=images.device))
        assert len(ids) % 2 == 0, f"an odd number of rows: {len(ids)}"
        sampled = self._sample(seed, epoch, ids[::2].copy(), *images.shape[2:])
        moved = torch.from_numpy(sampled.astype(np.float32))
        moved = moved.to(images.device, non_blocking=True)
        weights, inside, outside, top, bottom, left, right = moved[..., None, None, None, None]
        own = inside
        if self.cutmix:
            rows, columns = (torch.arange(n, device=images.device) for n in images.shape[2:])
            high, wide = ((top <= rows) & (rows < bottom)), ((left <= columns) & (columns < right))
            own = torch.where(high.mT & wide, inside, outside)
        pairs = images.view(-1, 2, *images.shape[1:])
        mixed = torch.lerp(pairs.flip(1), pairs, own).flatten(0, 1)
        partners = labels.view(-1, 2).flip(1).flatten()
        return Mixed(mixed, labels, partners, weights.flatten().repeat_interleave(2))

    def _sample(self, seed: int, epoch: int, ids: Ids, height: int, width: int) -> Floats:
        """Return the weights and box of each pair: (7, pairs).

        Rows are the weight of an image itself in all, inside the box and outside; then the box's
        top, bottom, left and right.
        """
        # Which number is for what is never changed: runs depend on it.
        mixes, kinds, quantiles, *centre = rng.uniform(seed, epoch, ids, rng.MIX, 5).T
        cuts = kinds < (0.0 if not self.cutmix else 0.5 if self.mixup else 1.0)
        alphas = np.where(cuts, self.cutmix, self.mixup)
        weights = np.where(mixes < self.probability, betaincinv(alphas, alphas, quantiles), 1.0)
        halves = np.sqrt(1 - weights) / 2
        top, bottom, left, right = (
            np.clip(np.rint((place + sign * halves) * side), 0, side)
            for place, side in zip(centre, (height, width), strict=True)
            for sign in (-1, 1)
        )
        kept = 1 - (bottom - top) * (right - left) / (height * width)
        inside, outside = np.where(cuts, 0, weights), np.where(cuts, 1, weights)
        weights = np.where(cuts, kept, weights)
        return np.stack([weights, inside, outside, top, bottom, left, right])
