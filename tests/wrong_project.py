"""small_project with everything in it that can be wrong: parts that misbehave, recipes that cannot be read, and functions that damage runs,
checkpoints, data and disks. What test_wrong_inputs.py is a table of."""
from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import small_project
from xxhash import xxh3_128_hexdigest

_DROP_CAPABILITY, _PASS_OVER_PERMISSIONS = 24, 1         # of prctl(2)
Damage = Callable[[Path], None]              # what happens to a project before the command

PARTS = '''
"""Parts that are wrong in one way each."""
from mltrain import Callback, Loss
from mltrain.models.language import LanguageModeling


class Task(LanguageModeling):
    def __init__(self, model, separator=256, ignore=None, how=""):
        super().__init__(model, separator, ignore)
        self.how = how
        if how == "refuses its arguments":
            raise ValueError("width must be a multiple of 7")

    def loss(self, batch):
        total, weight = super().loss(batch)
        if self.how == "raises":
            raise KeyError("no such column: image")
        return {"a tensor": total, "not a number": Loss(total * float("nan"), weight)}.get(self.how, Loss(total, weight))


class Hook(Callback):
    def __init__(self, key=""):
        pass

    def step(self, progress, result):
        raise RuntimeError("the hook is broken")
'''
LETTERS = "abcdefghijklmnopq"
FILES = {
    "wrong.py": PARTS,
    "conf/task/wrong.yaml": "_target_: wrong.Task\nhow: ???\n"
                            "model: {_target_: mltrain.models.gpt.GPT, vocabulary: 257, width: 16, layers: 1, heads: 2}\n",
    "recipes/wrong.yaml": small_project.RECIPE.replace("/task: gpt", "/task: wrong").replace(
        "task: {model: {width: 16, layers: 2, heads: 2, dropout: 0.1}, ignore: 32}", "").replace("workers: 2", "workers: 1"),
    "recipes/twice.yaml": "defaults: [/recipe/small]\n",
    "recipes/twice/recipe.yaml": "defaults: [/recipe/small]\n",
    "recipes/aliases.yaml": "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "\n".join(f"a{n}: &a{n} [{(f'*a{n - 1},' * 9)[:-1]}]" for n in range(1, 9)),
    "recipes/doubling.yaml": "defaults: [/recipe/small]\nx:\n  a: xx\n" + "\n".join(
        f"  {b}: ${{x.{a}}}${{x.{a}}}" for a, b in zip(LETTERS, LETTERS[1:], strict=False)),
    "recipes/deep.yaml": "x: " + "[" * 5000,
    "recipes/typo.yaml": "defaults: [/recipe/small]\noptimizer: {lrr: 0.1}\n",
    "recipes/tabs.yaml": "defaults: [/recipe/small]\n\tsteps: 3\n",
    "recipes/hostile.yaml": "defaults: [/recipe/small]\ncallback: {own: {_target_: os.system, command: touch owned}}\n",
    "recipes/many.yaml": "defaults: [/recipe/small]\noptimizer: {lrr: 0.1}\nsteps: soon\nstop_att: 3\n",
    "file": "a file\n",
    "tokenizer.json": "{}",
    "blocked/tokenizers.py": "raise ImportError('No module named tokenizers')\n",
}


def make(folder: Path) -> Path:
    """The project, with one finished run `base` of 8 steps (checkpoints of 2, 4, 6 and 8)."""
    small_project.make(folder)
    for text in sorted((folder / "texts").iterdir())[4:]:      # each case copies all files
        text.unlink()
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "recipes" / "latin.yaml").write_bytes(b"steps: 3\nname: caf\xe9\n")
    small_project.mltrain(folder, "launch", "recipe=small", "name=base", "launcher.workers=1", "steps=8", "eval_every=0",
                          "checkpoint.every=2", "checkpoint.keep=0")
    return folder


def copy(project: Path, folder: Path) -> Path:
    """A copy of its own for one case: its run was made there, as far as it knows."""
    shutil.copytree(project, folder, dirs_exist_ok=True)
    path = run(folder) / "config.json"
    path.write_text(path.read_text().replace(str(project), str(folder)))
    return folder


def run(project: Path) -> Path:
    return next((project / "runs").glob("base-2*"))


def contents(project: Path) -> dict[str, str]:
    """Every file and folder, by digest."""
    return {str(path.relative_to(project)): xxh3_128_hexdigest(path.read_bytes()) if path.is_file() else "folder"
            for path in sorted(project.rglob("*")) if "__pycache__" not in path.parts}


# ── runs ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
def in_run(name: str, content: bytes | str | Callable[[bytes], bytes] | None) -> Damage:
    """Replace (None: remove) a file of the run."""
    def damage(project: Path) -> None:
        path = run(project) / name
        new = content(path.read_bytes()) if callable(content) else content.encode() if isinstance(content, str) else content
        path.unlink() if new is None else path.write_bytes(new)
    return damage


def cut(data: bytes) -> bytes:
    return data[:len(data) // 2]


def edited_ledger(data: bytes) -> bytes:
    assert data.count(b'"step": 4') >= 1
    return data.replace(b'"step": 4', b'"step": 3', 1)


def without_second_line(data: bytes) -> bytes:
    lines = data.splitlines(keepends=True)
    return b"".join([lines[0], *lines[2:]])


def unfinished(project: Path) -> None:
    """As if the run had been killed: its status says running, its ledger ends before its end."""
    rows = (run(project) / "ledger.jsonl").read_bytes().splitlines(keepends=True)
    saved = max(number for number, row in enumerate(rows) if b'"event": "saved"' in row)
    (run(project) / "ledger.jsonl").write_bytes(b"".join(rows[:saved + 1]))
    path = run(project) / "status.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "state": "running", "beat": 0, "pid": 0}))


def twin(project: Path) -> None:
    for ending in ("aaaa", "aaab"):
        shutil.copytree(run(project), project / "runs" / f"basic-20200101-000000-{ending}")


def both(*damages: Damage) -> Damage:
    def damage(project: Path) -> None:
        for each in damages:
            each(project)
    return damage


# ── checkpoints ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────
def in_step(step: int, pattern: str, change: Callable[[bytes], bytes] | None) -> Damage:
    """Change (None: remove) the one file of a saved step that fits the pattern."""
    def damage(project: Path) -> None:
        (path,) = (run(project) / "checkpoints" / f"step-{step:08d}").glob(pattern)
        path.unlink() if change is None else path.write_bytes(change(path.read_bytes()))
    return damage


def flip(data: bytes) -> bytes:
    """One bit, in the middle."""
    at = len(data) // 2
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1:]


# ── data ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
def shard(project: Path) -> dict[str, Any]:
    tree: dict[str, Any] = json.loads((project / "data" / "manifest.json").read_text())
    return tree["splits"]["train"]["shards"][0]  # type: ignore[no-any-return]


def offset(index: int, value: int) -> Damage:
    """Set one of the int64 offsets of the first Arrow shard."""
    def damage(project: Path) -> None:
        with open(project / "data" / shard(project)["name"], "r+b") as file:
            file.seek(shard(project)["columns"]["tokens"]["offsets"] + 8 * index)
            file.write(value.to_bytes(8, "little", signed=True))
    return damage


def edited_manifest(project: Path) -> None:
    path = project / "data" / "manifest.json"
    path.write_text(path.read_text().replace('"rows":64', '"rows":65').replace('"rows": 64', '"rows": 65'))


# ── disks ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
@contextlib.contextmanager
def full_disk(folder: Path) -> Iterator[Callable[[], None] | None]:
    """A disk without room at `folder`. Where nothing may be mounted: yields what a child process does instead (no file of it grows)."""
    folder.mkdir()
    if _mounted("-t", "tmpfs", "-o", "size=4k", "tmpfs", str(folder)):
        try:
            (folder / "zeros").write_bytes(bytes(4096))
            yield None
        finally:
            subprocess.run(["umount", "-l", folder], check=True)
    else:
        yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (16, 16))


@contextlib.contextmanager
def no_room_for_steps(folder: Path, *steps: int) -> Iterator[None]:
    """A disk too small for a checkpoint at `folder`. Where nothing may be mounted: something is in the way of each step."""
    folder.mkdir()
    if _mounted("-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)):
        try:
            yield
        finally:
            subprocess.run(["umount", "-l", folder], check=True)
    else:
        for step in steps:
            (folder / f"step-{step:08d}").write_text("in the way")
        yield


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[Callable[[], None] | None]:
    """Nothing can be written to `folder` meanwhile. Where nothing may be mounted: yields what a child process does so that this holds for
    root, too (it gives up the right to pass over permissions)."""
    if _mounted("--bind", str(folder), str(folder)):
        try:
            subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)
            yield None
        finally:
            subprocess.run(["umount", "-l", folder], check=True)
    else:
        folder.chmod(0o555)
        try:
            yield lambda: ctypes.CDLL(None).prctl(_DROP_CAPABILITY, _PASS_OVER_PERMISSIONS, 0, 0, 0) and None
        finally:
            folder.chmod(0o755)


def _mounted(*arguments: str) -> bool:
    return os.geteuid() == 0 and bool(shutil.which("mount")) and subprocess.run(["mount", *arguments], capture_output=True).returncode == 0
