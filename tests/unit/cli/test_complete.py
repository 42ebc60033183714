"""What Tab offers, asked as the shells ask."""
from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from mltrain.cli.complete import ACTIONS, candidates, complete
from mltrain.cli.main import VERBS, main


@pytest.fixture
def project(tmp_path: Path, monkeypatch) -> Path:
    """A folder with a recipe, an option and a run of its own."""
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "mine.yaml").write_text(
        "defaults: [override /optimizer: mine, override /task: gpt]\ntask: {model: {layers: 1}}\nsteps: 1\n")
    (tmp_path / "conf" / "optimizer").mkdir(parents=True)
    (tmp_path / "conf" / "optimizer" / "mine.yaml").write_text("_target_: torch.optim.SGD\nlookahead: 3\nlr: 1\n")
    run = tmp_path / "runs" / "mine-20260101-000000-0000"
    run.mkdir(parents=True)
    (run / "config.json").write_text('{"tree": {"clip": 1, "optimizer": {"lr": 1}}}')
    (run / "status.json").write_text('{"state": "done"}')
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("line", "offered"), [
    ("mltrain st", ["status"]),
    ("mltrain launch rec", ["recipe="]),
    ("mltrain launch recipe=m", ["mine"]),
    ("mltrain launch recipe=gpt/t", ["gpt/tiny"]),
    ("mltrain launch recipe=mine optimizer.l", ["optimizer.lookahead=", "optimizer.lr="]),
    ("mltrain launch recipe=mine optimizer=sgd optimizer.mo", ["optimizer.momentum="]),
    ("mltrain launch recipe=mine task.model.la", ["task.model.layers="]),
    ("mltrain launch recipe=mine strategy=f", ["fsdp"]),
    ("mltrain launch recipe=mine +x", ["+x."]),
    ("mltrain check recipe=mine optimizer=m", ["mine"]),
    ("mltrain recipes sh", ["show"]),
    ("mltrain recipes show gpt/t", ["gpt/tiny"]),
    ("mltrain status mi", ["mine-20260101-000000-0000"]),
    ("mltrain resume mine clip", ["clip="]),
    ("mltrain resume mine optimizer.", ["optimizer.lr="]),
    ("mltrain checkpoint verify mi", ["mine-20260101-000000-0000"]),
    ("mltrain logs mine --fo", ["--follow"]),
    ("mltrain data prepare --tok", ["--tokenizer"]),
    ("mltrain logs mine --rank ", []),
    ("mltrain launch recipe=./", []),
    ("mltrain agent -- py", []),
    ("mltrain no-such-verb x", []),
    ("mltrain status 'mi", ["mine-20260101-000000-0000"]),
])
def test_bash_is_offered(project, capsys, line, offered):
    assert complete(["line", line, " =:"], VERBS) == 0
    assert capsys.readouterr().out.splitlines() == offered


def test_the_others_are_told_what_each_word_is(project, capsys):
    complete(["words", "status", "mi"], VERBS)
    assert capsys.readouterr().out == "mine-20260101-000000-0000\tdone\n"


def test_a_damaged_project_offers_nothing_and_says_nothing(project, capsys):
    (project / "recipes" / "mine.yaml").write_text("{")
    (project / "runs" / "mine-20260101-000000-0000" / "config.json").write_text("{")
    for line in ("mltrain resume mine c", "mltrain launch recipe=mine optimizer.nothing", "mltrain", ""):
        assert complete(["line", line, "=:"], VERBS) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("verb", [verb for verb, (_, text) in VERBS.items() if text])
def test_every_flag_of_a_verb_is_offered(project, capsys, verb):
    for action in ACTIONS.get(verb, ("",)):
        words = [verb, action] if action else [verb]
        with pytest.raises(SystemExit):
            main([*words, "--help"])
        shown = re.findall(r"^  (?:-\w(?: \w+)?, )*(--[a-z-]+)", capsys.readouterr().out, re.MULTILINE)
        assert "--help" in shown
        assert set(shown) <= candidates([*words, "-"], VERBS).keys()


def test_it_is_quick_and_light(project):
    code = ("import sys, time; from mltrain.cli.main import main;"
            "main(['__complete', 'line', 'mltrain launch recipe=mine optimizer.l', '=:']);"
            "print(time.process_time(), sorted({'torch', 'hydra', 'omegaconf', 'numpy', 'msgspec', 'rich'} & sys.modules.keys()))")
    outputs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()[-1]
               for _ in range(3)]
    seconds, loaded = zip(*(line.split(maxsplit=1) for line in outputs), strict=True)
    assert set(loaded) == {"[]"}
    assert min(map(float, seconds)) < 0.4            # of the processor, on a busy machine; measured 0.09
