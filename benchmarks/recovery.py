"""How long is a run away when a worker dies? SIGKILL to one of two workers -> the next step that both have completed; then SIGSTOP.

usage: python benchmarks/recovery.py [--kills 50] [--peers 20] [--stops 3] [--only mltrain,torchrun] [--limit 60]

The same plain DDP script under each launcher (peers/restarted.py: 20 ms a step, a checkpoint each step). Launchers take turns, a job
each with up to five kills in it, the first one ten seconds after its start, the others 100 steps after the return; a kill after which
no step comes within the limit counts as not back. NVRx, DLRover and torchft take part where they are installed (torchft needs a script
of its own: there the survivor goes on alone, and a step counts when both take part in it).
"""
from __future__ import annotations

import argparse
import contextlib
import importlib.util
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
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "1000"]
UNSHARED = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
_NVRX = str(Path(sys.executable).with_name("ft_launcher"))
LAUNCHERS: dict[str, tuple[list[str], dict[str, str]]] = {
    "mltrain": ([sys.executable, "-m", "mltrain", "agent", "--nproc-per-node", "2", "--restarts", "1000", SCRIPT], {}),
    "torchrun": ([*TORCHRUN, SCRIPT], {}),
    "torchrun, unshared store": ([*TORCHRUN, SCRIPT], UNSHARED),
    "torchrun, tuned": ([*TORCHRUN, "--monitor-interval", "0.01", SCRIPT], UNSHARED),
}
if importlib.util.find_spec("nvidia_resiliency_ext"):
    LAUNCHERS["NVRx"] = ([_NVRX, "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:29577", "--nproc-per-node", "2", "--max-restarts",
                          "1000", SCRIPT], {})
if importlib.util.find_spec("dlrover"):
    LAUNCHERS["DLRover"] = ([sys.executable, str(HERE / "peers" / "dlrover_job.py"), SCRIPT], {})
if importlib.util.find_spec("torchft"):
    LAUNCHERS["torchft"] = ([sys.executable, str(HERE / "peers" / "torchft_job.py")], {})
STAGES = ("started", "imported", "grouped", "loaded", "step")
WARM_SECONDS, KILLS_A_JOB, STEPS_BETWEEN = 10.0, 5, 100


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

    def stepped(self, steps: int, limit: float, after: float = 0.0, dead: int = 0) -> list[dict[str, float]] | None:
        """Waits until both ranks, in processes other than the dead one, have made so many steps: the moments of each rank's stages.
        What a survivor did before the new process was there is not counted."""
        give_up = time.monotonic() + limit
        while time.monotonic() < give_up and self.process.poll() is None:
            first, second = ([event for event in events if event[1] != dead] for events in self.events(after))
            there = next((event[3] for event in second if event[0] == "loaded"), float("inf")) if dead else after
            found = [[event for event in first if event[0] != "step" or event[3] > there], second]
            if all(sum(event[0] == "step" for event in events) >= steps for events in found):
                return [{name: next((event[3] for event in events if event[0] == name), after) for name in STAGES} for events in found]
            time.sleep(0.05)                           # seldom: two cores are all there is; the moments are the script's own
        return None

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        for pid in _with(self.folder):                 # torchrun's workers, DLRover's master
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def _with(folder: str) -> list[int]:
    """Processes of this job, whoever their parent is now: they have its folder in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if f"EVENTS={folder}".encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found


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
    victim = running.pids()[1]
    moment = time.monotonic()
    os.kill(victim, number)
    ranks = running.stepped(1, limit, moment, victim)
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


def _sizes(running: Job) -> dict[int, tuple[float, float, float]]:
    """pid -> (PSS, RSS, not shared), MiB, of the template and what it has forked ahead."""
    found = {}
    for pid in _with(running.folder):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
            if b"agent.template" in words and pid not in running.pids():
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
                sizes = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines[1:]}
                found[pid] = sizes["Pss"], sizes["Rss"], sizes["Private_Dirty"] + sizes["Private_Clean"]
    return found


def memory() -> str:
    """What the template and what it has forked ahead hold alone, MiB."""
    with job("mltrain") as running:
        found: dict[int, tuple[float, float, float]] = {}
        give_up = time.monotonic() + 20
        while running and len(found) < 4 and time.monotonic() < give_up:       # the template, two workers and a store forked ahead
            time.sleep(1.0)
            found = _sizes(running)
        if not found:
            return ""
        template, *standbys = (found[pid] for pid in sorted(found))
        return (f"The template: {template[0]:.0f} MiB of its own share (PSS), {template[1]:.0f} MiB with what it shares (RSS); "
                f"{len(standbys)} processes forked ahead: {', '.join(f'{size[2]:.0f}' for size in standbys)} MiB each that nobody shares.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="of mltrain's jobs")
    parser.add_argument("--peers", type=int, default=20, help="kills of each peer's")
    parser.add_argument("--stops", type=int, default=3)
    parser.add_argument("--only", default="")
    parser.add_argument("--limit", type=float, default=60.0)
    options = parser.parse_args()
    names = [name for name in LAUNCHERS if not options.only or name in options.only.split(",")]
    times = {name: Times() for name in names}
    wanted = {name: options.kills if name == "mltrain" else options.peers for name in names}
    while any(times[name].attempts < wanted[name] for name in names):
        for name in [name for name in names if times[name].attempts < wanted[name]]:
            before = times[name].attempts
            kill(name, times[name], wanted[name], options.limit)
            print(f"{name}: {times[name].attempts} of {wanted[name]}", file=sys.stderr, flush=True)
            if times[name].attempts == before:
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
