"""Documents out of a parquet file: one a row, of a text column."""
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mltrain.errors import DataError


def read_parquet(path: Path, column: str, row: int) -> Iterator[tuple[bytes, int]]:
    """(document, row of the next one), from `row` on; nulls are empty documents. Raises DataError."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if column not in names:
                raise DataError(f"{path}: no column {column!r} (it has {', '.join(map(repr, names[:8]))})", "name it with --field")
            kind = file.schema_arrow.field(column).type
            if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
                raise DataError(f"{path}: column {column!r} is not text, but {kind}")
            counts = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
            first = next((group for group in range(len(counts)) if sum(counts[:group + 1]) > row), len(counts))
            groups, at = list(range(first, len(counts))), sum(counts[:first])
            for batch in file.iter_batches(1024, row_groups=groups, columns=[column]):
                batch.validate(full=True)
                for text in batch.column(0).to_pylist():
                    at += 1
                    if at > row:
                        yield (text or "").encode(), at
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        if isinstance(error, (PermissionError, FileNotFoundError)):
            raise
        raise DataError(f"{path} is not a readable parquet file: {str(error).splitlines()[0][:160]}") from None
