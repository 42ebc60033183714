"""Flipped bits, cut files, hostile headers: found, named, and the step before is used."""
from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch

from mltrain import Checkpointer, Progress
from mltrain.checkpoint.manifest import encode
from mltrain.checkpoint.shard import read_header
from mltrain.cli.main import main
from mltrain.errors import DataError

STEP = Path("step-00000002")
SHARD, MANIFEST = STEP / "rank-00000.a0001.safetensors", STEP / "manifest.a0001.json"


def state(step: int) -> dict[str, torch.Tensor]:
    return {f"parameters/w{i}": torch.full((1 << 16,), float(i + step)) for i in range(3)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Two whole steps, 1 and 2."""
    checkpointer = Checkpointer(tmp_path)
    for step in (1, 2):
        checkpointer.save(state(step), Progress(step)).wait(30)
    checkpointer.close()
    return tmp_path


def flip(file: Path, at: int, bit: int) -> None:
    data = bytearray(file.read_bytes())
    data[at] ^= 1 << bit
    file.write_bytes(data)


def restored(path: Path) -> tuple[int, list[dict]]:
    target, checkpointer = state(0), Checkpointer(path)
    progress = checkpointer.restore(target)
    assert all(torch.equal(target[name], tensor) for name, tensor in state(progress.step).items())
    return progress.step, checkpointer.notes


def flips(path: Path, times: int, seed: int) -> None:
    """Anywhere in the data, the safetensors header and the manifest."""
    dice = random.Random(seed)
    for trial in range(times):
        file = path / (MANIFEST if trial % 3 == 2 else SHARD)
        at, bit = dice.randrange(4096 if trial % 3 == 1 else file.stat().st_size), dice.randrange(8)
        flip(file, at, bit)
        step, notes = restored(path)
        assert step == 1 and notes[0]["step"] == 2 and STEP.name in notes[0]["problem"], f"bit {bit} of byte {at} of {file}"
        flip(file, at, bit)
    assert restored(path) == (2, [])


def test_30_flipped_bits_are_found_and_the_step_before_is_used(path):
    flips(path, 30, seed=0)


@pytest.mark.full
@pytest.mark.timeout(900)
def test_1000_flipped_bits_are_found_and_the_step_before_is_used(path):
    flips(path, 1000, seed=1)


def test_damage_is_kept_and_listed(path):
    flip(path / SHARD, -1, 0)
    restored(path)
    assert [one.step for one in Checkpointer(path).list()] == [1, 2]


def test_verify_names_file_bytes_and_tensor(path):
    flip(path / SHARD, -1, 0)
    (damage,) = Checkpointer(path).verify()
    assert (damage.file, damage.chunk) == (str(SHARD), 0) and "parameters/w2" in damage.tensors and str(SHARD) in damage.problem


def test_the_verb_says_what_is_damaged_and_exits_74(path, capsys):
    assert main(["checkpoint", "verify", str(path)]) == 0
    flip(path / SHARD, -1, 0)
    assert main(["checkpoint", "verify", str(path)]) == 74
    assert f"{SHARD}: bytes 0 to" in capsys.readouterr().out


def test_the_verb_answers_66_where_nothing_is(tmp_path, capsys):
    assert main(["checkpoint", "verify", f"{tmp_path}/"]) == 66
    assert "no checkpoint" in capsys.readouterr().err


def test_a_digest_of_damaged_bytes_is_refused(path, capsys):
    flip(path / SHARD, -1, 0)
    assert main(["checkpoint", "digest", str(path), "--json"]) == 65
    assert main(["checkpoint", "digest", str(path), "step=1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["step"] == 1


@pytest.mark.parametrize("hurt", [lambda file: file.unlink(), lambda file: file.write_bytes(file.read_bytes()[:-1]),
                                  lambda file: file.write_bytes(b""), lambda file: file.write_bytes(file.read_bytes() + b"x")],
                         ids=["missing", "cut", "empty", "longer"])
@pytest.mark.parametrize("name", [SHARD, MANIFEST], ids=["shard", "manifest"])
def test_a_file_of_another_length_is_found(path, name, hurt):
    hurt(path / name)
    step, notes = restored(path)
    assert step == 1 and (name == MANIFEST or "rank-00000.a0001.safetensors" in notes[0]["problem"])


def one(dtype="F32", shape=(1,), offset=0, lengths=1, file=0, end=4) -> dict:
    """A manifest's tensor with one piece of it."""
    piece = {"offset": [offset], "lengths": [lengths], "file": file, "bytes": [max(0, end - 4), end]}
    return {"tensors": {"a": {"dtype": dtype, "shape": list(shape), "pieces": [piece]}}}


def shard(**change) -> dict:
    return {"files": [{"name": "rank-00000.a0001.safetensors", "bytes": 1, "xxh3_128": ["0" * 32]} | change]}


@pytest.mark.parametrize("change", [
    {"format": 2}, {"chunk_bytes": 1}, {"world": 0}, {"world": True}, {"files": []}, {"tensors": {"a" * 2000: {}}}, {"tensors": []},
    {"plain": 3}, {"progress": {}}, {"step": 7}, {"attempt": -1}, {"saved": "x"}, shard(name="../../etc/passwd"), shard(bytes=1 << 80),
    shard(xxh3_128=[]), one(dtype="X"), one(shape=(1 << 60, 1 << 60)), one(shape=(2,)), one(offset=1), one(lengths=2), one(lengths=-1),
    one(file=9), one(file=-1), one(end=1 << 40), one(shape=()),
], ids=str)
def test_a_hostile_manifest_with_a_right_digest_is_damage(path, change):
    document = json.loads((path / MANIFEST).read_text()) | change
    (path / MANIFEST).write_bytes(encode(document))
    step, notes = restored(path)
    assert step == 1 and MANIFEST.name in notes[0]["problem"]


def test_deeply_nested_json_is_damage(path):
    (path / MANIFEST).write_text("[" * 200_000)
    assert restored(path)[0] == 1


def header(name="a", dtype="F32", shape=(1,), offsets=(0, 4), **metadata) -> bytes:
    layout = json.dumps({name: [[1], 0]})
    entry = {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}
    text = json.dumps({"__metadata__": {"layout": layout, "state": ""} | metadata, name: entry}).encode()
    return len(text).to_bytes(8, "little") + text


def test_the_header_that_the_hostile_ones_differ_from_is_good():
    assert read_header(header(), len(header()) + 4, "rank-x").pieces.keys() == {"a"}


@pytest.mark.parametrize("data", [
    b"", b"\xff" * 8, (1 << 40).to_bytes(8, "little"), b"\x02" + b"\0" * 7 + b"[]", b"\x04" + b"\0" * 7 + b"{\"a\"",
    header(offsets=(0, 1 << 50)), header(offsets=(4, 0)), header(dtype="F99"), header(shape=(1 << 61,)), header(name="a" * 1025),
    header(shape=(-1,)), header(shape=(1.0,)), header(layout="{}"), header(tensors="[[[["), header(state=3),
], ids=lambda data: repr(data[:60]))
def test_a_hostile_header_is_refused_by_name(data):
    with pytest.raises(DataError, match="rank-x"):
        read_header(data, len(data) + 4, "rank-x")
