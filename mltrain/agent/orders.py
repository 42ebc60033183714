"""An agent that was started early waits here for its orders, while its template imports."""
from __future__ import annotations

import json
import os


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
