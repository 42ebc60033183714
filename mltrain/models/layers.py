"""Parts of a transformer: RMSNorm blocks of attention (with or without a mask and rotary positions) and a SwiGLU feed-forward.

Letters: B sequences, T positions each, D width, H heads of E = D/H, K key/value heads.
Sources: RoPE (Su et al. 2021), RMSNorm (Zhang and Sennrich 2019), SwiGLU (Shazeer 2020), GQA (Ainslie et al. 2023).
"""
from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mltrain.errors import ConfigError

Rotation = tuple[Tensor, Tensor]        # cosine and sine of each position's angles, [T, E/2]


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

    def forward(self, x: Tensor, mask: Tensor | None = None, rotation: Rotation | None = None) -> Tensor:
        """x: [B, T, D]. mask: what is added to the scores (None: all see all). rotation: of queries and keys (None: no positions)."""
        batch, length, _ = x.shape
        q = self.query(x).view(batch, length, self.heads, self.size).transpose(1, 2)
        k, v = self.key_value(x).view(batch, length, 2 * self.kv_heads, self.size).transpose(1, 2).chunk(2, dim=1)
        if rotation is not None:
            q, k = rotate(q, *rotation), rotate(k, *rotation)
        if self.kv_heads != self.heads:
            k, v = (t.repeat_interleave(self.heads // self.kv_heads, dim=1) for t in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        out: Tensor = self.out(y.transpose(1, 2).reshape(batch, length, -1))
        return out


class FeedForward(nn.Module):
    def __init__(self, width: int, hidden: int, deviation: float) -> None:
        super().__init__()
        self.gate_up = Linear(width, 2 * hidden)
        self.down = Linear(hidden, width, deviation)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        out: Tensor = self.down(F.silu(gate) * up)
        return out


class Block(nn.Module):
    def __init__(self, width: int, heads: int, kv_heads: int, hidden: int, dropout: float, deviation: float) -> None:
        super().__init__()
        self.attention_norm, self.attention = nn.RMSNorm(width, eps=1e-5), Attention(width, heads, kv_heads, deviation)
        self.feed_forward_norm, self.feed_forward = nn.RMSNorm(width, eps=1e-5), FeedForward(width, hidden, deviation)
        self.dropout = dropout

    def forward(self, x: Tensor, mask: Tensor | None = None, rotation: Rotation | None = None) -> Tensor:
        x = x + F.dropout(self.attention(self.attention_norm(x), mask, rotation), self.dropout, self.training)
        return x + F.dropout(self.feed_forward(self.feed_forward_norm(x)), self.dropout, self.training)


def new_blocks(width: int, layers: int, heads: int, kv_heads: int, hidden: int | None, dropout: float) -> nn.ModuleList:
    """hidden: width of the feed-forward part (None: 8/3 of the width, rounded up to a multiple of 16). Raises ConfigError."""
    if width % heads:
        raise ConfigError(f"task.model.width={width} does not cut into {heads} heads", "choose width = heads × a whole number")
    if heads % kv_heads:
        raise ConfigError(f"task.model.kv_heads={kv_heads} does not divide heads={heads}",
                          "each key/value head serves a whole number of heads")
    deviation = 0.02 / math.sqrt(2 * layers)              # layers add up: GPT-2's scaling of what enters the residual stream
    hidden = hidden or -(-8 * width // 3 // 16) * 16
    return nn.ModuleList(Block(width, heads, kv_heads, hidden, dropout, deviation) for _ in range(layers))
