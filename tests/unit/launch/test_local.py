from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from mltrain.errors import ConfigError
from mltrain.launch.job import JobSpec
from mltrain.launch.launcher import Launcher
from mltrain.launch.local import Local
from mltrain.runs.lease import Lease


def test_what_would_run_is_one_command() -> None:
    python = shlex.quote(sys.executable)
    job = JobSpec(Path("/runs/a b"), environment={"NAME": "x y"})
    assert Local(workers=4, restarts=2).render(job) == {"launch.sh":
        "export NAME='x y'\n"
        f"exec {python} -m mltrain agent --workers 4 --restarts 2 --run-dir '/runs/a b' -- {python} -m mltrain worker '/runs/a b'\n"}


def test_the_number_of_workers_may_be_left_to_the_machine() -> None:
    assert "--workers auto " in Local().render(JobSpec(Path("r")))["launch.sh"]


@pytest.mark.parametrize("arguments", [
    {"workers": 0}, {"workers": -1}, {"nodes": 65}, {"nodes": 0}, {"spares": -1}, {"nodes": 2, "min_nodes": 3}, {"restarts": -1}])
def test_impossible_numbers_are_refused(arguments: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=f"launcher.{next(iter(arguments))}="):
        Local(**arguments)


def test_a_run_is_live_while_somebody_holds_it(tmp_path: Path) -> None:
    launcher: Launcher = Local()
    assert launcher.status(tmp_path) == "gone"
    lease = Lease(tmp_path)
    lease.acquire()
    assert launcher.status(tmp_path) == "live"
    lease.release()


def test_cancelling_what_is_gone_does_nothing(tmp_path: Path) -> None:
    Local().cancel(tmp_path)
    assert Local().logs(tmp_path) == []


@pytest.mark.parametrize("name", ["hang_seconds", "straggler_seconds"])
def test_seconds_are_checked_and_handed_on(name: str, tmp_path: Path) -> None:
    command = Local(**{name: 7.5}).command(JobSpec(tmp_path))
    assert command[command.index("--" + name.replace("_", "-")) + 1] == "7.5"
    for wrong in (-1.0, float("inf"), float("nan")):
        with pytest.raises(ConfigError, match=f"launcher.{name}="):
            Local(**{name: wrong})
