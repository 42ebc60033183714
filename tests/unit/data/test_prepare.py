"""Preparing a dataset: the same input gives the same data, interrupted or not; nothing half-made is ever seen; nothing is overwritten."""
from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mltrain.data import builder, shard, workplace
from mltrain.data import prepare as preparing
from mltrain.data.inspection import verify
from mltrain.data.opening import read_manifest
from mltrain.data.prepare import prepare
from mltrain.data.tokenizer import Bytes
from mltrain.errors import DataError, MissingInput, StorageError, UsageError


def documents_of(dataset: Path, split: str) -> list[str]:
    """As any Arrow reader sees them."""
    manifest = read_manifest(dataset)[1]
    batches = [pa.ipc.open_file(dataset / s.name).get_batch(0) for s in manifest.splits[split].shards]
    return [Bytes().decode(row) for batch in batches for row in batch.column("tokens").to_pylist()]


def make(texts: Path, out: Path, **how) -> preparing.Prepared:
    return prepare([str(texts)], out, **{"holdout": 0.25, "shard_tokens": 2500, **how})


def test_every_document_is_there_once_and_in_order(texts, prepared):
    written = [path.read_text() for path in sorted(texts.iterdir())]
    train, validation = documents_of(prepared, "train"), documents_of(prepared, "validation")
    assert sorted(train + validation) == sorted(written)
    assert train == [text for text in written if text in set(train)]


def test_other_programs_read_the_shards(prepared):
    for path in prepared.glob("*.arrow"):
        pa.ipc.open_file(path).read_all().validate(full=True)


def test_the_split_follows_from_the_text_alone(prepared):
    assert all(builder.draw(text.encode()) < 0.25 for text in documents_of(prepared, "validation"))


def test_the_holdout_is_the_share_that_was_asked_for():
    drawn = [builder.draw(f"document {i}".encode()) for i in range(20_000)]
    assert abs(np.mean(np.array(drawn) < 0.05) - 0.05) < 0.005


@settings(max_examples=40)
@given(st.lists(st.integers(1, 900), min_size=1, max_size=30), st.sampled_from(["uint16", "uint32"]))
def test_tokens_begin_on_a_page(tmp_path_factory, lengths, dtype):
    path = tmp_path_factory.mktemp("shard") / "x.arrow"
    made = shard.write(path, np.zeros(sum(lengths), dtype), np.array(lengths), 0)
    assert made.columns["tokens"].values % 4096 == 0 and made.bytes == path.stat().st_size


def test_the_fingerprint_does_not_depend_on_path_or_time(texts, prepared, tmp_path):
    again = make(texts, tmp_path / "again")
    assert again.manifest.fingerprint == read_manifest(prepared)[1].fingerprint


def test_made_in_one_go_and_in_many_rounds_the_text_is_the_same(texts, prepared, tmp_path):
    make(texts, tmp_path / "one", shard_tokens=1 << 20)
    assert documents_of(tmp_path / "one", "train") == documents_of(prepared, "train")


def test_a_finished_dataset_is_left_alone(texts, tmp_path):
    first = make(texts, tmp_path / "d")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "d").iterdir()}
    second = make(texts, tmp_path / "d")
    assert (first.already, second.already, second.manifest) == (False, True, first.manifest)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "d").iterdir()} == before


@pytest.mark.parametrize("how", [{"holdout": 0.5}, {"shard_tokens": 999}], ids=["holdout", "shard tokens"])
def test_other_arguments_are_refused(texts, tmp_path, how):
    make(texts, tmp_path / "d")
    with pytest.raises(UsageError, match="other sources, files that changed since, or with other arguments"):
        make(texts, tmp_path / "d", **how)


def test_a_folder_that_is_no_dataset_is_not_touched(texts, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="exists and is no dataset"):
        make(texts, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


class Killed(BaseException):
    """Stands for a SIGKILL: nothing after it runs (see the patched close)."""


def interrupt(monkeypatch, writes: int) -> None:
    """Die at the given call that writes or publishes something, leaving the disk as it is then."""
    left = [writes]

    def dying(real):
        def call(*args, **kwargs):
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return real(*args, **kwargs)
        return call
    for where, name in ((shard, "_write_batch"), (os, "fsync"), (os, "rename"), (Path, "unlink")):
        monkeypatch.setattr(where, name, dying(getattr(where, name)))
    monkeypatch.setattr(workplace.Workplace, "close", lambda self: os.close(self._lock))


@pytest.mark.parametrize("writes", [*range(0, 44, 4), *range(44, 54)])
def test_interrupted_anywhere_it_goes_on_to_the_same_dataset(texts, prepared, tmp_path, monkeypatch, writes):
    with monkeypatch.context() as patch:
        interrupt(patch, writes)
        try:
            make(texts, tmp_path / "d")
        except Killed:
            assert writes == 52 or not (tmp_path / "d").exists()          # only the last fsync comes after it is there
    done = make(texts, tmp_path / "d")
    assert done.manifest.fingerprint == read_manifest(prepared)[1].fingerprint
    assert sorted(os.listdir(tmp_path / "d")) == sorted(os.listdir(prepared))
    assert verify(tmp_path / "d")["problems"] == []


def test_what_was_finished_is_not_made_again(texts, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt(patch, 12)
        with pytest.raises(Killed):
            make(texts, tmp_path / "d")
    finished = {path.name: path.stat().st_ino for path in (tmp_path / "d.partial").glob("*.arrow")}
    done = make(texts, tmp_path / "d")
    kept = [name for name, inode in finished.items() if (tmp_path / "d" / name).stat().st_ino == inode]
    assert done.resumed and len(kept) >= 2


def test_an_unfinished_one_with_other_arguments_is_refused(texts, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt(patch, 12)
        with pytest.raises(Killed):
            make(texts, tmp_path / "d")
    with pytest.raises(UsageError, match="unfinished prepare with other"):
        make(texts, tmp_path / "d", holdout=0.1)


def test_two_at_once_are_kept_apart(texts, tmp_path):
    place = workplace.Workplace(tmp_path / "d", "inputs")
    with pytest.raises(StorageError, match="another prepare is at work"):
        make(texts, tmp_path / "d")
    place.close()


def test_a_full_disk_keeps_what_is_finished(texts, prepared, tmp_path, monkeypatch):
    calls, real = [0], shard._write_batch

    def full(*args):
        calls[0] += 1
        if calls[0] == 10:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(*args)
    with monkeypatch.context() as patch:
        patch.setattr(shard, "_write_batch", full)
        with pytest.raises(StorageError, match="No space left on device\n  free some space; what is finished is kept"):
            make(texts, tmp_path / "d")
    assert make(texts, tmp_path / "d").manifest.fingerprint == read_manifest(prepared)[1].fingerprint


def test_a_bad_source_leaves_nothing_behind(tmp_path):
    (tmp_path / "a.jsonl").write_text("bad\n")
    with pytest.raises(DataError, match="a.jsonl:1"):
        prepare([str(tmp_path / "a.jsonl")], tmp_path / "d")
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_sources_without_text_are_refused(tmp_path):
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(DataError, match="hold no text .skipped: 1 empty"):
        prepare([str(tmp_path / "empty.txt")], tmp_path / "d")


@pytest.mark.parametrize("count, train, validation", [(1, 1, 0), (2, 1, 1), (5, 4, 1)])
def test_a_small_set_is_split_as_well_as_it_can_be(tmp_path, count, train, validation):
    (tmp_path / "s").mkdir()
    for i in range(count):
        (tmp_path / "s" / f"{i}.txt").write_text(f"small document {i}")
    splits = prepare([str(tmp_path / "s")], tmp_path / "d", holdout=1e-9).manifest.splits
    assert (splits["train"].documents, splits["validation"].documents) == (train, validation)


def test_a_large_holdout_leaves_something_to_train_on(tmp_path):
    (tmp_path / "a.txt").write_text("a single document")
    assert prepare([str(tmp_path / "a.txt")], tmp_path / "d", holdout=1 - 1e-12).manifest.splits["train"].documents == 1


def test_without_holdout_there_is_no_validation(texts, tmp_path):
    assert list(make(texts, tmp_path / "d", holdout=0).manifest.splits) == ["train"]


@pytest.mark.parametrize("how, error", [({"holdout": 1.0}, UsageError), ({"holdout": -0.1}, UsageError),
                                        ({"holdout": float("nan")}, UsageError), ({"shard_tokens": 0}, UsageError),
                                        ({"tokenizer": "nowhere.json"}, MissingInput)])
def test_wrong_arguments_are_refused_before_anything_is_written(texts, tmp_path, how, error):
    with pytest.raises(error):
        make(texts, tmp_path / "d", **how)
    assert list(tmp_path.iterdir()) == []


def test_a_remote_target_is_refused(texts):
    with pytest.raises(UsageError, match="local folder"):
        prepare([str(texts)], "s3://bucket/d")


def test_progress_is_told_in_bytes_of_the_sources(texts, tmp_path, monkeypatch):
    monkeypatch.setattr(preparing, "_EVERY_DOCUMENTS", 10)
    told = []
    make(texts, tmp_path / "d", report=told.append)
    assert [state.documents for state in told] == [10, 20, 30, 40, 50, 60]
    assert told[-1].bytes_done == told[-1].bytes_total == sum(path.stat().st_size for path in texts.iterdir())


def test_a_tokenizer_file_goes_with_the_data(texts, tmp_path):
    from test_tokenizer import tokenizer_json
    (tmp_path / "t.json").write_bytes(tokenizer_json(["?", "document", "words"]))
    make(texts, tmp_path / "d", tokenizer=str(tmp_path / "t.json"))
    assert (tmp_path / "d" / "tokenizer.json").read_bytes() == (tmp_path / "t.json").read_bytes()
    assert verify(tmp_path / "d")["problems"] == []
