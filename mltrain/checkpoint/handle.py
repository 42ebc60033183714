"""Handle: what became of one save."""
from __future__ import annotations

import time
from collections.abc import Callable

from mltrain.checkpoint.buffer import Buffer
from mltrain.checkpoint.manifest import manifest_name, step_name
from mltrain.checkpoint.storage import Storage
from mltrain.errors import StorageError

LOOK_SECONDS = 0.05                                             # between two looks at a storage for other ranks' parts


class Handle:
    """step, attempt: of the save. seconds: that `save` took. staged: the state is copied, training may change it. durable: committed,
    the parts of all ranks. error: a StorageError, when this rank's part could not be written or the commit did not come."""

    def __init__(self, refresh: Callable[[], None], step: int, attempt: int) -> None:
        self.step, self.attempt, self.seconds = step, attempt, 0.0
        self.staged = self.committed = False                    # committed: as last seen; `durable` looks again
        self.error: StorageError | None = None
        self._refresh = refresh
        self._buffer: Buffer | None = None
        self._sequence, self._world, self._next_look = 0, 1, 0.0
        self._written = self._handed_on = False

    def __repr__(self) -> str:
        return f"Handle(step={self.step}, {'durable' if self.committed else self.error or 'on its way'})"

    @property
    def durable(self) -> bool:
        self._refresh()
        return self.committed

    @property
    def done(self) -> bool:
        """Durable or failed, as last seen."""
        return self.committed or self.error is not None

    def wait(self, timeout: float = 600.0) -> Handle:
        """Until durable. Raises StorageError when it failed, or after `timeout` seconds."""
        limit, pause = time.monotonic() + timeout, 0.0005
        while not self.durable:
            if self.error:
                raise StorageError(self.error.message, "what was saved before is whole: make room there and go on from that")
            if time.monotonic() > limit:
                raise StorageError(f"step {self.step} is not on the storage after {timeout:.0f} s",
                                   "is the storage slow, or did another rank fail?")
            time.sleep(pause)
            pause = min(2 * pause, 0.02)
        return self

    # ── what follows is the Checkpointer's ───────────────────────────────────────────────────────────────────────────────────────

    def sealed(self, buffer: Buffer, sequence: int, world: int, seconds: float) -> None:
        self._buffer, self._sequence, self._world, self.seconds, self.staged = buffer, sequence, world, seconds, True

    def fail(self, problem: str) -> None:
        self.error = StorageError(f"step {self.step} could not be saved: {problem}", "training goes on; the next save tries again")

    def try_again(self) -> bool:
        """Unsettles the snapshot, if it is still in its buffer."""
        if self._buffer is None or self._buffer.sequence != self._sequence or not self._buffer.error:
            return False
        self._buffer.try_again()
        self.error = None
        return True

    def look(self, storage: Storage) -> None:
        """Asks the buffer, and for the parts of other ranks the storage."""
        if self.done or self._buffer is None:
            return
        if not self._written:
            if not self._buffer.settled:
                return
            if self._buffer.error:
                return self.fail(self._buffer.error)
            self._written = True
        if self._world == 1:
            self.committed = True
        elif time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + LOOK_SECONDS
            self.committed = self._manifest_is_there(storage)

    def orphaned(self, storage: Storage, death: str) -> bool:
        """The writer died before it settled this. It may have died after its commit; if it died at work, this has failed; if it had not
        begun, another one should (True), but only one: where no writer can live, that must be told."""
        if self.done or self._buffer is None or self._written or self._buffer.settled:
            return False
        if self._manifest_is_there(storage):
            self._buffer.mark_written()
        elif self._buffer.begun or self._handed_on:
            self._buffer.mark_failed(death)
        else:
            self._handed_on = True
            return True
        return False

    def overtaken(self, step: int) -> None:
        """A later step is durable, this one is written here and not committed: another rank failed."""
        if not self.done and self._written and step > self.step:
            self.fail("another rank did not write its part")

    def _manifest_is_there(self, storage: Storage) -> bool:
        try:
            return manifest_name(self.step, self.attempt).rpartition("/")[2] in storage.list(step_name(self.step))
        except Exception:  # noqa: BLE001  a storage out of reach is no answer; object-store clients raise classes of their own
            return False
