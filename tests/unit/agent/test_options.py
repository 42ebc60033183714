from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from mltrain.agent.options import Options, accelerators, parse
from mltrain.agent.output import parse_streams
from mltrain.agent.variables import Place, variables
from mltrain.cli.arguments import Parser
from mltrain.errors import ConfigError, MissingInput, UsageError


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "train.py").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHON_EXEC", raising=False)


def options(*argv: str) -> Options:
    return parse(list(argv), Parser)


@pytest.mark.parametrize(("argv", "command", "workers"), [
    (["--workers", "2", "--", "sh", "-c", "x", "--", "y"], ["sh", "-c", "x", "--", "y"], 2),
    (["--nproc-per-node=2", "train.py", "--lr", "1"], [sys.executable, "train.py", "--lr", "1"], 2),
    (["--nproc_per_node", "3", "--standalone", "--nnodes=1", "train.py", "--", "--workers", "9"],
     [sys.executable, "train.py", "--", "--workers", "9"], 3),
    (["-m", "pkg.train", "-m"], [sys.executable, "-m", "pkg.train", "-m"], 1),
    (["--no-python", "sh", "-c", "x"], ["sh", "-c", "x"], 1),
    (["--rdzv-backend=c10d", "--rdzv_endpoint", "h:1", "--rdzv-id=7", "--rdzv-conf", "a=b", "--monitor-interval", "1", "train.py"],
     [sys.executable, "train.py"], 1),
])
def test_both_ways_to_name_a_command(argv: list[str], command: list[str], workers: int) -> None:
    got = options(*argv)
    assert got.command.argv == command and got.workers == workers


@pytest.mark.parametrize(("argv", "script", "module"), [
    ([sys.executable, "train.py", "a"], ["train.py", "a"], False),
    ([sys.executable, "-m", "mod", "a"], ["mod", "a"], True),
    ([sys.executable, "-u", "train.py"], [], False),
    (["sh", "train.py"], [], False),
])
def test_only_what_this_python_would_run_can_be_forked(argv: list[str], script: list[str], module: bool) -> None:
    command = options("--", *argv).command
    assert (command.script, command.module) == (script, module)


def test_a_script_that_is_not_there_is_66() -> None:
    with pytest.raises(MissingInput, match="missing.py: there is no such script"):
        options("--", sys.executable, "missing.py")


def test_only_our_own_worker_can_start_anew_in_the_same_process() -> None:
    assert options("--restart", "inprocess", "--", sys.executable, "-m", "mltrain", "worker", "RUN").restart == "inprocess"
    with pytest.raises(ConfigError, match="only mltrain's own trainer"):
        options("--restart", "inprocess", "train.py")


def test_our_own_worker_is_known() -> None:
    assert options("--", sys.executable, "-m", "mltrain", "worker", "RUN").own
    assert not options("--", sys.executable, "-m", "mltrain", "status").own


@pytest.mark.parametrize("argv", [
    [], ["--workers", "2"], ["--workers", "x", "--", "true"], ["--workers", "0", "--", "true"], ["--workers", "-1", "--", "true"],
    ["--workers", "2", "--nproc-per-node", "3", "--", "true"], ["--restarts", "-1", "--", "true"], ["--restarts", "x", "--", "true"],
    ["--nope", "--", "true"], ["--", "no-such-program-anywhere"], ["-r", "3", "--", "true"], ["--log-dir", "d", "-t", "9", "--", "true"]])
def test_a_wrong_command_line_is_64(argv: list[str]) -> None:
    with pytest.raises(UsageError):
        options(*argv)


@pytest.mark.parametrize("argv", [["--nnodes", "2"], ["--nnodes=1:4"], ["--node-rank", "1"], ["--nproc-per-node", "gpu"]])
def test_what_this_machine_cannot_do_is_78(argv: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(ConfigError):
        options(*argv, "--", "true")


@pytest.mark.parametrize(("argv", "expected"), [
    (["--nodes", "4", "--rendezvous", "h:1", "--run-dir", "r"], (4, 4, ("h", 1))),
    (["--nnodes=2:4", "--rdzv-endpoint", "h", "--run-dir", "r"], (4, 2, ("h", 29400))),
    (["--nnodes", "2", "--node-rank", "1", "--master-addr", "h", "--master-port", "7", "--run-dir", "r"], (2, 2, ("h", 7))),
    (["--nodes", "4", "--min-nodes", "3", "--spares", "1", "--rendezvous", "h:1", "--run-dir", "r"], (4, 3, ("h", 1))),
])
def test_several_nodes(argv: list[str], expected: tuple[int, int, tuple[str, int]]) -> None:
    got = options(*argv, "--", "true")
    assert (got.nodes, got.min_nodes, got.rendezvous) == expected


def test_ours_may_shrink_to_one_node() -> None:
    worker = [sys.executable, "-m", "mltrain", "worker", "r"]
    assert options("--nodes", "4", "--rendezvous", "h:1", "--run-dir", "r", "--", *worker).min_nodes == 1


def test_several_nodes_need_a_shared_directory() -> None:
    with pytest.raises(ConfigError, match="several nodes need a run directory that all of them share"):
        options("--nodes", "2", "--rendezvous", "h:1", "--", "true")


def test_workers_auto_is_one_without_accelerators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert accelerators() == 0
    assert options("--workers", "auto", "--", "true").workers == 1
    assert options("--nproc-per-node", "cpu", "--", "true").workers == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(("text", "bits"), [("3", {-1: 3}), ("0", {-1: 0}), ("0:1,1:2", {0: 1, 1: 2})])
def test_torchruns_way_to_name_streams(text: str, bits: dict[int, int]) -> None:
    assert parse_streams(text) == bits


def test_a_workers_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    got = variables(options("--workers", "4", "--restarts", "3", "--run-dir", "r", "--", "true"), Place(2, 2, 4), attempt=5, restarts=1)
    assert {name: got[name] for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "OMP_NUM_THREADS", "TORCHELASTIC_RESTART_COUNT",
                                         "TORCHELASTIC_MAX_RESTARTS", "TORCHELASTIC_RUN_ID", "MLTRAIN_ATTEMPT")} == {
        "RANK": "2", "LOCAL_RANK": "2", "WORLD_SIZE": "4", "OMP_NUM_THREADS": "1", "TORCHELASTIC_RESTART_COUNT": "1",
        "TORCHELASTIC_MAX_RESTARTS": "3", "TORCHELASTIC_RUN_ID": "r", "MLTRAIN_ATTEMPT": "5"}


def test_one_worker_keeps_all_its_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert "OMP_NUM_THREADS" not in variables(options("--", "true"), Place(0, 0, 1), 1, 0)
