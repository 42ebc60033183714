"""What `from mltrain import …` gives: listed, sorted, and promised. Everything else may move without asking."""
from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

import pytest

import mltrain

PUBLIC = ["Batch", "Callback", "Checkpointer", "Loader", "Loss", "Progress", "StepResult", "Task", "Trainer", "__version__", "load"]


def test_the_list_is_the_promise():
    assert mltrain.__all__ == PUBLIC
    assert dir(mltrain) == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_each_name_can_be_imported_and_is_documented(name):
    value = getattr(mltrain, name)
    assert name in ("__version__", "Batch") or value.__doc__


def test_another_name_is_an_ordinary_error():
    with pytest.raises(AttributeError, match="no attribute 'Trainor'"):
        mltrain.Trainor  # noqa: B018 the access is the test


def test_types_see_the_same_names():
    """The TYPE_CHECKING block is what editors and mypy read; it must not drift from the table."""
    source = Path(mltrain.__file__).read_text()
    assert sorted(re.findall(r"import (\w+) as \1$", source, re.MULTILINE)) == [name for name in PUBLIC if name != "__version__"]


def test_the_version_is_the_installed_one():
    assert mltrain.__version__ == metadata.version("mltrain-core")
