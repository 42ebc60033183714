"""`mltrain data` as a person types it: real processes, real kills, exit codes, and what is said."""
from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

LIMIT = 60


def data(*args: object, cwd: Path, **how) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mltrain", "data", *map(str, args)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=LIMIT, **how)


def corpus(folder: Path, megabytes: int) -> Path:
    """Files of about 100 kB, all different."""
    folder.mkdir()
    line = "the quick brown fox jumps over the lazy dog\n" * 230
    for i in range(megabytes * 10):
        (folder / f"{i:04d}.txt").write_text(f"document {i}\n{line * 10}")
    return folder


def fingerprint(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["fingerprint"]


def kill_when(process: subprocess.Popen, there) -> None:
    end = time.monotonic() + LIMIT
    while not there():
        assert process.poll() is None and time.monotonic() < end, "it ended, or did not come this far"
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait(LIMIT)


@pytest.mark.parametrize("shards", [1, 4, 9])
def test_killed_and_resumed_it_is_the_same_dataset(tmp_path, shards):
    corpus(tmp_path / "texts", 12)
    how = ("prepare", "texts", "--shard-tokens", 1_000_000, "--json")
    command = [sys.executable, "-m", "mltrain", "data", *map(str, how), "--out", "killed"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    kill_when(process, lambda: len(list(tmp_path.glob("killed.partial/train-*.arrow"))) >= shards)
    assert not (tmp_path / "killed").exists()
    resumed = data(*how, "--out", "killed", cwd=tmp_path)
    assert shards == 1 or json.loads(resumed.stdout)["resumed"]
    assert fingerprint(resumed) == fingerprint(data(*how, "--out", "undisturbed", cwd=tmp_path))
    assert data("verify", "killed", cwd=tmp_path).returncode == 0


def test_ctrl_c_says_that_it_goes_on(tmp_path):
    corpus(tmp_path / "texts", 12)
    command = [sys.executable, "-m", "mltrain", "data", "prepare", "texts", "--shard-tokens", "500000", "--out", "d"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + LIMIT
    while not list(tmp_path.glob("d.partial/train-00001.arrow")):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=LIMIT)
    *_, last = said.splitlines()                        # before it: progress, on a slow machine
    assert process.returncode == 130 and "goes on" in last and "Traceback" not in said, said


WRONG = {
    "no verb": ((), 64, "usage"),
    "an unknown verb": (("prepair",), 64, "no such verb"),
    "no source": (("prepare", "--out", "d"), 64, "SOURCE"),
    "no target": (("prepare", "good"), 64, "--out"),
    "a source that is not there": (("prepare", "nowhere", "--out", "d"), 66, "nowhere is not there"),
    "an empty folder": (("prepare", "empty", "--out", "d"), 66, "holds no files"),
    "a bad line": (("prepare", "bad.jsonl", "--out", "d"), 65, "bad.jsonl:2"),
    "a missing field": (("prepare", "good.jsonl", "--field", "body", "--out", "d"), 65, "good.jsonl:1: no field 'body'"),
    "bytes that are no text": (("prepare", "latin", "--strict", "--out", "d"), 65, "not valid UTF-8"),
    "a binary file": (("prepare", "image.png", "--out", "d"), 65, "not a text file"),
    "a parquet file that is none": (("prepare", "bad.parquet", "--out", "d"), 65, "bad.parquet is not a readable parquet file"),
    "a holdout of two": (("prepare", "good", "--holdout", "2", "--out", "d"), 64, "--holdout"),
    "a holdout that is no number": (("prepare", "good", "--holdout", "some", "--out", "d"), 64, "--holdout"),
    "a tokenizer that is not there": (("prepare", "good", "--tokenizer", "t.json", "--out", "d"), 66, "t.json is not there"),
    "a tokenizer that is none": (("prepare", "good", "--tokenizer", "bad.jsonl", "--out", "d"), 65, "not a tokenizer.json"),
    "a target that is something else": (("prepare", "good", "--out", "good"), 64, "exists and is no dataset"),
    "a target inside a file": (("prepare", "good", "--out", "good/a.txt/d"), 74, "cannot write"),
    "inspect nothing": (("inspect", "nowhere"), 66, "no dataset at nowhere"),
    "verify nothing": (("verify", "nowhere"), 66, "no dataset at nowhere"),
    "inspect a folder": (("inspect", "good"), 66, "no dataset at good"),
    "an unknown store": (("inspect", "nonsense://d"), 64, "nonsense"),
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("inputs")
    for name, content in {"good/a.txt": b"good text", "latin/a.txt": b"caf\xe9", "bad.jsonl": b'{"text": "good"}\n{"text": \n',
                          "good.jsonl": b'{"text": "good"}\n', "image.png": b"\x89PNG\0\0", "bad.parquet": b"PAR1 no"}.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(content)
    (root / "empty").mkdir()
    return root


@pytest.mark.parametrize("args, code, words", WRONG.values(), ids=WRONG)
def test_a_wrong_input_gets_a_line_and_a_code_and_loses_nothing(inputs, args, code, words):
    before = sorted(inputs.rglob("*"))
    done = data(*args, cwd=inputs)
    assert (done.returncode, done.stdout) == (code, "") and words in done.stderr and "Traceback" not in done.stderr
    assert words == "usage" or done.stderr.count("\n") <= 2
    assert sorted(inputs.rglob("*")) == before


def test_a_disk_that_takes_no_more_is_a_storage_error_and_the_command_goes_on_later(tmp_path):
    corpus(tmp_path / "texts", 2)
    how = ("prepare", "texts", "--out", "d", "--json")
    small = data(*how, cwd=tmp_path, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20)))
    assert (small.returncode, small.stderr.count("\n")) == (74, 2) and "cannot write" in small.stderr
    assert not (tmp_path / "d").exists()
    assert fingerprint(data(*how, cwd=tmp_path))


def test_a_damaged_shard_is_65_and_a_missing_one_66(tmp_path):
    corpus(tmp_path / "texts", 1)
    data("prepare", "texts", "--out", "d", cwd=tmp_path)
    shard = tmp_path / "d" / "train-00000.arrow"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    damaged = data("verify", "d", cwd=tmp_path)
    shard.unlink()
    missing = data("verify", "d", "--json", cwd=tmp_path)
    assert (damaged.returncode, missing.returncode) == (65, 66)
    assert "train-00000.arrow" in damaged.stderr and json.loads(missing.stdout)["problems"][0]["shard"] == "train-00000.arrow"


def test_what_is_left_out_is_told(inputs, tmp_path):
    done = data("prepare", inputs / "latin", inputs / "good", "--out", tmp_path / "d", cwd=inputs)
    assert done.returncode == 0 and "1 undecodable (such as" in done.stdout


def test_preparing_needs_no_torch(inputs, tmp_path):
    code = f"import sys; from mltrain import api; api.prepare(['good'], {str(tmp_path / 'd')!r}); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=inputs, capture_output=True, text=True, timeout=LIMIT)
    assert done.stdout == "False\n", done.stderr


def test_of_two_runs_that_need_the_same_data_one_makes_it_and_both_use_it(tmp_path):
    corpus(tmp_path / "texts", 12)
    code = "from mltrain.data.source import Tokens; made = Tokens('d', 64, source='texts').prepare(); print(made and made.already)"
    both = [subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = sorted(process.communicate(timeout=LIMIT)[0].strip() for process in both)
    assert [process.returncode for process in both] == [0, 0]
    assert said[0] == "False" and said[1] in ("None", "True")
