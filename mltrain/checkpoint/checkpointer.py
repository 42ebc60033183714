"""Checkpointer: five lines in anybody's loop.

    checkpointer = Checkpointer("checkpoints", every=100)
    progress = checkpointer.restore(state) or Progress()       # fills the tensors in place; None: nothing was saved yet
    for progress in steps(after=progress):
        if progress.step % checkpointer.every == 0:
            checkpointer.save(state, progress)                  # returns after one copy in memory
    checkpointer.wait()                                         # the last one is on the disk, or StorageError

state: a flat dict, name -> Tensor or DTensor (Shard(0), Replicate). With several ranks each calls the same methods; saving needs no
message between them. A storage that fails never raises in `save`: `settled()` tells, training goes on, and the next save tries again.
"""
from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mltrain.checkpoint import catalog, restore
from mltrain.checkpoint.background import Writer, WriterProcess, WriterThread
from mltrain.checkpoint.buffer import encode_document
from mltrain.checkpoint.catalog import Damage, Saved
from mltrain.checkpoint.handle import Handle
from mltrain.checkpoint.ranks import Ranks
from mltrain.checkpoint.snapshot import Snapshot, signature
from mltrain.checkpoint.storage import LocalStorage, open_storage
from mltrain.checkpoint.weights import begin_with
from mltrain.errors import ConfigError
from mltrain.progress import Progress

if TYPE_CHECKING:
    import torch

BUFFER_SECONDS = 600.0                                          # a save gives up after waiting this long for the disk


class Checkpointer:
    """path: a folder or fsspec URL; None: `checkpoints` in `directory`, a run's. every: steps between saves (for whoever calls `save`;
    0: none). keep: how many stay; 0: all. attempt: number of this start of the job; a number that the folder knows already is not used
    again, `restore` takes the next. retired: [(step, attempt)]: what attempts up to `attempt` saved above `step` is off the branch.
    weights: an exported folder or a safetensors file that the first start begins with (see `weights.begin_with`).
    notes: damaged checkpoints that `restore` passed over, {"step", "attempt", "problem"} each, for a ledger. begun_with: {"path",
    "digest"} of the weights that `restore` filled in, because nothing was saved yet."""

    def __init__(self, path: str | os.PathLike[str] | None = None, *, every: int = 100, keep: int = 2, attempt: int = 1,
                 retired: Iterable[Sequence[int]] = (), directory: str | os.PathLike[str] | None = None,
                 weights: str | os.PathLike[str] | None = None) -> None:
        if every < 0 or keep < 0 or attempt < 1:
            raise ConfigError(f"checkpoint: every={every}, keep={keep}, attempt={attempt}",
                              "every and keep are 0 or more, attempt is 1 or more")
        if path is None and directory is None:
            raise ConfigError("checkpoint: no path", "give a folder or URL, checkpoint.path=FOLDER")
        self.storage = open_storage(os.path.join(directory or "", "checkpoints") if path is None else path)
        self.every, self.keep, self.attempt = every, keep, attempt
        self.weights = weights
        self.notes: list[dict[str, Any]] = []
        self.begun_with: dict[str, str] = {}
        self._retired = [[int(step), int(last)] for step, last in retired]
        self._held: dict[str, list[int]] = {}                   # "resumed", "verified": [step, attempt] that may not be pruned
        self._agreed = False
        self._snapshot: Snapshot | None = None
        self._writer: Writer | None = None
        self._sequence = 0
        self._pending: list[Handle] = []
        self._settled: list[Handle] = []
        self._last: Handle | None = None

    # ── saving ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def save(self, state: Mapping[str, torch.Tensor], progress: Progress, plain: Mapping[str, Any] | None = None) -> Handle:
        """Copies this rank's part of the state and returns; it becomes durable meanwhile. plain: small JSON state (rank 0's is kept).
        Waits only if the two saves before are both still being written. Raises ConfigError for a state that cannot be saved and
        NodeUnfit without memory for the buffers, never for a storage."""
        began, ranks = time.monotonic(), Ranks.current()
        self._agree(ranks)
        document = encode_document({
            "path": self.storage.root, "step": progress.step, "attempt": self.attempt, "rank": ranks.rank, "world": ranks.world,
            "progress": progress.to_dict(), "plain": dict(plain or {}), "saved": time.time(),
            "keep": self.keep, "held": [*self._held.values()], "retired": self._retired,
        })
        snapshot = self._snapshot_for(state, ranks)
        handle = self._last = Handle(self._look, progress.step, self.attempt)
        self._pending.append(handle)
        slot = snapshot.free_slot(BUFFER_SECONDS, self._look)
        self._look()                                            # learn what became of the buffer's last snapshot before it is gone
        if slot is None:
            handle.fail(f"both buffers are still being written after {BUFFER_SECONDS:.0f} s: the storage does not answer")
            return handle
        self._start_writer(snapshot)                            # before the copy: whoever is killed after it has a writer
        snapshot.copy(slot, state)
        self._sequence += 1
        snapshot.buffers[slot].seal(self._sequence, snapshot.image_bytes, document)
        handle.sealed(snapshot.buffers[slot], self._sequence, ranks.world, time.monotonic() - began)
        self._ring(snapshot)
        return handle

    def wait(self, timeout: float = 600.0) -> None:
        """Returns when the last save is durable on all ranks (its manifest is committed). One that failed is tried once more.
        Raises StorageError after `timeout` seconds, or when it failed again."""
        if self._last is None:
            return
        self._look()
        if self._last.error and self._snapshot is not None and self._last.try_again():
            self._settled = [handle for handle in self._settled if handle is not self._last]
            self._pending.append(self._last)
            self._ring(self._snapshot)
        self._last.wait(timeout)

    def settled(self) -> list[Handle]:
        """Saves that became durable or failed since the last call, in order of their steps."""
        self._look()
        settled, self._settled = self._settled, []
        return sorted(settled, key=lambda handle: handle.step)

    def close(self) -> None:
        """Lets go of buffers and writer. What is sealed is still written, by the writer, after this returns."""
        self._look()
        if self._writer is not None:
            self._writer.close()
        if self._snapshot is not None:
            self._snapshot.close()
        self._writer = self._snapshot = None

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def restore(self, state: Mapping[str, torch.Tensor], plain: dict[str, Any] | None = None, step: int | None = None) -> Progress | None:
        """Fills `state` (and `plain`) in place from the newest whole step, or from `step`; None when nothing was saved yet (parameters
        and buffers are then those of `weights`, if it is set). Every digest of what is read is checked; damage sends all ranks to the
        step before, and into `notes`. With several ranks a collective."""
        found = restore.restore(self.storage, state, self.attempt, self._retired, step)
        self._agreed, self.attempt = True, found.attempt
        self.notes += found.damaged
        if found.manifest is None:
            if self.weights is not None:
                self.begun_with = begin_with(self.weights, state)
            return None
        self._held["resumed"] = [found.manifest.step, found.manifest.attempt]
        if plain is not None:
            plain.clear()
            plain.update(found.manifest.plain)
        return Progress.from_dict(found.manifest.progress)

    def list(self) -> Sequence[Saved]:
        """What is committed, oldest first, damaged ones included."""
        return catalog.saved_steps(self.storage, self._retired)

    def verify(self, step: int | None = None) -> Sequence[Damage]:
        """Reads every byte of a step (of all: None); what is damaged. The newest step without damage will not be pruned."""
        damage = []
        for saved in self.list():
            if step in (None, saved.step):
                found = [*catalog.verify(self.storage, saved)]
                damage += found
                if not found:
                    self._held["verified"] = [saved.step, saved.attempt]
        return damage

    # ── inside ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _agree(self, ranks: Ranks) -> None:
        """Before the first save: which attempt this is. `restore` settles it for all ranks; a single process may look by itself."""
        if self._agreed:
            return
        if ranks.world > 1:
            raise ConfigError("checkpoint: with several ranks call restore(state) before the first save",
                              "it is where they agree on what is there; it returns None in an empty folder")
        try:
            self.attempt = restore.unused_attempt(self.storage, self.attempt)
        except Exception:  # noqa: BLE001  a storage out of reach: the save will fail in the writer, and be recorded
            return
        self._agreed = True

    def _snapshot_for(self, state: Mapping[str, torch.Tensor], ranks: Ranks) -> Snapshot:
        """The buffers; new ones when names, types, shapes or placements changed since the last save."""
        if self._snapshot is None or self._snapshot.signature != signature(state):
            if self._snapshot is not None:
                self._snapshot.free_slot(BUFFER_SECONDS, self._look, all_of_them=True)
            self.close()
            self._snapshot = Snapshot(state, ranks.rank, ranks.world)
        return self._snapshot

    def _start_writer(self, snapshot: Snapshot) -> str:
        """Where there is none. Returns why it could not be started."""
        try:
            if self._writer is None:
                self._writer = (WriterProcess if isinstance(self.storage, LocalStorage) else WriterThread)(snapshot.buffers)
        except OSError as error:
            return f"no writer could be started: {error}"
        return ""

    def _ring(self, snapshot: Snapshot) -> None:
        """Tells the writer that something is sealed."""
        problem = self._start_writer(snapshot)
        if self._writer is not None:
            self._writer.ring()
        for buffer in snapshot.buffers:
            if problem and not buffer.settled:
                buffer.mark_failed(problem)

    def _look(self) -> None:
        """Moves handles from pending to settled. What a writer died over has failed, and the next save starts another writer."""
        if self._writer is not None and (death := self._writer.death()):
            self._writer = None
            orphans = [handle for handle in self._pending if handle.orphaned(self.storage, death)]
            if orphans and self._snapshot is not None:
                self._ring(self._snapshot)
        for handle in self._pending:
            handle.look(self.storage)
        durable = max((handle.step for handle in self._pending if handle.committed), default=-1)
        for handle in self._pending:
            handle.overtaken(durable)
        self._settled += [handle for handle in self._pending if handle.done]
        self._pending = [handle for handle in self._pending if not handle.done]
