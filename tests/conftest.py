"""What holds for every test: the same environment on every machine, and in CI no test is silently left out."""
from __future__ import annotations

import os
from pathlib import Path

# Before torch is imported anywhere: one thread (two give other sums), and nothing of the shell the tests were started from.
os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", PYTHONHASHSEED="0")
for _name in [name for name in os.environ if name.startswith(("MLTRAIN_", "TORCHELASTIC_"))] + [
        "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT", "PYTHONPATH"]:
    os.environ.pop(_name, None)

import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

# The same examples every time: a red build is red for a change, not for a draw. No deadline: CI machines have bad moments.
settings.register_profile("mltrain", derandomize=True, deadline=None, database=None)
settings.load_profile("mltrain")

pytest_plugins = ["pytester"]
CI = os.environ.get("CI", "").lower() in ("1", "true")
SKIPPED_IN_CI = "a test was skipped in CI; only tests marked gpu may be"


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """An empty folder for runs."""
    folder = tmp_path / "runs"
    folder.mkdir()
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch
    if not torch.accelerator.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs an accelerator"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    report = yield
    if CI and report.skipped and not item.get_closest_marker("gpu"):
        report.outcome, report.longrepr = "failed", f"{item.nodeid}: {SKIPPED_IN_CI}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector):
    """A whole file that skips itself (pytest.importorskip) is no test report, but a collection report."""
    report = yield
    if CI and report.skipped:
        report.outcome, report.longrepr = "failed", f"{collector.nodeid}: {SKIPPED_IN_CI}"
    return report
