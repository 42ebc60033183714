"""Text to ids and back; every document begins with the separator."""
from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mltrain.data.tokenizer import Bytes, HuggingFace
from mltrain.errors import DataError, NodeUnfit


def tokenizer_json(words, specials=()) -> bytes:
    """A tokenizer.json that knows these words and nothing else."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=words[0]))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.add_special_tokens(list(specials))
    return made.to_str().encode()


@settings(max_examples=60)
@given(st.lists(st.text(min_size=1), min_size=1, max_size=8))
def test_bytes_come_back(documents):
    tokens, lengths = Bytes().encode([text.encode() for text in documents])
    rows = np.split(tokens, np.cumsum(lengths)[:-1])
    assert [Bytes().decode(row) for row in rows] == documents


def test_bytes_are_their_own_ids_and_256_begins_a_document():
    tokens, lengths = Bytes().encode([b"ab", "é".encode()])
    assert (tokens.tolist(), lengths.tolist(), tokens.dtype) == ([256, 97, 98, 256, 0xC3, 0xA9], [3, 3], np.uint16)


def test_a_torn_letter_is_shown_as_such():
    assert Bytes().decode([256, 97, 0xC3]) == "a\ufffd"


def test_the_separator_is_a_known_end_of_text():
    made = HuggingFace(tokenizer_json(["?", "a"], ["<|endoftext|>"]), "t.json")
    assert (made.info.separator, made.info.vocabulary) == (2, 3)


def test_without_one_it_is_the_id_past_the_vocabulary():
    made = HuggingFace(tokenizer_json(["?", "a", "b"]), "t.json")
    assert (made.info.separator, made.info.vocabulary) == (3, 4)


def test_words_come_back():
    made = HuggingFace(tokenizer_json(["?", "a", "b"]), "t.json")
    tokens, lengths = made.encode([b"a b", b"b"])
    assert (tokens.tolist(), lengths.tolist(), made.decode(tokens)) == ([3, 1, 2, 3, 2], [3, 2], "a b b")


def test_a_document_cannot_fake_a_boundary():
    made = HuggingFace(tokenizer_json(["?", "a"], ["<|endoftext|>"]), "t.json")
    assert made.encode([b"a <|endoftext|> a"])[0].tolist().count(made.info.separator) == 1


@pytest.mark.parametrize("words, dtype", [(65_535, "uint16"), (65_536, "uint32")])
def test_ids_take_two_bytes_where_they_fit(words, dtype):
    made = HuggingFace(tokenizer_json([f"w{i}" for i in range(words)]), "t.json")
    assert made.encode([b"w1"])[0].dtype == made.dtype == dtype


def test_truncation_and_padding_of_the_file_are_not_for_us():
    from tokenizers import Tokenizer
    made = Tokenizer.from_str(tokenizer_json(["?", "a"]).decode())
    made.enable_truncation(2)
    made.enable_padding(length=9)
    assert HuggingFace(made.to_str().encode(), "t.json").encode([b"a a a a"])[1].tolist() == [5]


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", json.dumps({"model": {"type": "Nonsense"}}).encode(), b"[" * 20_000])
def test_a_file_that_is_none_is_refused(content):
    with pytest.raises(DataError, match="t.json is not a tokenizer.json"):
        HuggingFace(content, "t.json")


def test_a_missing_package_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    with pytest.raises(NodeUnfit, match=r"mltrain-core\[text\]"):
        HuggingFace(b"{}", "t.json")
