"""Initial weights: a function of (seed, canonical module name), made block by block so that no rank need hold the whole model.

A model says that its weights are just what its modules' own `reset_parameters` give by a class attribute `deferred_init = True`; it is then
built on the meta device and filled unit by unit, each module under its own seed. Any other model (one that sets weights in its constructor,
or has a module without `reset_parameters`) is built for real, whole, on every rank, under the run's seed: right for every model, at the
price of memory.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar, cast

import torch
from torch import nn

from mltrain.parallel.names import canonical
from mltrain.parallel.streams import seed_module

M = TypeVar("M", bound=nn.Module)


class _Resettable(Protocol):
    def reset_parameters(self) -> None:
        """Give the module's own weights their first values, from torch's generators."""


def build(factory: Callable[[], M], seed: int) -> tuple[M, bool]:
    """Returns the task and whether its weights are still to be made (it is then on the meta device)."""
    try:
        with torch.device("meta"):
            task = factory()
        deferred = can_defer(task)
    except (RuntimeError, TypeError, ValueError):              # it computes with weights that have no values here (torch raises all three)
        deferred = False                                       # a mistake of its own is not hidden: it comes again below
    if not deferred:
        seed_module(seed, "")
        task = factory()
    return task, deferred


def can_defer(task: nn.Module) -> bool:
    """Whether every module that holds weights belongs to a model that promises `deferred_init`."""
    promised = {id(m) for model in task.modules() if getattr(model, "deferred_init", False) for m in model.modules()}
    return all(id(m) in promised and hasattr(m, "reset_parameters") for m in task.modules() if _own(m))


def materialise(module: nn.Module, names: dict[int, str], seed: int, device: torch.device) -> None:
    """Gives the meta weights of `module` (and of all in it) storage and values. names: id(module) -> canonical name in the task."""
    for part in module.modules():
        if any(t.is_meta for t in _own(part)):
            part.to_empty(device=device, recurse=False)
            seed_module(seed, names[id(part)])
            with torch.no_grad():
                cast(_Resettable, part).reset_parameters()     # can_defer has seen that it is there


def module_names(task: nn.Module) -> dict[int, str]:
    return {id(module): canonical(name) for name, module in task.named_modules()}


def _own(module: nn.Module) -> list[torch.Tensor]:
    return [*module.parameters(recurse=False), *module.buffers(recurse=False)]
