"""Where things lie in a run directory, how one is made, and how one is found again.

    RUN/ config.json overrides.json status.json ledger.jsonl provenance.json patch.diff lease.json agent.log
         attempts/0001/rank-0.log   nodes/ (several hosts: agent/hosts/shared.py)    metrics/attempt-0001.jsonl   checkpoints/

A run's id is NAME-YYYYmmdd-HHMMSS-4hex.
"""
from __future__ import annotations

import os
import re
import secrets
import time
from difflib import get_close_matches
from pathlib import Path

from mltrain.errors import MissingInput, StorageError, UsageError
from mltrain.runs.atomic import FOLDER_MODE

_ID = re.compile(r"(?P<name>.+)-(?P<stamp>\d{8}-\d{6})-[0-9a-f]{4}")
_SHOWN = 8               # candidates named in a message


def config_file(run: Path) -> Path:
    return run / "config.json"


def overrides_file(run: Path) -> Path:
    return run / "overrides.json"


def status_file(run: Path) -> Path:
    return run / "status.json"


def ledger_file(run: Path) -> Path:
    return run / "ledger.jsonl"


def attempt_folder(run: Path, attempt: int) -> Path:
    return run / "attempts" / f"{attempt:04d}"


def log_file(run: Path, attempt: int, rank: int) -> Path:
    return attempt_folder(run, attempt) / f"rank-{rank}.log"


def metrics_file(run: Path, attempt: int) -> Path:
    return run / "metrics" / f"attempt-{attempt:04d}.jsonl"


def checkpoints_folder(run: Path) -> Path:
    return run / "checkpoints"


def make_folder(path: Path) -> Path:
    """A folder (and those above it) with mode 0750 whatever the umask; one that is there already is left as it is."""
    if not path.is_dir():
        make_folder(path.parent)
        try:
            path.mkdir(exist_ok=True)
            path.chmod(FOLDER_MODE)
        except OSError as error:
            raise StorageError(f"{path}: cannot be made: {error.strerror}", "choose another folder") from None
    return path


def new_run(runs: Path, name: str) -> Path:
    """Make the directory of a new run, and nobody else's. Returns an absolute path.
    Raises UsageError (64) on a bad name, StorageError (74)."""
    label = name.replace("/", "-").strip()
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.+=-]*", label) or len(label) > 120:
        raise UsageError(f"name={name!r} cannot name a run", "use letters, digits, and . _ + = - (a / becomes a -)")
    make_folder(runs.absolute())
    while True:
        run = runs.absolute() / f"{label}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
        try:
            run.mkdir()
        except FileExistsError:
            continue
        except OSError as error:
            raise StorageError(f"{run}: cannot be made: {error.strerror}", "choose another folder with runs=FOLDER") from None
        run.chmod(FOLDER_MODE)
        return run


def name_of(run: Path) -> str:
    """The name part of a run's id."""
    found = _ID.fullmatch(run.name)
    return found["name"] if found else run.name


def is_run(path: Path) -> bool:
    return (ledger_file(path).is_file() or status_file(path).is_file() or config_file(path).is_file()) and path.is_dir()


def list_runs(runs: Path) -> list[Path]:
    """All run directories in a folder, oldest first. A folder that is not there holds none."""
    if not runs.is_dir():
        return []
    return sorted((path.absolute() for path in runs.iterdir() if _ID.fullmatch(path.name) and path.is_dir()), key=_age)


def _age(run: Path) -> tuple[str, int]:
    """When a run was made: the stamp of its id, then (for two of one second) the time at which its ledger was begun."""
    found = _ID.fullmatch(run.name)
    try:
        with ledger_file(run).open("rb") as file:
            first = re.search(rb'"time": ?([0-9.]+)', file.readline(1 << 16))
        begun = int(float(first[1]) * 1e6) if first else 0
    except OSError:
        begun = os.stat(run).st_mtime_ns // 1000
    return (found["stamp"] if found else "", begun)


def find_run(runs: Path, part: str) -> Path:
    """The run that `part` names: a path to it, a whole id, an exact name (the newest of that name), else any part of exactly one id.
    Raises UsageError (64) naming the candidates, MissingInput (66) naming the nearest."""
    if "/" in part and is_run(Path(part)):
        return Path(part).absolute()
    wanted = part.replace("/", "-").strip("-")
    known = list_runs(runs)
    if not wanted:
        raise UsageError("which run?", "name it by any part of its id: mltrain status lists them")
    for same in ([run for run in known if run.name == wanted], [run for run in known if name_of(run) == wanted]):
        if same:
            return same[-1]
    matches = [run for run in known if wanted in run.name]
    if len(matches) == 1:
        return matches[0]
    if matches:
        names = " ".join(run.name for run in matches[-_SHOWN:]) + (" ..." if len(matches) > _SHOWN else "")
        raise UsageError(f"{part!r} fits {len(matches)} runs: {names}", "give more of the id")
    raise MissingInput(f"no run {part!r} in {runs}/", _advice(wanted, known))


def _advice(wanted: str, known: list[Path]) -> str:
    names = [run.name for run in known]
    near = get_close_matches(wanted, [*names, *map(name_of, known)], n=1, cutoff=0.4)
    if near:
        return f"did you mean {near[0]}?"
    return f"there is {' '.join(names[-_SHOWN:])}" if names else "that folder holds no runs; is runs=FOLDER missing?"
