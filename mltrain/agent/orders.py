"""An agent that was started early waits here for its orders, while its template imports. Everything waits for that import, so little is
imported here before it begins."""
from __future__ import annotations

import json
import os

from mltrain.agent.forks import Forks
from mltrain.agent.loop import Loop


def start_early(preload: list[str]) -> tuple[Loop, Forks]:
    """A template for workers of our own, importing from now on; for an Agent that comes when it is known what to run."""
    loop = Loop()
    forks = own_forks(loop, preload)
    forks.start(quiet=True)                                    # else whoever reads what a detached launch prints waits for the run's end
    return loop, forks


def own_forks(loop: Loop, preload: list[str]) -> Forks:
    return Forks(loop, ["torch", "torch.distributed", "torch._dynamo", *preload], [], True, _say)


def _say(text: str) -> None:
    from mltrain.agent.journal import say
    say(text)


def receive(fd: int) -> list[str] | None:
    """The agent's arguments, from the pipe `fd`; None when it ends without. The environment, and where we print, become as ordered."""
    text = b""
    while part := os.read(fd, 1 << 16):
        text += part
    os.close(fd)
    if not text:
        return None
    orders = json.loads(text)
    os.environ.update(orders["environment"])
    if orders["log"]:
        log = os.open(orders["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
        for stream in (1, 2):
            os.dup2(log, stream)
        os.close(log)
    arguments: list[str] = orders["arguments"]
    return arguments
