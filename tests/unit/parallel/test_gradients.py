"""The sum over replicas begins in the backward, and has the same bits as one that does not."""
from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import nn

from mltrain.parallel import gradients
from mltrain.parallel.gradients import GradientSum
from mltrain.parallel.reduction import tree_sum
from mltrain.testing.ranks import on_ranks


class Halves(nn.Module):
    """unused: on one rank alone, a layer that no loss reaches."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layers = nn.ModuleList(nn.Linear(7, 7) for _ in range(5))

    def forward(self, x: torch.Tensor, skip: int = -1) -> torch.Tensor:
        for number, layer in enumerate(self.layers):
            x = x if number == skip else layer(x).tanh()
        return x.square().sum()


def inputs(micro_batches: int) -> list[torch.Tensor]:
    return [torch.randn(3, 7, generator=torch.Generator().manual_seed(9 + i)) * 10.0**i for i in range(micro_batches)]


def whole(micro_batches: int, skips: dict[int, int]) -> list[torch.Tensor]:
    """The tree over all micro-batches, in one process and after the backward."""
    net, rows = Halves(), []
    for i, x in enumerate(inputs(micro_batches)):
        net.zero_grad(set_to_none=True)
        net(x, skips.get(i, -1)).backward()
        rows.append([torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in net.parameters()])
    return [tree_sum(torch.stack(column)) for column in zip(*rows, strict=True)]


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("exact", [True, False])
def test_the_sum_is_the_tree(world: int, exact: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradients, "FIRST_BYTES", 100)
    monkeypatch.setattr(gradients, "BUCKET_BYTES", 300)        # a bucket a tensor or two
    skips = {1: 0, 4: 4, 7: 2}                                 # of micro-batches of different ranks, the last ones among them

    def body(rank: int, ranks: int) -> list[list[float]]:
        net, each = Halves(), 8 // ranks
        total = GradientSum(list(net.parameters()), dist.group.WORLD if ranks > 1 else None, exact)
        for _ in range(2):                                     # a second step finds nothing of the first
            total.begin()
            for i in range(rank * each, (rank + 1) * each):
                total.backward(net(inputs(8)[i], skips.get(i, -1)), last=i == (rank + 1) * each - 1)
            found = total.total()
        return [gradient.tolist() for gradient in found]  # type: ignore[misc]

    for found in on_ranks(world, body):
        for mine, one in zip(found, whole(8, skips), strict=True):
            same = torch.tensor(mine)
            assert torch.equal(same, one) if exact else torch.allclose(same, one, rtol=1e-4, atol=1e-4 * float(one.abs().max()))


def test_buckets_leave_before_the_backward_is_over() -> None:
    def body(rank: int, world: int) -> list[int]:
        net, left = Halves(), []
        total = GradientSum(list(net.parameters()), dist.group.WORLD, exact=True)
        net.layers[0].weight.register_hook(lambda gradient: left.append(total._left))
        total.begin()
        total.backward(net(inputs(1)[0]), last=True)
        total.total()
        return left

    before = gradients.FIRST_BYTES
    gradients.FIRST_BYTES = gradients.BUCKET_BYTES = 100
    try:
        assert all(left[0] >= 3 for left in on_ranks(2, body))
    finally:
        gradients.FIRST_BYTES, gradients.BUCKET_BYTES = before, 25 << 20
