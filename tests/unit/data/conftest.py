"""Small datasets to read, copy and damage."""
from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mltrain.data.prepare import prepare


def write_texts(folder: Path, count: int = 60) -> Path:
    """Text files of growing length, all different, some with letters of several bytes."""
    folder.mkdir()
    for i in range(count):
        (folder / f"{i:03d}.txt").write_text(f"document {i}: " + "naïve words " * (i * 3 % 50) + "\n")
    return folder


@pytest.fixture(scope="session")
def texts(tmp_path_factory) -> Path:
    return write_texts(tmp_path_factory.mktemp("texts") / "texts")


@pytest.fixture(scope="session")
def prepared(texts, tmp_path_factory) -> Path:
    """Several shards in both splits."""
    out = tmp_path_factory.mktemp("prepared") / "dataset"
    prepare([str(texts)], out, holdout=0.25, shard_tokens=2500)
    return out


@pytest.fixture
def dataset(prepared, tmp_path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(prepared, tmp_path / "dataset"))
