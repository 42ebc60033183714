"""Where a run stands: three integers, from which data position, schedule and random streams follow."""
from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """step: optimizer steps done. samples, tokens: consumed so far, over all ranks."""

    step: int = 0
    samples: int = 0
    tokens: int = 0

    def after(self, samples: int, tokens: int) -> Progress:
        """One step further."""
        return Progress(self.step + 1, self.samples + samples, self.tokens + tokens)

    def to_dict(self) -> dict[str, int]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, int]) -> Progress:
        return cls(values["step"], values["samples"], values["tokens"])
