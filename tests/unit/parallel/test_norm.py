"""The norm does not depend on how rows are spread."""
from __future__ import annotations

import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st

from mltrain.parallel.norm import gradient_norm, row_norms
from mltrain.testing.ranks import on_ranks

SHAPES = [(7, 33), (1, 5), (4,), (3, 2, 9), (16, 129), (2,)]


def some_gradients() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(shape, generator=generator) for shape in SHAPES]


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 700), st.data())
def test_a_row_has_the_same_norm_in_any_company(rows: int, width: int, data: st.DataObject) -> None:
    matrix = torch.randn(rows, width, generator=torch.Generator().manual_seed(rows * 1000 + width))
    start = data.draw(st.integers(0, rows - 1))
    stop = data.draw(st.integers(start + 1, rows))
    assert torch.equal(row_norms(matrix)[start:stop], row_norms(matrix[start:stop]))


def test_norm_is_torchs() -> None:
    expected = torch.nn.utils.get_total_norm(some_gradients())
    torch.testing.assert_close(gradient_norm(some_gradients(), [s[0] for s in SHAPES], None).float(), expected)


def test_same_bits_over_shards() -> None:
    """Three ranks: rows divide unevenly, some ranks have none."""
    def body(rank: int, world: int) -> float:
        local = [g.chunk(world)[rank] if rank < len(g.chunk(world)) else g[:0] for g in some_gradients()]
        return gradient_norm(local, [s[0] for s in SHAPES], dist.group.WORLD).item()

    assert set(on_ranks(3, body)) == {gradient_norm(some_gradients(), [s[0] for s in SHAPES], None).item()}
