"""The `defaults` lists of one composition: of conf/run.yaml, the options of its groups, the recipe and its parents, the site file.

Each entry is looked at before Hydra sees it, so that a wrong one is told with its line and the nearest name.
"""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from mltrain.assets import asset_dir
from mltrain.config.document import Document, read
from mltrain.config.layers import GLOBAL_GROUPS
from mltrain.config.problem import Origin, Problem, did_you_mean, shown
from mltrain.config.sources import PROJECT, ROOT_FILE, Found, Sources, is_path, site_file
from mltrain.config.suggest import nearest
from mltrain.errors import ConfigError, MissingInput

MANY = ("callback",)                             # groups of which several options can be chosen
MINE = "this_file"                               # a recipe given by path, outside every recipes/ folder


class Defaults:
    """root: config name of conf/run.yaml. site: config name of the site file. groups: names of the groups of the root.
    problems: entries that were wrong and are left out."""

    root = "run"
    site = "local/site"

    def __init__(self, places: Sources, recipe: str) -> None:
        self.places, self.problems = places, list[Problem]()
        self.documents: dict[str, Document] = {self.root: read(asset_dir("conf") / ROOT_FILE, places.shown(asset_dir("conf") / ROOT_FILE))}
        self.groups = {group for entry in self.documents[self.root].defaults if isinstance(entry, dict) for group in entry}
        self.entries: dict[str, list[Any]] = {self.root: self.documents[self.root].defaults}
        self.recipe = self._add_recipe(places.recipe(recipe), Origin(), ())
        site = site_file()
        if site:
            self._add(self.site, read(site, str(site)))

    def choices(self) -> list[str]:
        """What is chosen before the command line: the recipe, the site."""
        return [self.recipe.replace("/", "=", 1), *(["local=site"] if self.site in self.documents else [])]

    def lists(self) -> dict[str, tuple[Sequence[Any], str | None]]:
        """For `layers`: every config that can be named, its defaults list and package."""
        for group, options in self.places.options.items():
            for option, found in options.items():
                self.entries.setdefault(f"{group}/{option}", self._option_defaults(group, found[0]))
        return {config: (entries, self._package(config)) for config, entries in self.entries.items()}

    def document(self, config: str) -> Document:
        """The file behind a config name. Raises ConfigError if two places have it or it cannot be read."""
        if config not in self.documents:
            group, _, option = config.partition("/")
            if option not in self.places.options.get(group, {}):
                raise ConfigError(f"there is no {group}={option}", did_you_mean(nearest(option, self._names(group)), self._names(group)))
            found = self.places.choose(f"{group}={option}", self.places.options[group][option])
            self.documents[config] = read(found.path, self.places.shown(found.path))
        return self.documents[config]

    def site_targets(self) -> list[str]:
        """`allow_targets` of the site file. Raises ConfigError if it is no list of names."""
        document = self.documents.get(self.site)
        names = document.tree.get("allow_targets", []) if document else []
        if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
            raise ConfigError(f"{document and document.file}: allow_targets must be a list of module names", "allow_targets: [my_company.]")
        return names

    def wrong_option(self, group: str, value: object, origin: Origin) -> Problem | None:
        """What is wrong with group=value; None if it can be chosen."""
        if isinstance(value, list) and group not in MANY:
            return Problem(group, f"takes one option, not {shown(value)}", f"one of: {', '.join(self._names(group))}", value, origin)
        for option in value if isinstance(value, list) else [value]:
            if option is None and not isinstance(value, list):
                continue
            names = self._names(group)
            if not isinstance(option, str) or option not in names:
                hint = did_you_mean(nearest(str(option), names), names)
                return Problem(group, f"{shown(option)} is no option of {group}", hint, value, origin)
        return None

    def _names(self, group: str) -> list[str]:
        return sorted(self.places.options.get(group, {}))

    def _package(self, config: str) -> str | None:
        group = config.partition("/")[0]
        document = self.documents.get(config)
        header = document.package if document else None
        return header or ("_global_" if group in GLOBAL_GROUPS and config != self.root else None)

    def _option_defaults(self, group: str, found: Found) -> list[Any]:
        """A file that cannot be read is told when it is chosen, not because it lies there."""
        try:
            if b"defaults" not in found.path.read_bytes() and b"@package" not in found.path.read_bytes():
                return []
            document = read(found.path, self.places.shown(found.path))
        except (ConfigError, MissingInput, OSError):
            return []
        config = f"{group}/{found.name.partition('/')[2]}"
        if found.home.kind == PROJECT or len(self.places.options[group][config.partition("/")[2]]) == 1:
            self.documents.setdefault(config, document)
        return list(self._entries(document, group)) if group in GLOBAL_GROUPS else document.defaults

    def _add(self, config: str, document: Document) -> None:
        self.documents[config] = document
        self.entries[config] = list(self._entries(document, config.rpartition("/")[0]))

    def _add_recipe(self, found: Found, origin: Origin, children: tuple[str, ...]) -> str:
        """Register a recipe and its parents; returns its config name."""
        inside = found.home.recipes in found.path.parents
        name = found.path.relative_to(found.home.recipes).with_suffix("").as_posix().removesuffix("/recipe") if inside else MINE
        config = f"recipe/{name}"
        if config in children:
            raise ConfigError(f"{origin}: the recipe {found.name} inherits from itself", "rename it, or inherit from another")
        if config in self.documents:
            return config
        document = read(found.path, self.places.shown(found.path))
        self.documents[config] = document
        group = config.rpartition("/")[0]
        for number, entry in enumerate(document.defaults):
            at = Origin(document.file, document.line(("defaults", str(number))))
            parent = _parent(entry, group)
            if parent is not None:
                self._add_recipe(self._found(parent, at), at, (*children, config))
        self.entries[config] = list(self._entries(document, group))
        return config

    def _found(self, name: str, origin: Origin) -> Found:
        try:
            if is_path(name):
                raise MissingInput(f"{name!r} is a path", "name a parent: /recipe/NAME")
            return self.places.recipe(name)
        except MissingInput as error:
            raise ConfigError(f"{origin}: {error.message}", error.hint) from None

    def _entries(self, document: Document, group: str) -> Iterator[Any]:
        """The entries of a defaults list that are right; the others become problems."""
        for number, entry in enumerate(document.defaults):
            origin = Origin(document.file, document.line(("defaults", str(number))))
            if entry == "_self_":
                yield entry
            elif _parent(entry, group) is not None:
                yield f"/recipe/{_parent(entry, group)}"
            elif problem := self._wrong_entry(entry, origin):
                self.problems.append(problem)
            else:
                yield entry

    def _wrong_entry(self, entry: object, origin: Origin) -> Problem | None:
        if not isinstance(entry, dict) or len(entry) != 1:
            hint = "write - override /optimizer: sgd, - /recipe/NAME or - _self_"
            return Problem("defaults", f"{shown(entry)} is no entry of a defaults list", hint, entry, origin)
        (key, value), = entry.items()
        word, _, rest = key.rpartition(" ")
        group = rest.lstrip("/")
        if group not in self.groups:
            valid = sorted(self.groups - {"recipe", "local"})
            return Problem("defaults", f"{group!r} is no group", did_you_mean(nearest(group, valid), valid), value, origin)
        if word != "override" or not rest.startswith("/"):
            hint = f"write - override /{group}: {_plain(value)}"
            return Problem("defaults", f"{key}: {shown(value)} chooses no option", hint, value, origin)
        return self.wrong_option(group, value, origin)


def _plain(value: object) -> str:
    return value if isinstance(value, str) else shown(value)


def _parent(entry: object, group: str) -> str | None:
    """The recipe that an entry inherits from: /recipe/NAME, or NAME beside the recipe itself."""
    if isinstance(entry, dict) and len(entry) == 1 and isinstance(entry.get("/recipe"), str):
        return str(entry["/recipe"])
    if not isinstance(entry, str) or entry == "_self_" or not group.startswith("recipe"):
        return None
    if entry.startswith("/"):
        return entry.removeprefix("/recipe/") if entry.startswith("/recipe/") else None
    return f"{group}/{entry}".removeprefix("recipe/")
