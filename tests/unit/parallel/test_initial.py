"""First weights are a function of (seed, name)."""
from __future__ import annotations

import torch
from torch import nn

from mltrain.models.gpt import GPT
from mltrain.parallel.initial import build, can_defer, materialise, module_names


class Wide(nn.Module):
    """Sets weights in its constructor, as many models do: must not be deferred."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(4, 4)
        nn.init.constant_(self.line.weight, 0.5)


def weights(layers: int, seed: int) -> dict[str, torch.Tensor]:
    model, deferred = build(lambda: GPT(17, 16, layers, 2), seed)
    assert deferred
    materialise(model, module_names(model), seed, torch.device("cpu"))
    return dict(model.state_dict())


def test_another_layer_changes_no_other_module() -> None:
    shallow, deep = weights(1, 0), weights(3, 0)
    same = [name for name in shallow if "out" not in name and "down" not in name]     # these are scaled by the depth
    assert all(torch.equal(shallow[name], deep[name]) for name in same)


def test_the_seed_changes_them() -> None:
    assert not torch.equal(weights(1, 0)["embedding.weight"], weights(1, 1)["embedding.weight"])


def test_modules_of_one_kind_differ() -> None:
    made = weights(2, 0)
    assert not torch.equal(made["blocks.0.attention.query.weight"], made["blocks.1.attention.query.weight"])


def test_a_constructor_that_sets_weights_is_kept() -> None:
    model, deferred = build(Wide, 0)
    assert not deferred and torch.equal(model.line.weight, torch.full((4, 4), 0.5))  # type: ignore[union-attr,arg-type]


def test_built_whole_it_still_follows_the_seed() -> None:
    one, other, third = (build(lambda: nn.Linear(3, 3), seed)[0].weight for seed in (0, 0, 1))
    assert torch.equal(one, other) and not torch.equal(one, third)  # type: ignore[arg-type]


def test_gpt_promises_deferred_weights() -> None:
    assert can_defer(GPT(17, 16, 1, 2)) and not can_defer(Wide())
