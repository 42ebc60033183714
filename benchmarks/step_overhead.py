"""What does a framework add to a step? Microseconds a step over a hand-written loop, one process and two ranks, all peers in one run.

usage: python benchmarks/step_overhead.py [--turns 15] [--only raw,mltrain] [--ranks 1,2]

peers: pip install -r benchmarks/requirements.txt

Each entry is a job of its own (settings and imports of one must not reach another). All are there at once and change places
every 25 steps; a figure is of 100 steps, in which mltrain saves one checkpoint. mltrain runs with its
loader, checkpoints, metrics and pulse on; the peers with theirs off.
"""
from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from harness import Table  # noqa: E402
from peers.workload import GROUP  # noqa: E402
from turns import Player, measure  # noqa: E402

SLICES = 4
ENTRIES = {
    "raw": ("raw", "torch"), "mltrain": ("mltrain_trainer", "mltrain"), "Fabric": ("fabric", "lightning"),
    "Accelerate": ("accelerate_loop", "accelerate"), "Hugging Face": ("huggingface", "transformers"),
    "DeepSpeed": ("deepspeed_engine", "deepspeed"), "Lightning": ("lightning_trainer", "lightning"),
}


def player(script: str, ranks: int) -> Player:
    command = [sys.executable, "-W", "ignore", str(HERE / "peers" / f"{script}.py")]
    if ranks > 1:                                              # --hang-seconds 0: who waits for its turn makes no steps
        launcher = [sys.executable, "-m", "mltrain", "agent", "--workers", str(ranks), "--restarts", "0", "--hang-seconds", "0", "--"]
        command = [*launcher, *command]
    return Player(command, {"PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--only", default=",".join(ENTRIES))
    parser.add_argument("--ranks", default="1,2")
    options = parser.parse_args()
    chosen = {name: entry for name, entry in ENTRIES.items() if name in options.only.split(",")}
    missing = [name for name, (_, package) in chosen.items() if importlib.util.find_spec(package) is None]
    for ranks in map(int, options.ranks.split(",")):
        players = {name: player(script, ranks) for name, (script, _) in chosen.items() if name not in missing}
        measure(players, options.turns, SLICES)
        figures = {name: [seconds / (SLICES * GROUP) * 1e6 for seconds in each.seconds] for name, each in players.items()}
        question = f"What does a framework add to a step, on {ranks} rank{'s' * (ranks > 1)}?"
        table = Table(question, "µs", figures, None, False)
        print(table.markdown())
        added = {name: statistics.median(a - b for a, b in zip(figures[name], figures["raw"], strict=True)) for name in figures}
        print("added to raw, µs (median of the differences of a turn): "
              + ", ".join(f"{name} {each:+.0f}" for name, each in added.items()) + "\n", flush=True)
    if missing:
        print("not installed here: " + ", ".join(missing))


if __name__ == "__main__":
    main()
