"""How much a small file may unfold to: what is beyond this is no data set, but a decompression bomb. Torch-free."""

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

compute: Any = import_module("pyarrow.compute")
MOST_ROWS = 20_000_000  # of a Parquet file: ImageNet-21k has 14 million images
MOST_VALUES = 1000  # of a list in one row
TIMES = 100  # what a Parquet file says it unfolds to, in sizes of the file
SLACK = 64 << 20  # bytes beside that
MOST_TEXTS = 2 << 30  # bytes of the texts of one column
MOST_BYTES = 512 << 20  # of one packed image file
LABEL = 64  # bytes of a file that holds a number


def check_parquet(file: Any, size: int) -> None:
    """Raise `ValueError` where a `ParquetFile` of `size` bytes says that it unfolds to more than any table of ours."""
    about = file.metadata
    if about.num_rows > MOST_ROWS:
        raise ValueError(f"it says it has {about.num_rows:,} rows, and at most {MOST_ROWS:,} are read")
    told = 0
    for group in range(about.num_row_groups):
        part = about.row_group(group)
        for k in range(part.num_columns):
            column = part.column(k)
            told += column.total_uncompressed_size
            if column.num_values > MOST_VALUES * max(1, part.num_rows):
                raise ValueError(f"column '{column.path_in_schema}' says it has {column.num_values:,} values")
    if told > TIMES * size + SLACK:
        raise ValueError(f"it says it unfolds from {size:,} to {told:,} bytes")


def check_texts(file: Any, source: Any, names: Sequence[str] = ()) -> None:
    """Raise `ValueError` where the texts of these columns, or of all, take more than `MOST_TEXTS` bytes in memory.

    `source` is what the `ParquetFile` was opened from: a path or a buffer.
    One long text may stand in a dictionary that all rows point to. Where that could be, it is looked up unfolded.
    """
    about = file.metadata
    for k in range(len(about.schema)):
        column = about.schema.column(k)
        if column.physical_type != "BYTE_ARRAY" or (names and column.path.partition(".")[0] not in names):
            continue
        told = [about.row_group(g).column(k).total_uncompressed_size for g in range(about.num_row_groups)]
        if about.num_rows * max(told, default=0) > MOST_TEXTS and _unfolded(source, column.path) > MOST_TEXTS:
            raise ValueError(f"the texts of column '{column.path}' take more than {MOST_TEXTS:,} bytes")


def _unfolded(source: Any, name: str) -> int:
    """Bytes of all texts of a column, read as a dictionary and its indices."""
    if isinstance(source, pa.NativeFile):
        source.seek(0)
    with pq.ParquetFile(source, read_dictionary=[name]) as file:
        column = file.read([name], use_threads=False).column(name)
    sizes = [compute.binary_length(part.dictionary).take(part.indices) for part in column.chunks]
    return sum(compute.sum(part).as_py() or 0 for part in sizes)
