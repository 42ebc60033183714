"""How fast this machine is beside its peers and its past."""
from __future__ import annotations

import json
from pathlib import Path

import pytest

from mltrain.cli.main import main
from mltrain.errors import NodeUnfit, StorageError
from mltrain.health import speed


def known(folder: Path, host: str, *seconds: float, kind: str = "AVX2") -> None:
    rows = [json.dumps({"kind": kind, "seconds": {"matmul": each}, "host": host}) for each in seconds]
    (folder / f"{host}.jsonl").write_text("\n".join(rows) + "\n{torn")


def found(seconds: float) -> dict[str, object]:
    return {"kind": "AVX2", "seconds": {"matmul": seconds}}


@pytest.mark.parametrize(("seconds", "state"), [(0.010, "ok"), (0.012, "ok"), (0.016, "warn"), (0.025, "bad"), (0.005, "ok")])
def test_a_machine_is_as_fast_as_its_peers(tmp_path: Path, seconds: float, state: str) -> None:
    known(tmp_path, "one", 0.500, 0.010)                            # the newest counts
    known(tmp_path, "two", 0.011)
    known(tmp_path, "three", 0.009)
    known(tmp_path, "other", 0.001, kind="AVX512")
    (finding,) = speed.compare(found(seconds), tmp_path, "me")
    assert (finding.name, finding.state, finding.code) == ("matmul", state, 69 if state == "bad" else 0)
    assert finding.value == f"{seconds * 1e3:.1f} ms, {seconds / 0.010:.2f} times the median of other machines"
    assert json.loads((tmp_path / "me.jsonl").read_text())["seconds"] == {"matmul": seconds}


def test_without_peers_it_is_as_fast_as_it_was(tmp_path: Path) -> None:
    known(tmp_path, "one", 0.001)                                  # one other is no median
    states = [speed.compare(found(seconds), tmp_path, "me")[0].state for seconds in (0.010, 0.010, 0.010, 0.030)]
    assert states == ["ok", "ok", "ok", "bad"]


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot be written"):
        speed.compare(found(0.01), tmp_path / "file" / "below", "me")


def test_the_command_measures_this_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--node", "--json", "--against", str(tmp_path / "health")]) == 0
    states = {row["name"]: row["state"] for row in json.loads(capsys.readouterr().out)}
    assert states == {"memory": "ok", "temporary files": "ok", "all-reduce": "ok", "matmul": "ok"}
    (path,) = (tmp_path / "health").iterdir()
    assert all(0 < each < 10 for each in json.loads(path.read_text())["seconds"].values())


def test_against_whom_needs_something_to_compare(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--against", "folder"]) == 64
    assert capsys.readouterr().err == "mltrain: --against needs --node\n  mltrain doctor --help explains it\n"


def test_a_measurement_that_fails_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    monkeypatch.setattr(speed.sys, "executable", "/bin/false")
    with pytest.raises(NodeUnfit, match="the measurement failed: no message"):
        speed.measure()
