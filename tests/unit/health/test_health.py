"""Looks at a machine with planted faults."""
from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mltrain.health import node
from mltrain.health.gpus import Gpus


@pytest.fixture
def full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder without room: a small tmpfs that is full; where one may not mount, the system call says so."""
    folder = tmp_path / "full"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)]
    mounted = os.geteuid() == 0 and bool(shutil.which("mount")) and subprocess.run(command, capture_output=True).returncode == 0
    if mounted:
        (folder / "ballast").write_bytes(bytes(64 << 10))
    else:
        truth = os.statvfs(folder)
        small = os.statvfs_result((*truth[:3], 0, 0, *truth[5:]))
        monkeypatch.setattr(os, "statvfs", lambda path: small if Path(path) == folder else truth)
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield folder
    if mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_this_machine_is_fit(tmp_path: Path) -> None:
    found = node.look(tmp_path, 2, Gpus())
    assert {finding.name for finding in found} >= {"memory", "temporary files", "room for the run", "clock"}
    assert [finding for finding in found if finding.state == "bad"] == [] and list(tmp_path.iterdir()) == []


def test_a_look_costs_under_50_ms(tmp_path: Path) -> None:
    node.look(tmp_path, 2, gpus := Gpus())
    begun = time.process_time()
    for _ in range(10):
        node.look(tmp_path, 2, gpus)
    assert (time.process_time() - begun) / 10 < 0.05


def test_no_room_for_temporary_files_is_this_machines_fault(full: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(full))
    (finding,) = node.temporary()
    assert (finding.state, finding.code) == ("bad", 69) and finding.value == f"0 MiB free in {full}" and "TMPDIR" in finding.hint


def test_no_room_for_the_run_is_nobodys(full: Path) -> None:
    finding = node.room(full)
    assert (finding.state, finding.code, finding.value) == ("warn", 0, f"0 MiB free in {full}")
    assert node.room(full / "not there").state == "warn"


def test_too_little_memory_for_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node, "available", lambda: (200 << 20, " of 512 MiB that the control group may have"))
    assert node.memory(1).state == "ok"
    finding = node.memory(2)
    assert (finding.state, finding.code) == ("bad", 69)
    assert finding.value == "200 MiB free of 512 MiB that the control group may have; 2 workers need 256 MiB before they have a model"


def test_a_control_group_may_have_less_than_the_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, text in (("max", "536870912\n"), ("current", "500000000\n"), ("stat", "anon 1\ninactive_file 100000000\n")):
        (tmp_path / f"memory.{name}").write_text(text)
    monkeypatch.setattr(node, "_groups", lambda: iter([tmp_path]))
    assert node.available() == (136870912, " of 512 MiB that the control group may have")


@pytest.mark.parametrize(("ahead", "state"), [(0, "ok"), (0.5, "ok"), (8, "warn"), (-8, "warn"), (60, "bad"), (-3600, "bad")])
def test_a_clock_is_measured_against_the_run_directorys(tmp_path: Path, ahead: float, state: str) -> None:
    (finding,) = node.clock(tmp_path, lambda: time.time() + ahead)
    assert (finding.state, finding.code) == (state, 69 if state == "bad" else 0)
    if state != "ok":
        assert float(finding.value.split()[0]) == pytest.approx(abs(ahead), abs=3)
        assert f" s {'ahead of' if ahead > 0 else 'behind'} the clock of {tmp_path}" in finding.value and finding.hint


def test_where_no_file_can_be_made_there_is_no_clock(tmp_path: Path) -> None:
    assert node.clock(tmp_path / "not there") == []
