"""Mixing pictures in pairs, on a device: mixup and cutmix.

A row's partner is its neighbour, i ^ 1: the neighbours of a shuffled batch are strangers, and a
pair never leaves the slice of a process or a micro-batch, if these have an even number of rows.
How a pair is mixed depends on the seed, the epoch and the sample in its even row alone
(`beton.rng`). So 1 process or 4, in one step or by accumulation, mix alike. The price is that
a picture meets one partner instead of a random one of the batch, which nobody can tell.
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

Ids = NDArray[np.int64]
Numbers = NDArray[np.float64]


class Mixed(NamedTuple):
    """Pictures of shape (n, C, H, W) that are `shares` (n,) float32 their own, the rest another's.

    `labels` and `partners`, int64 (n,), are their own classes and the others'. The loss is shares ×
    that of the labels + (1 - shares) × that of the partners.
    """

    images: Tensor
    labels: Tensor
    partners: Tensor
    shares: Tensor


@dataclass(frozen=True)
class Mixing:
    """How strongly pairs are mixed: α of the shares' distribution, Beta(α, α); 0 is not at all.

    `mixup` blends pictures (Zhang et al. 2018, "mixup: Beyond empirical risk minimization");
    `cutmix` exchanges a rectangle of the picture's proportions, and the share is the exact area
    kept (Yun et al. 2019, "CutMix: Regularization strategy to train strong classifiers with
    localizable features"). With both, each pair takes either. `probability` is a pair's of being
    mixed at all.
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    probability: float = 1.0

    def __post_init__(self) -> None:
        check_range("mixup", self.mixup, 0)
        check_range("cutmix", self.cutmix, 0)
        check_range("probability", self.probability, 0, 1)

    def __bool__(self) -> bool:
        """Return whether anything is mixed."""
        return self.probability > 0 and (self.mixup > 0 or self.cutmix > 0)

    def check(self, rows: int) -> None:
        """Raise UserError if `rows`, of a process's share or a micro-batch, cannot be paired."""
        if self and rows % 2:
            raise UserError(f"mixing: got {rows} rows at a time, expected an even number")

    def mix(self, images: Tensor, labels: Tensor, ids: Ids, seed: int, epoch: int) -> Mixed:
        """Mix pictures (n, C, H, W) of classes `labels` (n,) in pairs; `ids` (n,) are on the host.

        What is given is not written to.
        """
        if not self:
            return Mixed(images, labels, labels, torch.ones(len(labels), device=images.device))
        assert len(ids) % 2 == 0, f"an odd number of rows: {len(ids)}"
        numbers = self._draw(seed, epoch, ids[::2].copy(), *images.shape[2:])
        there = torch.from_numpy(numbers.astype(np.float32)).to(images.device)
        shares, inside, outside, top, bottom, left, right = there[..., None, None, None, None]
        own = inside
        if self.cutmix:
            rows, columns = (torch.arange(n, device=images.device) for n in images.shape[2:])
            high, wide = ((top <= rows) & (rows < bottom)), ((left <= columns) & (columns < right))
            own = torch.where(high.mT & wide, inside, outside)
        pairs = images.view(-1, 2, *images.shape[1:])
        mixed = torch.lerp(pairs.flip(1), pairs, own).flatten(0, 1)
        partners = labels.view(-1, 2).flip(1).flatten()
        return Mixed(mixed, labels, partners, shares.flatten().repeat_interleave(2))

    def _draw(self, seed: int, epoch: int, ids: Ids, height: int, width: int) -> Numbers:
        """Return how pairs are mixed: (7, pairs).

        First what a picture keeps of itself: in all, inside its box, and outside; then the box's
        top, bottom, left and right.
        """
        # Which number is for what is never changed: runs depend on it.
        mixes, kinds, quantiles, *middle = rng.uniform(seed, epoch, ids, rng.MIX, 5).T
        cuts = kinds < (0.0 if not self.cutmix else 0.5 if self.mixup else 1.0)
        alphas = np.where(cuts, self.cutmix, self.mixup)
        shares = np.where(mixes < self.probability, betaincinv(alphas, alphas, quantiles), 1.0)
        halves = np.sqrt(1 - shares) / 2
        top, bottom, left, right = (
            np.clip(np.rint((place + sign * halves) * side), 0, side)
            for place, side in zip(middle, (height, width), strict=True)
            for sign in (-1, 1)
        )
        kept = 1 - (bottom - top) * (right - left) / (height * width)
        inside, outside = np.where(cuts, 0, shares), np.where(cuts, 1, shares)
        shares = np.where(cuts, kept, shares)
        return np.stack([shares, inside, outside, top, bottom, left, right])
