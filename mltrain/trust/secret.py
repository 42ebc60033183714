"""Secrets by name: from the environment, else from the file named by MLTRAIN_SECRETS (mode 0600; JSON, or NAME=value lines).
A resolved value is registered with `redact` at once, so nothing of ours writes it down."""
from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path

from mltrain.errors import ConfigError
from mltrain.trust.redact import register

FILE_VARIABLE = "MLTRAIN_SECRETS"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def resolve(name: str) -> str:
    """The value of a secret. Raises ConfigError (78) when it is nowhere, or when the file may be read by others."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{name!r} is no name of a secret", "use letters, digits and _ as in ${secret:WANDB_API_KEY}")
    value = os.environ.get(name)
    file = os.environ.get(FILE_VARIABLE)
    if value is None and file:
        value = read_secrets(Path(file)).get(name)
    if value is None:
        hint = f"set it in the environment, or add a line {name}=... to {file}" if file else (
            f"set it in the environment, or in a file (mode 0600) named by {FILE_VARIABLE}")
        raise ConfigError(f"the secret {name} is not set", hint)
    register(value)
    return value


def register_all(names: Iterable[str]) -> None:
    """Register the values of these secrets, and all of the file's, as far as they are here. For a process that passes secrets on and
    writes files, too: it must know them to keep them out."""
    file = os.environ.get(FILE_VARIABLE)
    known = read_secrets(Path(file)) if file and os.path.exists(file) else {}
    for value in [*known.values(), *(os.environ.get(name, "") for name in names)]:
        register(value)


def read_secrets(path: Path) -> dict[str, str]:
    """All secrets of a file. Raises ConfigError (78) if it is missing, open to others or not understood.
    Values are never in the message."""
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not text"
        raise ConfigError(f"{FILE_VARIABLE}={path}: {reason}", "name a readable file of secrets") from None
    if mode & 0o077:
        raise ConfigError(f"{path} may be read by others (mode {mode & 0o777:04o})", f"chmod 600 {path}")
    return _from_json(path, text) if text.lstrip().startswith("{") else _from_lines(path, text)


def _from_json(path: Path, text: str) -> dict[str, str]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        raise ConfigError(f"{path} starts like JSON but is not", 'write {"NAME": "value", ...}') from None
    if not all(isinstance(value, str) for value in values.values()):
        raise ConfigError(f"{path}: every value must be a string", 'write {"NAME": "value", ...}')
    return dict(values)


def _from_lines(path: Path, text: str) -> dict[str, str]:
    values = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, equals, value = line.strip().removeprefix("export ").partition("=")
        if not equals or not _NAME.fullmatch(name.strip()):
            raise ConfigError(f"{path}:{number}: not of the form NAME=value", "one secret a line; # starts a comment")
        value = value.strip()
        values[name.strip()] = value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value
    return values
