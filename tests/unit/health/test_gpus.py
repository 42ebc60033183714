"""What NVML tells, by a module in its place."""
from __future__ import annotations

import pytest
from fake_nvml import fake_nvml

from mltrain.health.gpus import Gpus

GOOD = {"errors": 0, "remapped": (3, 0, False, False), "links": [1] * 4}


def values(gpus: Gpus) -> list[str]:
    return [finding.value for finding in gpus.look() if finding.state == "bad" and finding.code == 69 and finding.hint]


def test_without_nvml_there_is_nothing_to_say() -> None:
    assert Gpus(lambda: None).look() == []


def test_without_a_driver_neither() -> None:
    nvml = fake_nvml()

    def no_driver() -> None:
        raise nvml.NVMLError("Driver Not Loaded")
    nvml.nvmlInit = no_driver
    assert Gpus(lambda: nvml).look() == []


def test_good_devices_are_one_line() -> None:
    (finding,) = Gpus(lambda: fake_nvml(GOOD, GOOD, {"errors": None, "remapped": None, "links": [1] * 4})).look()
    assert (finding.state, finding.value) == ("ok", "3 × Imaginary 100")


@pytest.mark.parametrize(("fault", "text"), [
    ({"lost": True}, "GPU 1 does not answer: it has fallen off the bus"),
    ({"errors": 2}, "GPU 1: 2 uncorrected errors of its memory"),
    ({"remapped": (0, 1, True, False)}, "GPU 1: rows of its memory wait to be remapped"),
    ({"remapped": (0, 9, True, True)}, "GPU 1: rows of its memory could not be remapped"),
    ({"links": [1, 0, 1, 1]}, "GPU 1: 3 of 4 NVLinks are up"),
])
def test_a_fault_is_named(fault: dict[str, object], text: str) -> None:
    assert values(Gpus(lambda: fake_nvml(GOOD, {**GOOD, **fault}))) == [text]


def test_xids_of_the_device_are_kept_and_those_of_programs_are_not() -> None:
    nvml = fake_nvml(GOOD, GOOD)
    gpus = Gpus(lambda: nvml)
    assert values(gpus) == []
    nvml.xids += [(0, 31), (1, 79), (1, 13)]
    for _ in range(2):
        assert values(gpus) == ["GPU 1: Xid 79, it has fallen off the bus"]


def test_nvml_that_fails_is_a_fault() -> None:
    nvml = fake_nvml(GOOD)
    gpus = Gpus(lambda: nvml)
    gpus.look()

    def fails() -> int:
        raise nvml.NVMLError("Unknown Error")
    nvml.nvmlDeviceGetCount = fails
    assert values(gpus) == ["NVML does not work: Unknown Error"]


@pytest.mark.parametrize(("visible", "found"), [
    ("0", 0), ("1", 1), ("0,1", 1), ("GPU-00", 0), ("GPU-1", 1), ("", 0), ("-1", 0), ("MIG-1", 1)])
def test_only_devices_that_workers_may_use_count(monkeypatch: pytest.MonkeyPatch, visible: str, found: int) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert len(values(Gpus(lambda: fake_nvml(GOOD, {**GOOD, "errors": 2})))) == found
