"""Places a task on a mesh: initial weights, recomputation, compilation and FSDP2, unit by unit.

FSDP2 knows only the shard axis; replicas are summed by us once a step. With bfloat16 it is used on a shard axis of one as well, so that
a single process casts exactly where a sharded one does.
"""
from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.utils.checkpoint import checkpoint

from mltrain.parallel.initial import materialise, module_names
from mltrain.parallel.names import units
from mltrain.parallel.precision import Precision
from mltrain.parallel.reduction import TreeReduceScatter


def place(task: nn.Module, *, device: torch.device, seed: int, deferred: bool, shards: DeviceMesh | None,
          precision: Precision, exact: bool, recompute: bool, compile: bool) -> None:
    """In place. shards: the shard axis, None where parameters stay whole and plain. deferred: the task is on the meta device."""
    names = module_names(task)
    policy = MixedPrecisionPolicy(param_dtype=precision.dtype, reduce_dtype=torch.float32) if precision.mixed else MixedPrecisionPolicy()
    blocks = units(task)
    for module in [*blocks, task]:
        if deferred:
            materialise(module, names, seed, device)
        else:
            module.to(device)
        if module is not task and recompute:
            recompute_forward(module)
        if module is not task and compile:
            module.compile()
        if shards is not None:
            fully_shard(module, mesh=shards, mp_policy=policy)
    if compile and not blocks:
        task.compile()
    if shards is not None:
        _own_sums(task, exact)
        for name in getattr(task, "forward_methods", ()):
            register_fsdp_forward_method(task, name)


def recompute_forward(module: nn.Module) -> None:
    """The module's activations are computed again in the backward instead of kept. Its name and parameters stay as they are."""
    forward: Callable[..., object] = module.forward
    module.forward = partial(checkpoint, forward, use_reentrant=False)


def _own_sums(task: nn.Module, exact: bool) -> None:
    """Gradients leave FSDP2 as sums, along the tree if exact. Both calls are needed: a divide factor of 1 alone asks gloo for an
    operation (PREMUL_SUM) that it lacks."""
    for module in task.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
            if exact:
                module.set_custom_reduce_scatter(TreeReduceScatter())
