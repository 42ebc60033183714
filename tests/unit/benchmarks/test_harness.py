"""The ruler itself: turns, medians, ratios."""
from __future__ import annotations

import importlib.util
import sys
import time
from pathlib import Path

import pytest

PATH = Path(__file__).resolve().parents[3] / "benchmarks" / "harness.py"


@pytest.fixture(scope="module")
def harness():
    spec = importlib.util.spec_from_file_location("harness", PATH)
    module = sys.modules["harness"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules["harness"]


def test_variants_take_turns_after_one_unmeasured_round(harness):
    calls = []
    variants = {name: lambda name=name: calls.append(name) or 1.0 for name in "ab"}
    table = harness.compare("?", variants, unit="s", rounds=3)
    assert "".join(calls) == "ab" + "ab" + "ba" + "ab"
    assert {name: len(figures) for name, figures in table.figures.items()} == {"a": 3, "b": 3}


def test_ratios_say_how_many_times_as_good(harness):
    figures = {"slow": [4.0, 4.0, 100.0], "fast": [2.0, 2.0, 1.0]}
    assert harness.Table("?", "s", figures, None, higher=False).better("fast", "slow") == 2.0
    assert harness.Table("?", "tokens/s", figures, None, higher=True).better("fast", "slow") == 0.5


def test_the_table_names_figures_ratio_limit_and_machine(harness):
    text = harness.Table("What does it cost?", "µs", {"ours": [4.0], "bare": [2.0]}, "bare", higher=False).markdown()
    assert text.startswith("## What does it cost?\n\n|  | median, µs | range | × ours | of the limit (bare) |")
    assert "| ours | 4 | 4 to 4 | 1.00 | 50% |" in text
    assert "1 rounds, less is better. " in text and "cores" in text and "torch" in text


def test_per_call_is_the_time_of_one_call(harness):
    assert 900 < harness.per_call(lambda: time.sleep(0.001), calls=5)() < 20_000
