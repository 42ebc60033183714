"""Documents out of sources: which, in which order, and what is said about a bad one."""
from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mltrain.data import documents
from mltrain.data.documents import Cursor, Reading, Skipped, find_files, read_documents
from mltrain.errors import DataError, MissingInput, UsageError


def read(*sources, start=None, skipped=None, **reading) -> list[tuple[bytes, Cursor]]:
    return list(read_documents(find_files([str(s) for s in sources]), Reading(**reading), skipped or Skipped(), start or Cursor()))


def texts(*sources, **reading) -> list[bytes]:
    return [text for text, _ in read(*sources, **reading)]


def parquet(path, groups, **columns):
    with pq.ParquetWriter(path, pa.schema({name: pa.array(values[:1]).type for name, values in columns.items()})) as writer:
        table = pa.table(columns)
        for begin in range(0, len(table), groups):
            writer.write_table(table[begin:begin + groups])
    return path


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path):
    for name in ("b.txt", "a/z.py", "a/b/c.md", "a.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    assert texts(tmp_path) == [b"a.txt", b"a/b/c.md", b"a/z.py", b"b.txt"]


def test_hidden_files_and_folders_are_left_out(tmp_path):
    (tmp_path / ".git").mkdir()
    for name in (".git/config", ".hidden", "seen.txt"):
        (tmp_path / name).write_text(name)
    assert texts(tmp_path) == [b"seen.txt"]


def test_binary_undecodable_and_empty_files_of_a_folder_are_counted(tmp_path):
    for name, content in {"a.bin": b"\0\1", "b.txt": b"\xff\xfe", "c.txt": b"", "d.txt": b"text"}.items():
        (tmp_path / name).write_bytes(content)
    skipped = Skipped()
    assert [text for text, _ in read(tmp_path, skipped=skipped)] == [b"text"]
    assert (skipped.binary, skipped.undecodable, skipped.empty) == (1, 1, 1)


def test_strict_stops_at_undecodable_text(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"abc\xff")
    with pytest.raises(DataError, match="a.txt: byte 3 is not valid UTF-8"):
        texts(tmp_path, strict=True)


def test_a_binary_file_that_was_named_is_an_error(tmp_path):
    (tmp_path / "image.png").write_bytes(b"\x89PNG\0")
    with pytest.raises(DataError, match="image.png is not a text file"):
        texts(tmp_path / "image.png")


def test_a_long_text_is_cut_at_line_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "LONG_FILE", 100)
    monkeypatch.setattr(documents, "PIECE", 40)
    content = "".join(f"line {i} é\n" for i in range(50)).encode()
    (tmp_path / "long.txt").write_bytes(content)
    pieces = texts(tmp_path / "long.txt")
    assert b"".join(pieces) == content and len(pieces) > 8
    assert all(piece.endswith(b"\n") for piece in pieces)


def test_jsonl_gives_a_document_a_line(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n\n{"text": "zw\\u00f6lf", "id": 3}\n')
    assert texts(tmp_path / "a.jsonl") == [b"one", "zwölf".encode()]


BAD_LINES = {
    "torn": ('{"text": "x', "not a JSON record"), "a list": ("[1]", "not a JSON object"),
    "another field": ('{"body": "x"}', "no field 'text' .it has 'body'"),
    "a number": ('{"text": 3}', "not text, but a int"), "half a letter": ('{"text": "\\ud800"}', "not a JSON record"),
    "deep": ("[" * 100_000, "not a JSON record"),
}


@pytest.mark.parametrize("line, words", BAD_LINES.values(), ids=BAD_LINES)
def test_a_bad_line_is_named(tmp_path, line, words):
    (tmp_path / "a.jsonl").write_text('{"text": "good"}\n' + line + "\n")
    with pytest.raises(DataError, match=words) as caught:
        texts(tmp_path / "a.jsonl")
    assert "a.jsonl:2" in caught.value.message


def test_the_line_is_right_after_a_resume_too(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "good"}\n{"text": "good"}\nbad\n')
    with pytest.raises(DataError, match="a.jsonl:3"):
        read(tmp_path / "a.jsonl", start=Cursor(0, 17))


def test_parquet_gives_a_document_a_row(tmp_path):
    parquet(tmp_path / "a.parquet", 2, body=["one", None, "three"], id=[1, 2, 3])
    assert texts(tmp_path / "a.parquet", field="body") == [b"one", b"three"]


@pytest.mark.parametrize("field, words", [("text", "no column 'text' .it has 'body', 'id'"), ("id", "column 'id' is not text")])
def test_a_parquet_file_without_the_text_is_refused(tmp_path, field, words):
    parquet(tmp_path / "a.parquet", 2, body=["one"], id=[1])
    with pytest.raises(DataError, match=words):
        texts(tmp_path / "a.parquet", field=field)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"no parquet at all", b"PAR1" + b"\xff" * 64 + b"PAR1"])
def test_a_damaged_parquet_file_is_refused(tmp_path, content):
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(DataError, match="a.parquet is not a readable parquet file"):
        texts(tmp_path / "a.parquet")


def test_reading_can_begin_after_any_document(tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "LONG_FILE", 100)
    monkeypatch.setattr(documents, "PIECE", 40)
    (tmp_path / "a.txt").write_text("short")
    (tmp_path / "b.txt").write_text("".join(f"line {i}\n" for i in range(40)))
    (tmp_path / "c.jsonl").write_text("".join(f'{{"text": "record {i}"}}\n' for i in range(5)))
    parquet(tmp_path / "d.parquet", 2, text=[f"row {i}" for i in range(5)])
    whole = read(tmp_path)
    assert len(whole) > 15
    for done, (_, cursor) in enumerate(whole, 1):
        assert read(tmp_path, start=cursor) == whole[done:]


def test_the_standard_library_is_there_without_what_was_installed():
    names = [file.name for file in find_files(["python:stdlib"])]
    assert "python:stdlib/json/decoder.py" in names and len(names) > 300
    assert not [name for name in names if "site-packages" in name or "/test/" in name or not name.endswith(".py")]


@pytest.mark.parametrize("source, error", [("nowhere.txt", MissingInput), ("s3://bucket/x", UsageError), ("python:numpy", UsageError),
                                           ("/dev/zero", UsageError)])
def test_a_source_that_is_none_is_refused(source, error):
    with pytest.raises(error, match=source.partition(":")[0]):
        find_files([source])


def test_an_empty_folder_is_a_missing_input(tmp_path):
    with pytest.raises(MissingInput, match="holds no files"):
        find_files([str(tmp_path)])


def test_a_file_that_went_away_is_a_missing_input(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    files = find_files([str(tmp_path)])
    (tmp_path / "a.txt").unlink()
    with pytest.raises(MissingInput, match="went away"):
        list(read_documents(files, Reading(), Skipped(), Cursor()))


def test_a_file_that_may_not_be_read_is_a_missing_input(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("text")

    def refuse(*_):
        raise PermissionError(13, "Permission denied")
    monkeypatch.setattr(documents, "open", refuse, raising=False)
    with pytest.raises(MissingInput, match="a.txt cannot be read: Permission denied"):
        texts(tmp_path)
