"""Error classes, their codes, and the page that tells people about them."""
from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from mltrain import errors

PAGE = Path(__file__).resolve().parents[2] / "docs" / "errors.md"
CLASSES = {name: cls.code for name, cls in inspect.getmembers(errors, inspect.isclass)
           if issubclass(cls, errors.MltrainError) and cls is not errors.MltrainError}


def test_codes_are_those_of_sysexits():
    assert CLASSES == {"UsageError": 64, "DataError": 65, "MissingInput": 66, "NodeUnfit": 69, "TaskError": 70, "StorageError": 74,
                       "ConfigError": 78}


def test_the_page_lists_every_class_with_its_code_and_no_other():
    rows = re.findall(r"^\| (\d+) \| (?:`(\w+)`)? *\|", PAGE.read_text(), re.MULTILINE)
    assert {name: int(code) for code, name in rows if name} == CLASSES
    assert {int(code) for code, name in rows if not name} == {errors.DONE, errors.PREEMPTED, errors.INTERRUPTED}


@pytest.mark.parametrize(("error", "text"), [
    (errors.UsageError("no such run: x"), "no such run: x"),
    (errors.UsageError("no such run: x", "did you mean y?"), "no such run: x\n  did you mean y?"),
])
def test_a_message_is_one_line_or_two(error, text):
    assert str(error) == text
