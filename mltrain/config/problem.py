"""A mistake in a recipe as data: which key, what is wrong, what to do, and the file and line (or command line) that wrote it.

Every check collects Problems; `render` prints them all at once and `refuse` turns them into one ConfigError (78).
"""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mltrain.errors import ConfigError

Path_ = tuple[str, ...]          # where a value stands in the tree: ("optimizer", "lr"); elements of lists by their number


@dataclass(frozen=True, slots=True)
class Origin:
    """Who set a value last. file: None for the command line. line: 1 is the first; 0 when not known."""

    file: str | None = None
    line: int = 0

    def __str__(self) -> str:
        if self.file is None:
            return "command line"
        return f"{self.file}:{self.line}" if self.line else self.file


COMMAND_LINE = Origin()
UNKNOWN = Origin("unknown")


@dataclass(frozen=True, slots=True)
class Problem:
    """key: dotted. value: as written (None when nothing was). message: what is wrong. hint: what to do. origin: None if nobody set it."""

    key: str
    message: str
    hint: str = ""
    value: object = None
    origin: Origin | None = None

    def to_dict(self) -> dict[str, object]:
        """Plain JSON data, as `mltrain check --json` prints it."""
        return {"key": self.key, "value": self.value, "message": self.message, "hint": self.hint,
                "file": self.origin.file if self.origin else None, "line": self.origin.line if self.origin else 0,
                "origin": str(self.origin) if self.origin else None}


def dotted(path: Iterable[str]) -> str:
    return ".".join(path)


def near_file(path: Path, directory: Path) -> str:
    """How a file is named in messages: relative to the working directory when it lies below it."""
    try:
        return str(path.relative_to(directory))
    except ValueError:
        return str(path)


def shown(value: object) -> str:
    """A value for a message: short, on one line."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def did_you_mean(near: str | None, valid: Sequence[str] = ()) -> str:
    """The hint for an unknown name: the nearest valid one, else all of them."""
    if near:
        return f"did you mean {near!r}?"
    return f"one of: {', '.join(valid)}" if valid else ""


def render(problems: Sequence[Problem]) -> str:
    """All problems as text, two or three lines each, and a count."""
    width = min(28, max((len(problem.key) for problem in problems), default=0))
    lines: list[str] = []
    for problem in problems:
        lines.append(f"error  {problem.key:{width}}  {problem.message}")
        lines += [f"       {text}" for text in (problem.hint, f"set in {problem.origin}" if problem.origin else "") if text]
    count = len(problems)
    return "\n".join([*lines, f"{count} error{'' if count == 1 else 's'}. Nothing was started."])


def refuse(problems: Sequence[Problem]) -> None:
    """Raise one ConfigError (78) with every problem in it, two lines if it is a single one; nothing when there is none."""
    if len(problems) == 1:
        (one,) = problems
        text = one.message if one.message.startswith(one.key) else f"{one.key}: {one.message}"
        raise ConfigError(text + (f" ({one.origin})" if one.origin else ""), one.hint)
    if problems:
        raise ConfigError(f"the recipe has {len(problems)} mistakes\n{render(problems)}")
