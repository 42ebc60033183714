"""Weights in one file: written out of any shards, read into any sharding, compared, and checked as a stranger's."""
from __future__ import annotations

import json
import math

import pytest
import torch
from checkpoint_states import save_cut, small_state
from safetensors.torch import load_file, save_file

from mltrain.checkpoint import catalog, export, shard, weights
from mltrain.checkpoint.checkpointer import Checkpointer
from mltrain.checkpoint.difference import difference
from mltrain.checkpoint.storage import open_storage
from mltrain.errors import ConfigError, DataError, MissingInput, UsageError
from mltrain.progress import Progress
from mltrain.testing.ranks import on_ranks

EXPECTED = {"weight": "parameters/weight", "bias": "parameters/bias", "seen": "buffers/seen", "none": "buffers/none",
            "mask": "buffers/mask"}


def saved(folder, state=None, cuts=(2, 5), step=1):
    """(storage, manifest) of a step that len(cuts) + 1 ranks wrote."""
    save_cut(folder, small_state() if state is None else state, list(cuts), step=step)
    storage = open_storage(folder)
    return storage, catalog.latest(storage, step)


def exported(folder, state=None, cuts=(2, 5)):
    storage, manifest = saved(folder / "checkpoints", state, cuts)
    digest = export.write(storage, manifest, export.all_weights(manifest), {"task": {"width": 6}}, folder / "out")
    return folder / "out", digest


@pytest.mark.parametrize("cuts", [(), (2,), (1, 3, 4)])
def test_safetensors_reads_what_was_saved_by_any_number_of_ranks(tmp_path, cuts):
    out, _ = exported(tmp_path, cuts=cuts)
    read, state = load_file(out / "model.safetensors"), small_state()
    assert read.keys() == EXPECTED.keys()
    assert all(torch.equal(read[name], state[source]) and read[name].dtype == state[source].dtype for name, source in EXPECTED.items())


def test_the_digest_does_not_depend_on_the_shards(tmp_path):
    assert exported(tmp_path / "a", cuts=())[1] == exported(tmp_path / "b", cuts=(1, 2, 3))[1]
    assert exported(tmp_path / "c", small_state(1))[1] != exported(tmp_path / "d")[1]


def test_the_config_says_what_it_is(tmp_path):
    out, digest = exported(tmp_path)
    assert json.loads((out / "config.json").read_text()) == {"task": {"width": 6}, "digest": digest}


def test_rows_of_a_tensor_can_be_a_tensor(tmp_path):
    storage, manifest = saved(tmp_path / "checkpoints")
    export.write(storage, manifest, {"half": export.Part("parameters/weight", 1, 5)}, {}, tmp_path / "out")
    assert torch.equal(load_file(tmp_path / "out" / "model.safetensors")["half"], small_state()["parameters/weight"][1:6])


def test_a_folder_that_is_there_is_left_alone(tmp_path):
    out, _ = exported(tmp_path)
    before = (out / "model.safetensors").read_bytes()
    storage, manifest = saved(tmp_path / "more", small_state(5))
    with pytest.raises(UsageError, match="there already"):
        export.write(storage, manifest, export.all_weights(manifest), {}, out)
    assert (out / "model.safetensors").read_bytes() == before


def test_damage_leaves_no_folder(tmp_path):
    storage, manifest = saved(tmp_path / "checkpoints")
    path = tmp_path / "checkpoints" / manifest.files[0].name
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="are not those that were written"):
        export.write(storage, manifest, export.all_weights(manifest), {}, tmp_path / "out")
    assert [entry.name for entry in tmp_path.iterdir()] == ["checkpoints"]


def test_a_state_without_parameters_is_all_weights():
    assert weights.weights_in(["weight", "bias"]) == {"weight": "weight", "bias": "bias"}
    assert weights.weights_in(["parameters/weight", "optimizer/weight/step"]) == {"weight": "parameters/weight"}


def test_a_run_begins_with_weights_and_a_fresh_optimizer(tmp_path):
    out, digest = exported(tmp_path)
    state = {name: torch.zeros_like(tensor) for name, tensor in small_state().items()}
    checkpointer = Checkpointer(tmp_path / "new", weights=out)
    assert checkpointer.restore(state) is None
    assert checkpointer.begun_with == {"path": str(out), "digest": digest}
    assert all(torch.equal(state[name], small_state()[name]) for name in EXPECTED.values()) and state["optimizer/weight/step"] == 0


def test_what_was_saved_comes_before_weights(tmp_path):
    out, _ = exported(tmp_path)
    saved(tmp_path / "new", small_state(3))
    state = small_state()
    checkpointer = Checkpointer(tmp_path / "new", weights=out)
    assert checkpointer.restore(state) == Progress(1, 1, 0)
    assert torch.equal(state["parameters/weight"], small_state(3)["parameters/weight"]) and checkpointer.begun_with == {}


def test_a_strangers_safetensors_file_will_do(tmp_path):
    save_file({"weight": torch.ones(2, 3)}, tmp_path / "theirs.safetensors", {"made": "elsewhere"})
    state = {"parameters/weight": torch.zeros(2, 3), "optimizer/weight/step": torch.tensor(0.0)}
    weights.begin_with(tmp_path / "theirs.safetensors", state)
    assert state["parameters/weight"].sum() == 6


@pytest.mark.parametrize(("change", "words"), [
    ({"weight": torch.zeros(2, 3), "more": torch.zeros(1)}, "has more, which the model has not"), ({}, "lacks weight"),
    ({"weight": torch.zeros(3, 2)}, r"weight is F32 \[3, 2\] there and F32 \[2, 3\] here"),
    ({"weight": torch.zeros(2, 3).bfloat16()}, r"weight is BF16 \[2, 3\] there and F32 \[2, 3\] here"),
])
def test_weights_of_another_model_are_refused(tmp_path, change, words):
    save_file(change, tmp_path / "theirs.safetensors")
    state = {"parameters/weight": torch.full((2, 3), 7.0)}
    with pytest.raises(ConfigError, match=words):
        weights.begin_with(tmp_path / "theirs.safetensors", state)
    assert state["parameters/weight"].eq(7).all()


def test_an_export_that_was_changed_is_refused(tmp_path):
    out, _ = exported(tmp_path)
    tensors = load_file(out / "model.safetensors")
    save_file({**tensors, "weight": tensors["weight"] + 1}, out / "model.safetensors")
    with pytest.raises(DataError, match="not what was exported"):
        weights.begin_with(out, small_state())


@pytest.mark.parametrize("path", ["nowhere", "checkpoints", "nowhere/x.safetensors", "file"])
def test_weights_that_are_not_there(tmp_path, path):
    exported(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(MissingInput, match="there are no weights at"):
        weights.begin_with(tmp_path / path, small_state())


CUT = b'{"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 36]}}'       # and then no data


@pytest.mark.parametrize("data", [b"", b"\xff" * 64, b"\x02\0\0\0\0\0\0\0[]", len(CUT).to_bytes(8, "little") + CUT])
def test_a_damaged_file_is_an_error_and_no_traceback(tmp_path, data):
    (tmp_path / "bad.safetensors").write_bytes(data)
    with pytest.raises(DataError):
        weights.begin_with(tmp_path / "bad.safetensors", small_state())


def test_the_header_is_what_the_safetensors_library_reads(tmp_path):
    table = {"a": shard.Tensor("BF16", (3,)), "b": shard.Tensor("F32", (2, 2)), "c": shard.Tensor("BOOL", ())}
    header = shard.build_plain_header(table)
    (tmp_path / "x.safetensors").write_bytes(header + bytes(16 + 6 + 1))
    shapes = {name: tuple(tensor.shape) for name, tensor in load_file(tmp_path / "x.safetensors").items()}
    assert shapes == {"a": (3,), "b": (2, 2), "c": ()}


def fill_cut(path, world):
    """A tensor of 7 rows, cut over the ranks, filled from a file."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor
    tensor = distribute_tensor(torch.zeros(7, 6), init_device_mesh("cpu", (world,)), [Shard(0)])
    weights.begin_with(path, {"parameters/weight": tensor})
    return tensor.to_local().flatten().tolist()


def test_any_sharding_can_be_filled(tmp_path):
    save_file({"weight": torch.arange(42.0).view(7, 6)}, tmp_path / "x.safetensors")
    parts = on_ranks(2, lambda rank, world: fill_cut(tmp_path / "x.safetensors", world))
    assert [number for part in parts for number in part] == list(range(42))


def test_all_ranks_hear_that_there_are_no_weights(tmp_path):
    def body(rank, world):
        with pytest.raises(MissingInput):
            fill_cut(tmp_path / ("x.safetensors" if rank == 0 else "elsewhere"), world)
    assert on_ranks(2, body) == [None, None]


# ── differences ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_largest_change_comes_first(tmp_path):
    b = small_state()
    b["parameters/weight"] = b["parameters/weight"] + 2.0
    b["buffers/seen"] = b["buffers/seen"] + torch.tensor([3, 4, 0])
    found = difference(saved(tmp_path / "a"), saved(tmp_path / "b", b, cuts=(1,)))
    assert [(change.name, change.norm) for change in found.changes][:2] == [("weight", 2 * math.sqrt(42)), ("seen", 5.0)]
    assert found.changes[1].relative == 5 / math.sqrt(5) and found.changes[2].norm == 0 and not found.same


def test_shards_make_no_difference(tmp_path):
    assert difference(saved(tmp_path / "a", cuts=()), saved(tmp_path / "b", cuts=(1, 2, 3))).same


def test_the_optimizer_does_not_count(tmp_path):
    assert difference(saved(tmp_path / "a"), saved(tmp_path / "b", small_state() | {"optimizer/weight/step": torch.tensor(9.0)})).same


def test_names_and_shapes_that_differ_are_told(tmp_path):
    b = {"parameters/weight": torch.zeros(4, 6), "parameters/new": torch.zeros(2)}
    found = difference(saved(tmp_path / "a"), saved(tmp_path / "b", b))
    assert found.reshaped == {"weight": ((7, 6), (4, 6))} and found.only_b == ("new",)
    assert found.only_a == ("bias", "mask", "none", "seen") and not found.same


def test_what_is_no_number_comes_before_all(tmp_path):
    b = small_state()
    b["parameters/weight"] = b["parameters/weight"] + 1e9
    b["parameters/bias"] = b["parameters/bias"] * float("nan")
    found = difference(saved(tmp_path / "a"), saved(tmp_path / "b", b))
    assert [change.name for change in found.changes][:2] == ["bias", "weight"] and math.isnan(found.changes[0].norm)
