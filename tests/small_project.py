"""A user's project with a run so small that it can be made, killed and compared dozens of times: what launch and fault tests share.

The recipe has everything that could spoil the bits in it: dropout, clipping, accumulation, unequal numbers of targets, documents of unequal
length, a schedule, evaluation, a callback with state.
"""
from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

RECIPE = """
defaults:
  - override /task: gpt
  - override /data: text
task: {model: {width: 16, layers: 2, heads: 2, dropout: 0.1}, ignore: 32}
data: {path: data, sequence: 32, validation_samples: 8}
steps: 24
global_batch: 16
micro_batch: 2
eval_every: 10
clip: 0.5
optimizer: {lr: 5.0e-3}
schedule: {warmup: 4}
checkpoint: {every: 4}
metrics: {every: 4}
launcher: {workers: 2}
callback: {counting: {_target_: hooks.Counting}, fault: {_target_: hooks.Fault}}
"""
HOOKS = '''
"""Callbacks of this project: one with state, one that kills."""
import os
import signal
import time

from mltrain import Callback


class Counting(Callback):
    """Counts steps over all attempts; says it at the end."""

    def __init__(self):
        self.steps = 0

    def step(self, progress, result):
        self.steps += 1
        time.sleep(float(os.environ.get("PACE", 0)))          # so that there is time to be killed

    def stop(self, progress, result):
        return f"counted {self.steps} steps"

    def state(self):
        return {"steps": self.steps}

    def load(self, state):
        self.steps = state["steps"]


class Fault(Callback):
    """FAULT="hook step attempt rank target": at that moment that rank kills itself, all workers, the agent, or the agent's group."""

    def __init__(self):
        hook, step, attempt, rank, self.target = os.environ.get("FAULT", "none 0 0 0 self").split()
        here = (int(os.environ.get("MLTRAIN_ATTEMPT", 1)), int(os.environ.get("RANK", 0))) == (int(attempt), int(rank))
        self.hook, self.at = (hook if here else "none"), int(step)

    def moment(self, hook, progress):
        if (hook, progress.step) == (self.hook, self.at):
            agent = int(open(f"/proc/{os.getpid()}/stat").read().rsplit(")", 1)[1].split()[1])
            if self.target == "group":
                os.killpg(os.getpgid(agent), signal.SIGKILL)
            if self.target == "workers":
                for pid in open(f"/proc/{agent}/task/{agent}/children").read().split():
                    if b"worker" in open(f"/proc/{pid}/cmdline", "rb").read() and int(pid) != os.getpid():
                        os.kill(int(pid), signal.SIGKILL)
            os.kill(agent if self.target in ("agent", "group") else os.getpid(), signal.SIGKILL)
            signal.pause()

    def start(self, progress, result): self.moment("start", progress)
    def step(self, progress, result): self.moment("step", progress)
    def evaluated(self, progress, result): self.moment("evaluated", progress)
    def saved(self, progress, result): self.moment("saved", progress)
    def stop(self, progress, result): self.moment("stop", progress)
'''


def make(folder: Path) -> Path:
    """The project with its data, in `folder`."""
    draw = random.Random(0)
    words = ["".join(draw.choice("abcdefgh") for _ in range(draw.randint(1, 9))) for _ in range(60)]
    (folder / "texts").mkdir(parents=True)
    for number in range(80):
        (folder / "texts" / f"{number}.txt").write_text(" ".join(draw.choice(words) for _ in range(draw.randint(5, 120))))
    (folder / "recipes").mkdir()
    (folder / "recipes" / "small.yaml").write_text(RECIPE)
    (folder / "hooks.py").write_text(HOOKS)
    mltrain(folder, "data", "prepare", "texts", "--out", "data", "--holdout", "0.2")
    return folder


def mltrain(folder: Path, *arguments: str, code: int = 0, limit: float = 120.0, environment: dict[str, str] | None = None) -> str:
    """Run the command in `folder`, check its exit code; returns what it printed."""
    import os
    done = subprocess.run([sys.executable, "-m", "mltrain", *arguments], cwd=folder, capture_output=True, text=True, timeout=limit,
                          stdin=subprocess.DEVNULL, env={**os.environ, **(environment or {})})
    assert done.returncode == code, f"mltrain {' '.join(arguments)}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def digest(folder: Path, run: str) -> str:
    answer: dict[str, str] = json.loads(mltrain(folder, "checkpoint", "digest", run, "--json"))
    return f"{answer['step']} {answer['digest']}"


def status(folder: Path, run: str) -> dict[str, object]:
    (found,) = json.loads(mltrain(folder, "status", run, "--json"))
    return found  # type: ignore[no-any-return]
