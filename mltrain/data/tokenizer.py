"""Text to token ids and back. Every document begins with the separator, so document boundaries can be read off a stream of tokens.

    Bytes()                    ids 0-255 are the bytes, 256 is the separator, vocabulary 257; always there
    HuggingFace(json, name)    a tokenizer.json of Hugging Face `tokenizers` (the extra `text`)
"""
from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_128_hexdigest

from mltrain.data.format import TokenizerInfo
from mltrain.data.shard import Tokens
from mltrain.data.store import Store
from mltrain.errors import DataError
from mltrain.extras import require

FILE, _LARGEST_FILE = "tokenizer.json", 1 << 28
_SEPARATORS = ("<|endoftext|>", "<|end_of_text|>", "<|begin_of_text|>", "</s>", "<s>", "<eos>", "<bos>", "[SEP]")


class Tokenizer(Protocol):
    """info: kind, vocabulary, separator. dtype: uint16 where all ids fit, else uint32."""

    info: TokenizerInfo
    dtype: str

    def encode(self, documents: list[bytes]) -> tuple[Tokens, NDArray[np.int64]]:
        """Tokens of UTF-8 documents one after the other, each beginning with the separator, and how many each has."""

    def decode(self, ids: Any) -> str:
        """Text of token ids (anything numpy takes). Separators become nothing, what is no valid text becomes U+FFFD."""


class Bytes:
    info = TokenizerInfo("bytes", 257, 256)
    dtype = "uint16"

    def encode(self, documents: list[bytes]) -> tuple[Tokens, NDArray[np.int64]]:
        lengths = np.fromiter(map(len, documents), np.int64, len(documents)) + 1
        joined = b"\0".join([b"", *documents])              # one byte before each document: room for its separator
        tokens = np.frombuffer(joined, np.uint8).astype(np.uint16)
        tokens[np.cumsum(lengths) - lengths] = 256
        return tokens, lengths

    def decode(self, ids: Any) -> str:
        values = np.asarray(ids).reshape(-1)
        return values[values < 256].astype(np.uint8).tobytes().decode("utf-8", "replace")


class HuggingFace:
    """content: the bytes of a tokenizer.json. The separator is its own end- or beginning-of-text token, else one id past its vocabulary."""

    def __init__(self, content: bytes, where: str) -> None:
        module = require("tokenizers", f"the tokenizer {where}")
        try:
            self._tokenizer = module.Tokenizer.from_str(content.decode())
        except Exception as error:  # noqa: BLE001 the library raises bare Exception for a bad file
            raise DataError(f"{where} is not a tokenizer.json of Hugging Face tokenizers: {str(error)[:160]}") from None
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        # A document that spells out "<|endoftext|>" must not get that token's id: it would look like a document boundary.
        self._tokenizer.encode_special_tokens = True
        known = self._tokenizer.get_vocab(with_added_tokens=True)
        if not known:
            raise DataError(f"{where} has an empty vocabulary")
        largest = max(known.values())
        separator = next((known[name] for name in _SEPARATORS if name in known), largest + 1)
        self.info = TokenizerInfo("huggingface", max(largest, separator) + 1, separator, xxh3_128_hexdigest(content))
        self.dtype = "uint16" if self.info.vocabulary <= 1 << 16 else "uint32"

    def encode(self, documents: list[bytes]) -> tuple[Tokens, NDArray[np.int64]]:
        encoded = self._tokenizer.encode_batch_fast([text.decode() for text in documents], add_special_tokens=False)
        rows = [one.ids for one in encoded]
        lengths = np.fromiter(map(len, rows), np.int64, len(rows)) + 1
        tokens: Tokens = np.empty(int(lengths.sum()), self.dtype)
        for row, begin, end in zip(rows, (np.cumsum(lengths) - lengths).tolist(), np.cumsum(lengths).tolist(), strict=True):
            tokens[begin] = self.info.separator
            tokens[begin + 1:end] = row
        return tokens, lengths

    def decode(self, ids: Any) -> str:
        values = np.asarray(ids).reshape(-1)
        text: str = self._tokenizer.decode(values[values != self.info.separator].tolist(), skip_special_tokens=False)
        return text


def open_tokenizer(store: Store, info: TokenizerInfo) -> Tokenizer:
    """The tokenizer that a dataset was made with."""
    if info.kind == "bytes":
        return Bytes()
    if info.kind != "huggingface":
        raise DataError(f"{store.path} was made with a tokenizer of kind {info.kind[:40]!r}; this mltrain knows bytes and huggingface")
    content = store.read(FILE, _LARGEST_FILE)
    if xxh3_128_hexdigest(content) != info.digest:
        raise DataError(f"{store.where(FILE)} is not the tokenizer the dataset was made with",
                        "copy it again, or prepare the dataset again")
    return HuggingFace(content, store.where(FILE))
