"""The keys at the root of every recipe: their types, what they mean, and which values make sense."""
from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, get_type_hints

from msgspec import Meta

Positive = Annotated[int, Meta(ge=1)]
Count = Annotated[int, Meta(ge=0)]

GROUPS = ("task", "data", "optimizer", "schedule", "strategy", "precision", "guard", "checkpoint", "launcher", "metrics")    # one node each
NODES = "callback"                               # name -> node

_STEPS = re.compile(r"([0-9][0-9_]*(?:\.[0-9]+)?)\s*([kMBT]?)\s+(epochs?|tokens?|samples?|steps?)")
_TIME = re.compile(r"(?:([0-9]+)d)?(?:([0-9]+)h)?(?:([0-9]+)m)?(?:([0-9]+)s)?")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass
class Root:
    """One field a key; conf/run.yaml gives the values they start with."""

    name: str = field(metadata={"help": "of the run; its id begins with it (default: the recipe's name)"})
    runs: str = field(metadata={"help": "folder that holds the runs"})
    seed: Count = field(metadata={"help": "weights, order of samples and random numbers follow from it"})
    weights: str | None = field(metadata={"help": "to begin with: a folder of `mltrain checkpoint export`, or a safetensors file"})
    threads: Positive = field(metadata={"help": "of each worker for arithmetic; part of the run's identity"})
    steps: int | str = field(metadata={"help": 'optimizer steps, or "3 epochs", "10M tokens", "50k samples"'})
    stop_at: Positive | None = field(metadata={"help": "stop hard after this step; schedules still follow `steps`"})
    time_limit: int | str | None = field(metadata={"help": 'save and stop after so long: seconds, or "1h30m"'})
    global_batch: Positive = field(metadata={"help": "samples an optimizer step, over all workers"})
    micro_batch: Positive | None = field(metadata={"help": "samples a forward pass"})
    eval_every: Count = field(metadata={"help": "steps between evaluations; 0: only at the end"})
    clip: Annotated[float, Meta(gt=0)] | None = field(metadata={"help": "largest gradient norm; null: no clipping"})
    compare_every: Count = field(metadata={"help": "steps between comparisons of the replicas' weights, bit for bit; 0: never"})
    x: dict[str, Any] = field(default_factory=dict, metadata={"help": "free: values of your own, to refer to as ${x.NAME}"})
    meta: dict[str, str] = field(default_factory=dict, metadata={"help": "of the recipe: title, needs, expect"})


HINTS: dict[str, Any] = get_type_hints(Root, include_extras=True)
HELP = {each.name: each.metadata["help"] for each in fields(Root)}


def steps(value: int | str) -> tuple[float, str]:
    """How long to train: (number, unit) with unit steps, epochs, tokens or samples. "10M tokens" is (1e7, "tokens"). Raises ValueError."""
    if isinstance(value, int):
        number, unit = float(value), "steps"
    else:
        match = _STEPS.fullmatch(value.strip())
        if not match:
            raise ValueError('write a number of steps, or "3 epochs", "10M tokens", "50k samples"')
        number = float(match[1].replace("_", "")) * {"": 1, "k": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}[match[2]]
        unit = match[3].rstrip("s") + "s"
    if number <= 0:
        raise ValueError("give a number above 0")
    return number, unit


def seconds(value: int | str) -> int:
    """A length of time: seconds, or "90s", "30m", "1h30m", "2d". Raises ValueError."""
    if isinstance(value, str):
        match = _TIME.fullmatch(value.strip())
        if not match or not any(match.groups()):
            raise ValueError('write seconds, or "90s", "30m", "1h30m", "2d"')
        value = sum(int(count or 0) * unit for count, unit in zip(match.groups(), (86400, 3600, 60, 1), strict=True))
    if value <= 0:
        raise ValueError("give a time above 0")
    return value


def faults(tree: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(key, what is wrong) for values whose type is right."""
    for key, parse in (("steps", steps), ("time_limit", seconds)):
        value = tree.get(key)
        if isinstance(value, (int, str)) and not isinstance(value, bool) and value != "???":
            try:
                parse(value)
            except ValueError as error:
                yield key, str(error)
    name = tree.get("name")
    if isinstance(name, str) and not _NAME.fullmatch(name):
        yield "name", "a run's name is a folder: letters, digits, - _ . (at most 100, the first a letter or digit)"
