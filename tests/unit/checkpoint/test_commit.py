"""The commit: last, once, whoever makes it; and the place where the files lie."""
from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from checkpoint_states import rows_of, save_cut, seal, small_state

from mltrain.checkpoint.catalog import digest, saved_steps
from mltrain.checkpoint.storage import LocalStorage, RemoteStorage, open_storage
from mltrain.checkpoint.writer import settle


def test_without_the_last_rank_there_is_no_checkpoint(tmp_path):
    state = {"a": torch.arange(6)}
    assert settle(seal(tmp_path, state, {"a": (0, 3)}, rank=0, world=2)) is False
    assert saved_steps(open_storage(tmp_path)) == []
    assert settle(seal(tmp_path, state, {"a": (3, 3)}, rank=1, world=2)) is True


def test_a_row_that_no_rank_wrote_is_no_checkpoint(tmp_path):
    buffer = seal(tmp_path, {"a": torch.arange(6)}, {"a": (0, 3)})
    assert settle(buffer) is False and "row 3 is missing" in buffer.error


def test_ranks_with_different_states_are_no_checkpoint(tmp_path):
    settle(seal(tmp_path, {"a": torch.arange(6)}, {"a": (0, 6)}, rank=0, world=2))
    buffer = seal(tmp_path, {"a": torch.arange(6), "b": torch.ones(1)}, {"b": (0, 1)}, rank=1, world=2)
    assert settle(buffer) is False and "hold states of other names" in buffer.error


def test_all_ranks_at_once_make_one_commit(tmp_path):
    state = {"a": torch.arange(40)}
    with ThreadPoolExecutor(4) as pool:
        for step in range(1, 11):
            rows = [{"a": rows_of(state["a"], [10, 20, 30], rank)} for rank in range(4)]
            buffers = [seal(tmp_path, state, rows[rank], step=step, rank=rank, world=4) for rank in range(4)]
            assert any([*pool.map(settle, buffers)]) and all(buffer.written for buffer in buffers)
    assert [saved.valid for saved in saved_steps(open_storage(tmp_path))] == [True] * 10


def test_two_attempts_at_once_both_stand(tmp_path):
    def save_ten(attempt):
        return all([save_cut(tmp_path, small_state(), [2], step=step, attempt=attempt) for step in range(1, 11)])
    with ThreadPoolExecutor(2) as pool:
        assert all(pool.map(save_ten, (1, 2)))
    saved = saved_steps(open_storage(tmp_path))
    assert len(saved) == 20 and all(one.valid for one in saved) and digest(tmp_path)["step"] == 10


def test_a_late_writer_of_an_old_attempt_touches_nothing_of_the_new(tmp_path):
    save_cut(tmp_path, small_state(), [], attempt=2)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.a0002.*")}
    save_cut(tmp_path, small_state(1), [], attempt=1)
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.a0002.*")} == before


def test_a_committed_shard_is_not_written_again(tmp_path):
    save_cut(tmp_path, small_state(), [])
    shard = next(tmp_path.rglob("*.safetensors"))
    before = shard.stat().st_ino
    save_cut(tmp_path, small_state(), [])
    assert shard.stat().st_ino == before


@pytest.fixture(params=["folder", "memory"])
def storage(request, tmp_path):
    return LocalStorage(str(tmp_path)) if request.param == "folder" else RemoteStorage(f"memory://{tmp_path.name}")


def test_what_is_written_can_be_read_in_part(storage):
    storage.write("step-1/a", [b"abc", memoryview(b"def")])
    assert (storage.read("step-1/a"), storage.read("step-1/a", 2, 4), storage.read("step-1/a", 4, 99)) == (b"abcdef", b"cd", b"ef")


def test_an_exclusive_publish_succeeds_once(storage):
    assert [storage.publish("m", b"1", exclusive=True), storage.publish("m", b"2", exclusive=True)] == [True, False]
    assert storage.read("m") == b"1"


def test_a_publish_replaces(storage):
    assert storage.publish("m", b"1") and storage.publish("m", b"2") and storage.read("m") == b"2"


def test_a_list_tells_sizes_and_folders(storage):
    storage.write("step-1/a", [b"abc"])
    assert storage.list() == {"step-1": -1} and storage.list("step-1") == {"a": 3} and storage.list("nowhere") == {}


def test_deleting_twice_is_fine(storage):
    storage.publish("a", b"1")
    storage.delete("a")
    storage.delete("a")
    assert storage.list() == {}


def test_a_write_that_fails_leaves_nothing(tmp_path):
    def broken():
        yield b"abc"
        raise OSError("gone")
    with pytest.raises(OSError, match="gone"):
        LocalStorage(str(tmp_path)).write("step-1/a", broken())
    assert [*(tmp_path / "step-1").iterdir()] == []
