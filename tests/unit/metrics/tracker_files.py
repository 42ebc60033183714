"""Readers of what trackers leave on the disk, written from the formats: what a test claims is what is in the files."""
from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_BLOCK = 32768


def wandb_records(file: Path) -> Iterator[Any]:
    """The messages of a .wandb file: LevelDB's log format after a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record
    data, at, parts = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if _BLOCK - at % _BLOCK < 7:
            at += _BLOCK - at % _BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        parts += data[at + 7:at + 7 + length]
        at += 7 + length
        if kind in (1, 4):                       # whole, or the last part
            record = Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


def wandb_files(run: Path, limit: float = 30.0) -> list[Path]:
    """All of them, once they are whole: the client's own process writes the last of them after its `finish` has returned."""
    files = sorted(run.glob("wandb/offline-run-*/*.wandb"))
    end = time.monotonic() + limit
    while not all(any(record.HasField("exit") for record in wandb_records(file)) for file in files):
        assert time.monotonic() < end, f"not whole within {limit} s: {files}"
        time.sleep(0.02)
    return files


def wandb_rows(file: Path) -> list[dict[str, Any]]:
    """What was logged, row by row."""
    return [{item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
            for record in wandb_records(file) if record.HasField("history")]


def tensorboard_curve(folder: Path, tag: str) -> list[tuple[int, float]]:
    """(step, value) as TensorBoard itself reads them: all files of a folder, with what restarts replace taken out."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    reader = EventAccumulator(str(folder), size_guidance={"tensors": 0, "scalars": 0})
    reader.Reload()
    if tag in reader.Tags()["scalars"]:
        return [(event.step, event.value) for event in reader.Scalars(tag)]
    return [(event.step, float(event.tensor_proto.float_val[0])) for event in reader.Tensors(tag)]
