"""`mltrain new`: what it makes is right, trains, and passes its own test."""
from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from small_project import mltrain

from mltrain.skeleton import FILES

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    mltrain(folder, "new", "spirals")
    return folder / "spirals"


def test_its_recipe_is_right_and_listed(project):
    assert "mine: no mistakes" in mltrain(project, "check", "recipe=mine")
    assert "Which of two spirals" in mltrain(project, "recipes", "list")


def test_its_own_test_passes(project):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"], cwd=project, capture_output=True, text=True,
                          timeout=200, env=environment)
    assert done.returncode == 0 and "2 passed" in done.stdout, done.stdout + done.stderr
    assert not (project / "runs").exists()


def test_it_learns_what_it_says(project):
    mltrain(project, "launch", "recipe=mine")
    (run,) = json.loads(mltrain(project, "report", "mine", "--json"))["runs"]
    assert run["evaluations"]["accuracy"]["values"][-1] > 0.95


def test_a_folder_with_something_in_it_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    assert "is not empty" in mltrain(tmp_path, "new", ".", code=64)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_empty_folder_will_do(tmp_path):
    mltrain(tmp_path, "new", ".")
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()} == set(FILES)
    assert (tmp_path / "README.md").read_text().startswith(f"# {tmp_path.name}\n")
