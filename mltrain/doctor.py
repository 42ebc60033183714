"""Looks at this machine and this installation before a run does: what is there, what is missing, and what to do about it.

Each look is one function that returns one or a few `Finding`s; a finding that is bad carries the exit code of the error a run would meet.
"""
from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterable
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from mltrain.assets import asset_dir
from mltrain.errors import ConfigError, MltrainError, NodeUnfit
from mltrain.extras import EXTRAS
from mltrain.health import node, speed
from mltrain.health.finding import Finding as Finding
from mltrain.health.gpus import Gpus

DISTRIBUTION = "mltrain-core"
BASE = ("torch", "numpy", "hydra-core", "fsspec", "pyarrow", "safetensors", "msgspec", "rich", "jinja2", "xxhash")
GIB = 2**30


def examine() -> list[Finding]:
    """Every finding, in the order to read them. About three seconds, most of them for importing torch."""
    looks: tuple[Callable[[], Iterable[Finding]], ...] = (
        _installation, _versions, _devices, _cores, _memory, _shared_memory, _disk, _programs, _extras, _recipes)
    return [finding for look in looks for finding in look()]


def examine_node(against: Path | None = None) -> list[Finding]:
    """Is this machine fit to train? What an agent looks at before each attempt, and how fast it is: five seconds. against: a folder that is
    shared with other machines, whose measurements this one's are compared with. Raises StorageError (74) if it cannot be written."""
    findings = node.look(None, 1, Gpus())
    try:
        measured = speed.measure()
    except NodeUnfit as error:
        return [*findings, Finding("speed", "bad", error.message, error.hint, error.code)]
    return [*findings, *(speed.compare(measured, against) if against else speed.alone(measured))]


def _installation() -> Iterable[Finding]:
    """Another project owns the name mltrain on the package index and has the same import name: the one installed last overwrites the
    other's files, and uninstalling one deletes the other's."""
    owners = {name.lower().replace("_", "-") for name in metadata.packages_distributions().get("mltrain", [])}
    strangers = sorted((owners | _named("mltrain")) - {DISTRIBUTION})
    if strangers:
        yield Finding("installation", "bad", f"the package mltrain is shared with: {', '.join(strangers)}",
                      f"pip uninstall -y {' '.join(strangers)} {DISTRIBUTION}, then install {DISTRIBUTION} again", ConfigError.code)
    try:
        yield Finding("installation", "ok", f"{DISTRIBUTION} {metadata.version(DISTRIBUTION)} in {asset_dir('conf').parent}")
    except metadata.PackageNotFoundError:
        yield Finding("installation", "warn", f"{DISTRIBUTION} is used from {asset_dir('conf').parent} without being installed",
                      "recipes of other packages are found, the command mltrain may not be: pip install -e .")
    except NodeUnfit as error:
        yield Finding("installation", "bad", error.message, error.hint, error.code)


def _named(distribution: str) -> set[str]:
    try:
        return {str(metadata.metadata(distribution)["Name"]).lower()}
    except metadata.PackageNotFoundError:
        return set()


def _versions() -> Iterable[Finding]:
    yield Finding("python", "ok", f"{platform.python_version()} at {sys.executable}")
    for name in BASE:
        try:
            yield Finding(name, "ok", metadata.version(name))
        except metadata.PackageNotFoundError:
            yield Finding(name, "bad", "missing", f"pip install {name}", NodeUnfit.code)


def _devices() -> Iterable[Finding]:
    try:
        import torch
    except (ImportError, OSError) as error:          # OSError: a shared library of torch's is missing
        yield Finding("devices", "bad", f"torch cannot be imported: {error}", "install torch again", NodeUnfit.code)
        return
    if not torch.accelerator.is_available():
        yield Finding("devices", "ok", f"CPU only ({torch.backends.cpu.get_cpu_capability()}); torch sees no accelerator")
        return
    kind = str(torch.accelerator.current_accelerator())
    module = torch.get_device_module(kind)
    names = [str(module.get_device_name(index)) for index in range(torch.accelerator.device_count())]
    yield Finding("devices", "ok", f"{len(names)} × {kind}: {', '.join(sorted(set(names)))}")


def _cores() -> Iterable[Finding]:
    usable, present = len(os.sched_getaffinity(0)), os.cpu_count() or 1
    quota = _read_number("/sys/fs/cgroup/cpu.max")
    value = f"{usable} of {present} usable" + (f", limited to {quota / 100_000:g} by the cgroup" if quota else "")
    threads = os.environ.get("OMP_NUM_THREADS")
    yield Finding("cores", "ok", value + (f"; OMP_NUM_THREADS={threads} (a run sets its own, from threads=)" if threads else ""))


def _memory() -> Iterable[Finding]:
    rows = dict(line.split(":", 1) for line in _read("/proc/meminfo").splitlines() if ":" in line)
    total, free = (int(rows.get(name, "0 kB").split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    limit = _read_number("/sys/fs/cgroup/memory.max")
    value = f"{free / GIB:.1f} GiB free of {total / GIB:.1f} GiB" + (f", limited to {limit / GIB:.1f} GiB by the cgroup" if limit else "")
    yield Finding("memory", "warn", value, "a run of two workers needs about 1 GiB") if free < GIB else Finding("memory", "ok", value)


def _shared_memory() -> Iterable[Finding]:
    """Snapshots lie in memory files and need no room here; NCCL, gloo and data workers of other libraries do."""
    try:
        free = shutil.disk_usage("/dev/shm").free
    except OSError:
        yield Finding("/dev/shm", "warn", "missing", "NCCL needs it; in a container: docker run --ipc=host")
        return
    if free < GIB:
        yield Finding("/dev/shm", "warn", f"{free / 2**20:.0f} MiB free", "NCCL wants 1 GiB; in a container: docker run --shm-size=8g")
    else:
        yield Finding("/dev/shm", "ok", f"{free / GIB:.1f} GiB free")


def _disk() -> Iterable[Finding]:
    folder = os.getcwd()
    if not os.access(folder, os.W_OK):
        yield Finding("disk", "warn", f"{folder} cannot be written to", "runs are made in ./runs: change the folder, or give runs=FOLDER")
        return
    free = shutil.disk_usage(folder).free
    value = f"{free / GIB:.1f} GiB free in {folder}"
    low = free < 5 * GIB
    yield Finding("disk", "warn", value, "checkpoints need room: give runs=FOLDER elsewhere") if low else Finding("disk", "ok", value)


def _programs() -> Iterable[Finding]:
    for name, candidates, hint in (
        ("git", ("git",), "without it, runs do not record the code they ran: apt-get install git"),
        ("C++ compiler", (os.environ.get("CXX", "g++"), "c++", "clang++"), "torch.compile on CPU needs it: apt-get install g++"),
    ):
        found = next((path for path in map(shutil.which, candidates) if path), None)
        yield Finding(name, "ok", found) if found else Finding(name, "warn", "missing", hint)


def _extras() -> Iterable[Finding]:
    """Optional: a missing one is no fault. One line of those that are there, one of those that are not."""
    present = {extra: find_spec(module) is not None for module, extra in EXTRAS.items()}
    have, lack = ([extra for extra, there in present.items() if there is wanted] for wanted in (True, False))
    yield Finding("extras", "ok", f"installed: {' '.join(have) or 'none'}; not installed: {' '.join(lack) or 'none'}")


def _recipes() -> Iterable[Finding]:
    """Packages that bring recipes (entry point mltrain.recipes)."""
    for point in metadata.entry_points(group="mltrain.recipes"):
        package = point.dist.name if point.dist else point.value
        try:
            there = asset_dir("recipes") if point.value == "mltrain.recipes" else find_spec(point.value)
        except (MltrainError, ImportError, ValueError):
            there = None
        if there:
            yield Finding("recipes", "ok", f"{point.value} of {package}")
        else:
            yield Finding("recipes", "warn", f"{point.value} of {package} cannot be found", f"install {package} again")


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:                                  # not this kind of machine
        return ""


def _read_number(path: str) -> int:
    """The first number of the file; 0 if there is none ("max": unlimited)."""
    first = _read(path).split()[:1]
    return int(first[0]) if first and first[0].isdigit() else 0
