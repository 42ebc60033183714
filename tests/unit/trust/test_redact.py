from __future__ import annotations

import io
import json
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mltrain.trust import redact as module
from mltrain.trust.redact import holds_secret, redact, redact_data, register


@pytest.fixture(autouse=True)
def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_values", set())


def test_a_registered_value_is_masked_everywhere() -> None:
    register("hunter2-hunter2")
    assert redact("key=hunter2-hunter2, again hunter2-hunter2") == "key=***, again ***"


def test_the_longer_of_two_secrets_goes_first() -> None:
    register("abcd")
    register("abcdefgh")
    assert redact("x abcdefgh y abcd") == "x *** y ***"


@pytest.mark.parametrize("text", [
    "AKIAIOSFODNN7EXAMPLE", "hf_abcdefghijklmnopqrstuvwxyz",
    "ghp_0123456789abcdefghijABCDEFGHIJ0123", "github_pat_11ABCDEFG0123456789_abcdef",
    "xoxb-123456789012-abcdef", "-----BEGIN OPENSSH PRIVATE KEY-----\nb3Blbn\n-----END OPENSSH PRIVATE KEY-----"])
def test_known_forms_are_masked(text: str) -> None:
    assert redact(f"a {text} b") == "a *** b"


@pytest.mark.parametrize(("url", "masked"), [
    ("https://me:pw@host/x", "https://***@host/x"), ("s3://key@bucket", "s3://***@bucket"),
    ("postgresql+psycopg://u:p@db:5432/x", "postgresql+psycopg://***@db:5432/x"),
    ("https://host/@user", "https://host/@user"), ("mail me@example.org", "mail me@example.org")])
def test_the_user_part_of_a_url_is_masked(url: str, masked: str) -> None:
    assert redact(url) == masked


@pytest.mark.parametrize("text", ["hf_tokenizer", "a commit 0123456789abcdef0123456789abcdef01234567", "task-force", "AKIA"])
def test_ordinary_text_stays(text: str) -> None:
    assert not holds_secret(text)


def test_data_is_masked_inside_keys_lists_and_nested_objects() -> None:
    register("s3cr3t")
    assert redact_data({"s3cr3t": ["s3cr3t", {"a": "x s3cr3t"}], "n": 1}) == {"***": ["***", {"a": "x ***"}], "n": 1}


@settings(max_examples=60, derandomize=True)
@given(secret=st.text(min_size=8, max_size=30), around=st.text(max_size=20))
def test_a_secret_survives_neither_as_it_is_nor_inside_json(secret: str, around: str) -> None:
    module._values.clear()
    register(secret)
    assert secret not in redact(around + secret + around).replace(module.MASK, "")
    assert secret not in json.loads(redact(json.dumps({"k": secret})))["k"]


def test_a_guarded_stream_masks_what_is_printed_and_stays_the_same_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), "utf-8")
    monkeypatch.setattr("sys.stdout", stream)
    register("s3cr3t")
    module.guard(sys.stdout)
    print("a s3cr3t", "b")
    sys.stdout.writelines(["x s3cr3t\n"])
    stream.flush()
    assert stream.buffer.getvalue() == b"a *** b\nx ***\n"  # type: ignore[attr-defined]
    assert sys.stdout is stream
