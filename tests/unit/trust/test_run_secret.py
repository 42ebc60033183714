from __future__ import annotations

import os
from pathlib import Path

import pytest

from mltrain.errors import ConfigError, StorageError
from mltrain.trust.redact import redact
from mltrain.trust.run_secret import make_secret, read_secret


def test_a_new_secret_is_for_its_owner_alone_and_is_redacted(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    make_secret(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(read_secret(path)) == 64 and redact(read_secret(path).decode()) == "***"


def test_no_two_are_alike(tmp_path: Path) -> None:
    for name in "ab":
        make_secret(tmp_path / name)
    assert read_secret(tmp_path / "a") != read_secret(tmp_path / "b")


def test_a_secret_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    make_secret(path)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="secret exists already\n  a run's secret is never replaced"):
        make_secret(path)
    assert path.read_bytes() == before


def test_where_it_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="No such file or directory\n  the run's secret must be written there"):
        make_secret(tmp_path / "nowhere" / "secret")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_secret_that_others_may_read_is_none(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "secret"
    make_secret(path)
    path.chmod(mode)
    with pytest.raises(ConfigError, match=rf"may be read by others \(mode {mode:04o}\)\n  chmod 600"):
        read_secret(path)


@pytest.mark.parametrize("size", [0, 31, 65537])
def test_a_secret_has_32_bytes_at_least_and_an_end(tmp_path: Path, size: int) -> None:
    path = tmp_path / "secret"
    path.touch(mode=0o600)
    path.write_bytes(b"v" * size)
    with pytest.raises(ConfigError, match=f"{size} bytes are no secret of a run\n  .*openssl rand") as caught:
        read_secret(path)
    assert "vvv" not in str(caught.value)


def test_a_missing_one_and_a_pipe_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file or directory\n  name the file"):
        read_secret(tmp_path / "none")
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(ConfigError, match="is not a plain file"):
        read_secret(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="is not a plain file"):
        read_secret(tmp_path)
