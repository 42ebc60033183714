"""How fast this machine is, in two measures that take seconds: a product of matrices on each device, and a sum over two processes through
the loopback interface. One that is much slower than its peers, or than it was, holds all others up.

    FOLDER/HOST.jsonl     a line a measurement; the folder is shared by the machines that are to be compared

As a program it is one of the two processes:  python -m mltrain.health.speed RANK STORE
"""
from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from mltrain.errors import NodeUnfit, StorageError
from mltrain.health.finding import Finding

SLOW, TOO_SLOW = 1.3, 2.0            # times the median of its peers
PEERS, EARLIER = 2, 3                # at least so many others, or else so many earlier measurements of its own
LIMIT_SECONDS = 120
_SIDE, _DEVICE_SIDE, _BYTES, _TIMES = 768, 8192, 16 << 20, 7
_GRACE_SECONDS = 0.001               # differences below are no difference


def measure() -> dict[str, Any]:
    """{"kind": what it was measured on, "seconds": {measure: seconds}}: the best of some repetitions each. About five seconds. Raises
    NodeUnfit (69) if it cannot be done at all."""
    with tempfile.TemporaryDirectory(prefix="mltrain-speed-") as folder:
        store = os.path.join(folder, "store")
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
        pair = [subprocess.Popen([sys.executable, "-m", "mltrain.health.speed", str(rank), store], env=environment, text=True,
                                 stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for rank in range(2)]
        give_up = time.monotonic() + LIMIT_SECONDS
        try:
            said = [each.communicate(timeout=max(1.0, give_up - time.monotonic())) for each in pair]
        except subprocess.TimeoutExpired:
            raise NodeUnfit(f"the measurement has not ended within {LIMIT_SECONDS} s", "is the loopback interface up?") from None
        finally:
            for each in pair:
                each.kill()
                each.communicate()
        failed = next((errors for each, (_, errors) in zip(pair, said, strict=True) if each.returncode), None)
        if failed is not None:
            last = (failed.strip().splitlines() or ["no message"])[-1]
            raise NodeUnfit(f"the measurement failed: {last[:200]}", "mltrain doctor looks at the installation")
        found: dict[str, Any] = json.loads(said[0][0].splitlines()[-1])
        return found


def compare(found: dict[str, Any], folder: Path, host: str = "") -> list[Finding]:
    """Against the newest measurement of each other machine of the same kind in that folder, or else its own earlier ones; then it is added
    there. A finding a measure. Raises StorageError (74) if the folder cannot be written."""
    host = host or socket.gethostname()
    others, own = _read(folder, host, found["kind"])
    findings = []
    for name, seconds in found["seconds"].items():
        peers = [each[name] for each in others if name in each]
        before = [each[name] for each in own if name in each]
        known, of_whom = (peers, "other machines") if len(peers) >= PEERS else (before, "its own earlier ones")
        enough = len(known) >= (PEERS if known is peers else EARLIER)
        findings.append(_judge(name, seconds, statistics.median(known), of_whom) if enough else _plain(name, seconds))
    _append(folder / f"{host}.jsonl", {**found, "host": host, "time": round(time.time(), 3)})
    return findings


def alone(found: dict[str, Any]) -> list[Finding]:
    return [_plain(name, seconds) for name, seconds in found["seconds"].items()]


def _plain(name: str, seconds: float) -> Finding:
    return Finding(name, "ok", f"{seconds * 1e3:.1f} ms")


def _judge(name: str, seconds: float, usual: float, of_whom: str) -> Finding:
    ratio = seconds / usual if usual > 0 else 1.0
    text = f"{seconds * 1e3:.1f} ms, {ratio:.2f} times the median of {of_whom}"
    if ratio <= SLOW or seconds - usual < _GRACE_SECONDS:
        return Finding(name, "ok", text)
    hint = "does something else use the processor, or is it throttled? another machine would be faster"
    return Finding(name, "bad", text, hint, NodeUnfit.code) if ratio > TOO_SLOW else Finding(name, "warn", text, hint)


def _read(folder: Path, host: str, kind: str) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """(the newest of each other machine, all of this one)"""
    others, own = [], []
    for path in sorted(folder.glob("*.jsonl")):
        rows = []
        for line in path.read_text(errors="replace").splitlines():
            try:
                row = json.loads(line)
                if row["kind"] == kind:
                    rows.append({str(name): float(value) for name, value in row["seconds"].items()})
            except (ValueError, KeyError, TypeError, AttributeError):
                continue                                       # torn, or of something else
        if path.name == f"{host}.jsonl":
            own = rows
        elif rows:
            others.append(rows[-1])
    return others, own


def _append(path: Path, row: dict[str, Any]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")
    except OSError as error:
        raise StorageError(f"{path}: cannot be written: {error.strerror}", "give a folder that all machines may write to") from None


# ── one of the two processes ─────────────────────────────────────────────────────────────────────────────────────────────────────
def _best(action: Callable[[], object], wait: Callable[[], object] = lambda: None) -> float:
    action()
    wait()
    seconds = []
    for _ in range(_TIMES):
        begun = time.perf_counter()
        action()
        wait()
        seconds.append(time.perf_counter() - begun)
    return min(seconds)


def main(rank: int, store: str) -> None:
    import torch
    import torch.distributed as dist
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    tensor, kind, found = torch.ones(_BYTES // 4), torch.backends.cpu.get_cpu_capability(), {}
    found["all-reduce"] = _best(lambda: dist.all_reduce(tensor))
    if rank == 0:
        square = torch.ones(_SIDE, _SIDE)
        found["matmul"] = _best(lambda: square @ square)
        if torch.accelerator.is_available():
            device = torch.accelerator.current_accelerator()
            kind = str(torch.get_device_module(device).get_device_name(0))
            for index in range(torch.accelerator.device_count()):
                large = torch.ones(_DEVICE_SIDE, _DEVICE_SIDE, dtype=torch.bfloat16, device=f"{device}:{index}")
                wait = partial(torch.accelerator.synchronize, index)
                found[f"matmul {device}:{index}"] = _best(partial(torch.matmul, large, large), wait)
        print(json.dumps({"kind": kind, "seconds": found}), flush=True)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
