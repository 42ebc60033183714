"""NVIDIA's devices by NVML, where pynvml (pip: nvidia-ml-py) is installed: what says that one will fail its next run, too.

    lost        it does not answer any more ("fallen off the bus")
    ECC         errors of its memory that were not corrected, since the driver was loaded; rows that wait for a reset, or could not be
                remapped
    Xid         critical errors in the driver's log that mean the device, not the program; seen since the first look
    NVLink      fewer links that are up than on another device of this machine

Never verified on a machine with NVLink: the calls are those of NVIDIA's documentation, the tests use a module in pynvml's place.
"""
from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from importlib import import_module
from types import ModuleType
from typing import Any

from mltrain.errors import NodeUnfit
from mltrain.health.finding import Finding

# https://docs.nvidia.com/deploy/xid-errors: those whose remedy is a reset, a new node or a repair. 13, 31, 43, 45 are the program's.
XIDS = {46: "it stopped processing", 48: "a double-bit error of its memory", 61: "an internal error of its microcontroller",
        62: "an internal error of its microcontroller", 64: "a row of its memory could not be remapped", 74: "an error of NVLink",
        79: "it has fallen off the bus", 92: "many single-bit errors", 94: "a contained error of its memory",
        95: "an uncontained error of its memory", 119: "its firmware does not answer", 120: "an error of its firmware",
        140: "an error of its memory that was not corrected", 143: "its links could not be set up"}
_RESET = "nvidia-smi --gpu-reset, or another machine"


def _pynvml() -> ModuleType | None:
    try:
        return import_module("pynvml")
    except ImportError:
        return None


class Gpus:
    """This machine's devices; keeps NVML open, so that Xids between two looks are seen. load: gives pynvml, or what stands in its place;
    None if it is not installed."""

    def __init__(self, load: Callable[[], Any] = _pynvml) -> None:
        self._load, self._opened = load, False
        self._nvml: Any = None
        self._events: Any = None
        self._xids: dict[int, set[int]] = {}                   # device -> numbers seen

    def look(self) -> list[Finding]:
        """A finding a fault; one if all is well; none without NVML or devices."""
        try:
            if not self._opened:
                self._open()
            if self._nvml is None:
                return []
            devices = [(index, self._handle(index)) for index in _visible(self._nvml)]
            faults = [fault for index, handle in devices for fault in self._faults(index, handle)] + self._links(devices)
        except Exception as error:                             # noqa: BLE001 NVML's errors are classes made at run time
            if self._nvml is None or not isinstance(error, self._nvml.NVMLError):
                raise
            faults = [_bad(f"NVML does not work: {error}", "nvidia-smi says more; the driver may have to be loaded again")]
        if faults or not devices:
            return faults
        return [Finding("GPUs", "ok", f"{len(devices)} × {_text(self._nvml.nvmlDeviceGetName(devices[0][1]))}")]

    def _open(self) -> None:
        self._opened = True
        nvml = self._load()
        if nvml is None:
            return
        try:
            nvml.nvmlInit()
        except nvml.NVMLError:
            return                                             # no driver: no devices of its kind
        self._nvml, self._events = nvml, nvml.nvmlEventSetCreate()
        for index in range(nvml.nvmlDeviceGetCount()):
            try:
                nvml.nvmlDeviceRegisterEvents(nvml.nvmlDeviceGetHandleByIndex(index), nvml.nvmlEventTypeXidCriticalError, self._events)
            except nvml.NVMLError:                             # lost: the look says so; or a kind of device without events
                continue

    def _handle(self, index: int) -> Any:
        try:
            return self._nvml.nvmlDeviceGetHandleByIndex(index)
        except self._nvml.NVMLError_GpuIsLost:
            return None

    def _faults(self, index: int, handle: Any) -> Iterator[Finding]:
        if handle is None:
            yield _bad(f"GPU {index} does not answer: it has fallen off the bus", "start the machine anew, or use another")
            return
        self._poll()
        for number in sorted(self._xids.get(index, ())):
            yield _bad(f"GPU {index}: Xid {number}, {XIDS[number]}", _RESET)
        nvml = self._nvml
        errors = self._ask("nvmlDeviceGetTotalEccErrors", handle, nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC)
        if errors:
            yield _bad(f"GPU {index}: {errors} uncorrected errors of its memory", _RESET)
        rows = self._ask("nvmlDeviceGetRemappedRows", handle)
        if rows and rows[3]:
            yield _bad(f"GPU {index}: rows of its memory could not be remapped", "have it replaced")
        elif rows and rows[2]:
            yield _bad(f"GPU {index}: rows of its memory wait to be remapped", _RESET)

    def _poll(self) -> None:
        """Take the Xids that have come."""
        nvml = self._nvml
        while True:
            try:
                event = nvml.nvmlEventSetWait_v2(self._events, 0)
            except nvml.NVMLError:                             # a timeout: there are no more
                return
            if event.eventData in XIDS:
                self._xids.setdefault(int(nvml.nvmlDeviceGetIndex(event.device)), set()).add(int(event.eventData))

    def _links(self, devices: list[tuple[int, Any]]) -> list[Finding]:
        up = {index: self._links_up(handle) for index, handle in devices if handle is not None}
        most = max(up.values(), default=0)
        return [_bad(f"GPU {index}: {count} of {most} NVLinks are up", _RESET) for index, count in up.items() if count < most]

    def _links_up(self, handle: Any) -> int:
        states = (self._ask("nvmlDeviceGetNvLinkState", handle, link) for link in range(self._nvml.NVML_NVLINK_MAX_LINKS))
        return sum(state == self._nvml.NVML_FEATURE_ENABLED for state in states)

    def _ask(self, name: str, *arguments: Any) -> Any:
        """None where the device does not have it."""
        nvml = self._nvml
        try:
            return getattr(nvml, name)(*arguments)
        except (nvml.NVMLError_NotSupported, nvml.NVMLError_InvalidArgument):
            return None


def _visible(nvml: Any) -> list[int]:
    """The devices that workers may use: CUDA_VISIBLE_DEVICES by number or UUID; what cannot be read leaves all."""
    every, wanted = list(range(nvml.nvmlDeviceGetCount())), os.environ.get("CUDA_VISIBLE_DEVICES")
    if wanted is None:
        return every
    parts = [part.strip() for part in wanted.split(",") if part.strip()]
    if all(part.isdigit() for part in parts):
        return [index for index in every if str(index) in parts]
    if not all(part.startswith("GPU-") for part in parts):
        return every if parts != ["-1"] else []
    found = []
    for index in every:
        try:
            name = _text(nvml.nvmlDeviceGetUUID(nvml.nvmlDeviceGetHandleByIndex(index)))
        except nvml.NVMLError:
            continue
        if any(name.startswith(part) for part in parts):
            found.append(index)
    return found


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _bad(value: str, hint: str) -> Finding:
    return Finding("GPUs", "bad", value, hint, NodeUnfit.code)
