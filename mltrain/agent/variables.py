"""The environment of a worker: torchrun's variables under torchrun's names, and ours (MLTRAIN_...)."""
from __future__ import annotations

import os

from mltrain.agent.options import Options


def variables(options: Options, rank: int, attempt: int, restarts: int) -> dict[str, str]:
    """What this agent sets for one worker, beside what the attempt's stores add. attempt: from 1, over the whole run. restarts: by this
    agent."""
    world = str(options.workers)
    return {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "ROLE_RANK": str(rank), "ROLE_NAME": options.role,
        "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world, "ROLE_WORLD_SIZE": world, "GROUP_RANK": "0", "GROUP_WORLD_SIZE": "1",
        "TORCHELASTIC_RESTART_COUNT": str(restarts), "TORCHELASTIC_MAX_RESTARTS": str(options.restarts),
        "TORCHELASTIC_RUN_ID": options.run_id, "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_SIGNALS_TO_HANDLE": "SIGTERM,SIGINT,SIGHUP,SIGQUIT",
        "TORCH_NCCL_ASYNC_ERROR_HANDLING": os.environ.get("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1"),
        **_ours(options, rank, attempt)}


def _ours(options: Options, rank: int, attempt: int) -> dict[str, str]:
    values = {"MLTRAIN_ATTEMPT": str(attempt)}
    if options.run is not None:
        values["MLTRAIN_RUN_DIR"] = str(options.run)
        if rank == 0 and options.own and os.isatty(1):
            values["MLTRAIN_TERMINAL"] = os.ttyname(1)
    if "OMP_NUM_THREADS" not in os.environ and options.workers > 1:
        values["OMP_NUM_THREADS"] = "1"                        # as torchrun does
    if options.host == "127.0.0.1":                            # gloo otherwise trusts what the host's name resolves to, and listens there
        values["GLOO_SOCKET_IFNAME"] = os.environ.get("GLOO_SOCKET_IFNAME", "lo")
    return values
