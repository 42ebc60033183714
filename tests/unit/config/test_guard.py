from __future__ import annotations

import time

import pytest

from mltrain.config.compose import compose
from mltrain.config.document import parse
from mltrain.errors import ConfigError, MltrainError, UsageError

ALIASES = """\
a0: &a0 [x,x,x,x,x,x,x,x,x]
a1: &a1 [*a0,*a0,*a0,*a0,*a0,*a0,*a0,*a0,*a0]
a2: &a2 [*a1,*a1,*a1,*a1,*a1,*a1,*a1,*a1,*a1]
a3: &a3 [*a2,*a2,*a2,*a2,*a2,*a2,*a2,*a2,*a2]
a4: &a4 [*a3,*a3,*a3,*a3,*a3,*a3,*a3,*a3,*a3]"""

LETTERS = list(zip("abcdefghijklmnop", "bcdefghijklmnopq", strict=True))
DOUBLING = "x:\n" + "  a: xx\n" + "\n".join(f"  {b}: ${{x.{a}}}${{x.{a}}}" for a, b in LETTERS)


def seconds_to_refuse(project, name="bomb"):
    """The best of three, of the processor: a busy machine is no fault of ours."""
    compose(["recipe=mine"])                     # imports of Hydra are no part of the claim
    seconds = []
    for _ in range(3):
        start = time.process_time()
        with pytest.raises(ConfigError) as error:
            compose([f"recipe={name}"])
        seconds.append(time.process_time() - start)
    return min(seconds), str(error.value)


def test_the_alias_bomb_of_211_bytes_is_refused_at_once(project):
    assert len(ALIASES) == 211
    project.write("recipes/bomb.yaml", ALIASES)
    seconds, message = seconds_to_refuse(project)
    assert seconds < 0.2
    assert "recipes/bomb.yaml:5" in message and "10,000" in message


def test_the_interpolation_bomb_is_refused_at_once(project):
    project.recipe(DOUBLING, "bomb")
    seconds, message = seconds_to_refuse(project)
    assert seconds < 0.2
    assert "recipes/bomb.yaml:" in message and "1,000 values" in message


def test_the_same_bomb_on_the_command_line_is_refused(project):
    lines = [f"+x.{b}='${{x.{a}}}${{x.{a}}}'" for a, b in LETTERS]
    with pytest.raises(ConfigError, match="command line: x.* 1,000 values"):
        compose(["recipe=mine", "+x.a=xx", *lines])


def test_a_bomb_in_an_option_that_nobody_chose_harms_nobody(project):
    project.write("conf/optimizer/bomb.yaml", f"defaults: [adamw]\n{ALIASES}")
    assert compose(["recipe=mine"]).problems == []


def test_a_bomb_in_a_chosen_option_is_named(project):
    project.write("conf/optimizer/bomb.yaml", ALIASES)
    with pytest.raises(ConfigError, match=r"conf/optimizer/bomb.yaml:5"):
        compose(["recipe=mine", "optimizer=bomb"])


@pytest.mark.parametrize(("text", "reason"), [
    ("a: " + "[" * 40 + "]" * 40, "deep"),
    ("a: " + "[" * 500_000, "nest"),                  # PyYAML 6.0.4 sees it before we do
    ("a: &a [*a]", "inside the value"),
    ("a: &a x\nb: [" + ",".join(["*a"] * 65) + "]", "64 aliases"),
    ("a: [" + "x," * 10_001 + "]", "10,000"),
    ("a: 1\nb: {c: 1, c: 2}", "b.c is set twice"),
    ("a: !!python/object/apply:os.system [ls]", "f:1: the tag"),
    ("a: !!python/name:os.system", "f:1: could not determine a constructor"),
    ("a: 1\n1: 2", "f:2: a key must be text"),
    ("- 1", "keys and values"),
    ("a: [1", "f:"),
    ("a: 1\n---\nb: 2", "f:"),
    ("a: \x01", "f"),
    ("defaults: 3", "must be a list"),
])
def test_text_that_is_refused(text, reason):
    start = time.process_time()                  # of the processor: a busy machine is no fault of ours
    with pytest.raises(ConfigError) as error:
        parse(text, "f")
    assert reason in str(error.value) and time.process_time() - start < 0.2


def test_a_file_of_two_mebibytes_is_refused(project):
    project.write("recipes/big.yaml", "# " + "x" * (1 << 21))
    with pytest.raises(ConfigError, match="larger than 1,048,576 bytes"):
        compose(["recipe=big"])


@pytest.mark.parametrize("text", ["x.a=" + "[" * 40 + "]" * 40, "x.a=" + "y" * 20_000, "x.a=\x00"])
def test_overrides_that_are_refused(project, text):
    with pytest.raises(UsageError):
        compose(["recipe=mine", text])


def test_a_loop_of_interpolations_is_named(project):
    project.recipe("x: {a: '${x.b}', b: '${x.a}'}\n")
    with pytest.raises(MltrainError, match="recipes/mine.yaml:12: x.a: an interpolation refers to itself"):
        compose(["recipe=mine"])


def test_many_references_that_stand_for_little_are_fine(project):
    project.recipe("x: {a: 1, b: [" + ", ".join(["'${x.a}'"] * 200) + "]}\n")
    assert compose(["recipe=mine"]).tree["x"]["b"] == [1] * 200
