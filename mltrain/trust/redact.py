"""Keeps secrets out of everything that is written: values that were resolved as secrets, values of well-known form, and the
user part of URLs.

    register("s3cr3t-value");  redact("key=s3cr3t-value https://me:pw@host/x")  ->  "key=*** https://***@host/x"
"""
from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TextIO
from urllib.parse import quote

MASK = "***"
_SHORTEST = 4            # a shorter "secret" would blot out half of every text
_KNOWN = re.compile(
    r"\b(?:(?:AKIA|ASIA)[0-9A-Z]{16}|hf_[A-Za-z0-9]{16,}|gh[pousr]_[A-Za-z0-9]{16,}|github_pat_[A-Za-z0-9_]{20,}"
    r"|glpat-[A-Za-z0-9_-]{16,}|xox[abprs]-[A-Za-z0-9-]{10,}|sk-[A-Za-z0-9_-]{20,})"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)
_USER_OF_URL = re.compile(r"\b([a-z][a-z0-9+.-]*://)[^\s/@\"']+@", re.IGNORECASE)
_values: set[str] = set()


def register(value: str) -> None:
    """From now on this value never appears in redacted text, nor as it looks inside JSON or a URL."""
    if len(value) >= _SHORTEST:
        _values.update({value, json.dumps(value)[1:-1], quote(value, safe="")})


def redact(text: str) -> str:
    """text without secrets; each is replaced by ***."""
    for value in sorted(_values, key=len, reverse=True):       # the longest first: one secret may contain another
        text = text.replace(value, MASK)
    return _USER_OF_URL.sub(rf"\1{MASK}@", _KNOWN.sub(MASK, text))


def redact_data(value: object) -> object:
    """The same for every string (keys too) inside plain JSON data."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {redact(str(key)): redact_data(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [redact_data(item) for item in value]
    return value


def guard(stream: TextIO) -> None:
    """From now on what Python code writes to this stream is redacted. (What C code or a child process writes to its descriptor is not.)"""
    if hasattr(stream, "guarded"):                             # a worker's second attempt in one process
        return
    write = stream.write
    setattr(stream, "guarded", True)  # noqa: B010 a mark of ours on an object of another class
    # Not a wrapper around it: others compare sys.stdout with what they kept, and ask it for its descriptor.
    setattr(stream, "write", lambda text: (write(redact(text)), len(text))[1])  # noqa: B010 mypy knows methods as constants


def holds_secret(text: str) -> bool:
    """Does the text hold anything that redact would blot out?"""
    return redact(text) != text
