from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from mltrain.runs.provenance import FILE_BYTES, record


@pytest.fixture
def project(tmp_path: Path) -> Path:
    project = tmp_path / "project"
    project.mkdir()
    (project / "train.py").write_text("a = 1\n")
    (project / ".gitignore").write_text("ignored.txt\n")
    for command in (["init", "-q"], ["add", "."], ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "one"],
                    ["remote", "add", "origin", "https://me:token-of-mine@host/x.git"]):
        subprocess.run(["git", *command], cwd=project, check=True)
    return project


def test_commit_patch_and_new_files_are_kept(project: Path, tmp_path: Path) -> None:
    (project / "train.py").write_text("a = 2\n")
    (project / "new.py").write_text("b = 3\n")
    facts = record(tmp_path, ["mltrain", "launch"], project)
    patch = (tmp_path / "patch.diff").read_text()
    assert len(facts["code"]["commit"]) == 40 and facts["code"]["dirty"] and facts["code"]["left_out"] == []
    assert "-a = 1\n+a = 2\n" in patch and "+b = 3\n" in patch
    assert facts == json.loads((tmp_path / "provenance.json").read_text())


def test_the_patch_applies(project: Path, tmp_path: Path) -> None:
    (project / "train.py").write_text("a = 2\n")
    (project / "new.py").write_text("b = 3\n")
    record(tmp_path, [], project)
    subprocess.run(["git", "stash", "-q", "--include-untracked"], cwd=project, check=True)
    subprocess.run(["git", "apply", tmp_path / "patch.diff"], cwd=project, check=True)
    assert (project / "train.py").read_text() == "a = 2\n" and (project / "new.py").read_text() == "b = 3\n"


@pytest.mark.parametrize(("name", "text"), [
    (".env", "harmless"), ("my_secrets.txt", "harmless"), ("notes.py", "token = 'ghp_0123456789abcdefghijABCDEFGHIJ'"),
    ("big.txt", "x\n" * FILE_BYTES), ("binary.bin", "a\0b")])
def test_private_and_large_files_are_named_and_not_copied(project: Path, tmp_path: Path, name: str, text: str) -> None:
    (project / name).write_text(text)
    facts = record(tmp_path, [], project)
    assert facts["code"]["left_out"] == [name] and facts["code"]["dirty"]
    assert not (tmp_path / "patch.diff").exists()


def test_what_git_ignores_does_not_exist(project: Path, tmp_path: Path) -> None:
    (project / "ignored.txt").write_text("x")
    assert record(tmp_path, [], project)["code"]["dirty"] is False


def test_no_secret_of_environment_command_or_remote_is_written(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    record(tmp_path, ["mltrain", "launch", "url=s3://key-of-mine@bucket"], project)
    text = (tmp_path / "provenance.json").read_text()
    assert not any(secret in text for secret in ("0123456789abcdef", "key-of-mine", "token-of-mine"))


def test_without_a_repository_the_rest_is_recorded(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    facts = record(tmp_path, [], tmp_path / "empty")
    assert facts["code"] == {} and any(line.startswith("torch==") for line in facts["packages"]) and facts["hardware"]["cores"] >= 1
