"""From `recipe=NAME key=value ...` to one plain tree: which files, in which order, and what each set.

    composed = compose(["recipe=gpt/tiny", "optimizer.lr=1e-3"])
    composed.tree["optimizer"]["lr"], composed.origins["optimizer.lr"]        # 0.001, command line

Lowest first: conf/run.yaml, an option of each group, the recipe's parents, the recipe, experiment, the site file, the command line.
What is wrong but leaves a tree (an unknown option, a missing variable) is in `.problems`, and `check` repeats it: such a tree
must not be built.
"""
from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mltrain.config import interpolation
from mltrain.config.defaults import MANY, Defaults
from mltrain.config.layers import Override, layers, parse
from mltrain.config.origin import Layered
from mltrain.config.problem import COMMAND_LINE, Origin, Path_, Problem, did_you_mean
from mltrain.config.sources import sources
from mltrain.config.suggest import nearest
from mltrain.config.targets import Allowed
from mltrain.errors import UsageError

SITE_ONLY = ("allow_targets",)                   # keys of the site file that are no part of a run


@dataclass(frozen=True)
class Composed:
    """tree: plain dict. origins: dotted key -> Origin. recipe: its name. directory: where it was composed.
    allowed: which `_target_` may be built. notes: worth saying, not wrong. overrides: as given."""

    tree: dict[str, Any]
    origins: dict[str, Origin]
    recipe: str
    directory: Path
    overrides: list[str]
    allowed: Allowed
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def origin(self, path: Path_) -> Origin | None:
        """Who set the value at a path, or what is around it."""
        while path and ".".join(path) not in self.origins:
            path = path[:-1]
        return self.origins.get(".".join(path))


def compose(overrides: Sequence[str], directory: Path | str | None = None) -> Composed:
    """Compose a recipe as seen from `directory` (the working directory). Raises MissingInput (66) for an unknown recipe, UsageError
    (64) for an override that cannot be read, ConfigError (78) for a file that cannot be."""
    name, rest = _recipe(overrides)
    places = sources(Path(directory or "."), name)
    defaults = Defaults(places, name)
    problems: list[Problem] = []
    choices, values = _split([parse(text) for text in rest], defaults, problems)
    layered = Layered()
    for layer in layers(defaults.lists(), defaults.root, [*defaults.choices(), *choices]):
        document = defaults.document(layer.config)
        layered.lay(document, layer.package, SITE_ONLY if layer.config == defaults.site else ())
    _apply(values, layered, problems)
    problems += defaults.problems + interpolation.resolve(layered)
    if layered.tree.get("name") is None:
        layered.tree["name"] = re.sub(r"[^A-Za-z0-9._-]+", "-", name if name in places.recipes else Path(name).stem).strip("-.") or "run"
    if layered.tree.get("callback") is None:     # ~callback, or every option of it taken away
        layered.tree["callback"] = {}
    allowed = Allowed.of(places.project, sorted(places.used_packages), defaults.site_targets())
    return Composed(layered.tree, layered.dotted(), name, places.directory, list(overrides), allowed, problems, places.notes)


def _recipe(overrides: Sequence[str]) -> tuple[str, list[str]]:
    """The recipe's name or path, and the other overrides."""
    names = [text.partition("=")[2].strip() for text in overrides if text.lstrip("+").startswith("recipe=")]
    rest = [text for text in overrides if not text.lstrip("+").startswith("recipe=")]
    if not names or not names[-1] or names[-1] == "null":
        raise UsageError("no recipe is named", "write recipe=NAME; mltrain recipes list shows what there is")
    if len(set(names)) > 1:
        raise UsageError(f"several recipes are named: {', '.join(names)}", "write one recipe=NAME")
    return names[0].strip("'\""), rest


def _split(overrides: Iterable[Override], defaults: Defaults, problems: list[Problem]) -> tuple[list[str], list[Override]]:
    """Choices of a group's option (for the defaults list), and overrides of values."""
    choices: dict[str, str] = {}
    values = []
    for override in overrides:
        group, value = override.key, override.value
        if group.partition(".")[0].partition("/")[0] == "hydra":
            problems.append(Problem(group, "settings of Hydra itself have no effect here", "remove it", origin=COMMAND_LINE))
        elif override.sweep:
            problems.append(Problem(group, f"{override.text} names several values", "write one; a list is key=[a,b], a text with commas is "
                                    "key='\"a,b\"'", origin=COMMAND_LINE))
        elif group in defaults.groups and not isinstance(value, dict):
            if override.deletes or value is None:    # Hydra cannot take away a group that a list of options was chosen for
                choices[group] = f"{group}=[]" if group in MANY else f"~{group}"
            elif problem := defaults.wrong_option(group, value, COMMAND_LINE):
                problems.append(problem)
            else:
                choices[group] = f"{group}={_written(value)}"
        elif "/" in group:
            valid = sorted(defaults.groups)
            problems.append(Problem(group, "no such group", did_you_mean(nearest(group, valid), valid), value, COMMAND_LINE))
        else:
            values.append(override)
    return list(choices.values()), values


def _written(value: object) -> str:
    return f"[{','.join(map(str, value))}]" if isinstance(value, list) else str(value)


def _apply(overrides: Iterable[Override], layered: Layered, problems: list[Problem]) -> None:
    """The command line as one layer; what it deletes goes first."""
    values: dict[Path_, Any] = {}
    for override in overrides:
        path = tuple(part for part in override.key.split(".") if part)
        if not override.deletes:
            values.pop(path, None)               # of two for one key the later counts, also in its order
            values[path] = override.value
        elif not layered.delete(path):
            problems.append(Problem(override.key, "cannot be removed: it is not there", "", origin=COMMAND_LINE))
    layered.command_line(values)


