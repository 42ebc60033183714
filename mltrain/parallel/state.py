"""A strategy's state under canonical names: `parameters/NAME`, `buffers/NAME`, `optimizer/NAME/KEY`."""
from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from mltrain.parallel.names import canonical
from mltrain.parallel.strategy import State


def collect(task: nn.Module, parameters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> State:
    """The live tensors (no copies). A plain number in the optimizer's state becomes a 0-d float64 tensor."""
    state: State = {f"parameters/{name}": p.detach() for name, p in parameters.items()}
    state |= {f"buffers/{name}": b for name, b in _persistent_buffers(task).items()}
    for name, p in parameters.items():
        for key, value in optimizer.state.get(p, {}).items():
            state[f"optimizer/{name}/{key}"] = value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)
    return state


def prime(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter]) -> None:
    """Makes the optimizer allocate its state, by a step with gradients of zero and a learning rate of zero."""
    rates = [group["lr"] for group in optimizer.param_groups]
    for p in parameters:
        p.grad = torch.zeros_like(p)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    optimizer.step()
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    for p in parameters:
        p.grad = None


def write_back(state: State, parameters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
    """Plain numbers of the optimizer's state, which a restore could not fill in place."""
    for name, p in parameters.items():
        for key, value in optimizer.state.get(p, {}).items():
            if not isinstance(value, Tensor):
                optimizer.state[p][key] = type(value)(state[f"optimizer/{name}/{key}"].item())


def local(value: Tensor) -> Tensor:
    """This rank's part."""
    return value.to_local() if isinstance(value, DTensor) else value


def _persistent_buffers(task: nn.Module) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for prefix, module in task.named_modules():
        kept = module._non_persistent_buffers_set
        found |= {canonical(f"{prefix}.{name}".lstrip(".")): b for name, b in module._buffers.items() if b is not None and name not in kept}
    return found
