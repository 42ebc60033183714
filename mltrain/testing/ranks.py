"""Runs a function on N processes that form one gloo group: what a test of anything distributed needs.

    def body(rank: int, world: int) -> str: ...
    digests = on_ranks(4, body)

The processes are forked (torch is imported once, a group of eight is up in a tenth of a second), meet through a file, use one thread each,
and return what JSON can carry.
"""
from __future__ import annotations

import json
import multiprocessing
import os
import tempfile
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any


def on_ranks(world: int, body: Callable[[int, int], Any], limit: float = 120.0) -> list[Any]:
    """Returns what body(rank, world) returned, in order of rank. Raises the first failure with its rank's traceback, or TimeoutError."""
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory(prefix="ranks-") as folder:
        pipes, processes = [], []
        for rank in range(world):
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_child, args=(rank, world, f"{folder}/store", body, theirs))
            process.start()
            theirs.close()
            pipes.append(ours)
            processes.append(process)
        try:
            return _collect(pipes, limit)
        finally:
            for process in processes:
                process.kill()
                process.join()


def _collect(pipes: list[Connection], limit: float) -> list[Any]:
    results: dict[int, Any] = {}
    end = time.monotonic() + limit
    while len(results) < len(pipes):
        ready = wait([p for i, p in enumerate(pipes) if i not in results], timeout=max(0.0, end - time.monotonic()))
        if not ready:
            raise TimeoutError(f"ranks {sorted(set(range(len(pipes))) - set(results))} did not finish within {limit} s")
        for pipe in ready:
            rank = next(i for i, each in enumerate(pipes) if each is pipe)
            try:
                failed, value = json.loads(pipes[rank].recv_bytes())
            except EOFError:
                raise RuntimeError(f"rank {rank} ended without a result") from None
            if failed:
                raise RuntimeError(f"rank {rank} failed:\n{value}")
            results[rank] = value
    return [results[rank] for rank in range(len(pipes))]


def _child(rank: int, world: int, store: str, body: Callable[[int, int], Any], out: Connection) -> None:
    import torch
    import torch.distributed as dist
    from torch.distributed import FileStore

    torch.set_num_threads(1)
    try:
        dist.init_process_group("gloo", store=FileStore(store, world), rank=rank, world_size=world)
        answer = (False, body(rank, world))
        dist.barrier()                     # nobody leaves while another still talks to it
    except BaseException:  # noqa: BLE001  the parent raises it again
        answer = (True, traceback.format_exc())
    out.send_bytes(json.dumps(answer).encode())
    os._exit(0)                            # no teardown of groups: the others may be gone
