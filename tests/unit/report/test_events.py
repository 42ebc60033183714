"""What a run gave up, in words."""
from __future__ import annotations

from typing import Any

import pytest

from mltrain.report.events import events


@pytest.mark.parametrize("row, text, bad", [
    ({"event": "rolled back", "step": 17, "at": 18, "why": "numerics", "text": "loss spike: 9", "skipped": [[0, 4]]},
     "to step 17 or before: loss spike: 9", True),
    ({"event": "rolled back", "step": 17}, "to step 17", False),
    ({"event": "loss spike", "step": 18, "text": "loss spike: 9", "loss": "9.0"}, "step 18: loss spike: 9", True),
    ({"event": "step skipped", "step": 18, "text": "no targets", "loss": "0.0"}, "step 18: no targets", True),
    ({"event": "corruption traced", "step": 12, "ranks": [0, 1]}, "at step 12 the state of ranks 0, 1 had been wrong", True)])
def test_a_row_is_a_sentence(row: dict[str, Any], text: str, bad: bool) -> None:
    ((found,), left_out) = events([{"seq": 1, "time": 1.0, "attempt": 1, **row}])
    assert (found["text"], found["bad"], left_out) == (text, bad, 0)
