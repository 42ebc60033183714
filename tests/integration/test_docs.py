"""Every ```bash and ```python block of README.md and docs/*.md is run: a page that lies breaks the build.

A page is read as a person would follow it: its blocks run in order, in one new folder, with `mltrain` on the PATH. What must not be run (an
installation, output, a fragment) stands in a block of another kind: ```text, ```console, ```yaml.
"""
from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
KINDS = {"bash", "python", "text", "console", "yaml", "json", "ini"}
BLOCK_SECONDS = 240


class Block(NamedTuple):
    kind: str
    line: int
    code: str


def blocks(page: Path) -> list[Block]:
    found, open_at, kind, code = [], 0, "", []
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if not line.startswith("```"):
            code.append(line)
        elif open_at:
            found.append(Block(kind, open_at, "\n".join(code) + "\n"))
            open_at = 0
        else:
            open_at, kind, code = number, line[3:].strip(), []
    assert not open_at, f"{page.name}:{open_at}: a block is not closed"
    return found


def run(block: Block, folder: Path) -> subprocess.CompletedProcess[str]:
    script = folder / f".block-{block.line}.{'py' if block.kind == 'python' else 'sh'}"
    script.write_text(block.code if block.kind == "python" else "set -euo pipefail\n" + block.code)
    command = [sys.executable, script] if block.kind == "python" else ["bash", script]
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(folder)}
    return subprocess.run(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, errors="replace", timeout=BLOCK_SECONDS)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_block_of_a_page_runs(page, tmp_path):
    for block in blocks(page):
        assert block.kind in KINDS, f"{page.name}:{block.line}: say what kind of block this is: {', '.join(sorted(KINDS))}"
        if block.kind in ("bash", "python"):
            done = run(block, tmp_path)
            assert done.returncode == 0, f"{page.name}:{block.line}: exit code {done.returncode}\n{done.stdout[-4000:]}"


@pytest.mark.parametrize("page", sorted({*PAGES, *ROOT.glob("[A-Z]*.md"), *(ROOT / "docs").rglob("*.md")}),
                         ids=lambda page: str(page.relative_to(ROOT)))
def test_each_link_of_a_page_leads_somewhere(page):
    links = re.findall(r"\]\((?!https?://|mailto:)([^)#\s]+)[^)]*\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_a_block_that_fails_is_seen(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```bash\nfalse\ntrue\n```\n```python\nraise SystemExit(3)\n```\n")
    assert [run(block, tmp_path).returncode for block in blocks(page)] == [1, 3]


def test_the_blocks_of_a_page_share_a_folder(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```bash\necho 'x = 3' > shared_by_blocks.py\n```\n\n```python\nfrom shared_by_blocks import x\nassert x == 3\n```\n")
    assert [run(block, tmp_path).returncode for block in blocks(page)] == [0, 0]
