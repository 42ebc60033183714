from __future__ import annotations

from pathlib import Path

import pytest

from mltrain.errors import ConfigError
from mltrain.trust.redact import redact
from mltrain.trust.secret import read_secrets, register_all, resolve


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "secrets"
    path.touch(mode=0o600)
    monkeypatch.setenv("MLTRAIN_SECRETS", str(path))
    return path


def test_the_environment_comes_first(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("KEY=from-the-file")
    monkeypatch.setenv("KEY", "from-the-environment")
    assert resolve("KEY") == "from-the-environment"


@pytest.mark.parametrize("text", ['{"KEY": "v a=l"}', "# mine\nexport KEY='v a=l'\n\n", "OTHER=1\nKEY = v a=l\n"])
def test_a_file_of_json_or_lines(file: Path, text: str) -> None:
    file.write_text(text)
    assert resolve("KEY") == "v a=l"


def test_a_resolved_value_is_redacted_from_then_on(file: Path) -> None:
    file.write_text("KEY=very-private-value")
    assert redact(resolve("KEY")) == "***"


def test_a_missing_secret_names_where_to_put_it(file: Path) -> None:
    with pytest.raises(ConfigError, match="the secret NOWHERE_SET is not set\n  set it in the environment, or add a line NOWHERE_SET="):
        resolve("NOWHERE_SET")


def test_a_file_open_to_others_is_refused(file: Path) -> None:
    file.chmod(0o640)
    with pytest.raises(ConfigError, match=r"may be read by others \(mode 0640\)\n  chmod 600"):
        read_secrets(file)


@pytest.mark.parametrize("text", ["{broken", '{"KEY": 1}', "no equals sign value-of-mine", "1KEY=value-of-mine"])
def test_a_wrong_file_is_refused_without_showing_its_values(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_secrets(file)
    assert caught.value.code == 78 and "value-of-mine" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "a b", "../x", "1A"])
def test_a_name_is_a_name(name: str) -> None:
    with pytest.raises(ConfigError):
        resolve(name)


def test_all_secrets_of_a_file_and_those_named_are_known_before_anything_is_written(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("ONE=first-of-the-file\nTWO=second-of-the-file\n")
    monkeypatch.setenv("NAMED", "named-in-the-recipe")
    register_all(["NAMED", "NOT_THERE"])
    assert redact("first-of-the-file second-of-the-file named-in-the-recipe") == "*** *** ***"
