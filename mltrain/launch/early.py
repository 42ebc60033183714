"""An agent that is started before anybody knows what it is to run: it imports torch while the recipe is still being checked.

Its orders come through a pipe, once. A pipe that ends without them (a recipe with a mistake, a launch that was killed) ends it.
"""
from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType


class Early:
    """with Early() as early: ...; early.order(...). Whatever has not been ordered by the end of the block is gone."""

    def __init__(self) -> None:
        read, self._write = os.pipe()
        self._process: subprocess.Popen[bytes] | None = subprocess.Popen(
            [sys.executable, "-m", "mltrain", "agent", "--await-orders", str(read)], pass_fds=[read], stdin=subprocess.DEVNULL,
            start_new_session=True)
        os.close(read)

    def order(self, arguments: list[str], environment: dict[str, str], log: Path | None = None) -> subprocess.Popen[bytes] | None:
        """What the agent would have had on its command line, and variables to add; log: where it is to print from now on.
        Returns the process, once; None when it has been given away or has died."""
        process, self._process = self._process, None
        if process is None:
            return None
        orders = {"arguments": arguments, "environment": environment, "log": str(log) if log else None}
        try:
            os.write(self._write, json.dumps(orders).encode())
        except OSError:
            process.kill()
            process.wait()
            return None
        finally:
            os.close(self._write)
        return process

    def __enter__(self) -> Early:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._process is not None:
            os.close(self._write)
            self._process.kill()
            self._process.wait()
