"""A modern decoder-only transformer: RMSNorm, rotary positions, SwiGLU, grouped-query attention, SDPA; documents do not see each other.

Letters: B sequences, T tokens each. The blocks are those of `layers`.
"""
from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from msgspec import Meta
from torch import Tensor, nn

from mltrain.errors import ConfigError
from mltrain.models.layers import Embedding, Linear, new_blocks

Positive = Annotated[int, Meta(ge=1)]
Share = Annotated[float, Meta(ge=0, lt=1)]


class GPT(nn.Module):
    """Token ids [B, T] -> logits [B, T, vocabulary].

    vocabulary: number of token ids. kv_heads: heads of keys and values (None: as many as heads). hidden: width of the feed-forward part
    (None: 8/3 of the width, rounded up to a multiple of 16). tied: the output layer is the embedding. base: of the rotary angles."""

    deferred_init = True

    def __init__(self, vocabulary: Positive, width: Positive = 256, layers: Positive = 6, heads: Positive = 4,
                 kv_heads: Positive | None = None, hidden: Positive | None = None, dropout: Share = 0.0,
                 tied: bool = True, base: float = 10_000.0) -> None:
        super().__init__()
        kv_heads = kv_heads or heads
        if width % heads or (width // heads) % 2:
            raise ConfigError(f"task.model.width={width} does not cut into {heads} heads of even size",
                              "choose width = heads × an even number")
        self.vocabulary, self.size, self.base, self.dropout = vocabulary, width // heads, base, dropout
        self.embedding = Embedding(vocabulary, width)
        self.blocks = new_blocks(width, layers, heads, kv_heads, hidden, dropout)
        self.norm = nn.RMSNorm(width, eps=1e-5)
        self.head = None if tied else Linear(width, vocabulary)

    def forward(self, tokens: Tensor, documents: Tensor | None = None) -> Tensor:
        """documents: [B, T], equal numbers see each other (None: all one document)."""
        x = F.dropout(self.embedding(tokens), self.dropout, self.training)
        mask = attention_mask(tokens.shape[1], documents, x)
        angles = torch.outer(torch.arange(tokens.shape[1], device=x.device, dtype=torch.float32), self._frequencies(x.device))
        rotation = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        for block in self.blocks:
            x = block(x, mask, rotation)
        x = self.norm(x)
        return self.head(x) if self.head is not None else F.linear(x, self.embedding.weight)

    def _frequencies(self, device: torch.device) -> Tensor:
        return self.base ** -(torch.arange(0, self.size, 2, device=device, dtype=torch.float32) / self.size)


def attention_mask(length: int, documents: Tensor | None, like: Tensor) -> Tensor:
    """What is added to the scores: 0 where a position may look (itself and before, same document), else -inf. [B or 1, 1, T, T]"""
    allowed = torch.ones(length, length, dtype=torch.bool, device=like.device).tril()
    if documents is not None:
        allowed = allowed & (documents[:, None, :, None] == documents[:, None, None, :])
    else:
        allowed = allowed[None, None]
    return torch.zeros(allowed.shape, dtype=like.dtype, device=like.device).masked_fill_(~allowed, float("-inf"))
