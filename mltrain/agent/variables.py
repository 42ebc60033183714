"""The environment of a worker: torchrun's variables under torchrun's names, and ours (MLTRAIN_...)."""
from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
from dataclasses import dataclass

from mltrain.agent.options import Options

_SIOCGIFADDR = 0x8915


@dataclass(frozen=True, slots=True)
class Place:
    """Of one worker in an attempt. rank of world over all nodes, local on its own; group: the node's number, of groups."""

    rank: int
    local: int
    world: int
    group: int = 0
    groups: int = 1


def variables(options: Options, place: Place, attempt: int, restarts: int, interface: str = "") -> dict[str, str]:
    """What the agent sets for one worker, beside what the attempt's stores add. attempt: from 1, over the whole run. restarts: by this
    run of its agents. interface: the network interface that ranks of several nodes meet on."""
    rank, world = str(place.rank), str(place.world)
    return {
        "RANK": rank, "LOCAL_RANK": str(place.local), "ROLE_RANK": rank, "ROLE_NAME": options.role, "WORLD_SIZE": world,
        "LOCAL_WORLD_SIZE": str(options.workers), "ROLE_WORLD_SIZE": world, "GROUP_RANK": str(place.group),
        "GROUP_WORLD_SIZE": str(place.groups),
        "TORCHELASTIC_RESTART_COUNT": str(restarts), "TORCHELASTIC_MAX_RESTARTS": str(options.restarts),
        "TORCHELASTIC_RUN_ID": options.run_id, "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_SIGNALS_TO_HANDLE": "SIGTERM,SIGINT,SIGHUP,SIGQUIT",
        "TORCH_NCCL_ASYNC_ERROR_HANDLING": os.environ.get("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1"),
        **_ours(options, place, attempt, interface)}


def _ours(options: Options, place: Place, attempt: int, interface: str) -> dict[str, str]:
    values = {"MLTRAIN_ATTEMPT": str(attempt)}
    if options.run is not None:
        values["MLTRAIN_RUN_DIR"] = str(options.run)
        if place.rank == 0 and options.own and os.isatty(1):
            values["MLTRAIN_TERMINAL"] = os.ttyname(1)
    if "OMP_NUM_THREADS" not in os.environ and options.workers > 1:
        values["OMP_NUM_THREADS"] = "1"                        # as torchrun does
    if not options.rendezvous and options.host == "127.0.0.1":
        interface = "lo"
    if interface:                                              # gloo otherwise trusts what the host's name resolves to, and listens there
        values["GLOO_SOCKET_IFNAME"] = os.environ.get("GLOO_SOCKET_IFNAME", interface)
    return values


def interface_of(address: str) -> str:
    """The name of the network interface that bears this address; of the loopback for 127.0.0.0/8; "" if there is none."""
    if address.startswith("127."):
        return "lo"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):
                answer = fcntl.ioctl(probe, _SIOCGIFADDR, struct.pack("256s", name.encode()))
                if socket.inet_ntoa(answer[20:24]) == address:
                    return name
    return ""
