"""The Trainer: parts are objects, it only brings them together. `loop.run` is what it does with them.

    trainer = Trainer(
        task=lambda: LanguageModeling(GPT(vocabulary=257, width=64, layers=2)),
        loader=Loader(data.train, global_batch=32, micro_batch=4),
        optimizer=partial(torch.optim.AdamW, lr=1e-3),
        steps=100)
    trainer.fit()
"""
from __future__ import annotations

from collections.abc import Sequence

import torch.distributed as dist

from mltrain.checkpoint.checkpointer import Checkpointer
from mltrain.data.loader import Loader
from mltrain.metrics.console import Console
from mltrain.metrics.writer import Metrics
from mltrain.optim.schedules import constant
from mltrain.parallel.native import Native
from mltrain.parallel.strategy import Factory, OptimizerFactory, Schedule, Strategy
from mltrain.runs.ledger import Row
from mltrain.runs.pulse import Pulse
from mltrain.task import Task
from mltrain.trainer import loop
from mltrain.trainer.callback import Callback
from mltrain.trainer.evaluate import Evaluation
from mltrain.trainer.guard import Guard
from mltrain.trainer.moments import Moments, Outcome
from mltrain.trainer.stop import Stop


class Trainer:
    """task: a Task, or (better: its weights are then made where they belong) a function that builds one. loader: the training data, cut
    into micro-batches. optimizer: parameters -> torch optimizer. steps: length of the run. schedule: steps done -> factor of the
    learning rate.
    validation, eval_every: held-out data, and how often (0: only at the end). metrics: where numbers go (None: the console).
    stop: when to stop before `steps`."""

    def __init__(self, task: Factory | Task, loader: Loader, optimizer: OptimizerFactory, *, steps: int, schedule: Schedule | None = None,
                 strategy: Strategy | None = None, validation: Evaluation | None = None, eval_every: int = 0,
                 checkpointer: Checkpointer | None = None, callbacks: Sequence[Callback] = (), metrics: Metrics | None = None,
                 stop: Stop | None = None) -> None:
        strategy, pulse = strategy or Native(), Pulse.from_environment()
        pulse.beat("load", -1)
        self.task = strategy.setup(task, optimizer, schedule or constant(steps), loader.global_batch // loader.micro_batch)
        loader.indices = strategy.share()
        first = not dist.is_initialized() or dist.get_rank() == 0
        self.metrics = (metrics or Metrics({"console": Console()}, steps=steps)) if first else None
        self.moments = Moments(strategy, loader, steps=steps, stop=stop or Stop(), validation=validation, eval_every=eval_every,
                               checkpointer=checkpointer, callbacks=callbacks, metrics=self.metrics, pulse=pulse)
        if strategy.warning:
            pulse.report("reduction is native", reason=strategy.warning)
            self.moments.note(strategy.warning, 0)

    def watch(self, guard: Guard | None = None, compare_every: int = 0, past: Sequence[Row] = ()) -> Trainer:
        """Look after the numbers (guard.py), and every so many steps compare replicas (comparison.py; 0: never). To be called before `fit`.
        past: what the run gave up so far, by its ledger (runs.rollbacks); the loader must have been told what is skipped."""
        self.moments.watch(guard or Guard(), compare_every, past)
        return self

    def fit(self) -> Outcome:
        """Restores the newest checkpoint if there is one, trains, and returns when everything is durable. Raises what user code raised."""
        moments = self.moments
        moments.stop.listen()
        try:
            progress = moments.restore()
            if progress.step >= moments.last_step:
                return Outcome(0, progress, progress.step >= moments.steps, "nothing left to do")
            return loop.run(moments, progress)
        finally:
            moments.stop.restore()
            if self.metrics:
                self.metrics.close()
