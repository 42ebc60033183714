"""Opens a dataset: finds its store, reads its manifest. No shard is touched."""
from __future__ import annotations

import os

from mltrain.data import format
from mltrain.data.format import MANIFEST, Manifest
from mltrain.data.store import Store
from mltrain.errors import MissingInput


def read_manifest(path: str | os.PathLike[str]) -> tuple[Store, Manifest]:
    """path: a local folder or an fsspec URL. Raises MissingInput (66) if there is no dataset, DataError (65) if its manifest is damaged."""
    store = Store(path)
    if not store.exists(MANIFEST):
        hint = f"make it: mltrain data prepare SOURCE... --out {store.path}"
        if store.filesystem is None and os.path.isdir(store.root.rstrip("/") + ".partial"):
            hint = "its `mltrain data prepare` was interrupted: run it again with the same arguments"
        raise MissingInput(f"no dataset at {store.path}" + (" (a folder without manifest.json)" if store.exists() else ""), hint)
    return store, format.decode(store.read(MANIFEST, format.LARGEST_MANIFEST), store.where(MANIFEST))
