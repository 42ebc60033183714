"""Which checkpoints may be deleted, as a pure function, and their deletion.

What is older than the `keep` newest good ones goes, except what is held: the step that the run was resumed from and the newest one whose
every byte was verified. Nothing goes before something newer is committed, so there is always one. Files without a manifest (a save
that failed, a writer that was killed) go once a newer step of the running attempt is committed: by then nobody writes them any more.
"""
from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from mltrain.checkpoint.manifest import FILE_NAME, MANIFEST_NAME, STEP_NAME, manifest_name, parse, step_name
from mltrain.checkpoint.storage import Storage
from mltrain.errors import DataError

Key = tuple[int, int]                                           # step, attempt


def off_branch(key: Key, retired: Iterable[Sequence[int]]) -> bool:
    """A rollback to `step` retires what attempts up to `attempt` saved above it."""
    return any(key[0] > step and key[1] <= attempt for step, attempt in retired)


def expendable(committed: Collection[Key], good: Collection[Key], partial: Collection[Key], keep: int, newest: Key,
               held: Collection[Key] = (), retired: Collection[Sequence[int]] = ()) -> list[Key]:
    """What to delete, oldest first. committed: with a manifest, good: of these, the whole ones; partial: files without a manifest;
    newest: the one just committed. keep: how many good steps of the current branch stay, two attempts at one step counted once; 0: all."""
    steps = sorted({step for step, attempt in good if not off_branch((step, attempt), retired) and step <= newest[0]} | {newest[0]})
    oldest = steps[-keep] if 0 < keep <= len(steps) else 0
    old = [key for key in committed if key[0] < oldest and key not in held and key != newest]
    stale = [key for key in partial if key[0] < newest[0] and key[1] <= newest[1]]
    return sorted([*old, *stale])


def prune(storage: Storage, keep: int, newest: Key, held: Iterable[Sequence[int]], retired: Iterable[Sequence[int]]) -> list[Key]:
    """Deletes what is expendable, as far as the storage lets it: the next commit prunes again. Returns what was deleted."""
    done: list[Key] = []
    try:
        for key, names in to_prune(storage, keep, newest, held, retired).items():
            delete(storage, key, names)
            done.append(key)
    except OSError:
        pass
    return done


def to_prune(storage: Storage, keep: int, newest: Key, held: Iterable[Sequence[int]] = (),
             retired: Iterable[Sequence[int]] = ()) -> dict[Key, dict[str, int]]:
    """What is expendable, oldest first, with its files and their bytes."""
    files = survey(storage)
    committed = [key for key, names in files.items() if any(MANIFEST_NAME.fullmatch(name) for name in names)]
    partial = [key for key in files if key not in committed]
    good = [key for key in committed if whole(storage, key, files[key])]
    return {key: files[key] for key in expendable(committed, good, partial, keep, newest, {(s, a) for s, a in held}, [*retired])}


def delete(storage: Storage, key: Key, names: Iterable[str]) -> None:
    """May be repeated or interrupted at any point: the manifest goes first, so what is left is no checkpoint."""
    for name in sorted(names, key=lambda name: (not MANIFEST_NAME.fullmatch(name), name.endswith(".safetensors"), name)):
        storage.delete(f"{step_name(key[0])}/{name}")
    if not storage.list(step_name(key[0])):
        storage.delete(step_name(key[0]))


def whole(storage: Storage, key: Key, names: dict[str, int]) -> bool:
    """Whether a step's manifest is right and its shards have their sizes (their content is not read)."""
    name = manifest_name(*key)
    try:
        manifest = parse(storage.read(name), *key, name)
    except (OSError, DataError):
        return False
    return all(names.get(file.name.rpartition("/")[2]) == file.bytes for file in manifest.files)


def survey(storage: Storage) -> dict[Key, dict[str, int]]:
    """(step, attempt) -> {file name: bytes}, of all files that are ours."""
    found: dict[Key, dict[str, int]] = {}
    for folder, size in storage.list().items():
        match = STEP_NAME.fullmatch(folder)
        if not match or size >= 0:
            continue
        for name, size in storage.list(folder).items():
            if ours := FILE_NAME.fullmatch(name):
                found.setdefault((int(match[1]), int(ours[1])), {})[name] = size
    return found
