"""Whoever adds: the tree over micro-batches gives the same bits."""
from __future__ import annotations

import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st

from mltrain.parallel.mesh import Mesh, share
from mltrain.parallel.reduction import Counter, gather_scalars, pairwise, tree_reduce_scatter, tree_sum
from mltrain.testing.ranks import on_ranks


def gradients(micro_batches: int, size: int) -> torch.Tensor:
    return torch.randn(micro_batches, size, generator=torch.Generator().manual_seed(3)) * 10 ** torch.randn(micro_batches, 1)


def counted(rows: torch.Tensor) -> torch.Tensor:
    counter = Counter()
    for row in rows:
        counter.add([row.clone()])
    return counter.total()[0]


@settings(deadline=None)
@given(st.integers(0, 5), st.integers(1, 40))
def test_counter_is_the_tree(levels: int, size: int) -> None:
    rows = gradients(1 << levels, size)
    assert torch.equal(counted(rows), tree_sum(rows.clone()))


@settings(deadline=None)
@given(st.integers(0, 4), st.data())
def test_dealt_over_any_mesh_the_tree_is_one(levels: int, data: st.DataObject) -> None:
    """Adding as the ranks of R replicas × S shards would, level by level, equals adding in one process."""
    m = 1 << levels
    replicas = 1 << data.draw(st.integers(0, levels))
    shards = 1 << data.draw(st.integers(0, levels - replicas.bit_length() + 1))
    rows, mesh = gradients(m, 5), Mesh(replicas, shards)
    per_replica = []
    for replica in range(replicas):
        shares = [share(mesh, replica * shards + s, m) for s in range(shards)]
        per_replica.append(counted(torch.stack([tree_sum(rows[list(group)].clone()) for group in zip(*shares, strict=True)])))
    assert torch.equal(tree_sum(torch.stack(per_replica)), tree_sum(rows.clone()))


def test_another_order_gives_other_bits() -> None:
    """The control: if any order gave these bits, the tests above would say nothing."""
    rows = gradients(16, 400)
    in_order = rows[0].clone()
    for row in rows[1:]:
        in_order += row
    assert not torch.equal(in_order, tree_sum(rows.clone()))


def test_collectives_follow_the_tree() -> None:
    rows = gradients(4, 10)

    def body(rank: int, world: int) -> bool:
        part = tree_reduce_scatter(rows[rank].repeat(world, 1), dist.group.WORLD)  # type: ignore[arg-type]
        return torch.equal(part, tree_sum(rows.clone()))

    assert on_ranks(4, body) == [True] * 4


def test_scalars_come_in_order_of_rank() -> None:
    def body(rank: int, world: int) -> list[list[list[float]]]:
        return gather_scalars([[float(rank), 0.1], [float(rank), 0.2]], dist.group.WORLD, torch.device("cpu"))

    assert on_ranks(2, body) == [[[[0.0, 0.1], [0.0, 0.2]], [[1.0, 0.1], [1.0, 0.2]]]] * 2


def test_pairwise_sums_pairs() -> None:
    assert pairwise([1e16, 1.0, -1e16, 1.0]) == (1e16 + 1.0) + (-1e16 + 1.0) != 1e16 + 1.0 - 1e16 + 1.0
