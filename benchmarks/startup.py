"""How long from the command to the first step? Seconds from the start of a process until its first optimizer step is done.

usage: python benchmarks/startup.py [--rounds 5] [--only raw,mltrain]        peers: pip install -r benchmarks/requirements.txt

`mltrain launch` is measured as a user types it: the recipe is composed and checked, the run's folder made, the agent and a worker started.
"""
from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from harness import compare, per_call  # noqa: E402
from step_overhead import ENTRIES  # noqa: E402

RECIPE = """
defaults:
  - override /task: gpt
  - override /data: text
task: {model: {width: 32, layers: 2, heads: 2}}
data: {path: data, sequence: 32}
steps: 1
global_batch: 8
micro_batch: 8
"""


def peer(script: str) -> float:
    """Seconds."""
    folder = tempfile.mkdtemp(prefix="bench-")
    environment = {**os.environ, "PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1", "BENCH_FOLDER": folder, "BENCH_STEPS": "1"}
    began = time.time()
    command = [sys.executable, "-W", "ignore", str(HERE / "peers" / f"{script}.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, cwd=folder)
    line = next(line for line in reversed(done.stdout.splitlines()) if '"first"' in line)
    return float(json.loads(line[line.index("{"):])["first"]) - began


def launch(folder: Path) -> float:
    """Seconds until the first train record of `mltrain launch`."""
    began = time.time()
    subprocess.run([sys.executable, "-m", "mltrain", "launch", "recipe=first"], cwd=folder, capture_output=True, check=True, timeout=300)
    newest = max((folder / "runs").iterdir(), key=lambda run: run.stat().st_mtime)
    records = [json.loads(line) for line in (newest / "metrics" / "attempt-0001.jsonl").read_text().splitlines()]
    return float(next(record["time"] for record in records if record["kind"] == "train")) - began


def project() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    (folder / "recipes").mkdir()
    (folder / "recipes" / "first.yaml").write_text(RECIPE)
    (folder / "text.txt").write_text("some text of no meaning\n" * 400)
    command = [sys.executable, "-m", "mltrain", "data", "prepare", "text.txt", "--out", "data", "--holdout", "0"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default=",".join([*ENTRIES, "mltrain launch"]))
    options = parser.parse_args()
    chosen = options.only.split(",")
    folder = project()
    variants = {name: (lambda script=script: peer(script)) for name, (script, package) in ENTRIES.items()
                if name in chosen and name != "mltrain" and importlib.util.find_spec(package)}
    variants["mltrain launch"] = lambda: launch(folder)
    print(compare("How long from the command to the first step?", variants, unit="s", rounds=options.rounds).markdown())
    command = [sys.executable, "-m", "mltrain", "status"]
    status = per_call(lambda: subprocess.run(command, cwd=folder, capture_output=True, check=True), scale=1.0)
    bare = per_call(lambda: subprocess.run([sys.executable, "-c", "pass"], check=True), scale=1.0)
    variants = {"mltrain status": status, "python -c pass": bare}
    print(compare("How long does mltrain status take?", variants, unit="s", limit="python -c pass", rounds=options.rounds).markdown())


if __name__ == "__main__":
    main()
