"""What a look at the machine has found."""
from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """name: what was looked at. state: ok, warn or bad. value: what is there. hint: what to do, if not ok. code: the exit code if bad."""

    name: str
    state: str
    value: str
    hint: str = ""
    code: int = 0
