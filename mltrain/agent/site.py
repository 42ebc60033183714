"""What a controller needs of the agent it lives in."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

Message = dict[str, Any]


class Site(Protocol):
    """The agent, as its controller sees it."""

    def obey(self, order: Message) -> None:
        """An order for this agent's own node."""
    def serve(self, attempt: int) -> tuple[str, int]:
        """The address of a new store for that attempt. Raises NodeUnfit (69)."""
    def claim(self, attempt: int, claim: dict[str, Any], then: Callable[[bool], None]) -> None:
        """Is this attempt ours to make? then(False), perhaps later, when another controller has it. claim: fields for a `Claim`."""
    def answers(self, node: str) -> bool:
        """False if that node's agent is dead for sure."""
    def over(self, code: int) -> None:
        """The run has ended: its exit code."""
    def deposed(self) -> None:
        """Another controller has the run: this one is done."""
