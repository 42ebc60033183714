"""Our own strategy, by torch.distributed alone: single, ddp, fsdp and hsdp are one path over a mesh of replicas × shards.

`train_step` is the screen to read: per micro-batch seed, forward, backward, add. Before the last backward the one agreement on loss,
weight and stop begins, in it the sum over replicas. Then one division by the global weight; the norm; the update.
"""
from __future__ import annotations

import os
from collections.abc import Callable
from time import perf_counter
from typing import Literal, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import HashStore
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from mltrain.parallel import mesh as meshes
from mltrain.parallel.determinism import use_deterministic_kernels
from mltrain.parallel.gradients import GradientSum
from mltrain.parallel.initial import build
from mltrain.parallel.names import named_parameters
from mltrain.parallel.norm import gradient_norm
from mltrain.parallel.precision import Precision
from mltrain.parallel.reduction import begin_gather, gather_scalars, pairwise
from mltrain.parallel.shard import place
from mltrain.parallel.state import collect, prime, write_back
from mltrain.parallel.strategy import Factory, Judge, OptimizerFactory, Schedule, State, evaluation_rounds, finite, to_device
from mltrain.parallel.streams import seed_micro_batch
from mltrain.progress import Progress
from mltrain.task import Batch, StepResult, Task

T = TypeVar("T")
STATE_BYTES = 16                # a parameter in float32, its gradient and AdamW's two moments
EVALUATION_STREAM = -2          # a step number that training never has


class Native:
    """layout: auto picks single on one worker, else ddp while a whole copy of the training state fits a quarter of a worker's memory,
    else fsdp. replicate: copies of the model under hsdp. reduction: `exact` gives the same bits on any number of workers, `auto` is exact
    where that can hold. recompute: activations are computed again instead of kept. compile: torch.compile, block by block.
    clip: the largest gradient norm (None: no clipping)."""

    def __init__(self, layout: meshes.Layout = "auto", replicate: int | None = None, reduction: meshes.Reduction = "auto",
                 recompute: bool = False, compile: bool = False, *, precision: Precision | None = None, clip: float | None = None,
                 seed: int = 0) -> None:
        self.layout, self.replicate, self.reduction = layout, replicate, reduction
        self.recompute, self.compile, self.precision = recompute, compile, precision or Precision()
        self.clip, self.seed = clip, seed
        self.warning = ""
        self.phase: Callable[[str], None] = lambda phase: None
        self.judge: Judge = finite
        self.exact = False

    # ── once ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
    def setup(self, task: Factory | Task, optimizer: OptimizerFactory, schedule: Schedule, micro_batches: int) -> Task:
        self.device = torch.accelerator.current_accelerator() or torch.device("cpu")
        self.world, self.rank = (dist.get_world_size(), dist.get_rank()) if dist.is_initialized() else (1, 0)
        built, deferred = (task, False) if isinstance(task, Task) else build(task, self.seed)
        layout = pick(built, self.world) if self.layout == "auto" else self.layout
        self.mesh = meshes.solve(layout, self.world, self.replicate)
        self.shares = [meshes.share(self.mesh, rank, micro_batches) for rank in range(self.world)]
        used, self.warning = meshes.choose_reduction(self.reduction, self.mesh, micro_batches)
        self.exact = used == "exact"
        if self.exact:
            use_deterministic_kernels(self.device)
        shards = self._groups()
        place(built, device=self.device, seed=self.seed, deferred=deferred, shards=shards, precision=self.precision, exact=self.exact,
              recompute=self.recompute, compile=self.compile)
        self.task = built                                      # fully_shard keeps the class and adds its own in front
        self.parameters = {name: p for name, p in named_parameters(built).items() if p.requires_grad}
        self.frozen = {name: p for name, p in named_parameters(built).items() if not p.requires_grad}
        replicas = self.replica_group if self.mesh.replicas > 1 else None
        self.sum = GradientSum(list(self.parameters.values()), replicas, self.exact)
        self.rows = [p.shape[0] if p.dim() > 1 else p.numel() for p in self.parameters.values()]
        self.make_optimizer, self.schedule = optimizer, schedule
        self._new_optimizer()
        return self.task

    def _groups(self) -> DeviceMesh | None:
        """Process groups of the mesh's two axes. Returns the shard axis where FSDP2 is needed, else None."""
        self.replica_group = self.shard_group = None
        sharded = self.mesh.shards > 1 or self.precision.mixed
        if sharded and not dist.is_initialized():
            dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
        if not dist.is_initialized() or (self.world == 1 and not sharded):
            return None
        axes = init_device_mesh(self.device.type, tuple(self.mesh), mesh_dim_names=("replica", "shard"))
        self.replica_group, self.shard_group = axes["replica"].get_group(), axes["shard"].get_group()
        return axes["shard"] if sharded else None

    def _new_optimizer(self) -> None:
        self.optimizer = self.make_optimizer(list(self.parameters.values()))
        self.base_lr = [float(group["lr"]) for group in self.optimizer.param_groups]

    def share(self) -> list[int]:
        return self.shares[self.rank]

    # ── each step ───────────────────────────────────────────────────────────────────────────────────────────────────────────────
    def train_step(self, progress: Progress, micro_batches: list[tuple[int, Batch]], stop: int = 0) -> StepResult:
        began = perf_counter()
        if not self.task.training:
            self.task.train()                                  # walks through all modules
        self.sum.begin()
        losses = []
        for number, (index, batch) in enumerate(micro_batches, 1):
            seed_micro_batch(self.seed, progress.step, index)
            total, weight = self.task(to_device(batch, self.device))
            losses.append((total.detach(), weight))
            if last := number == len(micro_batches):
                agreed = self._begin_to_agree(losses, stop)
            self.sum.backward(total, last)
        computed = perf_counter()
        self.phase("collective")
        gradients = self.sum.total()
        loss, weight, stop = self._agree(agreed().tolist())
        norm = gradient_norm(gradients, self.rows, self.shard_group).item() / (weight or 1.0)
        reduced = perf_counter()
        self.phase("compute")
        lr = self._set_lr(progress.step)
        if update := self.judge(progress.step + 1, loss, norm, weight):
            self._update(gradients, norm, weight)
        seconds = {"compute": computed - began, "collective": reduced - computed, "optimizer": perf_counter() - reduced}
        return StepResult(progress.step + 1, loss, weight, norm, lr, skipped=not update, stop=stop, seconds=seconds)

    def _begin_to_agree(self, losses: list[tuple[Tensor, int | Tensor]], stop: int) -> Callable[[], Tensor]:
        """Returns what waits for all ranks' (loss, weight, stop) of each of their micro-batches: [world, micro-batches, 3], float64, one
        message. It travels while the last backward runs."""
        totals, weights = zip(*losses, strict=True)
        each = [torch.stack([torch.as_tensor(value, dtype=torch.float64, device=self.device) for value in values])
                for values in (totals, weights, [stop] * len(losses))]
        return begin_gather(torch.stack(each, 1), dist.group.WORLD if self.world > 1 else None)

    def _agree(self, ranks: list[list[list[float]]]) -> tuple[float, float, int]:
        """(mean loss, global weight, greatest stop); sums along the tree over micro-batch indices."""
        rows = {index: row for part, share in zip(ranks, self.shares, strict=True) for index, row in zip(share, part, strict=True)}
        total = pairwise([rows[i][0] for i in range(len(rows))])
        weight = pairwise([rows[i][1] for i in range(len(rows))])
        return total / weight if weight else 0.0, weight, int(max(row[2] for row in rows.values()))

    def _set_lr(self, step: int) -> float:
        factor = self.schedule(step)
        for group, base in zip(self.optimizer.param_groups, self.base_lr, strict=True):
            group["lr"] = base * factor
        return self.base_lr[0] * factor

    def _update(self, gradients: list[Tensor], norm: float, weight: float) -> None:
        """One multiplication divides by the weight and clips: the sum is rounded once."""
        scale = 1.0 if self.clip is None else min(1.0, self.clip / (norm + 1e-6))
        torch._foreach_mul_(gradients, scale / weight)
        for parameter, gradient in zip(self.parameters.values(), gradients, strict=True):
            parameter.grad = _like(parameter, gradient)
        self.optimizer.step()
        for parameter in self.parameters.values():
            parameter.grad = None

    # ── between steps ───────────────────────────────────────────────────────────────────────────────────────────────────────────
    @torch.no_grad()
    def evaluate(self, count: int, fetch: Callable[[int], Batch]) -> dict[str, tuple[float, float]]:
        self.task.eval()
        names: list[str] = []
        local = []
        for index, counts in evaluation_rounds(count, self.world, self.rank):
            seed_micro_batch(self.seed, EVALUATION_STREAM, index)
            results = self.task(to_device(fetch(index), self.device), evaluating=True)
            names = sorted(results)
            local.append([float(counts), *(float(x) for name in names for x in results[name])])
        if isinstance(self.task, FSDPModule):
            self.task.reshard()     # without a backward the root would keep its gathered weights, and miss the next update
        ranks = gather_scalars(local, dist.group.WORLD if self.world > 1 else None, self.device) if local else [[]]
        rows = [ranks[i % self.world][i // self.world] for i in range(count)]
        sums = [pairwise([row[column] for row in rows]) for column in range(1, 1 + 2 * len(names))]
        return {name: (sums[2 * i], sums[2 * i + 1]) for i, name in enumerate(names)}

    def state_dict(self) -> State:
        return collect(self.task, {**self.parameters, **self.frozen}, self.optimizer)

    def restore(self, read: Callable[[State], T | None]) -> T | None:
        if not self.optimizer.state:
            prime(self.optimizer, list(self.parameters.values()))
        state = self.state_dict()
        found = read(state)
        if found is None:
            self._new_optimizer()
        else:
            write_back(state, self.parameters, self.optimizer)
        return found


def _like(parameter: nn.Parameter, gradient: Tensor) -> Tensor:
    """This rank's part of a gradient as the parameter's own kind of tensor."""
    if not isinstance(parameter, DTensor):
        return gradient
    return DTensor.from_local(gradient, parameter.device_mesh, parameter.placements, run_check=False,
                              shape=parameter.shape, stride=parameter.stride())


def pick(task: nn.Module, world: int) -> Literal["single", "ddp", "fsdp"]:
    """The layout for `auto`. Any of them gives the same bits where the sum is exact."""
    if world == 1:
        return "single"
    state = STATE_BYTES * sum(p.numel() for p in task.parameters())
    return "ddp" if state < _memory() / 4 else "fsdp"


def _memory() -> float:
    """Bytes that one worker can have: its accelerator's, or its part of this machine's."""
    if torch.accelerator.is_available():
        return float(torch.accelerator.get_memory_info()[1])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / int(os.environ.get("LOCAL_WORLD_SIZE", 1))
