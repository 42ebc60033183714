"""Who may know whom, where import-linter cannot say it: what is really loaded at import, and what `cli` names."""
from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "mltrain"
TORCH_FREE = ("config", "launch", "runs", "trust", "errors", "extras", "assets", "progress",
              "cli", "api", "doctor", "skeleton", "report", "metrics")
HEAVY = ("torch", "hydra", "omegaconf", "pyarrow", "fsspec", "numpy", "rich", "jinja2", "safetensors")


def modules(room: str) -> list[str]:
    files = sorted((PACKAGE / room).rglob("*.py")) or [PACKAGE / f"{room}.py"]
    parts = [file.relative_to(PACKAGE.parent).with_suffix("").parts for file in files]
    return [".".join(part for part in names if part != "__init__") for names in parts]


def loaded_after(code: str) -> set[str]:
    """Top-level packages in a fresh interpreter after running the code."""
    report = "\nimport sys; print('LOADED', *sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code + report], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition("LOADED")[2].split())


def test_rooms_free_of_torch_are():
    names = [name for room in TORCH_FREE for name in modules(room)]
    assert len(names) > len(TORCH_FREE)
    assert "torch" not in loaded_after("".join(f"import {name}\n" for name in names))


def test_the_package_itself_loads_nothing():
    assert loaded_after("import mltrain") & set(HEAVY) == set()


def test_status_stays_light(runs):
    code = f"from mltrain.cli.main import main\nassert main(['status', 'runs={runs}']) == 0"
    assert loaded_after(code) & set(HEAVY) == set()


def test_help_stays_light():
    assert loaded_after("from mltrain.cli.main import main\nassert main(['--help']) == 0") & set(HEAVY) == set()


@pytest.mark.parametrize("file", sorted((PACKAGE / "cli").glob("*.py")), ids=lambda file: file.stem)
def test_cli_knows_api_alone(file):
    """Type-only imports count, too; `cli` itself, the errors and the version are the rest of what it may name."""
    named = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            named |= {f"{node.module}.{alias.name}" for alias in node.names}
    ours = {name for name in named if name.partition(".")[0] == "mltrain"}
    allowed = ("mltrain.api", "mltrain.errors.", "mltrain.cli.", "mltrain.__version__")
    assert {name for name in ours if not name.startswith(allowed)} == set()
