"""What `data inspect` and `data verify` tell."""
from __future__ import annotations

import json

import pytest

from mltrain.data.inspection import inspect, verify
from mltrain.data.opening import read_manifest
from mltrain.data.prepare import prepare
from mltrain.errors import MissingInput


def test_the_histogram_counts_every_document_and_token(prepared):
    for name, split in inspect(prepared)["splits"].items():
        assert sum(row["documents"] for row in split["lengths"]) == split["documents"] == read_manifest(prepared)[1].splits[name].documents
        assert sum(row["tokens"] for row in split["lengths"]) == split["tokens"]


def test_lengths_are_in_powers_of_two(tmp_path):
    (tmp_path / "s").mkdir()
    for i, length in enumerate([6, 7, 8, 14]):
        (tmp_path / "s" / f"{i}.txt").write_text("x" * length)
    prepare([str(tmp_path / "s")], tmp_path / "d", holdout=0)
    assert inspect(tmp_path / "d")["splits"]["train"]["lengths"] == [
        {"from": 4, "to": 8, "documents": 1, "tokens": 7}, {"from": 8, "to": 16, "documents": 3, "tokens": 32}]


def test_examples_are_text(prepared):
    examples = inspect(prepared)["splits"]["train"]["examples"]
    assert len(examples) == 3 and all(example["text"].startswith("document ") for example in examples)


def test_it_is_plain_data(prepared):
    assert json.loads(json.dumps(inspect(prepared))) == inspect(prepared)


def test_a_whole_dataset_has_no_problems(prepared):
    told = verify(prepared)
    assert (told["problems"], told["shards"]) == ([], len(list(prepared.glob("*.arrow"))))


def test_all_damaged_shards_are_told(dataset):
    for name in ("train-00001.arrow", "validation-00000.arrow"):
        (dataset / name).write_bytes(b"gone")
    assert [problem["shard"] for problem in verify(dataset)["problems"]] == ["train-00001.arrow", "validation-00000.arrow"]


def test_progress_ends_at_the_last_byte(prepared):
    told = []
    verify(prepared, told.append)
    assert told[-1].bytes_done == told[-1].bytes_total == sum(path.stat().st_size for path in prepared.glob("*.arrow"))


@pytest.mark.parametrize("look", [inspect, verify])
def test_what_is_not_there(look, tmp_path):
    with pytest.raises(MissingInput, match="no dataset at"):
        look(tmp_path / "nowhere")
