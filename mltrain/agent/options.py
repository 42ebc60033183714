"""The agent's command line: its own flags, torchrun's names for them, and a command after -- or a script as torchrun takes it."""
from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import socket
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mltrain.agent.notices import default_grace
from mltrain.agent.output import parse_streams
from mltrain.agent.workers import Command
from mltrain.errors import ConfigError, MissingInput, UsageError

DEFAULT_RESTARTS, DEFAULT_GRACE_SECONDS, DEFAULT_JOIN_SECONDS = 16, 120.0, 600.0
DEFAULT_PORT, DEFAULT_MASTER_PORT = 29400, 29500     # torchrun's
DESCRIPTION = """Run any command on N workers of this machine, or of several, and restart them when one dies.
Sets torchrun's environment variables and takes its flags."""
EXAMPLES = """  mltrain agent --workers 2 -- python train.py --lr 0.1
  mltrain agent --nproc-per-node 2 train.py --lr 0.1        as torchrun takes it
  mltrain agent --workers 2 --run-dir runs/mine -- python train.py
                                                            logs by rank, status and ledger in that folder
  mltrain agent --nodes 2 --rendezvous host1:29400 --run-dir SHARED/mine --workers 8 -- python train.py
                                                            the same on each host; SHARED is a folder that all of them see
exit code: 0 done, 75 stopped with state saved, 130 stopped by the user, else that of the worker that failed first (128 + N for signal N)"""
RESTARTS = ("process", "inprocess")
_INERT = "accepted and not needed"
Make = Callable[[str, str, str], argparse.ArgumentParser]


@dataclass(frozen=True, slots=True)
class Options:
    """What one agent is to do. own: the command is a worker of mltrain's (it beats, and knows what exit code 75 means). hang_seconds: as
    in `silence.Limits.of`. name: of this machine, for people. nodes: wanted; min_nodes: will do; spares: how many may wait beside them
    (None: any number). rendezvous: where the first controller listens; None: this machine is alone. address: ours, if it is not that of
    the interface that leads there. here: all nodes are on this machine."""

    command: Command
    workers: int
    restarts: int
    run: Path | None = None
    own: bool = False
    grace: float = DEFAULT_GRACE_SECONDS
    hang_seconds: float | None = None
    straggler_seconds: float | None = None
    exclude_stragglers: bool = False
    run_id: str = "run"
    role: str = "default"
    host: str = "127.0.0.1"
    port: int = 0
    folder: Path | None = None
    redirect: dict[int, int] = field(default_factory=dict)
    tee: dict[int, int] = field(default_factory=dict)
    parent: int = 0
    name: str = field(default_factory=socket.gethostname)
    nodes: int = 1
    min_nodes: int = 1
    spares: int | None = None
    rendezvous: tuple[str, int] | None = None
    address: str = ""
    secret_file: Path | None = None
    join_seconds: float = DEFAULT_JOIN_SECONDS
    here: bool = False
    restart: str = RESTARTS[0]


def parser(make: Make) -> argparse.ArgumentParser:
    """make(prog, description, examples) -> a parser that raises UsageError."""
    p = make("mltrain agent", DESCRIPTION, EXAMPLES)
    p.usage = "mltrain agent [options] -- COMMAND...   or   mltrain agent [options] script.py arguments..."
    p.add_argument("--workers", metavar="N", help="processes to start; auto: one an accelerator, else one (default: 1)")
    p.add_argument("--nproc-per-node", "--nproc_per_node", dest="nproc", metavar="N", help="the same; also gpu, cpu, auto as in torchrun")
    p.add_argument("--restarts", "--max-restarts", "--max_restarts", dest="restarts", type=int, default=DEFAULT_RESTARTS, metavar="N",
                   help=f"restarts without a new saved step; each saved step gives them all back (default: {DEFAULT_RESTARTS})")
    p.add_argument("--restart", choices=RESTARTS, default=RESTARTS[0],
                   help="inprocess: ranks that did not fail keep their process (under mltrain's own trainer only; default: process)")
    p.add_argument("--run-dir", type=Path, metavar="DIR", help="write logs by rank, status.json and the ledger there")
    p.add_argument("--grace", "--shutdown-timeout", "--shutdown_timeout", dest="grace", type=float,
                   default=default_grace(DEFAULT_GRACE_SECONDS), metavar="SECONDS",
                   help=f"when told to stop: time for workers to save (default: {DEFAULT_GRACE_SECONDS:.0f}; in a pod of Kubernetes 28)")
    p.add_argument("--hang-seconds", type=float, metavar="SECONDS",
                   help="a worker silent for so long (and 10 times longer than a step) is named, its stack kept, and restarted; 0: never "
                        "(default: 5 under mltrain's own trainer, 300 without processor time for other scripts)")
    p.add_argument("--straggler-seconds", type=float, metavar="SECONDS",
                   help="a rank slower than the others for so long (and for 50 steps) is named; 0: never (default: 25)")
    p.add_argument("--exclude-stragglers", action="store_true",
                   help="with several nodes: one with a slow rank is given up, as if it were unfit")
    p.add_argument("-m", "--module", action="store_true", help="the script is the name of a module")
    p.add_argument("--no-python", "--no_python", action="store_true", help="the script is a program of its own")
    p.add_argument("--log-dir", "--log_dir", type=Path, metavar="DIR", help="for -r, -t: DIR/RUN_ID/attempt_0/LOCAL_RANK/stdout.log")
    p.add_argument("-r", "--redirects", default="0", metavar="STREAMS",
                   help="into files only: 1 stdout, 2 stderr, 3 both; or LOCAL_RANK:1,...")
    p.add_argument("-t", "--tee", default="0", metavar="STREAMS", help="into files and to the terminal")
    p.add_argument("--master-addr", "--master_addr", default="127.0.0.1", metavar="HOST",
                   help="address of the attempt's store (default: 127.0.0.1)")
    p.add_argument("--master-port", "--master_port", type=int, default=0, metavar="PORT", help="its port (default: a new one each attempt)")
    p.add_argument("--nodes", "--nnodes", dest="nodes", default="1", metavar="N",
                   help="machines, each with an agent started alike; MIN:N sets --min-nodes, too (default: 1)")
    p.add_argument("--min-nodes", type=int, metavar="M", help="go on with so many when others are lost and there is no spare (default: 1 "
                   "under mltrain's own trainer, whose weights do not depend on their number; else N)")
    p.add_argument("--spares", type=int, metavar="S", help="so many agents beyond N may wait to replace a lost node (default: any number)")
    p.add_argument("--rendezvous", "--rdzv-endpoint", "--rdzv_endpoint", dest="rendezvous", metavar="HOST:PORT",
                   help=f"where they meet: the agent that can listen there is the first controller (default port: {DEFAULT_PORT})")
    p.add_argument("--here", action="store_true", help="run all N nodes (and S spares) on this machine, to try it: each with an address of "
                   "the loopback interface")
    p.add_argument("--address", default="", help="this machine's own address (default: of the interface that leads to the rendezvous)")
    p.add_argument("--node-name", default="", help="this machine's name in messages (default: its host name)")
    p.add_argument("--secret-file", type=Path, metavar="FILE",
                   help="the run's secret, mode 0600, the same on all nodes (default: made in the run directory)")
    p.add_argument("--join-timeout", type=float, default=DEFAULT_JOIN_SECONDS, metavar="SECONDS",
                   help=f"wait so long for the controller and for M nodes (default: {DEFAULT_JOIN_SECONDS:.0f})")
    p.add_argument("--node-rank", "--node_rank", type=int, default=0, help="accepted and not needed: ranks follow from who is there")
    p.add_argument("--role", default="default", help="value of ROLE_NAME")
    p.add_argument("--rdzv-id", "--rdzv_id", default="", metavar="ID", help="value of TORCHELASTIC_RUN_ID (default: the run's id)")
    p.add_argument("--standalone", action="store_true", help=_INERT)
    for name in ("rdzv-backend", "rdzv-conf", "monitor-interval"):
        p.add_argument(f"--{name}", f"--{name.replace('-', '_')}", help=_INERT, metavar="X")
    p.add_argument("--parent", type=int, default=0, help=argparse.SUPPRESS)          # the launcher whose end is our SIGTERM
    return p


def parse(argv: list[str], make: Make) -> Options:
    """Raises UsageError (64), MissingInput (66), ConfigError (78)."""
    p = parser(make)
    head, rest, dashes = _split(p, argv)
    values = p.parse_args(head)
    if not rest:
        raise UsageError("no command", "mltrain agent --workers 2 -- python train.py")
    if values.restarts < 0 or values.grace < 0:
        raise UsageError("--restarts and --grace must not be negative", "mltrain agent --help explains them")
    if values.hang_seconds is not None and not 0 <= values.hang_seconds < float("inf"):
        raise UsageError(f"--hang-seconds {values.hang_seconds:g}: not a number of seconds", "0 looks for no hangs")
    if values.straggler_seconds is not None and not 0 <= values.straggler_seconds < float("inf"):
        raise UsageError(f"--straggler-seconds {values.straggler_seconds:g}: not a number of seconds", "0 names nobody")
    if not 0 <= values.master_port < 1 << 16:
        raise UsageError(f"--master-port {values.master_port}: not a port", "a number from 0 (a new one each attempt) to 65535")
    argv_of_worker = rest if dashes or values.no_python else _as_torchrun(rest, values.module)
    run = values.run_dir.absolute() if values.run_dir else None
    try:
        redirect, tee = parse_streams(values.redirects), parse_streams(values.tee)
    except ValueError as error:
        raise UsageError(f"-r/-t: {error}", "mltrain agent --help explains them") from None
    if (any(redirect.values()) or any(tee.values())) and not values.log_dir:
        raise UsageError("-r and -t need --log-dir DIR", "or use --run-dir DIR, which keeps every rank's output")
    run_id = values.rdzv_id or (run.name if run else str(uuid.uuid4()))
    own = is_own(argv_of_worker)
    if values.restart == "inprocess" and not own:
        raise ConfigError("--restart inprocess: only mltrain's own trainer can start anew in the same process",
                          "leave it away: a fork of the template starts about as fast")
    return Options(
        as_command(argv_of_worker), _workers(values.workers, values.nproc), values.restarts, run, own=own,
        grace=values.grace, hang_seconds=values.hang_seconds,
        straggler_seconds=values.straggler_seconds, exclude_stragglers=values.exclude_stragglers,
        run_id=run_id, role=values.role, host=values.master_addr,
        port=values.master_port, redirect=redirect, tee=tee, parent=values.parent,
        folder=values.log_dir.absolute() / run_id if values.log_dir else None, name=values.node_name or socket.gethostname(),
        restart=values.restart, **_several(values, own))


def _several(values: argparse.Namespace, own: bool) -> dict[str, Any]:
    """The options of several nodes; none for one."""
    found = re.fullmatch(r"(?:(\d+):)?(\d+)", values.nodes)
    nodes = int(found[2]) if found else 0
    least = values.min_nodes if values.min_nodes is not None else int(found[1]) if found and found[1] else 1 if own else nodes
    if not 1 <= least <= nodes:
        raise UsageError(f"--nodes {values.nodes}, at least {least}: not a number of machines", "--nodes 4 --min-nodes 2, or --nodes 2:4")
    if values.spares is not None and values.spares < 0 or values.join_timeout <= 0:
        raise UsageError("--spares must not be negative, --join-timeout more than 0", "mltrain agent --help explains them")
    if nodes == 1 and not values.spares:
        if values.node_rank:
            raise ConfigError(f"--node-rank {values.node_rank} of one node", "--nodes N says how many there are")
        return {}
    if values.here and values.run_dir is not None:
        return {"nodes": nodes, "min_nodes": least, "spares": values.spares, "here": True}
    static = f"{values.master_addr}:{values.master_port or DEFAULT_MASTER_PORT}" if values.master_addr != "127.0.0.1" else None
    if not (where := values.rendezvous or static):
        raise ConfigError(f"--nodes {values.nodes}: where do they meet?", "--rendezvous HOST:PORT, HOST being one of them")
    if values.run_dir is None:
        raise ConfigError(f"--nodes {values.nodes}: several nodes need a run directory that all of them share", "--run-dir SHARED/NAME")
    host, _, port = where.partition(":")
    if not host or not (port or str(DEFAULT_PORT)).isdigit() or not 0 < int(port or DEFAULT_PORT) < 1 << 16:
        raise UsageError(f"--rendezvous {where}: not HOST:PORT", f"host1:{DEFAULT_PORT}")
    return {"nodes": nodes, "min_nodes": least, "spares": values.spares, "rendezvous": (host, int(port or DEFAULT_PORT)),
            "address": values.address, "secret_file": values.secret_file, "join_seconds": values.join_timeout}


def _split(p: argparse.ArgumentParser, argv: list[str]) -> tuple[list[str], list[str], bool]:
    """(own options, command, was it after --?). By hand: argparse treats a -- among a script's arguments differently in each Python
    version."""
    takes_value = {option for action in p._actions if action.nargs is None for option in action.option_strings}
    at = 0
    while at < len(argv):
        word = argv[at]
        if word == "--":
            return argv[:at], argv[at + 1:], True
        if not word.startswith("-") or word == "-":
            return argv[:at], argv[at:], False
        at += 2 if word in takes_value else 1
    return argv, [], False


def _as_torchrun(rest: list[str], module: bool) -> list[str]:
    python = os.environ.get("PYTHON_EXEC") or sys.executable
    return [python, "-m", *rest] if module else [python, *rest]


def as_command(argv: list[str]) -> Command:
    """Can a fork of the template run it? Only what this very Python would run, without options of its own."""
    found = shutil.which(argv[0])
    if found is None:
        raise UsageError(f"cannot start {argv[0]}: there is no such program", f"the command was: {shlex.join(argv)}")
    same = os.path.basename(found).startswith("python") and os.path.dirname(os.path.abspath(found)) == os.path.dirname(sys.executable)
    if same and len(argv) > 1 and not os.environ.get("PYTHONSAFEPATH"):
        if argv[1] == "-m" and len(argv) > 2:
            return Command(argv, argv[2:], module=True)
        if not argv[1].startswith("-") and os.path.isfile(argv[1]):
            return Command(argv, argv[1:])
        if not argv[1].startswith("-") and not os.path.exists(argv[1]):
            raise MissingInput(f"{argv[1]}: there is no such script", f"the command was: {shlex.join(argv)}")
    return Command(argv)


def is_own(argv: list[str]) -> bool:
    return argv[1:4] == ["-m", "mltrain", "worker"]


def accelerators() -> int:
    """How many accelerators this machine shows, without waking a driver: NVIDIA's device files, cut down by CUDA_VISIBLE_DEVICES."""
    count = sum(1 for path in Path("/dev").glob("nvidia[0-9]*") if path.name[6:].isdigit())
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return count if visible is None else min(count, len([part for part in visible.split(",") if part.strip() not in ("", "-1")]))


def _workers(workers: str | None, nproc: str | None) -> int:
    if workers is not None and nproc is not None and workers != nproc:
        raise UsageError(f"--workers {workers} and --nproc-per-node {nproc} contradict each other", "give one of them")
    cores = len(os.sched_getaffinity(0))
    if workers == "auto":
        return accelerators() or 1
    text = workers or nproc or "1"
    if nproc in ("gpu", "auto", "cpu") and workers is None:
        count = cores if nproc == "cpu" else accelerators() or (cores if nproc == "auto" else 0)
        if not count:
            raise ConfigError("--nproc-per-node gpu: this machine shows no accelerator", "give a number, or cpu")
        return count
    if not text.isdigit() or not 0 < int(text) <= 4096:
        raise UsageError(f"--workers {text}: not a number of processes", "a number from 1, or auto")
    return int(text)
