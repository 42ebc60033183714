from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from mltrain.agent.store import _mark, sweep


def test_folders_of_dead_agents_are_removed_and_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    dead, living, foreign = f"{_mark()}{2 ** 22 + 1}-a", f"{_mark()}{os.getpid()}-a", "mltrain-store-1-99-a"
    for name in (dead, living, foreign):
        (tmp_path / name).mkdir()
    sweep()
    assert {path.name for path in tmp_path.iterdir()} == {living, foreign}
