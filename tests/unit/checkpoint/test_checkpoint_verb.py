"""mltrain checkpoint: what it prints, what it refuses, and that it stays light."""
from __future__ import annotations

import json
import subprocess
import sys

import pytest
from checkpoint_states import save_cut, small_state

from mltrain.cli.main import main


@pytest.fixture
def folder(tmp_path):
    for step in (10, 20):
        save_cut(tmp_path / "checkpoints", small_state(step), [2], step=step)
    return tmp_path


def test_list_for_programs(folder, capsys):
    assert main(["checkpoint", "list", str(folder), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["step"], row["attempt"], row["valid"], row["current"], len(row["files"])) for row in rows] == [
        (10, 1, True, True, 2), (20, 1, True, True, 2)]


def test_list_for_people(folder, capsys):
    assert main(["checkpoint", "list", str(folder / "checkpoints")]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["step", "10", "20"]


def test_digest_names_the_step(folder, capsys):
    assert main(["checkpoint", "digest", str(folder), "--json", "step=10"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found.keys() == {"step", "digest"} and found["step"] == 10 and len(found["digest"]) == 64


def test_step_is_an_option_too(folder, capsys):
    assert main(["checkpoint", "digest", str(folder), "--json", "--step", "10"]) == 0
    assert json.loads(capsys.readouterr().out)["step"] == 10


def test_verify_for_programs(folder, capsys):
    assert main(["checkpoint", "verify", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0] == {"step": 10, "attempt": 1, "whole": True, "damage": []}


@pytest.mark.parametrize("argv, code, words", [
    (["list", "{}", "--step", "7"], 66, "there are: 10 20"), (["frob", "{}"], 64, "invalid choice"), (["list"], 64, "required"),
    (["list", "{}", "step=x"], 64, "not a step number"), (["list", "{}", "frob=1"], 64, "is not step=N"),
    (["list", "nothing-here"], 66, "no run"),
    (["list", "nowhere://x"], 78, "no file system"),
])
def test_a_wrong_line_says_what_is_wrong(folder, capsys, argv, code, words):
    assert main(["checkpoint", *[word.format(folder) for word in argv]]) == code
    assert words in capsys.readouterr().err


def test_the_verb_needs_neither_torch_nor_hydra(folder):
    code = ("import sys; from mltrain.cli.main import main; "
            "[main(['checkpoint', verb, sys.argv[1]]) for verb in ('list', 'verify', 'digest')]; "
            "main(['checkpoint', 'export', sys.argv[1], '--to', sys.argv[1] + '/out']); "
            "main(['checkpoint', 'prune', sys.argv[1], '--keep', '1']); "
            "print([name for name in ('torch', 'hydra', 'pyarrow', 'fsspec') if name in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
