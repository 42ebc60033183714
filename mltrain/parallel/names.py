"""Canonical names: the same in every strategy's state dict, free of what wrappers add."""
from __future__ import annotations

from torch import nn
from torch.nn import Parameter

_WRAPPERS = ("_orig_mod.", "_checkpoint_wrapped_module.", "_fsdp_wrapped_module.")


def canonical(name: str) -> str:
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def named_parameters(module: nn.Module) -> dict[str, Parameter]:
    """Canonical name -> parameter, tied ones once, under their first name."""
    return {canonical(name): parameter for name, parameter in module.named_parameters()}


def units(task: nn.Module) -> list[nn.Module]:
    """The modules that are sharded, recomputed and compiled one by one: the elements of the outermost ModuleLists, in order."""
    found: list[nn.Module] = []
    for child in task.children():
        found += list(child) if isinstance(child, nn.ModuleList) else units(child)
    return found
