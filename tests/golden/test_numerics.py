"""Literal digests: a change of numerics is seen, whoever makes it (we, torch, the compiler).

digests.json holds an entry for each kind of processor. On a kind it does not know, losses are compared at 1e-6 with those of any entry
and the entry to add is printed. No test writes the file.
"""
from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
PINNED = {"ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "COMPATIBLE", "ONEDNN_MAX_CPU_ISA": "AVX2", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    run = subprocess.run([sys.executable, str(HERE / "program.py")], env={**os.environ, **PINNED}, capture_output=True, text=True,
                         timeout=120)
    assert run.returncode == 0, run.stderr
    found: dict[str, Any] = json.loads(run.stdout)
    return found


@pytest.fixture(scope="module")
def entries() -> dict[str, Any]:
    return json.loads((HERE / "digests.json").read_text())  # type: ignore[no-any-return]


@pytest.mark.parametrize("case", ["fp32", "bf16", "fp32 seed 1"])
def test_the_bits_are_the_ones_written_down(measured: dict[str, Any], entries: dict[str, Any], case: str) -> None:
    found = measured["cases"][case]
    known = entries.get(measured["kind"])
    if known is None:
        print(f"unknown kind of processor; add to {HERE / 'digests.json'}:\n{json.dumps({measured['kind']: measured['cases']})}")
        reference = next(iter(entries.values()))[case]
        tolerance = 1e-6 if case.startswith("fp32") else 1e-3          # another bfloat16 kernel rounds elsewhere
        assert found["losses"] == pytest.approx(reference["losses"], rel=tolerance)
    else:
        assert found == known[case]


def test_another_seed_gives_other_bits(measured: dict[str, Any]) -> None:
    assert measured["cases"]["fp32"]["digest"] != measured["cases"]["fp32 seed 1"]["digest"]
