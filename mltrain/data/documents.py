"""Documents out of sources, one after the other, in an order that depends on nothing but the sources' names and contents.

A source is a text file, a folder (its text, .jsonl and .parquet files, sorted, hidden ones left out), a .jsonl file, a .parquet file, or
`python:stdlib`: the .py files of the running interpreter's standard library, without site-packages and tests.
A text file is one document; one above LONG_FILE is cut at line ends into documents of about PIECE bytes, so that a corpus in one file can
be split. Reading can begin at any `Cursor`, which is how an interrupted prepare goes on.
"""
from __future__ import annotations

import os
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import msgspec

from mltrain.errors import DataError, MissingInput, StorageError, UsageError

LONG_FILE, PIECE, LONGEST_LINE = 1 << 20, 1 << 16, 1 << 28
_NOT_IN_STDLIB = {"site-packages", "dist-packages", "test", "tests", "__pycache__"}


class Cursor(NamedTuple):
    """A place in the sources: index of the file, and in it a byte (text, jsonl) or a row (parquet)."""

    file: int = 0
    at: int = 0


class SourceFile(NamedTuple):
    """name: as it counts for the identity of the inputs (relative where the source is a folder). named: by the user, not found there."""

    path: Path
    name: str
    size: int
    modified: int
    named: bool


@dataclass
class Skipped:
    """What was left out, by reason. examples: the first few, for the note."""

    binary: int = 0
    undecodable: int = 0
    empty: int = 0
    examples: list[str] = field(default_factory=list)

    def note(self, reason: str, where: str) -> None:
        setattr(self, reason, getattr(self, reason) + 1)
        if reason != "empty" and len(self.examples) < 3:
            self.examples.append(where)


class Reading(NamedTuple):
    """How to read. field: of a jsonl line, column of a parquet file. strict: undecodable text is an error, not skipped."""

    field: str = "text"
    strict: bool = False


def find_files(sources: list[str]) -> list[SourceFile]:
    """All files of all sources. Raises MissingInput for a source that is not there or a folder with nothing to read."""
    files: list[SourceFile] = []
    for source in sources:
        try:
            found = _files_of(source)
        except OSError as error:
            raise MissingInput(f"source {source} cannot be read: {error.strerror}") from None
        if not found:
            raise MissingInput(f"source {source} holds no files")
        files += found
    return files


def _files_of(source: str) -> list[SourceFile]:
    if source == "python:stdlib":
        root = Path(sysconfig.get_path("stdlib"))
        modules = [path for path in _walk(root, _NOT_IN_STDLIB) if path.suffix == ".py"]
        return [_file(path, f"python:stdlib/{path.relative_to(root)}", False) for path in modules]
    if "://" in source or source.startswith("python:"):
        raise UsageError(f"{source} is not a source", "a source is a text file, a folder, a .jsonl or .parquet file, or python:stdlib")
    path = Path(source).expanduser()
    if not path.exists():
        raise MissingInput(f"source {source} is not there")
    if path.is_dir():
        return [_file(inside, str(inside.relative_to(path)), False) for inside in _walk(path, set())]
    if not path.is_file():
        raise UsageError(f"{source} is neither a file nor a folder", "write what it delivers to a file: reading must be able to restart")
    return [_file(path, path.name, True)]


def _walk(root: Path, leave_out: set[str]) -> list[Path]:
    def refuse(error: OSError) -> None:
        raise MissingInput(f"{error.filename} cannot be read: {error.strerror}") from None
    found: list[Path] = []
    for folder, subfolders, names in os.walk(root, onerror=refuse):
        subfolders[:] = [name for name in subfolders if name not in leave_out and not name.startswith(".")]
        found += [Path(folder, name) for name in names if not name.startswith(".") and os.path.isfile(os.path.join(folder, name))]
    return sorted(found, key=lambda path: path.relative_to(root).as_posix())


def _file(path: Path, name: str, named: bool) -> SourceFile:
    status = path.stat()
    return SourceFile(path, name, status.st_size, status.st_mtime_ns, named)


def read_documents(files: list[SourceFile], reading: Reading, skipped: Skipped, start: Cursor) -> Iterator[tuple[bytes, Cursor]]:
    """(document in valid UTF-8, where the next one begins), from start on. Raises DataError with file and line or row, MissingInput."""
    for index in range(start.file, len(files)):
        at = start.at if index == start.file else 0
        try:
            for text, after in _read_file(files[index], reading, skipped, at):
                if text:
                    yield text, Cursor(index, after)
                else:
                    skipped.note("empty", str(files[index].path))
        except PermissionError as error:
            raise MissingInput(f"{files[index].path} cannot be read: {error.strerror}") from None
        except FileNotFoundError:
            raise MissingInput(f"{files[index].path} went away while it was read") from None
        except OSError as error:
            raise StorageError(f"{files[index].path} cannot be read: {error.strerror or error}") from None


def _read_file(file: SourceFile, reading: Reading, skipped: Skipped, at: int) -> Iterator[tuple[bytes, int]]:
    if file.path.suffix == ".jsonl":
        return _read_jsonl(file.path, reading.field, at)
    if file.path.suffix == ".parquet":
        from mltrain.data.parquet import read_parquet
        return read_parquet(file.path, reading.field, at)
    return _read_text(file, reading.strict, skipped, at)


def _read_text(file: SourceFile, strict: bool, skipped: Skipped, at: int) -> Iterator[tuple[bytes, int]]:
    for text, after in _pieces(file, at):
        if at == 0 and b"\0" in text[:8192]:
            if file.named:
                raise DataError(f"{file.path} is not a text file (it holds zero bytes)", "a source is text, .jsonl, .parquet or a folder")
            skipped.note("binary", str(file.path))
            return
        try:
            text.decode()
        except UnicodeDecodeError as error:
            if strict:
                raise DataError(f"{file.path}: byte {at + error.start} is not valid UTF-8") from None
            skipped.note("undecodable", str(file.path))
        else:
            yield text, after
        at = after


def _pieces(file: SourceFile, at: int) -> Iterator[tuple[bytes, int]]:
    """The whole file, or pieces that end at a line's end (a line without end within LONGEST_LINE is refused)."""
    if at and at >= file.size:
        return
    with open(file.path, "rb") as stream:
        if file.size <= LONG_FILE:
            yield stream.read(), file.size
            return
        stream.seek(at)
        while text := stream.read(PIECE):
            text += stream.readline(LONGEST_LINE)
            if len(text) >= LONGEST_LINE:
                raise DataError(f"{file.path}: the line at byte {at} is longer than {LONGEST_LINE} bytes")
            at += len(text)
            yield text, at


def _read_jsonl(path: Path, name: str, at: int) -> Iterator[tuple[bytes, int]]:
    line_number = 0
    with open(path, "rb") as stream:
        if at:
            line_number = _lines_before(path, at)
            stream.seek(at)
        while line := stream.readline(LONGEST_LINE):
            line_number, at = line_number + 1, at + len(line)
            if not line.isspace():
                yield _text_of(line, name, f"{path}:{line_number}"), at


def _lines_before(path: Path, at: int) -> int:
    count = 0
    with open(path, "rb") as stream:
        while at > 0 and (block := stream.read(min(at, 1 << 22))):
            count, at = count + block.count(b"\n"), at - len(block)
    return count


def _text_of(line: bytes, name: str, where: str) -> bytes:
    try:
        record = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{where}: not a JSON record: {str(error)[:120]}") from None
    if not isinstance(record, dict):
        raise DataError(f"{where}: not a JSON object, but a {type(record).__name__}")
    if name not in record:
        raise DataError(f"{where}: no field {name!r} (it has {', '.join(map(repr, list(record)[:8])) or 'none'})", "name it with --field")
    text = record[name]
    if not isinstance(text, str):
        raise DataError(f"{where}: field {name!r} is not text, but a {type(text).__name__}")
    return text.encode()
