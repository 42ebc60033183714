"""What begins a run and what runs it: launch, the agent, a worker; this machine."""
from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mltrain.api.recipes import checked, refuse

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from mltrain.health.finding import Finding


# What a worker of ours imports anyway: the template has it ready, so that a restart does not wait for it. None of these starts a thread.
WORKER_MODULES = ["mltrain.trainer.trainer", "mltrain.checkpoint.checkpointer", "mltrain.data.loader"]


def agent(argv: list[str], parser: Callable[[str, str, str], argparse.ArgumentParser]) -> int:
    """Run a command on this machine's workers, with restarts. parser: makes the command line's parser. Returns the exit code of the run."""
    started = early = None
    if argv[:1] == ["--await-orders"]:
        from mltrain.agent.orders import receive, start_early
        started, early = start_early(WORKER_MODULES), int(argv[1])
    from mltrain.agent.agent import Agent
    from mltrain.agent.hosts.here import Here
    from mltrain.agent.options import parse
    if early is not None:
        if (orders := receive(early)) is None:
            return 0
        argv = orders
    options = parse(argv, parser)
    return Here(options, argv).run() if options.here else Agent(options, WORKER_MODULES, started).run()


def launch(overrides: Sequence[str], detach: bool = False) -> int:
    """Check, prepare the data if the recipe says from what, make the run directory, and hand it to the launcher. Returns the run's exit
    code (detached: 0 when it has started). Raises ConfigError (78), MissingInput (66), StorageError (74) before anything is made."""
    import sys

    from mltrain.launch.early import Early
    with Early() as early:                                     # first of all: everything waits for its imports
        from mltrain.beginning import find_weights, launcher_of, make_checkpoint_folder, new_run, prepare_data
        from mltrain.launch.job import JobSpec
        composed, problems = checked(overrides)
        refuse(problems)
        launcher = launcher_of(composed)
        find_weights(composed)
        prepare_data(composed)
        make_checkpoint_folder(composed)
        run = new_run(composed, ["mltrain", "launch", *overrides])
        print(f"run   {run}", file=sys.stderr, flush=True)
        code = launcher.submit(JobSpec(run, early=early), detach)
    if detach:
        print(f"next  mltrain logs {run.name} -f | mltrain status | mltrain cancel {run.name}", file=sys.stderr)
    return code


def render(overrides: Sequence[str]) -> dict[str, str]:
    """What launch would start, as path -> text; starts nothing and makes nothing."""
    from mltrain.beginning import launcher_of
    from mltrain.launch.job import JobSpec
    composed, problems = checked(overrides)
    refuse(problems)
    return launcher_of(composed).render(JobSpec(Path(composed.tree["runs"], f"{composed.tree['name']}-TIME")))


def worker(run: str) -> int:
    """One rank of a run, until it ends. Returns the exit code."""
    from mltrain.assembly import work
    return work(Path(run))


def doctor(node: bool = False, against: Path | None = None) -> list[Finding]:
    """What this machine and this installation have, and what is in a run's way. node: is the machine fit, and how fast; against: a folder
    with what others measured."""
    from mltrain.doctor import examine, examine_node
    return examine_node(against) if node else examine()


def redacted(text: str) -> str:
    """A text without the secrets that this process has met."""
    from mltrain.trust.redact import redact
    return redact(text)
