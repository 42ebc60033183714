"""Tab pressed in real interactive shells, each in a terminal of its own."""
from __future__ import annotations

import os
import pty
import re
import select
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(120)
LIMIT = 30.0
SETUP = {
    "bash": ("bash", ["--norc", "--noprofile", "-i"], "source <(mltrain completion bash); bind 'set bell-style none'"),
    "zsh": ("zsh", ["-f", "-i"], "source <(mltrain completion zsh)"),
    "fish": ("fish", ["--no-config", "-i"], "mltrain completion fish | source"),
}


class Terminal:
    """An interactive shell on a pty. ask(): types, waits until something is shown."""

    def __init__(self, shell: str, folder: Path) -> None:
        program, arguments, setup = SETUP[shell]
        assert shutil.which(program), f"{program} is missing: make system installs it"
        environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(folder), "TERM": "xterm",
                       "PS1": "ready> ", "LANG": "C.UTF-8", "COLUMNS": "160", "LINES": "50"}
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.execvpe(program, [program, *arguments], environment)
        self.shown = ""
        self.type(f"{setup}; echo set-$((40+2))-up\r" if shell != "fish" else f"{setup}; echo set-(math 40+2)-up\r")
        self.until(r"set-42-up")

    def type(self, keys: str) -> None:
        self.shown = ""
        os.write(self.terminal, keys.encode())

    def until(self, pattern: str) -> str:
        give_up = time.monotonic() + LIMIT
        while not re.search(pattern, text := re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>()]B?|\r", "", self.shown)):
            left = give_up - time.monotonic()
            assert left > 0, f"{pattern!r} was not shown within {LIMIT:.0f} s, but {text!r}"
            if select.select([self.terminal], [], [], left)[0]:
                news = os.read(self.terminal, 65536).decode(errors="replace")
                self.answer(news)
                self.shown += news
        return text

    def answer(self, news: str) -> None:
        """fish asks what kind of terminal this is, and waits."""
        if "\x1b[c" in news or "\x1b[0c" in news:
            os.write(self.terminal, b"\x1b[?1;2c")

    def close(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.terminal)


@pytest.fixture(params=sorted(SETUP))
def terminal(request, tmp_path):
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "zebra.yaml").write_text("defaults: [override /task: gpt]\nsteps: 1\n")
    (tmp_path / "runs" / "quagga-20260101-000000-0000").mkdir(parents=True)
    shell = Terminal(request.param, tmp_path)
    yield shell
    shell.close()


@pytest.mark.parametrize(("typed", "completed"), [
    ("mltrain doc\t", "mltrain doctor "),
    ("mltrain launch recipe=ze\t", "recipe=zebra"),
    ("mltrain launch recipe=zebra strategy=hs\t", "strategy=hsdp"),
    ("mltrain launch recipe=zebra optimizer.weig\t", "optimizer.weight_decay="),
    ("mltrain logs qua\t", "quagga-20260101-000000-0000"),
    ("mltrain logs quagga --err\t", "--errors"),
])
def test_tab_completes(terminal, typed, completed):
    terminal.type(typed)
    terminal.until(re.escape(completed.rstrip()))


def test_a_completed_line_runs(terminal):
    terminal.type("mltrain launch recipe=ze\t")
    terminal.until("recipe=zebra")
    terminal.type(" steps=x --dry-ru\t")
    terminal.until("--dry-run")
    terminal.type("\r")
    terminal.until("makes no sense")
