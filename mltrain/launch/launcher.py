"""The contract of a launcher: how a job gets its machines. One file a kind beside this one."""
from __future__ import annotations

from pathlib import Path
from typing import Protocol

from mltrain.launch.job import JobSpec


class Launcher(Protocol):
    """Made from the recipe's `launcher` node. Everything about the run itself (state, steps, logs by rank) is in the run directory; a
    launcher knows only its job."""

    def render(self, job: JobSpec) -> dict[str, str]:
        """{file name: text} of what would be submitted. Pure: no file is written, no command run."""
        ...

    def submit(self, job: JobSpec, detach: bool = False) -> int:
        """Start the job. In the foreground: wait, and return the run's exit code. detach: return 0 as soon as it is on its way."""
        ...

    def status(self, run: Path) -> str:
        """One word on the job: live or gone (a cluster's launcher may know more: pending, held)."""
        ...

    def logs(self, run: Path) -> list[Path]:
        """Files that the job itself wrote, beside the logs by rank."""
        ...

    def cancel(self, run: Path) -> None:
        """Ask the job to save its state and end. Does not wait."""
        ...
