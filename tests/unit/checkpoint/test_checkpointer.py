"""Save and restore in one process: what comes back, what is refused, what a failing storage does."""
from __future__ import annotations

import json

import pytest
import torch
from checkpoint_states import save_cut, small_state
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from mltrain import Checkpointer, Progress
from mltrain.checkpoint.catalog import digest
from mltrain.checkpoint.planner import NAMES
from mltrain.errors import ConfigError, DataError, MissingInput, StorageError


@pytest.fixture
def state():
    return small_state()


def zeros(state):
    return {name: torch.zeros_like(tensor) for name, tensor in state.items()}


def equal(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def saved(path, *steps, **options) -> Checkpointer:
    checkpointer = Checkpointer(path, **options)
    for step in steps:
        checkpointer.save(small_state(step), Progress(step, 8 * step, 0))
        checkpointer.wait(30)
    checkpointer.close()
    return checkpointer


def test_what_was_saved_comes_back(tmp_path, state):
    saved(tmp_path, 20)
    target, plain = zeros(state), {"old": 1}
    assert Checkpointer(tmp_path).restore(target, plain) == Progress(20, 160, 0)
    assert equal(target, small_state(20)) and plain == {}


def test_an_empty_folder_restores_nothing(tmp_path, state):
    assert Checkpointer(tmp_path / "new").restore(state) is None


def test_the_plain_state_comes_back(tmp_path, state):
    with_plain = Checkpointer(tmp_path)
    with_plain.save(state, Progress(1), {"best": 0.5, "names": ["a"]})
    with_plain.wait(30)
    plain = {}
    Checkpointer(tmp_path).restore(state, plain)
    assert plain == {"best": 0.5, "names": ["a"]}


def test_a_save_is_of_the_moment_of_the_call(tmp_path, state):
    checkpointer = Checkpointer(tmp_path)
    checkpointer.save(state, Progress(1))
    for tensor in state.values():
        tensor.zero_()
    checkpointer.wait(30)
    checkpointer.restore(state)
    assert equal(state, small_state())


def test_file_names_are_a_promise(tmp_path):
    saved(tmp_path, 20)
    assert sorted(str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*.*")) == [
        "step-00000020/manifest.a0001.json", "step-00000020/rank-00000.a0001.json", "step-00000020/rank-00000.a0001.safetensors"]


def test_the_digest_is_a_promise(tmp_path):
    saved(tmp_path, 1)
    assert digest(tmp_path) == {"step": 1, "digest": "0fab455a308c87b2e4a696d79d4a8e7091dca8929f3783277aad2b1a0dc5a95c"}


def test_the_safetensors_library_reads_a_shard(tmp_path):
    saved(tmp_path, 1)
    assert equal(load_file(tmp_path / "step-00000001/rank-00000.a0001.safetensors"), small_state(1))


def test_data_begins_on_a_page(tmp_path):
    saved(tmp_path, 1)
    data = (tmp_path / "step-00000001/rank-00000.a0001.safetensors").read_bytes()
    assert (8 + int.from_bytes(data[:8], "little")) % 4096 == 0


def test_two_stay(tmp_path):
    assert [one.step for one in saved(tmp_path, 1, 2, 3, 4, keep=2).list()] == [3, 4]


def test_the_step_resumed_from_stays(tmp_path, state):
    saved(tmp_path, 1)
    checkpointer = Checkpointer(tmp_path, keep=1)
    checkpointer.restore(state)
    for step in (2, 3, 4):
        checkpointer.save(state, Progress(step))
        checkpointer.wait(30)
    assert [one.step for one in checkpointer.list()] == [1, 4]


def test_settled_tells_each_save_once(tmp_path, state):
    checkpointer = Checkpointer(tmp_path)
    handle = checkpointer.save(state, Progress(5))
    checkpointer.wait(30)
    assert checkpointer.settled() == [handle] and handle.durable and handle.staged and checkpointer.settled() == []


def test_a_new_start_takes_the_next_attempt(tmp_path, state):
    saved(tmp_path, 1)
    again = saved(tmp_path, 1)
    assert again.attempt == 2 and [(one.step, one.attempt) for one in again.list()] == [(1, 1), (1, 2)]


def test_another_state_does_not_replace_a_committed_step(tmp_path):
    checkpointer = saved(tmp_path, 1)
    handle = checkpointer.save(small_state(9), Progress(1))
    with pytest.raises(StorageError, match="is there already, with another state"):
        handle.wait(30)
    assert checkpointer.verify() == []


def test_the_same_state_twice_is_no_error(tmp_path):
    checkpointer = saved(tmp_path, 1)
    checkpointer.save(small_state(1), Progress(1)).wait(30)


def test_a_rolled_back_step_is_not_resumed(tmp_path, state):
    saved(tmp_path, 1, 2)
    assert Checkpointer(tmp_path, retired=[(1, 1)]).restore(state).step == 1


def test_a_step_can_be_named(tmp_path, state):
    saved(tmp_path, 1, 2)
    assert Checkpointer(tmp_path).restore(state, step=1) == Progress(1, 8, 0) and equal(state, small_state(1))


def test_a_step_that_is_not_there_names_those_that_are(tmp_path, state):
    saved(tmp_path, 1, 2)
    with pytest.raises(MissingInput, match="there are: 1 2"):
        Checkpointer(tmp_path).restore(state, step=7)


def test_the_shape_of_a_state_may_change_between_saves(tmp_path):
    checkpointer = Checkpointer(tmp_path)
    checkpointer.save({"a": torch.ones(3)}, Progress(1))
    checkpointer.save({"a": torch.ones(3), "b": torch.ones(2)}, Progress(2))
    checkpointer.wait(30)
    assert [one.step for one in checkpointer.list()] == [1, 2]


@pytest.mark.parametrize("change, words", [
    ({"extra": torch.ones(1)}, "lacks extra"),
    ({"parameters/bias": None}, "has parameters/bias, which the model has not"),
    ({"parameters/bias": torch.zeros(5)}, r"parameters/bias is BF16 \[5\] there and F32 \[5\] here"),
    ({"parameters/bias": torch.zeros(6).bfloat16()}, r"BF16 \[5\] there and BF16 \[6\] here"),
])
def test_another_model_is_refused_by_name(tmp_path, state, change, words):
    saved(tmp_path, 1)
    other = {name: tensor for name, tensor in (state | change).items() if tensor is not None}
    with pytest.raises(ConfigError, match=words):
        Checkpointer(tmp_path).restore(other)


@pytest.mark.parametrize("state, words", [
    ({"a": 3}, "a is a int"), ({"a": torch.ones(2, dtype=torch.complex64)}, "complex64"), ({"": torch.ones(1)}, "no name"),
    ({"a": torch.ones(2).to_sparse()}, "sparse"),
])
def test_what_cannot_be_saved_is_refused_by_name(tmp_path, state, words):
    with pytest.raises(ConfigError, match=words):
        Checkpointer(tmp_path).save(state, Progress(1))


@pytest.mark.parametrize("plain", [{"a": torch.ones(1)}, {"a": "x" * (2 << 20)}])
def test_plain_state_must_be_small_json(tmp_path, state, plain):
    with pytest.raises(ConfigError, match="plain state"):
        Checkpointer(tmp_path).save(state, Progress(1), plain)


@pytest.mark.parametrize("options", [{"every": -1}, {"keep": -1}, {"attempt": 0}])
def test_numbers_out_of_range_are_refused(tmp_path, options):
    with pytest.raises(ConfigError):
        Checkpointer(tmp_path, **options)


def test_an_unknown_url_is_refused():
    with pytest.raises(ConfigError, match="no file system"):
        Checkpointer("nowhere://x")


def test_a_remote_storage_keeps_the_same_promises(state):
    url = "memory://a-remote-storage"
    saved(url, 1, 2, 3)
    target = zeros(state)
    checkpointer = Checkpointer(url)
    assert checkpointer.restore(target).step == 3 and equal(target, small_state(3)) and [one.step for one in checkpointer.list()] == [2, 3]


def test_only_damaged_checkpoints_are_no_fresh_start(tmp_path, state):
    saved(tmp_path, 1)
    (tmp_path / "step-00000001/manifest.a0001.json").write_text("{}")
    with pytest.raises(DataError, match="no checkpoint under"):
        Checkpointer(tmp_path).restore(state)


def test_a_checkpoint_of_a_newer_format_says_so(tmp_path, state):
    from mltrain.checkpoint.manifest import encode
    saved(tmp_path, 1)
    manifest = tmp_path / "step-00000001/manifest.a0001.json"
    manifest.write_bytes(encode(json.loads(manifest.read_text()) | {"format": 99}))
    with pytest.raises(DataError, match="format 99"):
        Checkpointer(tmp_path).restore(state)


def test_the_newest_whole_attempt_of_a_step_counts(tmp_path, state):
    for attempt in (1, 2, 3):
        save_cut(tmp_path, small_state(attempt), [], attempt=attempt)
    (tmp_path / "step-00000001/manifest.a0003.json").write_text("cut")
    checkpointer = Checkpointer(tmp_path)
    checkpointer.restore(state)
    assert equal(state, small_state(2)) and [note["attempt"] for note in checkpointer.notes] == [3]


def test_non_contiguous_tensors_are_saved_and_filled(tmp_path):
    checkpointer = Checkpointer(tmp_path)
    checkpointer.save({"a": torch.arange(12.0).view(3, 4).t()}, Progress(1))
    checkpointer.wait(30)
    target = torch.zeros(3, 4).t()
    checkpointer.restore({"a": target})
    assert torch.equal(target, torch.arange(12.0).view(3, 4).t())


tensors = st.builds(
    lambda shape, dtype, seed: torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(seed)).to(getattr(torch, dtype)),
    st.lists(st.integers(0, 9), max_size=3), st.sampled_from(sorted(NAMES)), st.integers(0, 99))


@settings(max_examples=40)
@given(st.dictionaries(st.text(min_size=1, max_size=9), tensors, max_size=6), st.lists(st.integers(0, 9), max_size=3), st.data())
def test_any_state_cut_anyhow_is_the_same_state(tmp_path_factory, state, cuts, data):
    whole, cut = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("cut")
    assert save_cut(whole, state, []) and save_cut(cut, state, cuts)
    target = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    assert Checkpointer(cut).restore(target) == Progress(1, 1, 0)
    same = all(torch.equal(target[name].view(-1).view(torch.uint8), state[name].view(-1).view(torch.uint8)) for name in state)
    assert same and digest(whole) == digest(cut)


def test_another_value_has_another_digest(tmp_path, state):
    save_cut(tmp_path / "a", state, [])
    save_cut(tmp_path / "b", state | {"buffers/mask": torch.tensor([True, True])}, [])
    assert digest(tmp_path / "a") != digest(tmp_path / "b")
