"""In CI a skipped test is a failed test, unless it needs an accelerator: tests/conftest.py holds us to it."""
from __future__ import annotations

from pathlib import Path

import pytest

CONFTEST = Path(__file__).resolve().parents[1] / "conftest.py"
FILE = """
import pytest
def test_runs(): pass
@pytest.mark.skip(reason="not today")
def test_skips_itself(): pass
def test_skips_inside(): pytest.skip("not today")
@pytest.mark.gpu
def test_needs_an_accelerator(): pytest.skip("none here")
"""


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeconftest(CONFTEST.read_text())
    pytester.makeini("[pytest]\nmarkers =\n    gpu: needs an accelerator\n")
    return pytester


def test_in_ci_a_skip_fails(project, monkeypatch):
    """A mark skips before the test begins, which pytest counts as an error of its set-up."""
    monkeypatch.setenv("CI", "true")
    project.makepyfile(FILE)
    project.runpytest_subprocess("-p", "no:cacheprovider", timeout=60).assert_outcomes(passed=1, failed=1, errors=1, skipped=1)


def test_elsewhere_it_does_not(project, monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    project.makepyfile(FILE)
    project.runpytest_subprocess("-p", "no:cacheprovider", timeout=60).assert_outcomes(passed=1, skipped=3)


def test_in_ci_a_file_that_skips_itself_fails(project, monkeypatch):
    monkeypatch.setenv("CI", "true")
    project.makepyfile("import pytest\npytest.importorskip('no_such_module_at_all')\ndef test_one(): pass")
    assert project.runpytest_subprocess("-p", "no:cacheprovider", timeout=60).ret != 0
