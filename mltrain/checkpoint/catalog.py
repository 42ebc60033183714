"""What lies under a folder or URL: which steps, whether they are whole, which is the latest, and one digest that tells two states apart.
No torch, so that `mltrain checkpoint list` answers at once.
"""
from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

import xxhash

from mltrain.checkpoint.manifest import CHUNK, MANIFEST_NAME, Manifest, manifest_name, parse
from mltrain.checkpoint.retention import Key, off_branch, survey
from mltrain.checkpoint.shard import Piece, header_length, read_header
from mltrain.checkpoint.storage import Storage, open_storage
from mltrain.errors import DataError, MissingInput, StorageError


@dataclass(frozen=True, slots=True)
class Saved:
    """A committed step. valid: its manifest is right and its shards are there in full length; their bytes are `verify`'s business.
    current: on the branch that a resume would take. bytes, files: of its shards. problem: why it is not valid."""

    step: int
    attempt: int
    valid: bool
    current: bool
    bytes: int
    files: tuple[str, ...]
    saved: float
    problem: str = ""
    manifest: Manifest | None = field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict[str, object]:
        names = ("step", "attempt", "valid", "current", "bytes", "files", "saved", "problem")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes [begin, end) of a file that are not those that were written (0, 0: all of it). tensors: whose bytes they are."""

    step: int
    attempt: int
    file: str
    chunk: int
    begin: int
    end: int
    tensors: tuple[str, ...]
    problem: str


def saved_steps(storage: Storage, retired: Collection[Sequence[int]] = ()) -> list[Saved]:
    """All steps with a manifest, damaged ones included; oldest first, and of two for one step the newer attempt last."""
    try:
        files = survey(storage)
    except OSError as error:
        raise StorageError(f"cannot list {storage.root}: {error}") from None
    return [_saved(storage, key, files[key], not off_branch(key, retired))
            for key in sorted(files) if any(MANIFEST_NAME.fullmatch(name) for name in files[key])]


def _saved(storage: Storage, key: Key, sizes: dict[str, int], current: bool) -> Saved:
    name = manifest_name(*key)
    try:
        manifest = parse(storage.read(name), *key, name)
    except (OSError, DataError) as error:
        problem = error.message if isinstance(error, DataError) else f"{name}: {error.strerror or error}"
        return Saved(*key, False, current, sum(size for n, size in sizes.items() if n.endswith(".safetensors")), (), 0.0, problem)
    wrong = [f"{file.name}: {'missing' if size is None else f'{size} bytes long instead of {file.bytes}'}" for file in manifest.files
             if (size := sizes.get(file.name.rpartition("/")[2])) != file.bytes]
    files = tuple(file.name for file in manifest.files)
    return Saved(*key, not wrong, current, manifest.bytes, files, manifest.saved, "; ".join(wrong[:3]), manifest)


def candidates(storage: Storage, step: int | None = None, retired: Collection[Sequence[int]] = ()) -> list[Saved]:
    """What a resume may take, best first: the highest step, and of two for one step the newest attempt. Damaged ones included."""
    return [s for s in reversed(saved_steps(storage, retired)) if s.current and step in (None, s.step)]


def latest(storage: Storage, step: int | None = None, retired: Collection[Sequence[int]] = ()) -> Manifest:
    """The manifest of a step, or of the newest whole one. Raises MissingInput when there is none, DataError when all are damaged."""
    found = candidates(storage, step, retired)
    for saved in found:
        if saved.valid and saved.manifest:
            return saved.manifest
    what = "no checkpoint" if step is None else f"no checkpoint of step {step}"
    if found:
        raise DataError(f"{what} under {storage.root} is whole: {found[0].problem}", "mltrain checkpoint verify names all that is damaged")
    steps = sorted({saved.step for saved in saved_steps(storage, retired)})
    hint = f"there are: {' '.join(map(str, steps[-20:]))}" if steps else "nothing was saved there yet"
    raise MissingInput(f"{what} under {storage.root}", hint)


def read_chunk(storage: Storage, manifest: Manifest, file: int, chunk: int) -> bytes:
    """One chunk of a shard, its digest checked. Raises DataError naming file, bytes and tensors."""
    shard, begin = manifest.files[file], chunk * CHUNK
    end = min(begin + CHUNK, shard.bytes)
    try:
        data = storage.read(shard.name, begin, end)
    except OSError as error:
        raise DataError(f"{shard.name}: bytes {begin} to {end} cannot be read: {error.strerror or error}") from None
    if len(data) != end - begin or xxhash.xxh3_128_hexdigest(data) != shard.chunks[chunk]:
        raise DataError(damage_text(manifest, file, begin, end))
    return data


def damage_text(manifest: Manifest, file: int, begin: int, end: int) -> str:
    names = tensors_in(manifest, file, begin, end)
    of = f" (of {', '.join(names[:3])}{' …' if len(names) > 3 else ''})" if names else ""
    return f"{manifest.files[file].name}: bytes {begin} to {end} are not those that were written{of}"


def tensors_in(manifest: Manifest, file: int, begin: int, end: int) -> list[str]:
    """Names of the tensors that have bytes in [begin, end) of a file."""
    return [name for name, pieces in manifest.pieces.items() if any(f == file and p.begin < end and p.end > begin for f, p in pieces)]


def verify(storage: Storage, saved: Saved) -> Iterator[Damage]:
    """Reads every byte of a step, a chunk at a time, and yields what is damaged."""
    manifest = saved.manifest
    if manifest is None:
        yield Damage(saved.step, saved.attempt, manifest_name(saved.step, saved.attempt), 0, 0, 0, (), saved.problem)
        return
    for number, shard in enumerate(manifest.files):
        for chunk in range(len(shard.chunks)):
            begin, end = chunk * CHUNK, min((chunk + 1) * CHUNK, shard.bytes)
            try:
                data = read_chunk(storage, manifest, number, chunk)
                if chunk == 0:
                    _check_header(storage, data, manifest, number)
            except DataError as error:
                names = tuple(tensors_in(manifest, number, begin, end))
                yield Damage(saved.step, saved.attempt, shard.name, chunk, begin, end, names, error.message)


def _check_header(storage: Storage, start: bytes, manifest: Manifest, number: int) -> None:
    """The shard's own header must say what the manifest says: a foreign reader goes by the header."""
    shard = manifest.files[number]
    length = 8 + header_length(start, shard.bytes, shard.name)
    data = start if length <= len(start) else storage.read(shard.name, 0, length)
    pieces = {name: piece for name, found in manifest.pieces.items() for file, piece in found if file == number}
    if read_header(data, shard.bytes, shard.name).pieces != pieces:
        raise DataError(f"{shard.name}: its header and the manifest differ")


class Chunks:
    """Verified chunks, the last few kept: tensors in order of name come nearly in order of each file."""

    def __init__(self, storage: Storage, manifest: Manifest) -> None:
        self._storage, self._manifest, self._kept = storage, manifest, min(64, 8 + len(manifest.files))
        self._cache: OrderedDict[tuple[int, int], bytes] = OrderedDict()

    def parts(self, file: int, piece: Piece) -> Iterator[memoryview]:
        at = piece.begin
        while at < piece.end:
            chunk, offset = divmod(at, CHUNK)
            part = memoryview(self._get(file, chunk))[offset:offset + piece.end - at]
            yield part
            at += len(part)

    def _get(self, file: int, chunk: int) -> bytes:
        if (file, chunk) not in self._cache:
            self._cache[file, chunk] = read_chunk(self._storage, self._manifest, file, chunk)
            if len(self._cache) > self._kept:
                self._cache.popitem(last=False)
        self._cache.move_to_end((file, chunk))
        return self._cache[file, chunk]


def content_digest(storage: Storage, manifest: Manifest) -> str:
    """sha256 over the tensors in order of their names: [name, dtype, shape] as JSON, then all bytes. Equal under any sharding."""
    total, chunks = hashlib.sha256(), Chunks(storage, manifest)
    for name, tensor in sorted(manifest.tensors.items()):
        total.update(json.dumps([name, tensor.dtype, list(tensor.shape)]).encode())
        for file, piece in manifest.pieces[name]:
            for part in chunks.parts(file, piece):
                total.update(part)
    return total.hexdigest()


def digest(path: str, step: int | None = None, retired: Collection[Sequence[int]] = ()) -> dict[str, int | str]:
    """{"step", "digest"} of a step under a folder or URL (default: the newest whole one of the branch). MissingInput, DataError."""
    storage = open_storage(path)
    manifest = latest(storage, step, retired)
    return {"step": manifest.step, "digest": content_digest(storage, manifest)}
