"""`mltrain doctor`: what it finds, and above all the stranger that owns our name on the package index."""
from __future__ import annotations

import json
import subprocess
import sys

import pytest

from mltrain import doctor
from mltrain.cli.main import main


def states(findings):
    return {finding.name: finding.state for finding in findings}


def test_this_machine_is_fit():
    findings = doctor.examine()
    assert [finding for finding in findings if finding.state == "bad"] == []
    assert {"installation", "python", "torch", "devices", "cores", "memory", "/dev/shm", "disk", "git", "C++ compiler", "extras",
            "recipes"} <= states(findings).keys()


def test_json_is_the_list_of_findings(capsys):
    assert main(["doctor", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert all(row.keys() == {"name", "state", "value", "hint", "code"} for row in rows)
    assert next(row["value"] for row in rows if row["name"] == "torch") == __import__("torch").__version__


@pytest.fixture
def stranger(tmp_path):
    """A folder in which another project's package `mltrain` is installed."""
    info = tmp_path / "mltrain-0.4.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mltrain\nVersion: 0.4.1\n")
    (info / "RECORD").write_text("mltrain/__init__.py,,\nmltrain-0.4.1.dist-info/METADATA,,\nmltrain-0.4.1.dist-info/RECORD,,\n")
    return tmp_path


def test_a_stranger_with_our_name_is_named_with_the_way_out(stranger):
    code = f"import sys; sys.path.append({str(stranger)!r}); from mltrain.cli.main import main; sys.exit(main(['doctor']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 78
    assert "bad   installation  the package mltrain is shared with: mltrain" in done.stdout
    assert "pip uninstall -y mltrain mltrain-core, then install mltrain-core again" in done.stdout


def test_a_missing_dependency_is_bad_with_its_install_line(monkeypatch):
    monkeypatch.setattr(doctor, "BASE", ("no-such-package",))
    (finding,) = (finding for finding in doctor.examine() if finding.name == "no-such-package")
    assert (finding.state, finding.code, finding.hint) == ("bad", 69, "pip install no-such-package")


def test_missing_tools_are_warnings_and_no_failure(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    findings = doctor.examine()
    assert (states(findings)["git"], states(findings)["C++ compiler"]) == ("warn", "warn")
    assert max(finding.code for finding in findings) == 0


def test_a_wrong_flag_is_a_wrong_command_line(capsys):
    assert main(["doctor", "--jsn"]) == 64
    assert capsys.readouterr().err == "mltrain: unrecognized arguments: --jsn\n  mltrain doctor --help explains it\n"
