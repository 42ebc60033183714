"""Damaged and hostile shards: refused with a line that names the shard, before anything outside the file could be read.

All of it runs in this process: if a view could leave its file, this test run would die."""
from __future__ import annotations

import json
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from xxhash import xxh3_128_hexdigest

from mltrain.data import format
from mltrain.data.dataset import open_dataset
from mltrain.data.inspection import inspect, verify
from mltrain.errors import DataError, MissingInput, MltrainError

NAME = "train-00000.arrow"


def shard_of(dataset: Path) -> dict:
    return json.loads((dataset / "manifest.json").read_text())["splits"]["train"]["shards"][0]


def rewrite_manifest(dataset: Path, **values) -> None:
    """Somebody makes the manifest fit what they did to the first shard, totals and fingerprint too."""
    path = dataset / "manifest.json"
    tree = json.loads(path.read_text())
    split = tree["splits"]["train"]
    split["shards"][0].update(values)
    split.update(documents=sum(s["rows"] for s in split["shards"]), tokens=sum(s["tokens"] for s in split["shards"]))
    tree["fingerprint"] = format.fingerprint(msgspec.convert(tree, format.Manifest))
    path.write_text(json.dumps(tree))


def overwrite(at: str, index: int, value: int):
    """Set one of the int64 offsets, or 8 bytes of the values."""
    def damage(dataset: Path) -> None:
        with open(dataset / NAME, "r+b") as file:
            file.seek(shard_of(dataset)["columns"]["tokens"][at] + 8 * index)
            file.write(value.to_bytes(8, "little", signed=True))
    return damage


def truncate(dataset: Path) -> None:
    with open(dataset / NAME, "r+b") as file:
        file.truncate(shard_of(dataset)["bytes"] - 4096)


def truncate_and_say_so(dataset: Path) -> None:
    truncate(dataset)
    rewrite_manifest(dataset, bytes=shard_of(dataset)["bytes"] - 4096)


def empty(dataset: Path) -> None:
    (dataset / NAME).write_bytes(b"")
    rewrite_manifest(dataset, bytes=0)


def replace_by_zeros(dataset: Path) -> None:
    (dataset / NAME).write_bytes(bytes(shard_of(dataset)["bytes"]))


def replace_by_folder(dataset: Path) -> None:
    (dataset / NAME).unlink()
    (dataset / NAME).mkdir()


def swap(dataset: Path) -> None:
    shutil.copy(dataset / "train-00001.arrow", dataset / NAME)


def in_manifest(**values):
    return lambda dataset: rewrite_manifest(dataset, **values)


def buffers(**values):
    def damage(dataset: Path) -> None:
        rewrite_manifest(dataset, columns={"tokens": shard_of(dataset)["columns"]["tokens"] | values})
    return damage


OPENED = {
    "an offset far away": overwrite("offsets", 3, 1 << 60),
    "a negative offset": overwrite("offsets", 3, -8),
    "the last offset moved": lambda d: overwrite("offsets", shard_of(d)["rows"], 0)(d),
    "the first offset is not 0": overwrite("offsets", 0, 1),
    "cut short": truncate,
    "cut short, and the manifest says so": truncate_and_say_so,
    "empty, and the manifest says so": empty,
    "replaced by zeros": replace_by_zeros,
    "replaced by a folder": replace_by_folder,
    "replaced by its neighbour": swap,
    "2**40 rows": in_manifest(rows=1 << 40),
    "2**40 tokens": in_manifest(tokens=1 << 40),
    "2**47 tokens of the right number of bytes": lambda d: rewrite_manifest(
        d, tokens=1 << 46, columns={"tokens": {"offsets": 64, "values": 4096, "values_bytes": 1 << 47}}),
    "values outside the file": buffers(values=1 << 40),
    "values that end outside the file": lambda d: buffers(values=shard_of(d)["bytes"] - 64)(d),
    "values at an odd place": buffers(values=4097),
    "offsets outside the file": buffers(offsets=1 << 47),
    "offsets at an odd place": buffers(offsets=4),
    "offsets where the values are": buffers(offsets=4096),
}


def refused(use, dataset: Path) -> MltrainError:
    with pytest.raises(MltrainError) as caught:
        use(dataset)
    return caught.value


def fetch(dataset: Path) -> None:
    open_dataset(dataset, "train", 32).fetch(np.arange(10))


@pytest.mark.parametrize("damage", OPENED.values(), ids=OPENED)
def test_a_damaged_shard_is_refused_before_the_first_batch(damage, dataset):
    damage(dataset)
    error = refused(fetch, dataset)
    assert (error.code, NAME in error.message, str(error).count("\n") <= 1) == (65, True, True)


@pytest.mark.parametrize("damage", OPENED.values(), ids=OPENED)
def test_inspect_refuses_it_too(damage, dataset):
    damage(dataset)
    assert refused(inspect, dataset).code == 65


@pytest.mark.parametrize("damage", OPENED.values(), ids=OPENED)
def test_verify_names_the_damaged_shard_and_goes_on(damage, dataset):
    damage(dataset)
    problems = verify(dataset)["problems"]
    assert [(p["shard"], p["code"]) for p in problems] == [(NAME, 65)]


def test_a_missing_shard_is_a_missing_input(dataset):
    (dataset / NAME).unlink()
    assert isinstance(refused(fetch, dataset), MissingInput)
    assert [(p["shard"], p["code"]) for p in verify(dataset)["problems"]] == [(NAME, 66)]


def rewritten(dataset: Path, column: pa.Array, name: str = "tokens", batches: int = 1, compression: str | None = None) -> None:
    """Another Arrow file under the shard's name, with a manifest that says what can be said about it."""
    schema = pa.schema([(name, column.type)])
    with pa.ipc.new_file(dataset / NAME, schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        for _ in range(batches):
            writer.write_batch(pa.record_batch([column], schema=schema))
    content = (dataset / NAME).read_bytes()
    rewrite_manifest(dataset, bytes=len(content), digest=xxh3_128_hexdigest(content))


def lists(rows, kind=None) -> pa.Array:
    return pa.array(rows, kind or pa.large_list(pa.uint16()))


FOREIGN = {
    "compressed": (lists([list(range(3000))]), {"compression": "zstd"}),
    "two record batches": (lists([[256, 1, 2]]), {"batches": 2}),
    "nulls among the documents": (lists([[256, 1], None]), {}),
    "nulls among the tokens": (lists([[256, None]]), {}),
    "signed tokens": (lists([[256, 1]], pa.large_list(pa.int16())), {}),
    "32-bit offsets": (lists([[256, 1]], pa.list_(pa.uint16())), {}),
    "text": (pa.array(["text"]), {}),
    "another column": (lists([[256, 1]]), {"name": "images"}),
    "nested": (lists([[[256]]], pa.large_list(pa.large_list(pa.uint16()))), {}),
}


@pytest.mark.parametrize("column, how", FOREIGN.values(), ids=FOREIGN)
def test_an_arrow_file_of_another_kind_is_refused(column, how, dataset):
    rewritten(dataset, column, **how)
    assert [(p["shard"], p["code"]) for p in verify(dataset)["problems"]] == [(NAME, 65)]


def test_a_flipped_bit_in_the_tokens_is_found_by_verify(dataset):
    overwrite("values", 20, 7)(dataset)
    assert "digest" in verify(dataset)["problems"][0]["problem"]


def test_a_token_outside_the_vocabulary_is_found_by_verify(dataset):
    overwrite("values", 20, -1)(dataset)
    rewrite_manifest(dataset, digest=xxh3_128_hexdigest((dataset / NAME).read_bytes()))
    assert "65535" in verify(dataset)["problems"][0]["problem"]


def test_noise_in_the_arrow_metadata_never_does_more_than_refuse(dataset):
    """Every byte outside the tokens is flipped in turn; whatever pyarrow makes of it, it comes out as an error or changes nothing."""
    from mltrain.data.shard import find_buffers
    content = bytearray((dataset / NAME).read_bytes())
    values, step = shard_of(dataset)["columns"]["tokens"], 5
    for at in [*range(0, values["offsets"], step), *range(values["values"] + values["values_bytes"], len(content), step)]:
        content[at] ^= 0xFF
        try:
            rows, dtype, places = find_buffers(content, NAME)
            assert places.values + places.values_bytes <= len(content)
        except DataError:
            pass
        content[at] ^= 0xFF
