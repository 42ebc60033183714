"""The loop, read aloud: for each batch a step; now and then an evaluation and a checkpoint; stop when it is time.

Time is here (which step, when to save, when to stop); how a step is computed is in `mltrain.parallel.native`, and what the moments do
besides (metrics, ledger, callbacks) in `moments.py`.
"""
from __future__ import annotations

from mltrain.errors import DONE
from mltrain.progress import Progress
from mltrain.task import StepResult
from mltrain.trainer.moments import Moments, Outcome
from mltrain.trainer.stop import CODES, WISHES


def run(m: Moments, progress: Progress) -> Outcome:
    """From `progress` to the end, or to where all ranks agree to stop."""
    result: StepResult | None = None
    try:
        m.hook("start", progress, result)
        for micro_batches in m.loader.batches(progress):
            m.begin(progress)
            result = m.strategy.train_step(progress, micro_batches, stop=m.stop.wish())
            progress = progress.after(*m.consumed_per_step)
            last = progress.step >= m.last_step or bool(result.stop)
            m.count(progress, result, last)
            m.compare(progress, last)
            m.hook("step", progress, result)
            if m.evaluation_due(progress, last):
                result = m.evaluate(progress, result)
                m.hook("evaluated", progress, result)
            if m.checkpoint_due(progress, last):
                m.save(progress)
                m.hook("saved", progress, result)
            if last:
                break
        m.settle(progress)
        m.hook("stop", progress, result)
    except BaseException:
        m.hook("error", progress, result)
        raise
    finally:
        m.hook("close", progress, result)
    done, wish = progress.step >= m.steps, result.stop if result else 0
    return Outcome(DONE if done else CODES[wish], progress, done, "" if done else WISHES[wish])
