"""What a launcher is asked to run: a run directory and the command of one worker. Where and on how many is the launcher's own business."""
from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

from mltrain.launch.early import Early


@dataclass(frozen=True, slots=True)
class JobSpec:
    """run: the run directory, made already. command: of one worker (empty: mltrain's own). environment: variables added to the
    launcher's own; secrets do not belong here. early: an agent that waits already, for a launcher that can use one."""

    run: Path
    command: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    early: Early | None = None

    @property
    def worker(self) -> list[str]:
        """The command that every worker runs."""
        return list(self.command) or [sys.executable, "-m", "mltrain", "worker", str(self.run)]
