"""A module in pynvml's place: `devices` says what each GPU is like. As text it can be put where a worker or agent imports `pynvml`."""
from __future__ import annotations

import types

SOURCE = '''
NVML_MEMORY_ERROR_TYPE_UNCORRECTED, NVML_VOLATILE_ECC, NVML_FEATURE_ENABLED, NVML_NVLINK_MAX_LINKS = 1, 0, 1, 18
nvmlEventTypeXidCriticalError = 8
devices = []             # dictionaries: lost, errors, remapped (corrected, uncorrected, pending, failed), links, uuid
xids = []                # (device, number) that have come and were not taken
class NVMLError(Exception): pass
class NVMLError_NotSupported(NVMLError): pass
class NVMLError_InvalidArgument(NVMLError): pass
class NVMLError_GpuIsLost(NVMLError): pass
class NVMLError_Timeout(NVMLError): pass
class Event:
    def __init__(self, device, number): self.device, self.eventData = device, number
def nvmlInit(): pass
def nvmlDeviceGetCount(): return len(devices)
def nvmlDeviceGetHandleByIndex(index):
    if devices[index].get("lost"): raise NVMLError_GpuIsLost("GPU is lost")
    return index
def nvmlDeviceGetIndex(handle): return handle
def nvmlDeviceGetName(handle): return b"Imaginary 100"
def nvmlDeviceGetUUID(handle): return f"GPU-{handle}{handle}"
def nvmlEventSetCreate(): return "events"
def nvmlDeviceRegisterEvents(handle, kinds, events): assert kinds == 8 and events == "events"
def nvmlEventSetWait_v2(events, milliseconds):
    if not xids: raise NVMLError_Timeout("Timeout")
    return Event(*xids.pop(0))
def _of(handle, name):
    if devices[handle].get(name) is None: raise NVMLError_NotSupported("Not Supported")
    return devices[handle][name]
def nvmlDeviceGetTotalEccErrors(handle, kind, counter):
    assert (kind, counter) == (1, 0)
    return _of(handle, "errors")
def nvmlDeviceGetRemappedRows(handle): return _of(handle, "remapped")
def nvmlDeviceGetNvLinkState(handle, link):
    if link >= len(_of(handle, "links")): raise NVMLError_InvalidArgument("Invalid Argument")
    return devices[handle]["links"][link]
'''


def fake_nvml(*devices: dict[str, object]) -> types.ModuleType:
    module = types.ModuleType("pynvml")
    exec(SOURCE, module.__dict__)
    module.devices.extend(devices)
    return module
