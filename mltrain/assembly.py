"""What `mltrain worker RUN` does: builds a run's parts from its config, as this rank, and trains.

What is handed to a part here stands in `api.PROVIDED` by name: `check` binds with it before a run exists.
"""
from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mltrain.config.build import build, partial
from mltrain.config.root import seconds, steps
from mltrain.config.targets import Allowed
from mltrain.errors import ConfigError, MltrainError, TaskError
from mltrain.parallel.mesh import count_micro_batches
from mltrain.runs import frames, ledger, rollbacks
from mltrain.runs.config import read_config
from mltrain.runs.layout import ledger_file
from mltrain.runs.pulse import Pulse
from mltrain.trust.redact import guard, redact

if TYPE_CHECKING:
    from mltrain.trainer.trainer import Trainer

def work(run: Path) -> int:
    """The whole life of one worker process. Returns its exit code; what went wrong is on stderr and in the pulse."""
    pulse = Pulse.from_environment()
    guard(sys.stdout)
    guard(sys.stderr)
    signal.signal(signal.SIGINT, signal.SIG_IGN)       # until the Trainer listens: the agent decides what an interrupt means
    try:
        config = read_config(run)                      # before torch is imported: a wrong folder is told at once
        with process_group():
            made = trainer(run, config, pulse)
            outcome = made.fit()
        made.moments.report("finished" if outcome.done else "stopped", step=outcome.progress.step, reason=outcome.reason, code=outcome.code)
        return outcome.code
    except MltrainError as error:
        pulse.failed(error, error.code)
        print(f"mltrain: {redact(str(error))}", file=sys.stderr, flush=True)
        return error.code
    except Exception as error:  # noqa: BLE001  the user's code may raise anything; its traceback belongs into the rank's log
        pulse.failed(error, TaskError.code)
        print(redact(frames.text(error)), file=sys.stderr, flush=True)
        return TaskError.code


@contextmanager
def process_group() -> Iterator[None]:
    """Joins this attempt's group as the environment says; alone without one. One node meets through a file: no port is opened."""
    import torch
    import torch.distributed as dist
    from torch.distributed import FileStore

    world, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    if torch.accelerator.is_available():
        torch.accelerator.set_device_index(int(os.environ.get("LOCAL_RANK", 0)))
    if world > 1:
        accelerator = torch.accelerator.current_accelerator()
        backend = dist.get_default_backend_for_device(accelerator) if accelerator else "gloo"
        path = os.environ.get("MLTRAIN_STORE")
        dist.init_process_group(backend, store=FileStore(path, world) if path else None, rank=rank, world_size=world)
    try:
        yield
    finally:
        if dist.is_initialized() and sys.exc_info()[0] is None:   # with an exception on its way the others may be gone
            dist.destroy_process_group()


def trainer(run: Path, config: dict[str, Any], pulse: Pulse) -> Trainer:
    """The run's Trainer, on this rank."""
    import torch

    from mltrain.checkpoint.ranks import Ranks
    from mltrain.data.loader import Evaluation, Loader
    from mltrain.trainer.stop import Stop, count_steps
    from mltrain.trainer.trainer import Trainer

    tree, make = config["tree"], Maker(config)
    if os.path.isdir(config["directory"]):
        os.chdir(config["directory"])                             # relative paths mean what they meant at launch
    torch.set_num_threads(tree["threads"])
    attempt, seed = int(os.environ.get("MLTRAIN_ATTEMPT", 1)), tree["seed"]
    data = make("data")
    micro_batch = tree["global_batch"] // count_micro_batches(tree["global_batch"], tree["micro_batch"])
    past = Ranks.current().broadcast(rollbacks.rollbacks(ledger_file(run)))       # one reader: a shared file system may be slow to tell all
    loader = Loader(data.train, global_batch=tree["global_batch"], micro_batch=micro_batch, seed=seed, skipped=rollbacks.skipped(past))
    length = count_steps(*steps(tree["steps"]), tree["global_batch"], data.train.tokens_per_sample, len(data.train))
    strategy = make("strategy", precision=make("precision"), clip=tree["clip"], seed=seed)
    first = int(os.environ.get("RANK", 0)) == 0
    made = Trainer(
        lambda: make("task"), loader, make.later("optimizer"), steps=length, schedule=make("schedule", steps=length), strategy=strategy,
        validation=Evaluation(data.validation, micro_batch) if data.validation is not None else None, eval_every=tree["eval_every"],
        checkpointer=make("checkpoint", directory=str(run), attempt=attempt, retired=ledger.retired(ledger_file(run)),
                          weights=tree.get("weights")),
        stop=Stop(tree["stop_at"], seconds(tree["time_limit"]) if tree["time_limit"] is not None else None),
        metrics=make("metrics", directory=str(run), attempt=attempt, steps=length) if first else None)
    made.watch(make("guard"), tree["compare_every"], past)
    nodes = {name: node for name, node in tree["callback"].items() if node is not None}
    made.moments.callbacks = [make.node(node, task=made.task, data=data, directory=str(run), seed=seed) for node in nodes.values()]
    parameters = sum(p.numel() for p in made.task.parameters())
    made.moments.report("training", steps=length, parameters=parameters, data=data.describe(), strategy=describe(strategy))
    return made


class Maker:
    """Builds a run's parts: make("optimizer") is the object of tree["optimizer"]. Secrets are resolved here and nowhere else."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.tree, self.allowed = config["tree"], Allowed.from_dict(config["allowed"])

    def __call__(self, group: str, **provided: Any) -> Any:
        return self.node(self.tree[group], **provided)

    def node(self, node: Any, **provided: Any) -> Any:
        return build(node, allowed=self.allowed, secrets=True, **provided)

    def later(self, group: str) -> Callable[..., Any]:
        """Its class with the arguments of the recipe, for what comes only later (an optimizer's parameters)."""
        part = partial(self.tree[group], allowed=self.allowed, secrets=True)

        def make(*late: Any) -> Any:
            try:
                return part(*late)
            except ValueError as error:                          # as in config.build: the class's own words about a value
                raise ConfigError(f"{group}: {error}", f"{self.tree[group]['_target_']} refused its arguments") from error
        return make


def describe(strategy: Any) -> dict[str, Any]:
    """What a strategy became on this machine, for the ledger."""
    mesh = getattr(strategy, "mesh", None)
    return {"kind": type(strategy).__name__, "mesh": list(mesh) if mesh else None, "exact": getattr(strategy, "exact", None),
            "device": str(getattr(strategy, "device", ""))}
