"""Hydra, and only here: its grammar of overrides, and its defaults list (which files lie over one another, in which order).

Hydra never sees values, only the `defaults` of each file, so no file can make it slow; values are laid over one another by
`origin.py`, which knows the line of each. Its global state is put back afterwards.
"""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mltrain.config.guard import check_override
from mltrain.config.problem import shown
from mltrain.errors import ConfigError, UsageError

GLOBAL_GROUPS = ("recipe", "experiment", "local")          # their files speak about the whole tree, not about their group


@dataclass(frozen=True, slots=True)
class Override:
    """One key=value of the command line. deletes: it was written ~key. value: plain data. sweep: it names several values."""

    text: str
    key: str
    value: Any
    deletes: bool = False
    sweep: bool = False


@dataclass(frozen=True, slots=True)
class Layer:
    """A file and where its values go. config: "optimizer/adamw". package: dotted, "" for the whole tree."""

    config: str
    package: str


def parse(text: str) -> Override:
    """Read one override in Hydra's grammar. Raises UsageError (64)."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException
    check_override(text)
    if not text.lstrip("+~").partition("=")[0].strip() or ("=" not in text and not text.startswith("~")):
        raise UsageError(f"cannot read {shown(text)}", "write key=value")
    try:
        parsed = OverridesParser.create().parse_override(text)
    except (HydraException, RecursionError) as error:
        raise UsageError(f"cannot read {shown(text)}: {str(error).splitlines()[0]}",
                         "write key=value; put quotes around a value with spaces or , = ( ) [ ]: key='\"a value\"'") from None
    if parsed.package is not None:
        raise UsageError(f"cannot read {shown(text)}: @ is not used here", "write group=option or key.name=value")
    sweep = bool(parsed.is_sweep_override())
    value = None if sweep or parsed.is_delete() else parsed.value()
    return Override(text, parsed.key_or_group, value, bool(parsed.is_delete()), sweep)


def layers(defaults: Mapping[str, tuple[Sequence[Any], str | None]], root: str, choices: Sequence[str]) -> list[Layer]:
    """The files to lay over one another, lowest first.

    defaults: "group/option" -> (its defaults list, its package or None for the usual one). root: the one at the bottom.
    choices: "group=option" lines. Raises ConfigError with Hydra's reason, without Hydra's advice."""
    from hydra import __version__, initialize
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from hydra.types import RunMode
    from omegaconf.errors import OmegaConfBaseException
    with _store(defaults):
        try:
            # Hydra 1.3 asks for version_base; 1.4 warns about it.
            version: dict[str, Any] = {"version_base": "1.3"} if __version__.startswith("1.3.") else {}
            with initialize(config_path=None, job_name="mltrain", **version):
                loader = GlobalHydra.instance().config_loader()
                found = loader.compute_defaults_list(root, list(choices), RunMode.RUN).defaults
        except (HydraException, OmegaConfBaseException, ValueError, TypeError, RecursionError) as error:
            reason = " ".join(str(error).split("\nSearch path")[0].split("\nTo append")[0].split())
            raise ConfigError(f"the defaults lists do not fit together: {reason[:300]}",
                              "see the defaults of the recipe; mltrain recipes show NAME prints one that works") from None
    return [Layer(each.config_path, each.package or "") for each in found
            if each.config_path is not None and each.config_path.partition("/")[0] != "hydra"]


@contextmanager
def _store(defaults: Mapping[str, tuple[Sequence[Any], str | None]]) -> Iterator[None]:
    """Hydra's ConfigStore with our defaults lists in it, put back as it was: other Hydra programs in this process see nothing."""
    from hydra.core.config_store import ConfigStore
    store = ConfigStore.instance()
    before = store.repo
    store.repo = dict(before)
    for group in {config.partition("/")[0] for config in defaults}:
        store.repo.pop(group, None)
    try:
        for config, (entries, package) in defaults.items():
            group, _, name = config.rpartition("/")
            node = {"defaults": list(entries)} if entries else {}
            store.store(name=name, node=node, group=group or None, package=package)
        yield
    finally:
        store.repo = before
