"""Real ranks over gloo: what A ranks saved under one layout, B ranks restore under another, bit for bit; and they agree on everything."""
from __future__ import annotations

import json
import multiprocessing
import traceback
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from mltrain import Checkpointer, Progress
from mltrain.checkpoint.catalog import digest
from mltrain.errors import ConfigError, DataError, StorageError

SECONDS = 90


def full_state() -> dict[str, torch.Tensor]:
    """Odd sizes: uneven shards on 2 and 3 ranks, one with fewer rows than ranks, scalars, a large replicated tensor."""
    return {
        "parameters/weight": torch.arange(7 * 66, dtype=torch.float32).view(7, 66), "parameters/scale": torch.arange(2).bfloat16() + 1,
        "optimizer/weight/exp_avg": torch.arange(7 * 66, dtype=torch.float32).view(7, 66) * 0.5, "optimizer/weight/step": torch.tensor(9.0),
        "buffers/table": torch.arange(5000), "parameters/bias": torch.arange(131, dtype=torch.float64),
    }


def placed(state, layout: str, world: int):
    """The state under a layout: plain, fsdp (cut over all), replicated, hsdp (one 2-D mesh), groups (a shard mesh in each group of 2)."""
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor, init_device_mesh
    if layout == "plain":
        return {name: tensor.clone() for name, tensor in state.items()}
    if layout == "groups":
        mesh, places = init_device_mesh("cpu", (world // 2, 2), mesh_dim_names=("replicate", "shard"))["shard"], [Shard(0)]
    elif layout == "hsdp":
        mesh, places = init_device_mesh("cpu", (world // 2, 2)), [Replicate(), Shard(0)]
    else:
        mesh, places = init_device_mesh("cpu", (world,)), [Shard(0) if layout == "fsdp" else Replicate()]
    cut = {name: distribute_tensor(tensor, mesh, places) if tensor.dim() and not name.startswith("buffers/") else tensor.clone()
           for name, tensor in state.items()}
    return cut


def whole(state):
    return {name: tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor for name, tensor in state.items()}


def save(layout, path, step=1):
    world, state = dist.get_world_size(), placed(full_state(), layout, dist.get_world_size())
    checkpointer = Checkpointer(path)
    assert checkpointer.restore(state) is None
    checkpointer.save(state, Progress(step, 8, 0), {"rank": dist.get_rank()}).wait(60)
    assert world == len(checkpointer.list()[0].files)


def restore(layout, path):
    state, plain = placed({name: torch.zeros_like(t) for name, t in full_state().items()}, layout, dist.get_world_size()), {}
    progress = Checkpointer(path).restore(state, plain)
    assert progress == Progress(1, 8, 0) and plain == {"rank": 0}
    expected = full_state()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in whole(state).items())


def restore_with_damage_seen_by_one(path):
    """Only rank 1's part of the newest step is damaged: rank 0 does not read those bytes, and must step back all the same."""
    state = placed(full_state(), "fsdp", 2)
    first = Checkpointer(path)
    first.restore(state)
    for step in (1, 2):
        first.save(state, Progress(step)).wait(60)
    dist.barrier()
    if dist.get_rank() == 0:
        flip(Path(path) / "step-00000002/rank-00001.a0001.safetensors", -5)
    dist.barrier()
    second = Checkpointer(path)
    assert second.restore(state) == Progress(1) and second.attempt == 2
    assert [(note["step"], "rank-00001" in note["problem"]) for note in second.notes] == [(2, True)]


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def restore_another_model(path):
    """One rank asks for what is not there: all ranks get the same kind of error, none hangs."""
    state = {"a": torch.ones(2)}
    checkpointer = Checkpointer(path)
    checkpointer.restore(state)
    checkpointer.save(state, Progress(1)).wait(60)
    dist.barrier()
    with pytest.raises(ConfigError, match="lacks b"):
        Checkpointer(path).restore(state | ({"b": torch.ones(1)} if dist.get_rank() == 1 else {}))


def all_damaged(path):
    state = {"a": torch.ones(2)}
    if dist.get_rank() == 0:
        folder = Path(path) / "step-00000001"
        folder.mkdir(parents=True)
        (folder / "manifest.a0001.json").write_text("cut")
    dist.barrier()
    with pytest.raises(DataError, match="no checkpoint under"):
        Checkpointer(path).restore(state)


def save_different_states(path):
    """Ranks that hold different names: no commit, and each is told."""
    checkpointer = Checkpointer(path)
    state = {"a": torch.ones(2)} | ({"b": torch.ones(3)} if dist.get_rank() == 1 else {})
    checkpointer.restore(state)
    handle = checkpointer.save(state, Progress(1))
    dist.barrier()
    with pytest.raises(StorageError, match="hold states of other names|did another rank fail"):
        handle.wait(3)
    dist.barrier()
    assert checkpointer.list() == []


def save_without_restore(path):
    with pytest.raises(ConfigError, match="call restore"):
        Checkpointer(path).save({"a": torch.ones(2)}, Progress(1))


def refuse_columns(path):
    from torch.distributed.tensor import Shard, distribute_tensor, init_device_mesh
    state = {"a": distribute_tensor(torch.ones(4, 4), init_device_mesh("cpu", (2,)), [Shard(1)])}
    checkpointer = Checkpointer(path)
    checkpointer.restore({})
    with pytest.raises(ConfigError, match="only Shard"):
        checkpointer.save(state, Progress(1))


def _main(rank, world, store, queue, job, arguments):
    torch.set_num_threads(1)
    try:
        dist.init_process_group("gloo", store=dist.FileStore(store, world), rank=rank, world_size=world)
        job(*arguments)
        dist.barrier()
        queue.put((rank, ""))
        dist.destroy_process_group()
    except BaseException:  # noqa: BLE001  the parent reports it
        queue.put((rank, traceback.format_exc()))


def ranks(tmp_path, world, job, *arguments):
    """Runs job(*arguments) on `world` ranks."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    store = str(tmp_path / f"store-{len(list(tmp_path.iterdir()))}")
    processes = [context.Process(target=_main, args=(rank, world, store, queue, job, arguments)) for rank in range(world)]
    for process in processes:
        process.start()
    try:
        failures = [text for _, text in (queue.get(timeout=SECONDS) for _ in processes) if text]
        assert not failures, failures[0]
        for process in processes:
            process.join(SECONDS)
            assert process.exitcode == 0
    finally:
        for process in processes:
            process.kill()


MOVES = [("fsdp", 2, "plain", 1), ("plain", 2, "fsdp", 3), ("fsdp", 3, "replicated", 2), ("replicated", 2, "fsdp", 2)]
FULL_MOVES = [("hsdp", 4, "fsdp", 3), ("groups", 4, "hsdp", 4), ("fsdp", 3, "groups", 4), ("groups", 4, "plain", 1)]
ALL_MOVES = [*MOVES, *[pytest.param(*move, marks=pytest.mark.full) for move in FULL_MOVES]]


@pytest.mark.parametrize("before, saved_by, after, restored_by", ALL_MOVES)
def test_any_layout_reads_any_layout(tmp_path, before, saved_by, after, restored_by):
    path = tmp_path / "checkpoints"
    ranks(tmp_path, saved_by, save, before, str(path))
    ranks(tmp_path, restored_by, restore, after, str(path))
    assert digest(path)["digest"] == "c7cff5cf461af94d2b4bec0206b0054b5b33faae7414f9e05c17f5aedf4fb566"


def test_replicas_are_written_once(tmp_path):
    ranks(tmp_path, 2, save, "plain", str(tmp_path / "checkpoints"))
    manifest = json.loads((tmp_path / "checkpoints/step-00000001/manifest.a0001.json").read_text())
    pieces = [piece["file"] for tensor in manifest["tensors"].values() for piece in tensor["pieces"]]
    assert len(pieces) == len(full_state()) and set(pieces) == {0, 1}


@pytest.mark.parametrize("job", [restore_with_damage_seen_by_one, restore_another_model, all_damaged, save_different_states,
                                 save_without_restore, refuse_columns], ids=lambda job: job.__name__)
def test_two_ranks(tmp_path, job):
    ranks(tmp_path, 2, job, str(tmp_path / "checkpoints"))
