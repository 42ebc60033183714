"""A small vision transformer (Dosovitskiy et al. 2021): patches as positions, learned places, mean over positions (Beyer et al. 2022).

Letters: B images, C channels, S pixels a side, P pixels a patch's side, T = (S/P)² patches, D width. The blocks are those of `layers`.
"""
from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mltrain.errors import ConfigError
from mltrain.models.layers import Embedding, Linear, new_blocks


class ViT(nn.Module):
    """Images [B, C, S, S] -> logits [B, classes].

    classes: number of kinds. side: S, patch: P, both in pixels. hidden: width of the feed-forward part (None: 8/3 of the width, rounded
    up to a multiple of 16)."""

    deferred_init = True

    def __init__(self, classes: int, side: int, patch: int, channels: int = 3, width: int = 64, layers: int = 4, heads: int = 4,
                 hidden: int | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        if side % patch:
            raise ConfigError(f"task.model.patch={patch} does not divide side={side}", "patches must cover the image")
        self.patch, self.dropout = patch, dropout
        self.patches = Linear(channels * patch * patch, width)
        self.places = Embedding((side // patch) ** 2, width)
        self.blocks = new_blocks(width, layers, heads, heads, hidden, dropout)
        self.norm = nn.RMSNorm(width, eps=1e-5)
        self.head = Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patches(cut(images, self.patch)) + self.places.weight
        x = F.dropout(x, self.dropout, self.training)
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x).mean(1))
        return logits


def cut(images: Tensor, patch: int) -> Tensor:
    """[B, C, S, S] -> [B, T, C·P·P]: patches row by row, left to right."""
    batch, channels, side, _ = images.shape
    count = side // patch
    grid = images.view(batch, channels, count, patch, count, patch)
    return grid.permute(0, 2, 4, 1, 3, 5).reshape(batch, count * count, channels * patch * patch)
