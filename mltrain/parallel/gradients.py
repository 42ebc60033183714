"""The sum of a step's gradients: over this rank's micro-batches, then over replicas, along the one tree.

The sum over replicas begins while the last micro-batch's backward still runs: parameters are cut into buckets, last ones first, and a
bucket leaves as soon as all of its gradients are there (Li et al., PyTorch Distributed, VLDB 2020). Buckets leave in one order on every
rank, or collectives of different buckets would meet. How they are cut changes no bit. FSDP2 hands its gradients over when the backward
is done: under hsdp all buckets leave then.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from mltrain.parallel.reduction import Counter, begin_all_gather, begin_all_to_all, tree_sum

FIRST_BYTES, BUCKET_BYTES = 1 << 20, 25 << 20      # as DDP: the first one small, so that it leaves early


class GradientSum:
    """begin() with a step, backward() for each micro-batch, total() after the last. group: the replicas (None: there is but one)."""

    def __init__(self, parameters: list[nn.Parameter], group: dist.ProcessGroup | None, exact: bool) -> None:
        self._parameters, self._group, self._exact = parameters, group, exact
        self._counter = Counter()
        self._buckets = [Bucket(indices) for indices in _cut(parameters)] if group else []
        self._left = 0                                         # how many buckets have left
        self._last = False
        for number, bucket in enumerate(self._buckets):
            for index in bucket.indices:
                if not isinstance(parameters[index], DTensor):
                    parameters[index].register_post_accumulate_grad_hook(self._arrived(number))

    def begin(self) -> None:
        self._counter, self._left, self._last = Counter(), 0, False
        for bucket in self._buckets:
            bucket.missing = len(bucket.indices)

    def backward(self, loss: Tensor, last: bool) -> None:
        """last: this micro-batch is the step's last one on this rank."""
        self._last = last and self._group is not None
        loss.backward()
        if self._last:
            self._leave(at_most=len(self._buckets))            # with what no backward has reached: zeros
        else:
            self._counter.add(self._take(range(len(self._parameters))))

    def total(self) -> list[Tensor]:
        """The sum, for each parameter, of this rank's rows of it."""
        if self._group is None:
            return self._counter.total()
        found: dict[int, Tensor] = {}
        ends = [bucket.reduced() for bucket in self._buckets]  # each begins its second half before the first one is waited for
        for bucket, end in zip(self._buckets, ends, strict=True):
            found.update(zip(bucket.indices, bucket.spread(end()), strict=True))
        return [found[index] for index in range(len(self._parameters))]

    def _arrived(self, number: int) -> Callable[[Tensor], None]:
        def arrived(parameter: Tensor) -> None:
            if self._last:
                self._buckets[number].missing -= 1
                while self._left < len(self._buckets) and not self._buckets[self._left].missing:
                    self._leave(at_most=1)
        return arrived

    def _leave(self, at_most: int) -> None:
        assert self._group is not None
        for bucket in self._buckets[self._left : self._left + at_most]:
            bucket.leave(self._counter.fold(self._take(bucket.indices), bucket.indices), self._group, self._exact)
            self._left += 1

    def _take(self, indices: range | list[int]) -> list[Tensor]:
        """This rank's part of gradients, taken away from the parameters. A parameter that the micro-batch did not use has zeros."""
        taken = []
        for index in indices:
            parameter = self._parameters[index]
            gradient, parameter.grad = parameter.grad, None
            if gradient is None:
                gradient = torch.zeros_like(parameter)
            taken.append(gradient.to_local() if isinstance(gradient, DTensor) else gradient)
        return taken


class Bucket:
    """Gradients that travel together. indices: of their parameters. missing: how many the last backward has not yet reached.
    Its buffers stay from step to step: fresh ones would cost more than the sum, a page fault for every 4 KiB."""

    def __init__(self, indices: list[int]) -> None:
        self.indices, self.missing = indices, len(indices)
        self._shapes: list[torch.Size] = []
        self._flat = self._received = torch.empty(0)
        self._wait: Callable[[], Tensor]
        self._group: dist.ProcessGroup
        self._tree = False

    def leave(self, gradients: list[Tensor], group: dist.ProcessGroup, exact: bool) -> None:
        """Begins the sum. Of two contributions there is but one sum: the library's own is exact, too."""
        world, size = group.size(), sum(gradient.numel() for gradient in gradients)
        self._group, self._tree = group, exact and world > 2
        if not self._shapes:
            self._shapes = [gradient.shape for gradient in gradients]
            self._flat = gradients[0].new_zeros(-(-size // world) * world if self._tree else size)
            self._received = torch.empty_like(self._flat if self._tree else self._flat[:0])
        torch.cat([gradient.reshape(-1) for gradient in gradients], out=self._flat[:size])
        if self._tree:
            self._wait = begin_all_to_all(self._flat.view(world, -1), self._received.view(world, -1), group)
        else:
            work: Any = dist.all_reduce(self._flat, group=group, async_op=True)
            self._wait = lambda: (work.wait(), self._flat)[1]

    def reduced(self) -> Callable[[], Tensor]:
        """Waits for the first half where there are two. Returns what waits for the sum: [n or a little more]."""
        return begin_all_gather(tree_sum(self._wait()), self._flat, self._group) if self._tree else self._wait

    def spread(self, flat: Tensor) -> list[Tensor]:
        """The sums as views, good until the bucket leaves again."""
        sizes = [shape.numel() for shape in self._shapes]
        return [part.view(shape) for part, shape in zip(torch.split(flat[: sum(sizes)], sizes), self._shapes, strict=True)]


def _cut(parameters: list[nn.Parameter]) -> list[list[int]]:
    """Indices of parameters by bucket, the last parameters first: their gradients are there first. One dtype a bucket."""
    buckets: list[list[int]] = []
    room = 0
    for index in reversed(range(len(parameters))):
        parameter = parameters[index]
        local = parameter.to_local() if isinstance(parameter, DTensor) else parameter
        size = local.numel() * local.element_size()
        if not buckets or room < size or parameters[buckets[-1][0]].dtype != parameter.dtype:
            room = BUCKET_BYTES if buckets else FIRST_BYTES
            buckets.append([])
        buckets[-1].append(index)
        room -= size
    return buckets
