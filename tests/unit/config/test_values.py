# ruff: noqa: UP007, UP045  the old spellings of unions are met in other people's signatures
from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Optional, Protocol, TypedDict, Union

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Meta

from mltrain.config.values import Mismatch, convert, describe


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Point(NamedTuple):
    x: int
    y: int


class Options(TypedDict, total=False):
    size: int


@dataclass
class Size:
    width: int


class Sink(Protocol):
    def write(self) -> None: ...


class Thing:
    pass


NODE = {"_target_": "a.B"}
thing = Thing()


@pytest.mark.parametrize(("hint", "value", "result"), [
    (int, 3, 3), (float, 3, 3.0), (float, 1e-3, 1e-3), (str, "a", "a"), (bool, True, True),
    (Any, {"a": [1]}, {"a": [1]}), (object, 1, 1),
    (Optional[int], None, None), (int | None, 4, 4), (int | str, "3 epochs", "3 epochs"), (float | int, 3, 3), (int | float, 3.5, 3.5),
    (Path, "a/b", Path("a/b")), (str | Path, "a", "a"), (Path | None, None, None),
    (Literal["a", "b"], "a", "a"), (Literal[1, 2], 2, 2), (Colour, "red", Colour.RED),
    (list[int], [1, 2], [1, 2]), (list[Path], ["a"], [Path("a")]), (tuple[float, float], [0.9, 1], (0.9, 1.0)),
    (tuple[int, ...], [1, 2, 3], (1, 2, 3)),
    (dict[str, float], {"a": 1}, {"a": 1.0}), (dict[str, Sink], {"a": NODE, "b": None}, {"a": NODE, "b": None}),
    (set[int], [1, 1], {1}),
    (Annotated[int, Meta(ge=1)], 1, 1), (Annotated[float, Meta(gt=0)] | None, None, None),
    (Point, [1, 2], Point(1, 2)), (Options, {"size": 1}, {"size": 1}), (Size, {"width": 1}, Size(1)),
    (Thing, NODE, NODE), (Thing, thing, thing), (Sink, NODE, NODE), (Thing | float, 0.5, 0.5),
    (Union[Thing, None], None, None), (list[Thing], [NODE], [NODE]),
    (float | Thing, NODE, NODE),
])
def test_values_that_fit(hint, value, result):
    converted = convert(value, hint)
    assert converted == result and type(converted) is type(result)


@pytest.mark.parametrize(("hint", "value", "words"), [
    (int, "3", "expected int, got '3'"), (int, True, "expected int, got True"), (int, 3.0, "expected int"),
    (float, "1e-3", "expected float"),
    (bool, 1, "expected bool, got 1"), (str, 3, "expected text, got 3"), (int, None, "expected int, got None"),
    (int | None, "x", "expected int or null"), (Literal["a", "b"], "c", "expected one of a, b"), (Colour, "green", "one of red, blue"),
    (list[int], 3, "expected list[int]"), (list[int], ["a"], "expected int, got 'a'"),
    (tuple[float, float], [1], "expected 2 values, got 1"),
    (dict[str, int], [1], "expected dict[text, int]"), (dict[str, int], {"a": "b"}, "expected int"),
    (Annotated[int, Meta(ge=1)], 0, "expected int >= 1, got 0"), (Path, 3, "expected text"),
    (Size, {"width": "a"}, "width"), (Thing, {"width": 1}, "a node with _target_"), (Sink, "console", "a node with _target_"),
    (int, NODE, "expected int"), (list[int], NODE, "expected list[int]"), (int, thing, "expected int"),
])
def test_values_that_do_not_fit(hint, value, words):
    with pytest.raises(Mismatch) as error:
        convert(value, hint)
    assert words in str(error.value)


plain = st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
                     lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=6)
hints = st.sampled_from([int, float, str, bool, int | None, list[int], dict[str, float], tuple[int, str], Literal["a"], Path, Thing, Colour,
                         Size, Any, int | Thing, list[dict[str, int]]])


@settings(max_examples=200, derandomize=True, deadline=None)
@given(value=plain, hint=hints)
def test_whatever_comes_the_answer_is_a_value_or_a_mismatch(value, hint):
    try:
        convert(value, hint)
    except Mismatch as error:
        assert describe(hint) and "\n" not in str(error)
