"""A report of a real run that was killed once, looked at in a real browser: Chromium, headless, without a network."""
from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest
import small_project
from PIL import Image
from small_project import mltrain

pytestmark = pytest.mark.timeout(300)
# Nothing but the page: no updates, no sync, no first-run pages; --no-sandbox because tests run as root in containers.
QUIET = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars", "--enable-logging=stderr", "--v=0")
DARK = "--blink-settings=preferredColorScheme=0"


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    folder = small_project.make(tmp_path_factory.mktemp("reported") / "project")
    mltrain(folder, "launch", "recipe=small", environment={"FAULT": "step 14 1 1 self"})
    mltrain(folder, "report", "small", "--out", "report.html")
    return folder / "report.html"


def browse(page: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    chromium = shutil.which("chromium")
    assert chromium, "chromium is missing: make system installs it"
    command = [chromium, *QUIET, f"--user-data-dir={page.parent / 'browser'}", *flags, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
    shutil.rmtree(page.parent / "browser", ignore_errors=True)
    assert done.returncode == 0, done.stderr
    return done


def colours(page: Path, *flags: str) -> Counter[str]:
    """How many pixels of a screenshot have which colour (hexadecimal)."""
    shot = page.parent / "shot.png"
    browse(page, f"--screenshot={shot}", "--window-size=1240,1800", *flags)
    with Image.open(shot) as image:
        return Counter({bytes(colour).hex(): count for count, colour in image.convert("RGB").getcolors(1 << 24)})


def test_a_browser_shows_every_chart_and_complains_of_nothing(page):
    done = browse(page, "--dump-dom")
    titles = re.findall(r"<figcaption><b>([^<]+)</b>", done.stdout)
    assert titles == ["Loss", "Bits per byte", "Learning rate", "Gradient norm", "Throughput", "Step time", "Memory"]
    assert done.stdout.count("<svg") == len(titles)
    assert "killed by signal 9 at step" in done.stdout and "attempt 2" in done.stdout
    assert [line for line in done.stderr.splitlines() if ":CONSOLE" in line] == []


def test_a_console_error_would_be_seen(tmp_path):
    page = tmp_path / "broken.html"
    page.write_text("<script>missing()</script>")
    assert ":CONSOLE" in browse(page, "--dump-dom").stderr


def test_light_and_dark_are_drawn_each_in_its_colours(page):
    light, dark = colours(page), colours(page, DARK)
    assert (light.most_common(1)[0][0], dark.most_common(1)[0][0]) == ("ffffff", "171b22")         # the cards'
    assert light["2563eb"] > 500 and light["d97706"] > 20                                          # lines of training, points of evaluation
    assert dark["6ea8fe"] > 500 and dark["fbbf24"] > 20
    assert light["6ea8fe"] == dark["2563eb"] == 0


def test_the_page_says_what_json_says(page):
    (run,) = json.loads(mltrain(page.parent, "report", "small", "--json"))["runs"]
    text = page.read_text()
    assert f"{run['status']['loss']:.4g}" in text and f"{100 * run['figures']['goodput']:.1f} %" in text
    assert [attempt["outcome"] for attempt in run["attempts"]] == ["restarted", "done"]
    assert run["curves"]["loss"]["steps"][-1] == 24
