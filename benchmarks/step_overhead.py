"""What does a framework add to a step? Microseconds a step over a hand-written loop, one process and two ranks, all peers in one run.

usage: python benchmarks/step_overhead.py [--rounds 5] [--only raw,mltrain]        peers: pip install -r benchmarks/requirements.txt

Each entry is a process of its own (settings and imports of one must not reach another); entries take turns. mltrain runs with its
loader, checkpoints, metrics and pulse on; the peers with theirs off.
"""
from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from harness import compare  # noqa: E402

ENTRIES = {
    "raw": ("raw", "torch"), "mltrain": ("mltrain_trainer", "mltrain"), "Fabric": ("fabric", "lightning"),
    "Accelerate": ("accelerate_loop", "accelerate"), "Hugging Face": ("huggingface", "transformers"),
    "DeepSpeed": ("deepspeed_engine", "deepspeed"), "Lightning": ("lightning_trainer", "lightning"),
}


def measure(script: str, ranks: int) -> float:
    """Microseconds a step."""
    environment = {**os.environ, "PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1", "BENCH_FOLDER": tempfile.mkdtemp(prefix="bench-")}
    command = [sys.executable, "-W", "ignore", str(HERE / "peers" / f"{script}.py")]
    if ranks > 1:
        command = [sys.executable, "-m", "mltrain", "agent", "--workers", str(ranks), "--restarts", "0", "--", *command]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, cwd=environment["BENCH_FOLDER"])
    lines = [line[line.index("{"):] for line in done.stdout.splitlines() if '"us"' in line]
    if done.returncode or not lines:
        raise SystemExit(f"{script} on {ranks}: exit code {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}")
    return float(json.loads(lines[-1])["us"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default=",".join(ENTRIES))
    options = parser.parse_args()
    chosen = {name: entry for name, entry in ENTRIES.items() if name in options.only.split(",")}
    missing = [name for name, (_, package) in chosen.items() if importlib.util.find_spec(package) is None]
    for ranks in (1, 2):
        variants = {name: (lambda script=script: measure(script, ranks))  # noqa: B023  called within this turn of the loop
                    for name, (script, _) in chosen.items() if name not in missing}
        question = f"What does a framework add to a step, on {ranks} rank{'s' * (ranks > 1)}?"
        table = compare(question, variants, unit="µs", rounds=options.rounds)
        print(table.markdown())
        added = ", ".join(f"{name} {table.median(name) - table.median('raw'):+.0f}" for name in variants)
        print(f"added to raw, µs: {added}\n", flush=True)
    if missing:
        print("not installed here: " + ", ".join(missing))


if __name__ == "__main__":
    main()
