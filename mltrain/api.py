"""One function a verb, and the only place where the rooms are wired together. Rooms are imported inside the functions: `mltrain status`
must not pay for torch."""
from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mltrain.errors import MissingInput, UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from mltrain.checkpoint.catalog import Damage, Saved
    from mltrain.config.compose import Composed
    from mltrain.config.problem import Problem
    from mltrain.doctor import Finding
    from mltrain.launch.launcher import Launcher

# ── recipes ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def compose(overrides: Sequence[str], directory: Path | str | None = None) -> Composed:
    """The tree of `recipe=NAME key=value ...` and the origin of each value. Raises MissingInput (66), UsageError (64), ConfigError (78)."""
    from mltrain.config.compose import compose as compose_
    return compose_(overrides, directory)


def check(overrides: Sequence[str], directory: Path | str | None = None) -> list[Problem]:
    """Every mistake in a recipe; [] if there is none."""
    return checked(overrides, directory)[1]


def recipes(directory: Path | str = ".") -> list[dict[str, Any]]:
    """Every recipe that can be named from here: name, title, needs, expect, file, home."""
    from mltrain.config.catalog import catalog
    return catalog(Path(directory))


def show(overrides: Sequence[str], directory: Path | str | None = None) -> Composed:
    """A composed recipe, for reading. Raises ConfigError with everything that keeps it from being composed."""
    from mltrain.config.problem import refuse
    composed = compose(overrides, directory)
    refuse(composed.problems)
    return composed


def copy(name: str, destination: Path | str, directory: Path | str = ".") -> Path:
    """Copy a recipe's file. Raises UsageError (64) if something is there already."""
    from mltrain.config.catalog import copy as copy_
    return copy_(name, Path(destination), Path(directory))


def new(folder: Path | str) -> list[Path]:
    """Make a project to start from; the files it made. Raises UsageError (64) if the folder is not empty."""
    from mltrain.skeleton import make
    return make(Path(folder))


def recipe_names(directory: Path | str = ".") -> list[str]:
    """Names alone, without reading a file: for completion, as the next two."""
    from mltrain.config.names import recipe_names as names
    return names(Path(directory))


def option_names(directory: Path | str = ".") -> dict[str, list[str]]:
    """The options of each group."""
    from mltrain.config.names import option_names as names
    return names(Path(directory))


def key_names(overrides: Sequence[str], parent: tuple[str, ...], directory: Path | str = ".") -> dict[str, bool]:
    """Keys below `parent` of what `overrides` name (the recipe, groups' options), and whether each has keys of its own."""
    from mltrain.config.names import key_names as names
    chosen = {key: value for key, _, value in (word.partition("=") for word in overrides) if "." not in key}
    return names(Path(directory), chosen.pop("recipe", ""), chosen, parent)


# ── data ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def prepare(sources: Sequence[str], out: Path | str, *, tokenizer: str = "bytes", holdout: float = 0.05, shard_tokens: int | None = None,
            field: str = "text", strict: bool = False, show: bool = True) -> dict[str, Any]:
    """Make a dataset out of text. Plain data about it: path, fingerprint, splits, already, resumed, skipped, seconds. show: progress on
    stderr. Raises UsageError (64), DataError (65), MissingInput (66), StorageError (74)."""
    from mltrain.data import prepare as preparing
    from mltrain.data.display import Display
    with Display("preparing") as display:
        done = preparing.prepare(list(sources), out, tokenizer=tokenizer, holdout=holdout, field=field, strict=strict,
                                 shard_tokens=shard_tokens or preparing.SHARD_TOKENS, report=display if show else None)
    return {"path": str(out)} | done.to_dict()


def inspect_data(path: str) -> dict[str, Any]:
    """Counts, schema, histogram of lengths and some documents of a dataset. Raises MissingInput (66), DataError (65)."""
    from mltrain.data.inspection import inspect
    return inspect(path)


def verify_data(path: str, show: bool = True) -> dict[str, Any]:
    """Read every byte of a dataset again: {path, fingerprint, shards, bytes, problems}. Raises MissingInput (66), DataError (65)."""
    from mltrain.data.display import Display
    from mltrain.data.inspection import verify
    with Display("verifying") as display:
        return verify(path, display if show else None)


# ── checkpoints ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _checkpoints(where: str, runs: str) -> tuple[str, list[tuple[int, int]]]:
    """Where checkpoints lie, and what of them is rolled back. `where` is a URL, a folder of checkpoints, an exported folder, a run's
    folder, or any unique part of the name of a run under `runs`."""
    from pathlib import Path

    from mltrain.runs import ledger
    from mltrain.runs.layout import find_run
    folder = Path(where)
    if "://" in where or any(folder.glob("step-*")) or (folder / "model.safetensors").is_file():
        return where, []
    if not (folder / "checkpoints").is_dir() and not ("/" in where and folder.is_dir()):
        folder = find_run(Path(runs), where)
    rolled_back = ledger.retired(folder / "ledger.jsonl") if (folder / "ledger.jsonl").is_file() else []
    return str(folder / "checkpoints" if (folder / "checkpoints").is_dir() else folder), rolled_back


def list_checkpoints(where: str, runs: str = "runs", step: int | None = None) -> list[Saved]:
    """The committed steps (or one), damaged ones included, oldest first. Raises MissingInput when there is none."""
    from mltrain.checkpoint import catalog
    from mltrain.checkpoint.storage import open_storage
    path, retired = _checkpoints(where, runs)
    found = [saved for saved in catalog.saved_steps(open_storage(path), retired) if step in (None, saved.step)]
    if not found:
        catalog.latest(open_storage(path), step, retired)       # raises, naming the steps that are there
    return found


def verify_checkpoint(where: str, saved: Saved, runs: str = "runs") -> list[Damage]:
    """Reads every byte of one of `list_checkpoints`; what is damaged."""
    from mltrain.checkpoint import catalog
    from mltrain.checkpoint.storage import open_storage
    return [*catalog.verify(open_storage(_checkpoints(where, runs)[0]), saved)]


def digest_checkpoint(where: str, runs: str = "runs", step: int | None = None) -> dict[str, int | str]:
    """{"step", "digest"}: equal for equal states, however they were sharded. Default: the step that a resume would take."""
    from mltrain.checkpoint.catalog import digest
    path, retired = _checkpoints(where, runs)
    return digest(path, step, retired)


def export(where: str, to: str, runs: str = "runs", *, step: int | None = None, format: str = "safetensors") -> dict[str, Any]:
    """Write the weights of a step as one safetensors file and a config.json: {path, format, step, tensors, bytes, digest}. format:
    `safetensors` (canonical names) or `huggingface` (of a run of the reference GPT, for transformers). Raises UsageError (64),
    DataError (65), MissingInput (66), StorageError (74)."""
    from mltrain.weights import export as export_
    return export_(*_checkpoints(where, runs), to, step=step, format=format)


def diff(a: str, b: str, runs: str = "runs", steps: tuple[int | None, int | None] = (None, None)) -> dict[str, Any]:
    """How far the parameters of two checkpoints (or exports) are apart, as plain data: same, changes [{name, shape, norm, relative}]
    (largest first), only_a, only_b, reshaped. Default steps: those that a resume would take."""
    from mltrain.checkpoint.difference import difference
    from mltrain.trust.digest import plain
    from mltrain.weights import saved_state
    found = difference(saved_state(*_checkpoints(a, runs), steps[0]), saved_state(*_checkpoints(b, runs), steps[1])).to_dict()
    return {key: plain(value) for key, value in found.items()}


def prune(where: str, keep: int, runs: str = "runs", dry_run: bool = False) -> list[dict[str, int]]:
    """Delete all but the `keep` newest whole checkpoints of a run that is not live: [{step, attempt, bytes}] of what is (or would be)
    deleted. Raises UsageError (64) on a live run, MissingInput (66), DataError (65) if none is whole, StorageError (74)."""
    from mltrain.weights import prune as prune_
    return prune_(*_checkpoints(where, runs), keep, dry_run)

# ── runs ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


# What a worker of ours imports anyway: the template has it ready, so that a restart does not wait for it. None of these starts a thread.
WORKER_MODULES = ["mltrain.trainer.trainer", "mltrain.checkpoint.checkpointer", "mltrain.data.loader"]


def agent(argv: list[str], parser: Callable[[str, str, str], argparse.ArgumentParser]) -> int:
    """Run a command on this machine's workers, with restarts. parser: makes the command line's parser. Returns the exit code of the run."""
    from mltrain.agent.agent import Agent, start_early
    from mltrain.agent.options import parse
    started = None
    if argv[:1] == ["--await-orders"]:
        from mltrain.agent.orders import receive
        started = start_early(WORKER_MODULES)
        if (orders := receive(int(argv[1]))) is None:
            return 0
        argv = orders
    return Agent(parse(argv, parser), WORKER_MODULES, started).run()


def status(runs: str = "runs", run: str | None = None) -> list[dict[str, Any]]:
    """All runs of a folder, oldest first; or the one that `run` names, with its ranks. Keys as in status.json. Raises MissingInput (66)."""
    from mltrain.runs import outcome
    from mltrain.runs.layout import find_run, list_runs
    if run is not None:
        return [outcome.read_status(find_run(Path(runs), run))]
    if not Path(runs).is_dir() and (runs != "runs" or Path(runs).exists()):       # the usual folder comes with the first run
        raise MissingInput(f"{runs}: there is no such folder", "runs=FOLDER names the folder that holds the runs")
    return [outcome.brief(path) for path in list_runs(Path(runs))]


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


def chaos(run: str, runs: str = "runs", seed: int = 0, faults: Sequence[str] = ("kill", "stop", "exit", "slow"), every: float = 10.0,
          count: int | None = None) -> Iterator[str]:
    """Break a live run on purpose, until it has ended; a line for each fault. Raises UsageError (64), NodeUnfit (69)."""
    from mltrain.agent.chaos import disturb
    from mltrain.runs.layout import find_run
    return disturb(find_run(Path(runs), run), seed, faults, every, count)


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


# ── reports ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def report(names: Sequence[str], runs: str = "runs") -> dict[str, Any]:
    """What is known of runs, as plain data: {"runs": [...], "differences": [...]}. Raises UsageError (64), MissingInput (66)."""
    from mltrain.report.read import report as report_
    return report_(_named(names, runs)).to_dict()


def write_report(names: Sequence[str], runs: str = "runs", out: str | None = None) -> Path:
    """The same as one HTML file. out: default RUN/report.html; of several runs RUNS/report.html. Returns where it is."""
    from mltrain.report.page import page
    from mltrain.report.read import report as report_
    from mltrain.runs.atomic import write_text
    found = _named(names, runs)
    target = Path(out) if out else (found[0] if len(found) == 1 else Path(runs)) / "report.html"
    if target.is_dir() or not target.parent.is_dir():
        wrong = "is a folder" if target.is_dir() else f"there is no folder {target.parent}"
        raise UsageError(f"--out {target}: {wrong}", "name a file: --out report.html")
    write_text(target, page(report_(found)))
    return target


def _named(names: Sequence[str], runs: str) -> list[Path]:
    """Each run once, in the order named."""
    from mltrain.runs.layout import find_run
    return list(dict.fromkeys(find_run(Path(runs), name) for name in names))


def replay(run: str, to: Sequence[str], runs: str = "runs", settings: Sequence[str] = ()) -> dict[str, int]:
    """Write a run's numbers again, from its record of truth, into these sinks: wandb, tensorboard, prometheus, trackio, or those of its
    recipe. settings: SINK.key=value, arguments of a sink. Returns how many records each took. Twice is as good as once.
    Raises UsageError (64), MissingInput (66), NodeUnfit (69: a package is missing), StorageError (74)."""
    import json

    from mltrain.config.build import build
    from mltrain.config.targets import Allowed
    from mltrain.metrics.replay import node, read_settings
    from mltrain.metrics.replay import replay as replay_
    from mltrain.runs.layout import config_file, find_run
    from mltrain.runs.lease import is_live
    path = find_run(Path(runs), run)
    if is_live(path):
        raise UsageError(f"{path.name} is live: its own sinks are being written", "replay after it has ended")
    config = json.loads(config_file(path).read_text()) if config_file(path).is_file() else {"tree": {}, "allowed": Allowed().to_dict()}
    own, given = config["tree"].get("metrics", {}).get("sinks") or {}, read_settings(to, settings)
    nodes = {name: node(name, own, given.get(name, {})) for name in dict.fromkeys(to)}
    allowed = Allowed.from_dict(config["allowed"])
    return replay_(path, {name: build(part, allowed=allowed, secrets=True) for name, part in nodes.items()})


# ── launch and worker ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def checked(overrides: Sequence[str], directory: Path | str | None = None) -> tuple[Composed, list[Problem]]:
    """A composed recipe and everything wrong with it, sums that do not come out included."""
    from mltrain.beginning import checked as checked_
    return checked_(overrides, directory)


def refuse(problems: Sequence[Problem]) -> None:
    """Raise one ConfigError (78) with all of them; nothing when there is none."""
    from mltrain.config.problem import refuse as refuse_
    refuse_(problems)


def launch(overrides: Sequence[str], detach: bool = False) -> int:
    """Check, prepare the data if the recipe says from what, make the run directory, and hand it to the launcher. Returns the run's exit
    code (detached: 0 when it has started). Raises ConfigError (78), MissingInput (66), StorageError (74) before anything is made."""
    import sys

    from mltrain.beginning import find_weights, launcher_of, make_checkpoint_folder, new_run, prepare_data
    from mltrain.launch.early import Early
    from mltrain.launch.job import JobSpec
    with Early() as early:
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


# ── this machine ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def doctor() -> list[Finding]:
    """What this machine and this installation have, and what is in a run's way."""
    from mltrain.doctor import examine
    return examine()


def redacted(text: str) -> str:
    """A text without the secrets that this process has met."""
    from mltrain.trust.redact import redact
    return redact(text)
