"""The manifest: one row an image, in order of paths; kept as parquet."""

import io
from collections.abc import Sequence

import pandas as pd

# Column -> pandas type. `error` is null for an image that decodes.
COLUMNS = {
    "path": "string",
    "sha256": "string",
    "perceptual_hash": "string",
    "width": "Int64",
    "height": "Int64",
    "mode": "string",
    "bytes": "Int64",
    "label": "string",
    "group": "string",
    "split": "string",
    "error": "string",
}


def from_rows(rows: Sequence[dict[str, object]]) -> pd.DataFrame:
    """A manifest of `rows`, each holding every column's value."""
    table = pd.DataFrame(list(rows), columns=list(COLUMNS)).astype(COLUMNS)
    return table.sort_values(["path", "label"], kind="stable", ignore_index=True)


def to_parquet(table: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    return buffer.getvalue()


def from_parquet(content: bytes) -> pd.DataFrame:
    return pd.read_parquet(io.BytesIO(content))


def of_split(table: pd.DataFrame, split: str) -> pd.DataFrame:
    """The rows of one split (train, validation, test), in order of paths."""
    return table[table["split"] == split].reset_index(drop=True)
