"""What a run does at its moments besides computing: restore, count, evaluate, save, tell. One for each attempt."""
from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from mltrain.checkpoint.checkpointer import Checkpointer
from mltrain.data.loader import Loader
from mltrain.errors import TaskError
from mltrain.metrics.meter import Meter
from mltrain.metrics.writer import Metrics
from mltrain.parallel import replicas
from mltrain.parallel.strategy import Strategy
from mltrain.progress import Progress
from mltrain.runs.ledger import Row
from mltrain.runs.pulse import Pulse
from mltrain.runs.rollbacks import TRACED
from mltrain.task import StepResult
from mltrain.trainer.callback import Callback
from mltrain.trainer.comparison import Comparison
from mltrain.trainer.evaluate import Evaluation, evaluate
from mltrain.trainer.guard import Guard
from mltrain.trainer.rollback import Rollbacks
from mltrain.trainer.stop import Stop


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended. code: exit code (0, 75, 130). done: all steps are made. reason: who asked to stop before, if anybody did."""

    code: int
    progress: Progress
    done: bool
    reason: str = ""


class Moments:
    """strategy is set up, loader knows its micro-batches. metrics: of rank 0, None elsewhere."""

    def __init__(self, strategy: Strategy, loader: Loader, *, steps: int, stop: Stop, validation: Evaluation | None, eval_every: int,
                 checkpointer: Checkpointer | None, callbacks: Sequence[Callback], metrics: Metrics | None, pulse: Pulse) -> None:
        self.strategy, self.loader, self.steps, self.stop = strategy, loader, steps, stop
        self.validation, self.eval_every, self.checkpointer = validation, eval_every, checkpointer
        self.callbacks, self.metrics, self.pulse = callbacks, metrics, pulse
        strategy.phase, strategy.judge = pulse.phase, self.judge
        self.watch(Guard(), 0)
        self.last_step = steps if stop.at is None else min(steps, stop.at)
        self.consumed_per_step = (loader.global_batch, loader.global_batch * loader.dataset.tokens_per_sample)
        self.meter, self.since, self.waited, self.samples = Meter(steps), time.perf_counter(), 0.0, 0

    # ── once ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
    def watch(self, guard: Guard, compare_every: int, past: Sequence[Row] = ()) -> None:
        """past: what the run gave up so far (runs.rollbacks)."""
        self.guard, self.comparison = guard, Comparison(compare_every, past)
        self.rollbacks = Rollbacks(self.pulse, self.checkpointer, past)

    def restore(self) -> Progress:
        """Where the newest checkpoint left off, with weights, optimizer and callbacks as they were then; else the beginning."""
        progress: Progress | None = None
        plain: dict[str, Any] = {}                             # JSON, by name of what it belongs to
        if (checkpointer := self.checkpointer) is not None:            # also in an empty folder: it is where ranks agree on what is there
            self.pulse.beat("load", -1)
            progress = self.strategy.restore(lambda state: checkpointer.restore(state, plain))
            for note in checkpointer.notes:
                self.report("checkpoint damaged", kind="storage", step=note["step"], of_attempt=note["attempt"], problem=note["problem"])
                self.note(f"checkpoint of step {note['step']} is damaged: {note['problem']}", 0)
            if begun_with := checkpointer.begun_with:
                self.report("weights read", **begun_with)
                self.note(f"begins with the weights of {begun_with['path']}", 0)
        if progress is not None:
            for name, callback in self._named():
                callback.load(plain.get(name, {}))
            self.guard.load(plain.get("guard", {}))
            self.comparison.agreed = progress.step
            self.report("resumed", step=progress.step)
            self.note(f"goes on after step {progress.step}", progress.step)
        progress = progress or Progress()
        self.pulse.beat("load", progress.step, samples=progress.samples, tokens=progress.tokens)
        self.meter, self.since = Meter(self.steps, progress), time.perf_counter()
        return progress

    def settle(self, progress: Progress) -> None:
        """Waits until the last checkpoint is durable."""
        if self.checkpointer:
            self.pulse.beat("save", progress.step)
            try:
                self.checkpointer.wait()
            finally:
                self._report_saves()

    # ── steps ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────
    def begin(self, progress: Progress) -> None:
        self.waited += self.loader.waited
        self.samples = progress.samples
        self.pulse.beat("compute", progress.step)

    def judge(self, step: int, loss: float, norm: float, weight: float) -> bool:
        """Is the update of this step made? Asked in the middle of it, on all ranks, with the same numbers."""
        way = self.guard.judge(loss, norm, weight)
        if way == "stop":
            raise TaskError(f"step {step}: {self.guard.found}: no update was made",
                            "lower optimizer.lr or set clip; guard=skip leaves such steps out, guard=rollback goes back and around them")
        if way == "rollback":
            end = self.samples + self.loader.global_batch
            begin = max(0, end - self.guard.back * self.loader.global_batch)
            raise self.rollbacks.numbers(self.guard, step, self.loader.positions(begin, end))
        return weight > 0 and way != "skip"

    def count(self, progress: Progress, result: StepResult, last: bool) -> None:
        """The numbers of a step go to the pulse and, when due, to the metrics. What follows may wait for data."""
        self.pulse.beat("data", progress.step, loss=result.loss, samples=progress.samples, tokens=progress.tokens)
        found = self.guard.found
        if result.skipped or found:
            self.report("step skipped" if result.skipped else "loss spike", step=result.step, loss=str(result.loss), norm=str(result.norm),
                        weight=result.weight, text=found or "no targets")
            made = "made no update: " if result.skipped else ""
            self.note(f"step {result.step} {made}{found or 'no targets'}", result.step)
        self.meter.count(result)
        if self.metrics and (last or found or self.metrics.due(progress.step)):
            now = time.perf_counter()
            record = self.meter.record(result, progress, now - self.since, self.waited)
            self.metrics.put({**record, **self.guard.numbers()})
            self.since, self.waited = now, 0.0
        self._report_saves()

    def compare(self, progress: Progress, last: bool) -> None:
        """Replicas, when it is due. A difference ends the attempt on all ranks; the next one begins where they were last equal."""
        if not self.comparison.due(progress.step, last or self.checkpoint_due(progress, last)):
            return
        self.pulse.beat("collective", progress.step)
        parts, before = replicas.parts(self.strategy.state_dict()), self.comparison.agreed
        if found := replicas.compare(parts):
            raise self.rollbacks.corruption(found, parts, progress.step, before)
        if (wrong := self.comparison.agree(progress.step, parts)) is not None:
            self.report(TRACED, step=progress.step, ranks=wrong)
            self.note(f"step {progress.step} was made again: the state of ranks {wrong} had been wrong", progress.step)

    def evaluation_due(self, progress: Progress, last: bool) -> bool:
        """Every eval_every steps and at the end; not when somebody waits for us to stop."""
        if self.validation is None:
            return False
        return progress.step == self.last_step or (not last and self.eval_every > 0 and progress.step % self.eval_every == 0)

    def evaluate(self, progress: Progress, result: StepResult) -> StepResult:
        assert self.validation is not None
        began = time.perf_counter()
        self.pulse.beat("evaluate", progress.step)
        result = replace(result, metrics=evaluate(self.strategy, self.validation))
        if self.metrics:
            self.metrics.put({"kind": "evaluate", "step": progress.step, "time": time.time(), **result.metrics})
        self.since += time.perf_counter() - began           # no part of the time of a training step
        return result

    def checkpoint_due(self, progress: Progress, last: bool) -> bool:
        return self.checkpointer is not None and (last or (self.checkpointer.every > 0 and progress.step % self.checkpointer.every == 0))

    def save(self, progress: Progress) -> None:
        """Costs the step one copy; the rest happens while training goes on."""
        assert self.checkpointer is not None
        self.pulse.beat("save", progress.step)
        states = {name: callback.state() for name, callback in self._named()} | {"guard": self.guard.state()}
        plain = {name: state for name, state in states.items() if state}
        self.checkpointer.save(self.strategy.state_dict(), progress, plain)

    # ── what is said ────────────────────────────────────────────────────────────────────────────────────────────────────────────
    def hook(self, name: str, progress: Progress, result: StepResult | None) -> None:
        for callback in self.callbacks:
            if name not in ("error", "close"):                 # what went wrong, went wrong in the phase before
                self.pulse.beat("callback", progress.step)     # it may take its time
            text = getattr(callback, name)(progress, result)
            if text:
                self.note(text, progress.step)

    def report(self, event: str, **fields: object) -> None:
        """A row of the ledger about what is the same on every rank; rank 0 writes it."""
        if self.metrics:
            self.pulse.report(event, **fields)

    def note(self, text: str, step: int) -> None:
        if self.metrics:
            self.metrics.note(text, step)

    def _report_saves(self) -> None:
        for handle in self.checkpointer.settled() if self.checkpointer else ():
            if handle.error:
                self.pulse.report("save failed", kind="storage", step=handle.step, error=handle.error.message)
                self.note(f"checkpoint of step {handle.step} failed: {handle.error}", handle.step)
            else:
                self.report("saved", step=handle.step)

    def _named(self) -> list[tuple[str, Callback]]:
        return [(f"{index}-{type(callback).__name__}", callback) for index, callback in enumerate(self.callbacks)]
