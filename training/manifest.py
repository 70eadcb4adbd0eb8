"""The manifest: one row an image, in order of paths; kept as parquet."""

import hashlib
import io
import json

import pandas as pd

from training.store import Store

# Column -> pandas type. `error` is null for an image that decodes; `near_duplicate_of` is the content hash of an elder
# image of the same picture; `leakage` says why an image has no split.
COLUMNS = {
    "path": "string",
    "sha256": "string",
    "perceptual_hash": "string",
    "width": "Int64",
    "height": "Int64",
    "mode": "string",
    "format": "string",
    "bytes": "Int64",
    "brightness": "Float64",
    "contrast": "Float64",
    "label": "string",
    "group": "string",
    "split": "string",
    "near_duplicate_of": "string",
    "leakage": "string",
    "error": "string",
}


# What is known of an image from its content alone.
FACTS = (
    "sha256", "perceptual_hash", "width", "height", "mode", "format", "bytes", "brightness", "contrast", "error",
)  # fmt: skip


class Unreadable(ValueError):
    """The bytes are no table."""


def typed(table: pd.DataFrame) -> pd.DataFrame:
    """The same with every column of a manifest of its type."""
    return table.astype({name: kind for name, kind in COLUMNS.items() if name in table})


def from_table(table: pd.DataFrame) -> pd.DataFrame:
    """A manifest from a table with a manifest's columns, among others."""
    return typed(table[list(COLUMNS)]).sort_values(["path", "label"], kind="stable", ignore_index=True)


def to_parquet(table: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    return buffer.getvalue()


def from_parquet(content: bytes, columns: list[str] | None = None) -> pd.DataFrame:
    """The table, or some of its columns; raises Unreadable."""
    import pyarrow as pa

    try:
        return pd.read_parquet(io.BytesIO(content), columns=columns)
    except (pa.ArrowException, OSError) as error:
        raise Unreadable(str(error)) from None


def digest(table: pd.DataFrame) -> str:
    """SHA-256 of what the data are, in whatever order they come: each image's path, content hash and label."""
    columns = table[["path", "sha256", "label"]].astype("object")
    rows = columns.where(columns.notna(), "").to_numpy().tolist()
    return hashlib.sha256(json.dumps(sorted(rows)).encode()).hexdigest()


def accepted(store: Store) -> pd.DataFrame:
    """The rows of a run's manifest that its validation let through."""
    table, quarantine = (from_parquet(store.read(name)) for name in ("manifest.parquet", "quarantine.parquet"))
    return table[~table.index.isin(quarantine["row"])]


def of_split(table: pd.DataFrame, split: str) -> pd.DataFrame:
    """The rows of one split (train, validation, test), in order of paths."""
    return table[table["split"] == split].reset_index(drop=True)
