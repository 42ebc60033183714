"""What agents of several nodes tell each other through the run directory, which all of them share.

    RUN/nodes/secret              the run's secret, for its owner alone; made by the first agent unless --secret-file names another
              attempt-0007.json   who runs attempt 7, and what a successor of its controller must know; linked into place, once
              here-HOST:PORT      written by a node before it joins, read by the controller: is this the same directory?
              over.json           the session's exit code: an agent that missed the message must not take a finished run over

A session is one gathering of agents, from the first controller to the end; a later one numbers its attempts on.
"""
from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mltrain.errors import ConfigError, StorageError
from mltrain.runs.atomic import FILE_MODE, write_json
from mltrain.runs.layout import make_folder
from mltrain.trust.run_secret import make_secret, read_secret


@dataclass(frozen=True, slots=True)
class Claim:
    """One attempt. controller, nodes: agents by HOST:PORT, in the order of take-over; names: of these, for people. excluded: hosts.
    policy: as `Policy.state`."""

    session: str
    attempt: int
    controller: str
    nodes: list[str]
    names: dict[str, str]
    excluded: list[str] = field(default_factory=list)
    restarts: int = 0
    policy: dict[str, Any] = field(default_factory=dict)
    started: float = 0.0


class Shared:
    """One run's folder for its agents."""

    def __init__(self, run: Path, secret_file: Path | None) -> None:
        self._folder, self._secret = make_folder(run / "nodes"), secret_file or run / "nodes" / "secret"
        self._own_secret = secret_file is None

    def secret(self, *, make: bool) -> bytes | None:
        """None while there is none yet. make: then make one. Raises ConfigError (78) for one that others can read, or none."""
        if self._own_secret and not self._secret.exists():
            if not make:
                return None
            part = self._part("secret")
            make_secret(part)
            with contextlib.suppress(FileExistsError):         # another agent was faster: its secret it is
                os.link(part, self._secret)
            part.unlink()
        return read_secret(self._secret)

    def _part(self, name: str) -> Path:
        return self._folder / f".{name}.{secrets.token_hex(8)}"

    # ── is it shared? ────────────────────────────────────────────────────────────────────────────────────────────────────────────
    def announce(self, id: str) -> str:
        """Write this node's file. Returns what the controller should find in it."""
        token = secrets.token_hex(16)
        write_json(self._folder / f"here-{id}", token, durable=False)
        return token

    def sees(self, id: str, token: str) -> bool:
        with contextlib.suppress(OSError, ValueError):
            if re.fullmatch(r"[0-9A-Za-z.:\[\]-]+", id):       # HOST:PORT, and no path
                return bool(json.loads((self._folder / f"here-{id}").read_text()) == token)
        return False

    def withdraw(self, id: str) -> None:
        with contextlib.suppress(OSError):
            (self._folder / f"here-{id}").unlink()

    # ── attempts ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────
    def _file(self, attempt: int) -> Path:
        return self._folder / f"attempt-{attempt:04d}.json"

    def claim(self, claim: Claim) -> bool:
        """Make that attempt ours. False if another has it: the link is exclusive, and whole, so that nobody reads half of it."""
        part = self._part("attempt")
        try:
            with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE), "w") as file:
                json.dump(asdict(claim), file)
                file.flush()
                os.fsync(file.fileno())
            os.link(part, self._file(claim.attempt))
            return True
        except FileExistsError:
            return False
        except OSError as error:
            raise StorageError(f"{self._folder}: attempt {claim.attempt} cannot be claimed: {error.strerror}",
                               "is the disk full, or the run directory read-only?") from None
        finally:
            part.unlink(missing_ok=True)

    def taken(self, attempt: int) -> bool:
        return self._file(attempt).exists()

    def newest(self) -> Claim | None:
        """Of whatever session."""
        found = (re.fullmatch(r"attempt-(\d+)\.json", name) for name in os.listdir(self._folder))
        number = max((int(match[1]) for match in found if match), default=None)
        if number is None:
            return None
        try:
            return Claim(**json.loads(self._file(number).read_text()))
        except (ValueError, TypeError):
            raise ConfigError(f"{self._file(number)}: not the claim of an attempt", "it was written by something else: remove it") from None

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────
    def end(self, session: str, code: int) -> None:
        with contextlib.suppress(StorageError):                # a full disk: the others hear of it by message
            write_json(self._folder / "over.json", {"session": session, "code": code})

    def ended(self, session: str) -> int | None:
        """The exit code of that session, None if it goes on."""
        try:
            over = json.loads((self._folder / "over.json").read_text())
        except (OSError, ValueError):
            return None
        return int(over["code"]) if over.get("session") == session else None
