"""Going back, by the one way that is proven: a row of the ledger, the end of this attempt, and a resume that reads the row.

The next attempt's Checkpointer passes over what is retired, its Loader leaves out what is skipped. Nothing else is special about it, so a
run killed before, in or after a roll-back has the bits of one that was not: before the row is written the same step finds the same thing
again, afterwards every resume reads it. The agent has the workers back in a fraction of a second.
"""
from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence

import torch.distributed as dist

from mltrain.checkpoint.checkpointer import Checkpointer
from mltrain.checkpoint.ranks import Ranks
from mltrain.errors import MltrainError, NodeUnfit, StorageError, TaskError
from mltrain.parallel.replicas import Difference, Part
from mltrain.runs.ledger import ROLLED_BACK, Row
from mltrain.runs.pulse import Pulse
from mltrain.runs.rollbacks import CORRUPTION, NUMERICS, blamed, made
from mltrain.trainer.guard import Guard

_MOST_DIGESTS = 64        # in a row of the ledger


class Rollbacks:
    """past: what the ledger says was given up so far (runs.rollbacks). Each method is a collective, and returns what to raise."""

    def __init__(self, pulse: Pulse, checkpointer: Checkpointer | None, past: Sequence[Row] = ()) -> None:
        self.pulse, self.checkpointer, self.past = pulse, checkpointer, past

    def numbers(self, guard: Guard, step: int, ranges: list[list[int]]) -> MltrainError:
        """The guard wants to go back at `step`. ranges: of the samples to leave out."""
        head, count, target = f"step {step}: {guard.found}", made(self.past), max(0, step - guard.back)
        if count >= guard.limit:
            problem = f"{count} roll-backs were made"
        else:
            problem = self._announce(lambda: self._unreachable(target), step=target, at=step, why=NUMERICS, text=guard.found,
                                     skipped=ranges)
        if problem:
            return TaskError(f"{head}: no update was made, and no roll-back: {problem}",
                             "lower optimizer.lr or set clip; mltrain resume RUN --from STEP goes back to any checkpoint")
        self.pulse.beat("compute", step)                       # it was computed: an attempt that got so far may be followed by another
        return TaskError(f"{head}: back to step {target} or before, without its samples (roll-back {count + 1} of {guard.limit})")

    def corruption(self, found: Difference, parts: Sequence[Part], step: int, agreed: int) -> MltrainError:
        """Replicas differ after `step`; after `agreed` they did not. Who is to blame leaves; the others wait, and their end is an echo."""
        again = blamed(self.past) & {*found.ranks}
        ranks, certain = sorted(again) or found.ranks, found.certain or bool(again)
        how = "differs from its replicas'" if certain else "should be the same and differs (the steps, made again, may tell which is wrong)"
        text = f"step {step}: the state of {_ranks(ranks)} {how}"
        digests = [] if certain else [[rank, *parts[rank]] for rank in ranks[:_MOST_DIGESTS]]
        problem = self._announce(str, step=agreed, at=step, why=CORRUPTION, text=text, ranks=ranks, certain=certain, digests=digests,
                                 shards=len({part.shard for part in parts}))
        if problem:
            return TaskError(f"{text}; no roll-back: {problem}", f"what was saved up to step {agreed} is right")
        if Ranks.current().rank not in ranks:
            dist.barrier()
        text = f"{text}; back to step {agreed} or before"
        if again:
            return NodeUnfit(f"{text}; not for the first time", "mltrain doctor; resume without that processor or memory")
        return (NodeUnfit if certain and _several_nodes() else TaskError)(text)

    def _announce(self, problem: Callable[[], str], **row: object) -> str:
        """Rank 0 hands the row over, and only then do the others hear of it: whoever is the first to die must not take it along. Returns
        what is in the way, "" if nothing is."""
        ranks, word = Ranks.current(), ""
        if ranks.rank == 0:
            saves_as = {"saves_as": self.checkpointer.attempt} if self.checkpointer else {}
            word = problem()
            if not word and not self.pulse.report(ROLLED_BACK, **row, **saves_as):
                word = "nobody keeps a ledger here (mltrain launch does, and mltrain agent --run-dir)"
        return str(ranks.broadcast(word))

    def _unreachable(self, target: int) -> str:
        """Why no checkpoint of `target` or before can be had. Before the first one is due a run begins anew."""
        if self.checkpointer is None or not self.checkpointer.every:
            return "no checkpoints are saved"
        if target < self.checkpointer.every:
            return ""
        with contextlib.suppress(StorageError):
            self.checkpointer.wait()                           # the one to go back to may be on its way
        try:
            there = [saved.step for saved in self.checkpointer.list() if saved.valid and saved.current]
        except StorageError as error:
            return error.message
        if min(there, default=target + 1) <= target:
            return ""
        return f"no checkpoint of step {target} or before is left (checkpoint.keep)"


def _ranks(ranks: list[int]) -> str:
    return f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {', '.join(map(str, ranks))}"


def _several_nodes() -> bool:
    """Else the run could not go on without the node that is unfit."""
    return int(os.environ.get("WORLD_SIZE", 1)) > int(os.environ.get("LOCAL_WORLD_SIZE", os.environ.get("WORLD_SIZE", 1)))
