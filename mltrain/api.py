"""One function a verb, and the only place where the rooms are wired together. Rooms are imported inside the functions: `mltrain status`
must not pay for torch."""
from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mltrain.doctor import Finding

# ── recipes ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

# ── data ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

# ── checkpoints ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────

# ── runs ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

# ── launch and worker ────────────────────────────────────────────────────────────────────────────────────────────────────────────

# ── this machine ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def doctor() -> list[Finding]:
    """What this machine and this installation have, and what is in a run's way."""
    from mltrain.doctor import examine
    return examine()
