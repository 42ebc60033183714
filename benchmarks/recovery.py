"""How long is a run away when a worker dies? SIGKILL to one of two workers -> the next step that both have completed; then SIGSTOP.

usage: python benchmarks/recovery.py [--kills 10] [--stops 3] [--only mltrain,torchrun] [--limit 60]

The same plain DDP script under each launcher (peers/restarted.py: 20 ms a step, a checkpoint each step). Launchers take turns, a job
each with up to five kills in it, the first one fifteen seconds after its start, the others 150 steps after the return; a kill after
which no step comes within the limit counts as not back. Other launchers take part where they are installed: NVRx's ft_launcher.
"""
from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from harness import machine  # noqa: E402

SCRIPT = str(HERE / "peers" / "restarted.py")
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "1000", SCRIPT]
LAUNCHERS: dict[str, tuple[list[str], dict[str, str]]] = {
    "mltrain": ([sys.executable, "-m", "mltrain", "agent", "--nproc-per-node", "2", "--restarts", "1000", SCRIPT], {}),
    "torchrun": (TORCHRUN, {}),
    "torchrun, unshared store": (TORCHRUN, {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}),
}
if shutil.which("ft_launcher"):
    LAUNCHERS["NVRx"] = (["ft_launcher", "--nproc-per-node", "2", "--max-restarts", "1000", SCRIPT], {})
STAGES = ("started", "imported", "grouped", "loaded", "step")
WARM_SECONDS, KILLS_A_JOB, STEPS_BETWEEN = 15.0, 5, 150


@dataclass
class Times:
    """Of one launcher: seconds of each return with its stages; how often there was none."""

    back: list[float] = field(default_factory=list)
    stages: list[list[float]] = field(default_factory=list)
    away: int = 0
    attempts: int = 0


class Job:
    """One launcher with the script."""

    def __init__(self, command: list[str], extra: dict[str, str]) -> None:
        self.folder = tempfile.mkdtemp(prefix="recovery-")
        environment = {**os.environ, **extra, "EVENTS": self.folder, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(command, env=environment, cwd=self.folder, start_new_session=True, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def events(self, after: float = 0.0) -> list[list[tuple[str, int, int, float]]]:
        """Of each rank: (name, pid, step, moment), those after a moment."""
        found = []
        for rank in ("0", "1"):
            path = Path(self.folder, rank)
            lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
            found.append([(name, int(pid), int(step), float(moment)) for name, pid, step, moment in lines if float(moment) > after])
        return found

    def pids(self) -> list[int]:
        return [events[-1][1] for events in self.events()]

    def stepped(self, steps: int, limit: float, after: float = 0.0, dead: tuple[int, ...] = ()) -> list[dict[str, float]] | None:
        """Waits until both ranks, in processes other than the dead, have made so many steps: the moments of each rank's stages."""
        give_up = time.monotonic() + limit
        while time.monotonic() < give_up and self.process.poll() is None:
            found = [[event for event in events if event[1] not in dead] for events in self.events(after)]
            if all(sum(event[0] == "step" for event in events) >= steps for events in found):
                return [{name: next((event[3] for event in events if event[0] == name), after) for name in STAGES} for events in found]
            time.sleep(0.05)                           # seldom: two cores are all there is; the moments are the script's own
        return None

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        for events in self.events():                   # torchrun's workers survive it
            with contextlib.suppress(ProcessLookupError):
                if events:
                    os.kill(events[-1][1], signal.SIGKILL)
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def job(name: str) -> Iterator[Job | None]:
    """A launcher at work for WARM_SECONDS; None if it does not get there."""
    running = Job(*LAUNCHERS[name])
    try:
        began = time.monotonic()
        started = running.stepped(10, 90)
        time.sleep(max(0.0, began + WARM_SECONDS - time.monotonic()))
        yield running if started else None
    finally:
        running.close()


def strike(running: Job, number: int, limit: float) -> tuple[float, list[float]] | None:
    """A signal to rank 1: seconds to the next step of both, and the stages on the way (the slower rank's)."""
    dead = running.pids()
    moment = time.monotonic()
    os.kill(dead[1], number)
    ranks = running.stepped(1, limit, moment, tuple(dead))
    if ranks is None:
        return None
    reached = [max(rank[name] for rank in ranks) - moment for name in STAGES]
    return reached[-1], [after - before for before, after in zip([0.0, *reached], reached, strict=False)]


def kill(name: str, times: Times, kills: int, limit: float) -> None:
    """Up to KILLS_A_JOB of them in one job; it ends with the first that nothing follows."""
    with job(name) as running:
        for _ in range(min(KILLS_A_JOB, kills - times.attempts) if running else 0):
            times.attempts += 1
            result = strike(running, signal.SIGKILL, limit)
            if result is None:
                times.away += 1
                return
            times.back.append(result[0])
            times.stages.append(result[1])
            if running.stepped(STEPS_BETWEEN, limit, time.monotonic()) is None:
                return


def stop(stops: int, limit: float) -> list[tuple[float, float]]:
    """(SIGSTOP to new processes, to the next step) under mltrain, its defaults."""
    found = []
    with job("mltrain") as running:
        for _ in range(stops if running else 0):
            result = strike(running, signal.SIGSTOP, limit)
            if result is None:
                break
            found.append((result[1][0], result[0]))
            running.stepped(STEPS_BETWEEN, limit, time.monotonic())
    return found


def memory() -> str:
    """What the template holds alone, MiB."""
    with job("mltrain") as running:
        children = Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children").read_text().split() if running else []
        for pid in children:
            if b"agent.template" in Path(f"/proc/{pid}/cmdline").read_bytes():
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
                sizes = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines[1:]}
                return f"The template: {sizes['Pss']:.0f} MiB of its own share (PSS), {sizes['Rss']:.0f} MiB with what it shares (RSS)."
    return ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--stops", type=int, default=3)
    parser.add_argument("--only", default="")
    parser.add_argument("--limit", type=float, default=60.0)
    options = parser.parse_args()
    names = [name for name in LAUNCHERS if not options.only or name in options.only.split(",")]
    times = {name: Times() for name in names}
    while any(each.attempts < options.kills for each in times.values()):
        for name in names:
            before = times[name].attempts
            kill(name, times[name], options.kills, options.limit)
            if times[name].attempts == before < options.kills:
                raise SystemExit(f"{name} makes no steps")
    print("## How long is a run away when a worker dies?\n")
    print("| | back | median, s | range | × mltrain | respawn / import / group / load / step, medians |\n" + "| --- " * 6 + "|")
    first = statistics.median(times[names[0]].back)
    for name, each in times.items():
        if not each.back:
            print(f"| {name} | 0 of {each.attempts} | | | | |")
            continue
        median, stages = statistics.median(each.back), [statistics.median(stage) for stage in zip(*each.stages, strict=True)]
        print(f"| {name} | {len(each.back)} of {each.attempts} | {median:.3f} | {min(each.back):.3f} to {max(each.back):.3f} "
              f"| {median / first:.1f} | " + " / ".join(f"{stage:.3f}" for stage in stages) + " |")
    if options.stops and "mltrain" in names and (stops := stop(options.stops, options.limit)):
        detected, back = (statistics.median(column) for column in zip(*stops, strict=True))
        print(f"\nSIGSTOP under mltrain's defaults: noticed, ended and started again after {detected:.2f} s, back after {back:.2f} s "
              f"(medians of {len(stops)}).", memory())
    print(f"\nSIGKILL to one of two workers until both have completed a step; away: not within {options.limit:.0f} s. {machine()}\n")


if __name__ == "__main__":
    main()
