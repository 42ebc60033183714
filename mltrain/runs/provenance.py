"""Where a run came from: code, packages, hardware, command. Written once, when the run is made; secrets are kept out.

    RUN/provenance.json     RUN/patch.diff (what the working tree had that its commit had not)
"""
from __future__ import annotations

import importlib.metadata
import os
import platform
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from mltrain.runs.atomic import write_json, write_text
from mltrain.trust.digest import plain, sha256
from mltrain.trust.redact import holds_secret, redact, redact_data

PATCH_BYTES, FILE_BYTES = 1 << 20, 1 << 16        # of the whole patch, of one untracked file in it
_GIT_SECONDS = 20
# Names of the environment that say how a run computes. A list of what is taken: everything else may be private.
_TAKEN = ("CUDA_", "NCCL_", "TORCH_", "PYTORCH_", "OMP_", "MKL_", "ATEN_", "ONEDNN_", "GLOO_", "SLURM_JOB", "SLURM_N", "HIP_", "ROCR_")


def record(run: Path, command: list[str], directory: Path) -> dict[str, Any]:
    """Write provenance.json, and patch.diff if the working tree differs from its commit. directory: where the run was launched.
    Never fails for want of git or of a repository."""
    code = source(directory)
    patch = code.pop("patch", "")
    if patch:
        write_text(run / "patch.diff", patch)
        code["patch_sha256"] = sha256(patch.encode("utf-8", "backslashreplace"))
    facts = {
        "time": round(time.time(), 3), "command": command, "directory": str(directory), "user": os.environ.get("USER", ""),
        "python": sys.version.split()[0], "platform": platform.platform(), "code": code, "packages": packages(), "hardware": hardware(),
        "environment": {name: value for name, value in sorted(os.environ.items()) if name.startswith(_TAKEN)}}
    value = redact_data(plain(facts))
    assert isinstance(value, dict)
    write_json(run / "provenance.json", value)
    return value


def source(directory: Path) -> dict[str, Any]:
    """Commit and dirty patch of the repository around a folder; {} outside of one."""
    commit = _git(directory, "rev-parse", "HEAD").strip()
    if not commit:
        return {}
    origin = _git(directory, "config", "--get", "remote.origin.url").strip()
    patch, left_out = dirty_patch(directory)
    return {"commit": commit, "branch": _git(directory, "branch", "--show-current").strip(), "origin": redact(origin),
            "dirty": bool(patch or left_out), "left_out": left_out, "patch": patch}


def dirty_patch(directory: Path) -> tuple[str, list[str]]:
    """(patch, files left out of it): tracked changes and untracked files that git does not ignore. A file that holds a secret, is too
    large or is binary is named, not copied."""
    root = Path(_git(directory, "rev-parse", "--show-toplevel").strip())
    tracked = _git(root, "diff", "--name-only", "HEAD", "-z").split("\0")
    untracked = _git(root, "ls-files", "--others", "--exclude-standard", "-z").split("\0")
    parts, left_out, size = [], [], 0
    for name in filter(None, [*tracked, *untracked]):
        part = _changes(root, name) if name in tracked else _new_file(root, name)
        size += len(part)
        if not part or "\0" in part or "\nBinary files " in part or _private(name, part) or size > PATCH_BYTES:
            left_out.append(name)
            size -= len(part)
        else:
            parts.append(part)
    return "".join(parts), left_out


def _changes(root: Path, name: str) -> str:
    return _git(root, "diff", "--no-ext-diff", "HEAD", "--", name)


def _new_file(root: Path, name: str) -> str:
    path = root / name
    if not path.is_file() or path.is_symlink() or path.stat().st_size > FILE_BYTES:
        return ""
    return _git(root, "diff", "--no-ext-diff", "--no-index", "--", os.devnull, name)


def _private(name: str, part: str) -> bool:
    base = os.path.basename(name).lower()
    named = base.startswith((".env", "id_")) or base.endswith((".pem", ".key")) or "secret" in base or "credential" in base
    return named or holds_secret(part)


def packages() -> list[str]:
    """name==version of all that is installed here."""
    return sorted({f"{each.metadata['Name']}=={each.version}" for each in importlib.metadata.distributions() if each.metadata["Name"]},
                  key=str.lower)


def hardware() -> dict[str, Any]:
    """Host, processor, memory in bytes, and accelerators: the latter through torch only if somebody has imported it."""
    facts: dict[str, Any] = {
        "host": socket.gethostname(), "cores": len(os.sched_getaffinity(0)), "processor": _first("/proc/cpuinfo", "model name"),
        "memory": int(_first("/proc/meminfo", "MemTotal").split(" ")[0] or 0) * 1024}
    if torch := sys.modules.get("torch"):
        facts["torch"] = torch.__version__
        facts["capability"] = torch.backends.cpu.get_cpu_capability()
        if torch.accelerator.is_available():
            kind = torch.accelerator.current_accelerator()
            facts["accelerators"] = {"kind": str(kind), "count": torch.accelerator.device_count()}
    return facts


def _first(path: str, key: str) -> str:
    """The value of the first line that begins with key."""
    try:
        with open(path) as file:
            return next((line.partition(":")[2].strip() for line in file if line.startswith(key)), "")
    except OSError:
        return ""


def _git(directory: Path, *arguments: str) -> str:
    """Output of one git command; "" if it fails. Of `diff --no-index` a difference is exit code 1."""
    try:
        done = subprocess.run(["git", "-c", "core.quotepath=off", *arguments], cwd=directory, capture_output=True, timeout=_GIT_SECONDS,
                              env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"})
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="backslashreplace") if done.returncode in (0, 1) else ""
