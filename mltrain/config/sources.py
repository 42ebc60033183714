"""Where recipes and the options of conf groups come from.

    a path          recipe=./mine.yaml
    the project     ./recipes and ./conf of the working directory (or of the folder that holds the recipe's own recipes/)
    packages        installed ones with an entry point in the group `mltrain.recipes`, and the conf/ beside their recipes
    built in        mltrain's own
    the site file   $MLTRAIN_SITE, else ~/.config/mltrain/site.yaml: facts about a cluster, over recipes

A name in two places is an error when it is used, except that the project's own file wins over a built-in one; that is noted.
"""
from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

from mltrain.assets import asset_dir
from mltrain.config.problem import did_you_mean, near_file
from mltrain.config.suggest import nearest
from mltrain.errors import ConfigError, MissingInput

PROJECT, PACKAGE, BUILT_IN = "project", "package", "built-in"
ENTRY_POINTS = "mltrain.recipes"
ROOT_FILE = "run.yaml"


@dataclass(frozen=True)
class Home:
    """One place: a folder of recipes and the folder of conf groups beside it. package: import name, for installed ones."""

    kind: str
    recipes: Path
    conf: Path
    package: str = ""


@dataclass(frozen=True)
class Found:
    """A YAML file that bears a name."""

    name: str
    path: Path
    home: Home
    shadows: Path | None = None


@dataclass
class Sources:
    """Everything that can be named from one working directory. project: the user's own folder, if this is one."""

    directory: Path
    project: Path | None
    homes: list[Home]
    used_packages: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)

    def shown(self, path: Path) -> str:
        return near_file(path, self.directory)

    @cached_property
    def recipes(self) -> dict[str, list[Found]]:
        """Recipe name -> where it was found, the project's first."""
        return _collect([(home, home.recipes) for home in self.homes])

    @cached_property
    def options(self) -> dict[str, dict[str, list[Found]]]:
        """Group -> option -> where it was found."""
        groups: dict[str, dict[str, list[Found]]] = {}
        for name, found in _collect([(home, home.conf) for home in self.homes]).items():
            group, _, option = name.partition("/")
            if option:
                groups.setdefault(group, {})[option] = found
        return groups

    def recipe(self, name: str) -> Found:
        """The recipe of that name or path. Raises MissingInput (66) with the nearest name, ConfigError when two places have it."""
        if is_path(name):
            path = Path(os.path.abspath(self.directory / Path(name).expanduser()))
            if not path.is_file():
                raise MissingInput(f"recipe={name}: no such file", f"looked for {path}")
            home = next((home for home in self.homes if home.recipes in path.parents), Home(PROJECT, path.parent, path.parent))
            return Found(path.stem, path, home)
        if name not in self.recipes:
            raise MissingInput(f"no recipe is named {name!r}", did_you_mean(nearest(name, self.recipes), sorted(self.recipes)))
        return self.choose(f"recipe={name}", self.recipes[name])

    def choose(self, what: str, found: list[Found]) -> Found:
        """The one to use, noting what it shadows."""
        first, *others = found
        if not others:
            chosen = first
        elif first.home.kind == PROJECT and [other.home.kind for other in others] == [BUILT_IN]:
            chosen = Found(first.name, first.path, first.home, others[0].path)
            note = f"{what} is your {self.shown(first.path)}, not the built-in one"
            self.notes += [note] * (note not in self.notes)
        else:
            places = " and ".join(self.shown(each.path) for each in found)
            raise ConfigError(f"{what} is found twice: {places}", "rename one, or name the file: recipe=./path/to/file.yaml")
        if chosen.home.package:
            self.used_packages.add(chosen.home.package)
        return chosen


def is_path(name: str) -> bool:
    return name.endswith((".yaml", ".yml")) or name.startswith((".", "/", "~"))


def sources(directory: Path, recipe: str = "") -> Sources:
    """All places seen from `directory`. recipe: as named, since a path may lie in a project elsewhere."""
    directory = Path(os.path.abspath(directory))
    project = project_of(directory, recipe)
    homes = [Home(PROJECT, project / "recipes", project / "conf")] if project else []
    built_in = Home(BUILT_IN, asset_dir("recipes"), asset_dir("conf"))
    if project and (project / "conf").exists() and (project / "conf").samefile(built_in.conf):
        homes = []                               # working inside a checkout of mltrain itself
    return Sources(directory, project, [*homes, *_packages(), built_in])


def project_of(directory: Path, recipe: str = "") -> Path | None:
    """The user's own folder: the one that holds the recipe's recipes/, else the working directory if it has recipes/ or conf/,
    else the folder of a recipe given by path."""
    here = directory if (directory / "recipes").is_dir() or (directory / "conf").is_dir() else None
    if not recipe or not is_path(recipe):
        return here
    path = Path(os.path.abspath(directory / Path(recipe).expanduser()))
    for folder in path.parents:
        if folder.name == "recipes":
            return folder.parent
    return here if here and here in path.parents else path.parent


def site_file() -> Path | None:
    """The site's file, if there is one. Raises MissingInput (66) when MLTRAIN_SITE names nothing."""
    named = os.environ.get("MLTRAIN_SITE")
    if named:
        if not Path(named).is_file():
            raise MissingInput(f"MLTRAIN_SITE={named}: no such file", "unset it, or name the site's YAML file")
        return Path(named)
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    usual = Path(home) / "mltrain" / "site.yaml"
    return usual if usual.is_file() else None


def _packages() -> list[Home]:
    """Homes of installed packages. Nothing of theirs is imported: only a top-level name is looked up."""
    homes: dict[Path, Home] = {}
    for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda point: point.value):
        top, *rest = point.value.partition(":")[0].split(".")
        spec = find_spec(top) if top != "mltrain" else None
        for location in (spec.submodule_search_locations or []) if spec else []:
            folder = Path(location).joinpath(*rest)
            if folder.is_dir():
                homes[folder] = Home(PACKAGE, folder, folder.parent / "conf" if rest else folder / "conf", top)
    return list(homes.values())


def _collect(places: Sequence[tuple[Home, Path]]) -> dict[str, list[Found]]:
    found: dict[str, list[Found]] = {}
    for home, folder in places:
        for path in sorted(folder.rglob("*.yaml")) if folder.is_dir() else []:
            name = path.relative_to(folder).with_suffix("").as_posix().removesuffix("/recipe")
            if not any(part.startswith((".", "_")) for part in path.relative_to(folder).parts):
                found.setdefault(name, []).append(Found(name, path, home))
    return found
