"""Runs that are there: status, logs, cancel, resume, chaos."""
from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mltrain.api.checkpoints import list_checkpoints
from mltrain.errors import MissingInput, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from mltrain.launch.launcher import Launcher


def status(runs: str = "runs", run: str | None = None) -> list[dict[str, Any]]:
    """All runs of a folder, oldest first; or the one that `run` names, with its ranks. Keys as in status.json. Raises MissingInput (66)."""
    from mltrain.runs import outcome
    from mltrain.runs.layout import find_run, list_runs
    if run is not None:
        return [outcome.read_status(find_run(Path(runs), run))]
    if not Path(runs).is_dir() and (runs != "runs" or Path(runs).exists()):       # the usual folder comes with the first run
        raise MissingInput(f"{runs}: there is no such folder", "runs=FOLDER names the folder that holds the runs")
    return [outcome.brief(path) for path in list_runs(Path(runs))]


def time_spent(status: dict[str, Any]) -> list[tuple[str, str]]:
    """Where a run's time went so far, in words: (class, how long), the most first; what is apart from goodput stands last, in brackets."""
    from mltrain.runs.goodput import APART, CLASSES, lasted
    spent = sorted(status.get("spent", {}).items(), key=lambda item: (item[0] in APART, -item[1]))
    return [(f"({CLASSES.get(name, name)})" if name in APART else CLASSES.get(name, name), lasted(seconds)) for name, seconds in spent]


def run_names(runs: str = "runs") -> dict[str, str]:
    """Ids of the runs in a folder, newest first, each with its state as written: for completion."""
    import json

    from mltrain.runs.layout import list_runs, status_file
    found = {}
    for path in reversed(list_runs(Path(runs))):
        try:
            found[path.name] = str(json.loads(status_file(path).read_text())["state"])
        except (OSError, ValueError, LookupError, TypeError):
            found[path.name] = ""
    return found


def run_keys(run: str, runs: str, parent: tuple[str, ...]) -> dict[str, bool]:
    """Keys below `parent` in the configuration of a run: for completion."""
    import json

    from mltrain.config.names import keys_below
    from mltrain.runs.layout import config_file, find_run
    return keys_below(json.loads(config_file(find_run(Path(runs), run)).read_text())["tree"], parent)


def logs(run: str, runs: str = "runs", *, rank: int | None = 0, attempt: int | None = None, errors: bool = False,
         follow: bool = False) -> Iterator[str]:
    """The lines a run printed. rank None: of all ranks. errors: what failed, and the culprit's last lines. Raises MissingInput (66)."""
    from mltrain.runs import logs as logs_
    from mltrain.runs.layout import find_run
    path = find_run(Path(runs), run)
    if errors:
        return logs_.errors(path, attempt)
    return logs_.follow(path, rank) if follow else logs_.text(path, attempt, rank)


def cancel(run: str, runs: str = "runs", limit: float = 150.0) -> str:
    """Stop a run after its state is saved, and wait for that. Returns what was done. Raises NodeUnfit (69) after `limit` seconds."""
    from mltrain.runs import outcome
    from mltrain.runs.layout import find_run, ledger_file
    from mltrain.runs.ledger import CANCEL, Ledger
    path = find_run(Path(runs), run)
    launcher = _launcher(path)
    state = outcome.restored_status(path)["state"]
    if launcher.status(path) == "gone":
        if state in outcome.ENDED_STATES and state != "stopped":
            return f"{path.name} is {state}: nothing to cancel"
        return f"{path.name} was not live ({state}): {_mark_cancelled(path)}"
    Ledger(ledger_file(path)).append(CANCEL)
    launcher.cancel(path)
    after = outcome.wait(path, limit)
    if after["state"] == "lost":
        return f"{path.name} died before it had saved: {_mark_cancelled(path)}"
    return f"{path.name} is {after['state']}" + (f", state saved up to step {after['step']}" if after["state"] == "cancelled" else "")


def chaos(run: str, runs: str = "runs", seed: int = 0, faults: Sequence[str] = ("kill", "stop", "exit", "slow"), every: int = 20,
          count: int | None = None, start: int | None = None) -> Iterator[str]:
    """Break a live run on purpose, until it has ended; a line for each fault. Raises UsageError (64), NodeUnfit (69)."""
    from mltrain.agent.chaos.disturb import disturb
    from mltrain.runs.layout import find_run
    path = find_run(Path(runs), run)
    return disturb(path, seed, faults, every, count, start, _whole_checkpoints(path))


def _whole_checkpoints(run: Path) -> Callable[[], list[list[Path]]] | None:
    """The files of each whole checkpoint of a run, oldest first; None where it has none in a folder."""
    from mltrain.checkpoint.catalog import saved_steps
    from mltrain.checkpoint.storage import LocalStorage, open_storage
    from mltrain.runs import ledger
    from mltrain.runs.config import read_config
    from mltrain.runs.layout import config_file, ledger_file
    if not config_file(run).exists():
        return None
    storage = open_storage(read_config(run)["tree"]["checkpoint"].get("path") or run / "checkpoints")
    if not isinstance(storage, LocalStorage):
        return None
    retired = ledger.retired(ledger_file(run))
    return lambda: [[Path(storage.path(name)) for name in saved.files]
                    for saved in saved_steps(storage, retired) if saved.valid and saved.current]


def _mark_cancelled(run: Path) -> str:
    """Of a run that nobody holds: the last word, since no agent can say it."""
    from mltrain.runs import ledger, outcome
    from mltrain.runs.layout import ledger_file
    ledger.Ledger(ledger_file(run)).append("cancelled", reason="it was not live")
    outcome.write_status(run, {**outcome.last_status(run), "state": "cancelled"}, durable=True)
    return "marked as cancelled"


def resume(run: str, overrides: Sequence[str] = (), runs: str = "runs", *, step: int | None = None, detach: bool = False,
           say: Callable[[str], None] = print) -> int:
    """Go on where a run stopped; attach if it is live. step: give up what came after that checkpoint. Returns the run's exit code.
    Raises UsageError (64), DataError (65) for a damaged run, MissingInput (66), ConfigError (78): then nothing has changed."""
    from mltrain.launch.job import JobSpec
    from mltrain.runs import ledger, outcome
    from mltrain.runs import logs as logs_
    from mltrain.runs.layout import find_run, ledger_file
    from mltrain.runs.lease import is_live
    path = find_run(Path(runs), run)
    if is_live(path):
        if overrides or step is not None:
            raise UsageError(f"{path.name} is live: it cannot be changed now", f"mltrain cancel {path.name} first")
        say(f"attached to {path.name} (Ctrl-C detaches; mltrain cancel stops it)")
        for line in logs_.follow(path, from_end=True):
            say(line.rstrip("\n"))
        ended = outcome.read_status(path)
        if ended.get("code") is not None:
            say(f"{path.name} is {ended['state']} at step {ended['step']}")
            return int(ended["code"])
    status = outcome.restored_status(path)
    if not overrides and step is None and status["state"] == "done":
        say(f"{path.name} is done at step {status['step']}: nothing to resume")
        return 0
    launcher, damage = _launcher(path), _ledger_damage(path, step)
    if step is not None:
        _known_step(path, step)
    changes = []
    if overrides:
        from mltrain.beginning import recompose
        changes = recompose(path, overrides, ledger.saved_step(ledger_file(path)) if step is None else step)
        launcher = _launcher(path)
    if damage:
        ledger.Ledger(ledger_file(path)).append(ledger.ACCEPTED, problem=damage)
    if step is not None:
        ledger.Ledger(ledger_file(path)).append(ledger.ROLLED_BACK, step=step, attempt=ledger.attempts(ledger_file(path)))
        say(f"{path.name}: back to step {step}; later checkpoints are off the branch")
    if overrides:
        ledger.Ledger(ledger_file(path)).append("changed", changes=changes)
        for change in changes:
            say(f"  {change['key']}: {change['from']} -> {change['to']}")
    return int(launcher.submit(JobSpec(path, _foreign_command(path)), detach))


def _ledger_damage(run: Path, step: int | None) -> str:
    """What is wrong with a run's ledger: it says which checkpoints are rolled back, so whoever resumes must name the step then."""
    from mltrain.errors import DataError
    from mltrain.runs import ledger
    from mltrain.runs.layout import ledger_file
    try:
        ledger.verify_for_resume(ledger_file(run))
    except DataError as error:
        if step is None:
            raise DataError(error.message, f"mltrain resume {run.name} --from STEP goes on from a checkpoint that you choose") from None
        return error.message
    return ""


def _launcher(run: Path) -> Launcher:
    """The launcher of a run's own recipe. A run that `mltrain agent --run-dir` made has no recipe: it is local."""
    from mltrain.launch.local import Local
    from mltrain.runs import ledger
    from mltrain.runs.layout import config_file, ledger_file
    if not config_file(run).exists():
        made = next(iter(ledger.read(ledger_file(run))), {})
        return Local(workers=made.get("workers", 1))
    from mltrain.config.build import build
    from mltrain.config.targets import Allowed
    from mltrain.runs.config import read_config
    config = read_config(run)
    launcher: Launcher = build(config["tree"]["launcher"], allowed=Allowed.from_dict(config["allowed"]))
    return launcher


def _foreign_command(run: Path) -> tuple[str, ...]:
    """Of a run without a recipe: the command it was begun with."""
    from mltrain.runs import ledger
    from mltrain.runs.layout import config_file, ledger_file
    if config_file(run).is_file():
        return ()
    return tuple(next((row["command"] for row in ledger.read(ledger_file(run)) if row["event"] == "created"), ()))


def _known_step(run: Path, step: int) -> None:
    """Raises MissingInput (66) if the run has no valid checkpoint of that step."""
    known = sorted({saved.step for saved in list_checkpoints(str(run)) if saved.valid and saved.current})
    if step not in known:
        raise MissingInput(f"{run.name} has no valid checkpoint of step {step}", f"it has {', '.join(map(str, known)) or 'none'}")
