"""The manifest: what counts as the same dataset, and what is refused."""
from __future__ import annotations

import json

import msgspec
import pytest

from mltrain.data import format
from mltrain.data.format import Buffers, Shard, TokenizerInfo
from mltrain.errors import DataError

SHARD = Shard("train-00000.arrow", 2, 10, 8, 1000, "0" * 32, {"tokens": Buffers(64, 128, 20)})
BYTES = TokenizerInfo("bytes", 257, 256)


def manifest(*shards: Shard, dtype: str = "uint16", inputs: str = "") -> format.Manifest:
    return format.new_manifest(dtype, BYTES, {"train": list(shards or [SHARD])}, inputs)


def edited(change, keep_fingerprint: bool = False) -> bytes:
    """A manifest as somebody with an editor would leave it; its fingerprint is made to fit, so that other checks are reached."""
    tree = json.loads(format.encode(manifest()))
    change(tree)
    if not keep_fingerprint:
        try:
            tree["fingerprint"] = format.fingerprint(msgspec.convert(tree, format.Manifest))
        except msgspec.ValidationError:
            pass
    return json.dumps(tree).encode()


def test_what_is_written_is_read():
    assert format.decode(format.encode(manifest()), "here") == manifest()


def test_the_fingerprint_is_what_it_was():
    """Runs record it: it may never change for the same data."""
    assert manifest().fingerprint == "7b18297ab2efdc8f56e69e9be3b1710e"


def test_the_fingerprint_does_not_depend_on_what_the_data_came_from():
    assert manifest(inputs="a").fingerprint == manifest(inputs="b").fingerprint


@pytest.mark.parametrize("field, value", [("digest", "1" * 32), ("rows", 3), ("tokens", 11), ("bytes", 999), ("name", "b.arrow")])
def test_the_fingerprint_depends_on_every_shard(field, value):
    assert manifest(msgspec.structs.replace(SHARD, **{field: value})).fingerprint != manifest().fingerprint


def test_the_order_of_shards_counts():
    other = msgspec.structs.replace(SHARD, name="b.arrow")
    assert manifest(SHARD, other).fingerprint != manifest(other, SHARD).fingerprint


def rename(name):
    return lambda tree: tree["splits"]["train"]["shards"][0].update(name=name)


def in_shard(**values):
    def change(tree):
        shard = tree["splits"]["train"]["shards"][0]
        shard.update(values)
        tree["splits"]["train"].update(documents=shard["rows"], tokens=shard["tokens"])
    return change


HOSTILE = {
    "a name that climbs": (rename("../../etc/passwd"), "stay inside"),
    "a name that climbs later": (rename("a/../../b.arrow"), "stay inside"),
    "an absolute name": (rename("/etc/passwd"), "stay inside"),
    "a name on another store": (rename("s3://other/train.arrow"), "stay inside"),
    "a hidden name": (rename(".ssh/id"), "stay inside"),
    "a name with a zero byte": (rename("a\0b"), "stay inside"),
    "a name on Windows": (rename("c:\\x"), "stay inside"),
    "an empty name": (rename(""), "stay inside"),
    "rows beyond all reason": (in_shard(rows=2**60), "damaged"),
    "negative tokens": (in_shard(tokens=-1), "damaged"),
    "a digest that is none": (in_shard(digest="x"), "damaged"),
    "a number as text": (in_shard(rows="2"), "damaged"),
    "an unknown field": (in_shard(more=1), "damaged"),
    "another column": (in_shard(columns={"images": {"offsets": 0, "values": 0, "values_bytes": 0}}), "columns"),
    "no splits": (lambda tree: tree.pop("splits"), "damaged"),
    "a split with a path for a name": (lambda tree: tree["splits"].update({"../x": tree["splits"]["train"]}), "name for a split"),
    "a later version": (lambda tree: tree.update(version=2, more="things"), "format version 2"),
    "another format": (lambda tree: tree.update(format="parquet"), "not the manifest"),
    "another type of token": (lambda tree: tree.update(schema={"tokens": "large_list<float>"}), "schema"),
    "a vocabulary that does not fit": (lambda tree: tree["tokenizer"].update(vocabulary=70_000), "do not fit"),
    "totals that are no sums": (lambda tree: tree["splits"]["train"].update(tokens=9), "not the sums"),
    "a shard twice": (lambda tree: tree["splits"].update(test=tree["splits"]["train"]), "listed twice"),
}


@pytest.mark.parametrize("change, words", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_manifest_is_refused(change, words):
    with pytest.raises(DataError, match=words) as caught:
        format.decode(edited(change), "data/manifest.json")
    assert "data/manifest.json" in caught.value.message and str(caught.value).count("\n") <= 1


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"format":' * 50_000],
                         ids=lambda text: repr(text[:12]))
def test_what_is_no_manifest_is_refused(text):
    with pytest.raises(DataError, match="manifest"):
        format.decode(text, "manifest.json")


def test_an_edited_number_is_seen():
    text = edited(lambda tree: tree["splits"]["train"]["shards"][0].update(bytes=1001), keep_fingerprint=True)
    with pytest.raises(DataError, match="fingerprint does not match"):
        format.decode(text, "manifest.json")
