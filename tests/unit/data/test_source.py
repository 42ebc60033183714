"""What a recipe's `data` names."""
from __future__ import annotations

import numpy as np
import pytest

from mltrain.data import source
from mltrain.data.prepare import prepare
from mltrain.data.source import Tokens
from mltrain.data.workplace import Workplace
from mltrain.errors import DataError, MissingInput


def test_it_gives_both_splits(prepared):
    data = Tokens(str(prepared), 32)
    assert (data.train.split, data.validation.split) == ("train", "validation")


def test_validation_may_be_limited(prepared):
    assert len(Tokens(str(prepared), 32, validation_samples=7).validation) == 7


def test_it_describes_what_a_run_records(prepared):
    data = Tokens(str(prepared), 32, validation_samples=7)
    told = data.describe()
    assert (told["tokenizer"], told["vocabulary"], told["separator"], told["dtype"]) == ("bytes", 257, 256, "uint16")
    assert (told["fingerprint"], told["samples"]) == (data.fingerprint, {"train": len(data.train), "validation": 7})
    held_out = data.manifest.splits["validation"]
    assert told["bytes_per_token"] == (held_out.tokens - held_out.documents) / held_out.tokens


def test_the_fingerprint_needs_no_shard(dataset):
    for path in dataset.glob("*.arrow"):
        path.unlink()
    assert len(Tokens(str(dataset), 32).fingerprint) == 32


def test_a_missing_dataset_says_how_to_make_it(tmp_path):
    with pytest.raises(MissingInput, match=f"mltrain data prepare SOURCE... --out {tmp_path}/d"):
        Tokens(f"{tmp_path}/d", 32).prepare()


def test_a_missing_dataset_is_made_from_its_source(texts, tmp_path):
    data = Tokens(f"{tmp_path}/d", 32, source=str(texts))
    assert (data.prepare().already, data.prepare(), len(data.train) > 0) == (False, None, True)


def test_another_process_that_prepares_it_is_waited_for(texts, tmp_path, monkeypatch, capsys):
    other = Workplace(tmp_path / "d", "inputs")
    monkeypatch.setattr(source, "wait_for_other", lambda out: other.close())
    assert not Tokens(f"{tmp_path}/d", 32, source=str(texts)).prepare().already
    assert "waiting for another process" in capsys.readouterr().err


def test_an_interrupted_prepare_is_named(tmp_path):
    (tmp_path / "d.partial").mkdir()
    with pytest.raises(MissingInput, match="was interrupted"):
        _ = Tokens(f"{tmp_path}/d", 32).train


def test_without_holdout_there_is_no_validation(texts, tmp_path):
    prepare([str(texts)], tmp_path / "d", holdout=0)
    assert Tokens(str(tmp_path / "d"), 32).validation is None


@pytest.mark.parametrize("sequence", [0, -1, 10**6])
def test_an_impossible_sequence_is_refused(prepared, sequence):
    with pytest.raises(DataError, match=str(sequence)):
        _ = Tokens(str(prepared), sequence).train


def test_a_sample_can_be_read(prepared):
    data = Tokens(str(prepared), 32)
    assert "document" in data.tokenizer.decode(data.train.fetch(np.array([0]))["tokens"])
