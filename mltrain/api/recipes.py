"""Recipes: compose, check, list, show, copy; a project to begin with; the names that completion offers."""
from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from mltrain.config.compose import Composed
    from mltrain.config.problem import Problem


def compose(overrides: Sequence[str], directory: Path | str | None = None) -> Composed:
    """The tree of `recipe=NAME key=value ...` and the origin of each value. Raises MissingInput (66), UsageError (64), ConfigError (78)."""
    from mltrain.config.compose import compose as compose_
    return compose_(overrides, directory)


def checked(overrides: Sequence[str], directory: Path | str | None = None) -> tuple[Composed, list[Problem]]:
    """A composed recipe and everything wrong with it, sums that do not come out included."""
    from mltrain.beginning import checked as checked_
    return checked_(overrides, directory)


def check(overrides: Sequence[str], directory: Path | str | None = None) -> list[Problem]:
    """Every mistake in a recipe; [] if there is none."""
    return checked(overrides, directory)[1]


def refuse(problems: Sequence[Problem]) -> None:
    """Raise one ConfigError (78) with all of them; nothing when there is none."""
    from mltrain.config.problem import refuse as refuse_
    refuse_(problems)


def recipes(directory: Path | str = ".") -> list[dict[str, Any]]:
    """Every recipe that can be named from here: name, title, needs, expect, file, home."""
    from mltrain.config.catalog import catalog
    return catalog(Path(directory))


def show(overrides: Sequence[str], directory: Path | str | None = None) -> Composed:
    """A composed recipe, for reading. Raises ConfigError with everything that keeps it from being composed."""
    from mltrain.config.problem import refuse
    composed = compose(overrides, directory)
    refuse(composed.problems)
    return composed


def copy(name: str, destination: Path | str, directory: Path | str = ".") -> Path:
    """Copy a recipe's file. Raises UsageError (64) if something is there already."""
    from mltrain.config.catalog import copy as copy_
    return copy_(name, Path(destination), Path(directory))


def new(folder: Path | str) -> list[Path]:
    """Make a project to start from; the files it made. Raises UsageError (64) if the folder is not empty."""
    from mltrain.skeleton import make
    return make(Path(folder))


def recipe_names(directory: Path | str = ".") -> list[str]:
    """Names alone, without reading a file: for completion, as the next two."""
    from mltrain.config.names import recipe_names as names
    return names(Path(directory))


def option_names(directory: Path | str = ".") -> dict[str, list[str]]:
    """The options of each group."""
    from mltrain.config.names import option_names as names
    return names(Path(directory))


def key_names(overrides: Sequence[str], parent: tuple[str, ...], directory: Path | str = ".") -> dict[str, bool]:
    """Keys below `parent` of what `overrides` name (the recipe, groups' options), and whether each has keys of its own."""
    from mltrain.config.names import key_names as names
    chosen = {key: value for key, _, value in (word.partition("=") for word in overrides) if "." not in key}
    return names(Path(directory), chosen.pop("recipe", ""), chosen, parent)
