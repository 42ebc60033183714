"""How much of the time does a run of thousands of GPUs keep? An event simulation: failures at the published rates hit one training run
under the defaults of each system, and what is lost is counted by cause.

    python -m benchmarks.goodput [--seeds 20] [--days 54]

What is simulated: steps, saves every so many steps, failures (a Poisson process, which hits restarts, too), then detection, a new node
where one is needed, starting processes, a communicator, loading, and the steps since the last durable save again. Every input stands in
`INPUTS` or in `systems` with its source. None of this was measured on accelerators here: the answer is as good as the inputs, and the last
table says how much it hangs on ours.
"""
from __future__ import annotations

import argparse
import datetime
import math
import random
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, replace

# name: (value, unit, source). "assumed" is a guess of ours, the same for all systems.
INPUTS = {
    "failure": (50_677, "GPU hours between failures",
                "Llama 3 (arXiv 2407.21783, 3.3.4): 419 unexpected interruptions in 54 days on 16,384 GPUs"),
    "node": (0.78, "of failures need another node", "Llama 3, the same place: 78 % confirmed or suspected hardware"),
    "hang": (0.10, "of failures show as silence", "assumed"),
    "step": (6.0, "s a step", "405e9 parameters, 16e6 tokens, 400 TFLOP/s a GPU at 16,384 (Llama 3, table 4); weak scaling beyond"),
    "sync": (60.0, "s that a synchronous save stops the run", "assumed; floor 3.3 s: 6.5 TB at the 2 TB/s of Llama 3 (3.3.1)"),
    "stall": (0.3, "s that an overlapping save stops the run", "assumed; floor 0.02 s: 0.4 GB a GPU at 25 GB/s"),
    "durable": (30.0, "s until an overlapping save is on storage", "assumed; floor 3.3 s"),
    "start": (25.0, "s to start Python and import torch on all nodes", "assumed, a shared file system; 1.1 to 1.6 s here on a local disk"),
    "group": (0.00276, "s a GPU to make the communicator", "Meta, arXiv 2510.20171: stock NCCL about 265 s at 96,000; taken as linear"),
    "load": (90.0, "s to load from storage", "assumed"),
    "near": (15.0, "s to load from a neighbour's memory or the local disk", "assumed"),
    "replace": (120.0, "s for another node without a spare", "assumed; with a spare 0"),
    "requeue": (300.0, "s for the scheduler to start a whole job again", "assumed"),
}
CAUSES = ("saving", "steps again", "detection", "new node", "start", "communicator", "load")


def value(name: str) -> float:
    return INPUTS[name][0]


@dataclass(frozen=True)
class System:
    """every: seconds of training between saves. stall: s a save stops the run. durable: s until it counts. crash, hang: s until noticed.
    node: s for another node where one is needed. whole: s for each restart before processes start. start: s for processes. load: s.
    group: share of the stock time for a communicator. source: of what is its own."""

    name: str
    source: str
    every: float
    stall: float
    durable: float
    crash: float
    hang: float
    node: float
    whole: float = 0.0
    start: float = value("start")
    load: float = value("load")
    group: float = 1.0


def systems(gpus: int) -> list[System]:
    """Each as it comes; what its users must choose themselves is what its documents show, or assumed."""
    step, sync, stall, durable = value("step"), value("sync"), value("stall"), value("durable")
    spare, new, best = 0.0, value("replace"), best_interval(gpus, value("stall"), value("durable"))
    torchrun = System("torchrun, restarts", "--max-restarts set; synchronous saves every 30 min by the script (assumed); NCCL's timeout "
                      "of 10 min (torch 2.13)", 1800, sync, 0, 0.1, 600, new)
    titan = System("TorchTitan, defaults", "interval 500 steps, async_mode disabled, train_timeout_seconds 100 (its config); torchrun",
                   500 * step, sync, 0, 0.1, 100, new)
    ours = System("mltrain, defaults", "checkpoint.every 100 steps, saves overlap; a crash noticed, workers forked in 0.3 s (recovery.py, "
                  "this machine), a hang after 10 medians of the step; no spare", 100 * step, stall, durable,
                  0.3, 10 * step, new, start=0.0)
    return [
        System("scheduler alone", "synchronous saves each hour (assumed), the job queued again: --max-restarts 0 is torchrun's default",
               3600, sync, 0, 0.1, 600, 0, whole=value("requeue")),
        torchrun,
        titan,
        replace(titan, name="TorchTitan, overlapping saves, spares", source="async_mode=async, spare agents; the rest as above",
                stall=stall, durable=durable, node=spare),
        System("NVRx 0.4.1 ft_launcher, defaults", "rank_heartbeat_timeout 2,700 s, looked at every 5 s (its docs); overlapping saves "
               "every 10 min (assumed), spares", 600, stall, durable, 0.1, 2702, spare),
        System("NVRx in-process, local saves", "timeouts 60 s soft, 90 s hard (its source); local saves every 5 min (assumed), spares",
               300, stall, stall, 0.1, 75, spare, start=2.0, load=value("near")),
        System("MegaScale, as published", "NSDI 2024, quoted from memory, not read again: detection, diagnosis under 10 min; communicator "
               "under 30 s at 10,000 GPUs (here a tenth of the stock time); saves in two stages, every 10 min (assumed)", 600, 2.0, 60, 300,
               600, spare, group=0.1),
        replace(torchrun, name="torchrun, all else as below", source="overlapping saves at the best interval, spares: what the agent alone "
                "makes", every=best, stall=stall, durable=durable, node=spare),
        ours,
        replace(ours, name="mltrain, spares, best interval", source="launcher.spares; checkpoint.every by Young and Daly's formula, not "
                "below what storage takes", every=best, node=spare),
    ]


def best_interval(gpus: int, stall: float, durable: float) -> float:
    """Young and Daly: sqrt(2 x stall x mean time between failures); at least until the save before is durable; whole steps."""
    step, between = value("step"), 3600 * value("failure") / gpus
    return step * math.ceil(max(math.sqrt(2 * stall * between), durable) / step)


def simulate(system: System, gpus: int, days: float, seed: int, failure: float | None = None) -> dict[str, float]:
    """Seconds kept and lost by cause, in a run of so many days. failure: GPU hours between failures, if not Llama 3's."""
    draw, end = random.Random(seed), days * 86400
    rate = gpus / (3600 * (value("failure") if failure is None else failure))
    spent = dict.fromkeys(("kept", *CAUSES), 0.0)
    at = 0.0
    while at < end:
        at += _train(system, min(draw.expovariate(rate), end - at), at, end, spent)
        while at < end:                                        # until a restart is not hit itself
            hit = draw.expovariate(rate)
            took = _restart(system, gpus, draw, min(hit, end - at), spent)
            at += took
            if took < hit:
                break
    return spent


def _train(system: System, seconds: float, at: float, end: float, spent: dict[str, float]) -> float:
    """Train for so long, then fail (or come to the end). Kept is what the newest durable save holds; at the end, all."""
    saves = int(seconds / (system.every + system.stall))
    since = seconds - saves * (system.every + system.stall)
    kept = saves if since >= system.durable or not saves else saves - 1
    spent["saving"] += saves * system.stall
    if at + seconds >= end:
        spent["kept"] += seconds - saves * system.stall
    else:
        spent["kept"] += kept * system.every
        spent["steps again"] += seconds - saves * system.stall - kept * system.every
    return seconds


def _restart(system: System, gpus: int, draw: random.Random, limit: float, spent: dict[str, float]) -> float:
    """From a failure to the next step, or until `limit`, when the next failure comes. Returns how long it took."""
    parts = [("detection", system.hang if draw.random() < value("hang") else system.crash),
             ("new node", system.whole + (system.node if draw.random() < value("node") else 0.0)),
             ("start", system.start), ("communicator", system.group * value("group") * gpus), ("load", system.load)]
    took = 0.0
    for cause, seconds in parts:
        seconds = max(0.0, min(seconds, limit - took))
        spent[cause] += seconds
        took += seconds
    return took


def torchft(gpus: int, days: float, seed: int, group: int = 256, stall: float = 15.0, away: float = 180.0) -> dict[str, float]:
    """Replica groups: a failure stops all for `stall` seconds and its group for `away`; the batch is smaller meanwhile, so the weights are
    not those of an undisturbed run."""
    draw, rate = random.Random(seed), gpus / (3600 * value("failure"))
    failures, at = 0, draw.expovariate(rate)
    while at < days * 86400:
        failures, at = failures + 1, at + draw.expovariate(rate)
    spent = dict.fromkeys(("kept", *CAUSES), 0.0)
    spent["detection"], spent["start"] = failures * stall, failures * away * group / gpus
    spent["kept"] = days * 86400 - spent["detection"] - spent["start"]
    return spent


def shares(runs: Iterable[dict[str, float]]) -> tuple[float, float, dict[str, float]]:
    """(mean goodput, half of its 95 % interval, mean loss by cause), each in per cent of the time."""
    each = [{name: 100 * seconds / sum(run.values()) for name, seconds in run.items()} for run in runs]
    kept = [run["kept"] for run in each]
    half = 1.96 * statistics.stdev(kept) / math.sqrt(len(kept)) if len(kept) > 1 else math.inf
    return statistics.mean(kept), half, {cause: statistics.mean(run[cause] for run in each) for cause in CAUSES}


def table(gpus: int, days: float, seeds: int) -> str:
    rows = [(each.name, shares(simulate(each, gpus, days, seed) for seed in range(seeds))) for each in systems(gpus)]
    rows.insert(-3, ("torchft, groups of 256 *", shares(torchft(gpus, days, seed) for seed in range(seeds))))
    head = ["", "goodput, %", "± (95 %)", *CAUSES]
    lines = [head, ["---"] * len(head)]
    lines += [[name, f"{kept:.1f}", f"{half:.2f}", *(f"{lost[cause]:.1f}" for cause in CAUSES)] for name, (kept, half, lost) in rows]
    hours = value("failure") / gpus
    every = f"every {hours:.1f} h" if hours > 1 else f"every {60 * hours:.0f} min"
    return "\n".join([f"### {gpus:,} GPUs, a failure {every}", "", *("| " + " | ".join(line) + " |" for line in lines), ""])


def sensitivity(days: float, seeds: int) -> str:
    """How much our own figures hang on what we assumed."""
    lines = [["mltrain, spares, best interval, but", "16,384 GPUs", "100,000 GPUs"], ["---"] * 3]
    changes: list[tuple[str, dict[str, float], float | None]] = [
        ("as above", {}, None), ("saving stops the run for 5 s", {"stall": 5.0}, None),
        ("saves are durable after 3 min", {"durable": 180.0}, None),
        ("loading takes 15 s (a neighbour's memory)", {"load": value("near")}, None), ("loading takes 5 min", {"load": 300.0}, None),
        ("processes start in 25 s (no template)", {"start": value("start")}, None), ("the agent needs 30 s more", {"crash": 30.3}, None),
        ("hangs are noticed after 10 min", {"hang": 600.0}, None), ("no spare", {"node": value("replace")}, None),
        ("a communicator in a tenth of the time", {"group": 0.1}, None),
        ("failures of Meta's RSC-1 (arXiv 2410.21680: 6.50 in 1,000 node days)", {}, 1000 / 6.50 * 24 * 8),
        ("failures of Meta's RSC-2 (the same: 2.34)", {}, 1000 / 2.34 * 24 * 8)]
    for name, change, failure in changes:
        line = [name]
        for gpus in (16_384, 100_000):
            ours = replace(systems(gpus)[-1], **change)
            if "stall" in change or "durable" in change:
                ours = replace(ours, every=best_interval(gpus, ours.stall, ours.durable))
            kept, half, _ = shares(simulate(ours, gpus, days, seed, failure) for seed in range(seeds))
            line.append(f"{kept:.1f} ± {half:.2f} %")
        lines.append(line)
    return "\n".join(["### What our figures hang on", "", *("| " + " | ".join(line) + " |" for line in lines), ""])


def sources() -> str:
    lines = [["input", "source"], ["---"] * 2]
    lines += [[f"{amount:,g} {unit}", source] for amount, unit, source in INPUTS.values()]
    lines += [[each.name, each.source] for each in systems(16_384)]
    lines.append(["torchft, groups of 256 *", "15 s for all, 180 s for the group (assumed; its issue 329 tells of 948 s); the batch is "
                  "smaller meanwhile and samples are skipped: not the weights of an undisturbed run"])
    return "\n".join(["### Inputs", "", *("| " + " | ".join(line) + " |" for line in lines), ""])


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    p.add_argument("--seeds", type=int, default=20)
    p.add_argument("--days", type=float, default=54.0)
    o = p.parse_args()
    print("## How much of the time does a run of thousands of GPUs keep?\n")
    print("Losses in per cent of the time, by cause.\n")
    print("\n".join([table(16_384, o.days, o.seeds), table(100_000, o.days, o.seeds), sensitivity(o.days, o.seeds), sources()]))
    print(f"{o.seeds} seeds of {o.days:g} days each, simulated. {datetime.date.today()}.\n")


if __name__ == "__main__":
    main()
