"""Windows of tokens out of many shards at once: the right ones, in the stored type, and never from outside."""
from __future__ import annotations

import gc

import fsspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mltrain.data import format, shard
from mltrain.data.dataset import Subset, TokenDataset, open_dataset, some_of
from mltrain.data.format import TokenizerInfo
from mltrain.data.opening import read_manifest
from mltrain.data.store import Store
from mltrain.errors import DataError, MissingInput, UsageError


def streams_of(path) -> list[np.ndarray]:
    """The token stream of each training shard, read the plain way."""
    shards = read_manifest(path)[1].splits["train"].shards
    return [np.fromfile(path / s.name, np.uint16, s.tokens, offset=s.columns["tokens"].values) for s in shards]


def plain_windows(streams, sequence) -> list[list[int]]:
    return [stream[i:i + sequence + 1].tolist() for stream in streams for i in range(0, len(stream) - sequence, sequence)]


@pytest.mark.parametrize("sequence", [1, 7, 32, 300])
def test_every_window_is_what_a_plain_reader_finds(prepared, sequence):
    train = open_dataset(prepared, "train", sequence)
    assert train.fetch(np.arange(len(train)))["tokens"].tolist() == plain_windows(streams_of(prepared), sequence)


@settings(max_examples=30)
@given(st.lists(st.integers(0, 70), min_size=1, max_size=5), st.integers(1, 20), st.sampled_from(["uint16", "uint32"]))
def test_any_shards_and_any_type(tmp_path_factory, lengths, sequence, dtype):
    folder, rng = tmp_path_factory.mktemp("shards"), np.random.default_rng(sum(lengths))
    streams = [rng.integers(0, 60_000, n + 1).astype(dtype) for n in lengths]
    shards = [shard.write(folder / f"{i}.arrow", stream, np.array([len(stream)]), 0) for i, stream in enumerate(streams)]
    manifest = format.new_manifest(dtype, TokenizerInfo("bytes", 60_000, 1), {"train": shards}, "")
    train = TokenDataset(Store(folder), manifest, "train", sequence)
    assert train.fetch(np.arange(len(train)))["tokens"].tolist() == plain_windows(streams, sequence)


def test_windows_are_inputs_and_targets_at_stride_sequence(prepared):
    first, second = open_dataset(prepared, "train", 32).fetch([0, 1])["tokens"].tolist()
    assert (len(first), first[-1]) == (33, second[0])


def test_tokens_come_in_their_stored_type(prepared):
    assert open_dataset(prepared, "train", 32).fetch([5, 3])["tokens"].dtype == torch.uint16


def test_no_samples_are_an_empty_batch(prepared):
    assert open_dataset(prepared, "train", 32).fetch([])["tokens"].shape == (0, 33)


@pytest.mark.parametrize("ids", [[-1], [10**9], [0, 2**62]])
def test_an_id_outside_is_refused(prepared, ids):
    with pytest.raises(IndexError, match="among the"):
        open_dataset(prepared, "train", 32).fetch(ids)


def test_places_are_only_good_for_the_dataset_that_made_them(prepared):
    one, other = (open_dataset(prepared, "train", 32) for _ in range(2))
    with pytest.raises(ValueError, match="another dataset"):
        one.gather(other.locate(np.array([0])))


def test_whoever_holds_places_holds_the_mapping(prepared):
    train = open_dataset(prepared, "train", 32)
    places, expected = train.locate(np.array([3])), train.fetch([3])["tokens"]
    owner = places.owner
    del train
    gc.collect()
    assert owner.gather(places).tolist() == expected.tolist()


def test_a_batch_outlives_the_dataset(prepared):
    batch = open_dataset(prepared, "train", 32).fetch([0])["tokens"]
    gc.collect()
    assert batch.tolist() == plain_windows(streams_of(prepared), 32)[:1]


def test_a_dataset_in_memory_is_the_same(prepared):
    memory = fsspec.filesystem("memory")
    for path in prepared.iterdir():
        memory.pipe(f"/bucket/d/{path.name}", path.read_bytes())
    local, remote = open_dataset(prepared, "train", 32), open_dataset("memory://bucket/d", "train", 32)
    assert remote.fingerprint == local.fingerprint
    assert torch.equal(remote.fetch(np.arange(len(remote)))["tokens"], local.fetch(np.arange(len(local)))["tokens"])


def test_opening_maps_nothing(prepared):
    train = open_dataset(prepared, "train", 32)
    assert (len(train) > 0, "windows" in train.__dict__) == (True, False)


def test_the_fingerprint_knows_the_sequence_and_the_split(prepared):
    prints = [open_dataset(prepared, split, n).fingerprint for split in ("train", "validation") for n in (16, 32)]
    assert len(set(prints)) == 4


def test_some_of_a_dataset_are_always_the_same_ones(prepared):
    train = open_dataset(prepared, "train", 32)
    some, again = some_of(train, 5), some_of(open_dataset(prepared, "train", 32), 5)
    assert isinstance(some, Subset) and len(some) == 5 and some.fingerprint == again.fingerprint
    assert torch.equal(some.fetch([0, 4])["tokens"], again.fetch([0, 4])["tokens"])
    assert some_of(train, 10**6) is train


def test_a_sequence_longer_than_the_data_is_refused(prepared):
    with pytest.raises(DataError, match="no window of 100000 \\+ 1 tokens"):
        open_dataset(prepared, "train", 100_000)


@pytest.mark.parametrize("path, error", [("nowhere", MissingInput), ("memory://nowhere/at/all", MissingInput),
                                         ("nonsense://x", UsageError)])
def test_a_dataset_that_is_not_there(path, error):
    with pytest.raises(error, match=path.partition(":")[0]):
        open_dataset(path, "train", 32)


def test_a_split_that_is_not_there(prepared):
    with pytest.raises(DataError, match="no split test, only train, validation"):
        open_dataset(prepared, "test", 32)
