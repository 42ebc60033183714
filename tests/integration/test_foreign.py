"""Scripts that know nothing of the agent (foreign/): each trains a few steps, loses rank 1 to SIGKILL on the way, comes back from its own
checkpoint and ends with 0. Started as `mltrain agent -- python SCRIPT`, and as torchrun would be."""
from __future__ import annotations

import py_compile
import re
import shutil
import subprocess
import sys
import zipfile
from contextlib import ExitStack
from pathlib import Path

import pytest

from mltrain.runs import ledger
from mltrain.runs.layout import ledger_file
from mltrain.testing.faults import Job, start

SCRIPTS = Path(__file__).parent / "foreign"
OURS, TORCHRUNS = ["--workers", "2", "--", sys.executable], ["--nproc-per-node=2", "--max-restarts=3"]
NAMES = ["with_accelerate.py", "with_lightning.py", "with_deepspeed.py"]
LONG = [*NAMES, "with_transformers.py", "ddp.py"]  # imports of 4 s a process; and one that test_agent.py has likewise


# What a script can see of how it was started, and in which order all is taken apart at its end.
CURIOUS = """
import atexit, pickle, sys
class Kept:
    def __del__(self): print("the last", flush=True)
kept = Kept()
def typed(value: int = 1): pass
atexit.register(lambda: print("at exit", __name__, kept is not None))
print(__name__, __file__, __package__, __spec__ and __spec__.name, sys.argv, sys.path[0], typed.__annotations__)
print(pickle.loads(pickle.dumps(Kept)) is sys.modules["__main__"].Kept)
sys.exit(0 if len(sys.argv) < 3 else "told to")
"""


def private(folder: Path) -> dict[str, str]:
    """No network, no cache but this folder."""
    return {"HF_HOME": str(folder / "hub"), "HF_HUB_OFFLINE": "1", "TORCH_EXTENSIONS_DIR": str(folder / "extensions")}


@pytest.mark.parametrize("names", [NAMES, pytest.param(LONG, marks=pytest.mark.full)], ids=["some", "all, started the other way"])
def test_a_script_of_each_framework_survives_a_kill(tmp_path: Path, names: list[str]) -> None:
    """All of them at once: most of their time is imports."""
    jobs: list[tuple[Job, Path]] = []
    with ExitStack() as stack:
        for place, name in enumerate(names):
            (folder := tmp_path / name).mkdir()
            shutil.copy(SCRIPTS / name, folder)
            command = ["--run-dir", "run", *(TORCHRUNS if place % 2 == (names is NAMES) else OURS), name]
            jobs.append((stack.enter_context(start("agent", *command, cwd=folder, environment=private(folder))), folder))
        for job, folder in jobs:
            came_back(job.wait(270), job.output, folder)


def came_back(code: int, output: str, folder: Path) -> None:
    assert code == 0, output
    assert "attempt 1: rank 1 (pid" in output and "killed by SIGKILL" in output
    assert len(re.findall(r"rank [01] goes on after step 4\n", output)) == 2, output
    ends = dict(re.findall(r"rank ([01]) ends at step 8: (\S+)\n", output))
    assert len(ends) == 2 and ends["0"] == ends["1"]
    rows = [row for row in ledger.read(ledger_file(folder / "run")) if row["event"] == "attempt ended"]
    assert [row["outcome"] for row in rows] == ["restarted", "done"]


@pytest.mark.full
@pytest.mark.timeout(900)
def test_deepspeed_with_the_operation_it_compiles_first(tmp_path: Path) -> None:
    script = (SCRIPTS / "with_deepspeed.py").read_text().splitlines()
    (tmp_path / "compiles.py").write_text("\n".join(line for line in script if "__compatible_ops__" not in line))
    with start("agent", *OURS, "compiles.py", cwd=tmp_path, environment=private(tmp_path)) as job:
        assert job.wait(800) == 0, job.output
        assert job.output.count("shm_comm_op built successfully") == 4 and job.output.count("ends at step 8") == 2


@pytest.mark.parametrize("command", ["plain.py a", "plain.py a b", "-m package a", "-m package.part", "zipped.pyz", "compiled.pyc",
                                     "folder/../plain.py"])
def test_a_script_sees_what_it_sees_under_python(tmp_path: Path, command: str) -> None:
    (tmp_path / "folder").mkdir()
    for name in ("plain.py", "package/__init__.py", "package/__main__.py", "package/part.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("" if "init" in name else CURIOUS)
    with zipfile.ZipFile(tmp_path / "zipped.pyz", "w") as file:
        file.writestr("__main__.py", CURIOUS)
    py_compile.compile(str(tmp_path / "plain.py"), str(tmp_path / "compiled.pyc"))
    alone = subprocess.run([sys.executable, *command.split()], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    with start("agent", "--restarts", "0", "--", sys.executable, *command.split(), cwd=tmp_path) as job:
        assert job.wait(60) == alone.returncode
        seen = [line for line in job.output.splitlines() if not line.startswith("mltrain: ")]
    assert sorted(seen) == sorted((alone.stdout + alone.stderr).splitlines())
    assert [line for line in seen if line != "told to"] == alone.stdout.splitlines()
