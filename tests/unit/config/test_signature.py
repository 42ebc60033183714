from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest

from mltrain.config.signature import signature

if TYPE_CHECKING:
    from nowhere import Unknown


class Base:
    def __init__(self, width: int, depth: int = 2) -> None: ...


class PassesOn(Base):
    def __init__(self, *args: Any, rate: float = 0.1, **kwargs: Any) -> None: ...


class Inherits(Base):
    pass


class Open:
    def __init__(self, a: int, **kwargs: Any) -> None: ...


@dataclasses.dataclass
class Data:
    path: str
    seed: int = 0


def function(first: Unknown, /, second: list[int], *, third: str = "x") -> None: ...


class Maker:
    @classmethod
    def make(cls, size: int) -> Maker: ...


@pytest.mark.parametrize(("target", "names", "is_open"), [
    (Base, ["width", "depth"], False),
    (PassesOn, ["rate", "width", "depth"], False),
    (Inherits, ["width", "depth"], False),
    (Open, ["a"], True),
    (Data, ["path", "seed"], False),
    (function, ["second", "third"], False),
    (Maker.make, ["size"], False),
])
def test_what_can_be_given_by_name(target, names, is_open):
    found = signature(target)
    assert (list(found.arguments), found.open) == (names, is_open)


def test_types_are_read_from_text_and_unknown_ones_are_any():
    def takes(a: Unknown, b: list[int]) -> None: ...
    found = signature(takes).arguments
    assert (found["a"].hint, found["b"].hint) == (Any, list[int])


def test_what_has_no_default_is_required():
    found = signature(PassesOn).arguments
    assert [name for name, argument in found.items() if argument.required] == ["width"]


def test_torchs_adamw_has_a_rate_and_betas():
    import torch
    found = signature(torch.optim.AdamW).arguments
    assert {"params", "lr", "betas", "weight_decay"} <= set(found) and not signature(torch.optim.AdamW).open
