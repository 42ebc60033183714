"""A modern decoder-only transformer: RMSNorm, rotary positions, SwiGLU, grouped-query attention, SDPA; documents do not see each other.

Letters: B sequences, T tokens each, D width, H heads of E = D/H, K key/value heads.
Sources: RoPE (Su et al. 2021), RMSNorm (Zhang and Sennrich 2019), SwiGLU (Shazeer 2020), GQA (Ainslie et al. 2023).
"""
from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mltrain.errors import ConfigError


class Linear(nn.Linear):
    """No bias; initial weights normal with the given deviation."""

    def __init__(self, inputs: int, outputs: int, deviation: float = 0.02) -> None:
        self.deviation = deviation
        super().__init__(inputs, outputs, bias=False)

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=self.deviation)


class Embedding(nn.Embedding):
    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=0.02)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x: [B, heads, T, E]; cos, sin: [T, E/2]. Rotates each pair (x[i], x[i + E/2]) by its angle."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


class Attention(nn.Module):
    def __init__(self, width: int, heads: int, kv_heads: int, deviation: float) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.size = heads, kv_heads, width // heads
        self.query = Linear(width, heads * self.size)
        self.key_value = Linear(width, 2 * kv_heads * self.size)
        self.out = Linear(heads * self.size, width, deviation)

    def forward(self, x: Tensor, mask: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, length, _ = x.shape
        q = self.query(x).view(batch, length, self.heads, self.size).transpose(1, 2)
        k, v = self.key_value(x).view(batch, length, 2 * self.kv_heads, self.size).transpose(1, 2).chunk(2, dim=1)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        if self.kv_heads != self.heads:
            k, v = (t.repeat_interleave(self.heads // self.kv_heads, dim=1) for t in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out(y.transpose(1, 2).reshape(batch, length, -1))  # type: ignore[no-any-return]


class FeedForward(nn.Module):
    def __init__(self, width: int, hidden: int, deviation: float) -> None:
        super().__init__()
        self.gate_up = Linear(width, 2 * hidden)
        self.down = Linear(hidden, width, deviation)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)  # type: ignore[no-any-return]


class Block(nn.Module):
    def __init__(self, width: int, heads: int, kv_heads: int, hidden: int, dropout: float, deviation: float) -> None:
        super().__init__()
        self.attention_norm, self.attention = nn.RMSNorm(width, eps=1e-5), Attention(width, heads, kv_heads, deviation)
        self.feed_forward_norm, self.feed_forward = nn.RMSNorm(width, eps=1e-5), FeedForward(width, hidden, deviation)
        self.dropout = dropout

    def forward(self, x: Tensor, mask: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + F.dropout(self.attention(self.attention_norm(x), mask, cos, sin), self.dropout, self.training)
        return x + F.dropout(self.feed_forward(self.feed_forward_norm(x)), self.dropout, self.training)


class GPT(nn.Module):
    """Token ids [B, T] -> logits [B, T, vocabulary].

    vocabulary: number of token ids. kv_heads: heads of keys and values (None: as many as heads). hidden: width of the feed-forward part
    (None: 8/3 of the width, rounded up to a multiple of 16). tied: the output layer is the embedding. base: of the rotary angles."""

    deferred_init = True

    def __init__(self, vocabulary: int, width: int = 256, layers: int = 6, heads: int = 4, kv_heads: int | None = None,
                 hidden: int | None = None, dropout: float = 0.0, tied: bool = True, base: float = 10_000.0) -> None:
        super().__init__()
        kv_heads = kv_heads or heads
        if width % heads or (width // heads) % 2:
            raise ConfigError(f"task.model.width={width} does not cut into {heads} heads of even size",
                              "choose width = heads × an even number")
        if heads % kv_heads:
            raise ConfigError(f"task.model.kv_heads={kv_heads} does not divide heads={heads}",
                              "each key/value head serves a whole number of heads")
        self.vocabulary, self.size, self.base, self.dropout = vocabulary, width // heads, base, dropout
        deviation = 0.02 / math.sqrt(2 * layers)          # layers add up: GPT-2's scaling of what enters the residual stream
        hidden = hidden or -(-8 * width // 3 // 16) * 16
        self.embedding = Embedding(vocabulary, width)
        self.blocks = nn.ModuleList(Block(width, heads, kv_heads, hidden, dropout, deviation) for _ in range(layers))
        self.norm = nn.RMSNorm(width, eps=1e-5)
        self.head = None if tied else Linear(width, vocabulary)

    def forward(self, tokens: Tensor, documents: Tensor | None = None) -> Tensor:
        """documents: [B, T], equal numbers see each other (None: all one document)."""
        x = F.dropout(self.embedding(tokens), self.dropout, self.training)
        mask = attention_mask(tokens.shape[1], documents, x)
        angles = torch.outer(torch.arange(tokens.shape[1], device=x.device, dtype=torch.float32), self._frequencies(x.device))
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        for block in self.blocks:
            x = block(x, mask, cos, sin)
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
