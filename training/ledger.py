"""The ledger of splits: every assignment ever made, so that no image moves when others come or go.

Kept beside the champion as numbered files to which others are only ever added; of two runs that add at once, one is
told to look again.
"""

import hashlib

import pandas as pd

from training import manifest
from training.config import SplitConfig
from training.errors import StoreError, received
from training.store import Store

COLUMNS = ("sha256", "perceptual_hash", "group", "split", "near_duplicate_of")


class Ledger:
    """The assignments under one salt and one set of shares; other ones begin a ledger of their own."""

    def __init__(self, store: Store, config: SplitConfig) -> None:
        settings = f"{config.salt}\0{config.validation}\0{config.test}"
        self.store, self.prefix = store, f"splits/{hashlib.sha256(settings.encode()).hexdigest()[:16]}/"
        self._entries = 0

    def read(self) -> pd.DataFrame:
        """Every image ever assigned, the eldest first, once each; columns as in `COLUMNS`."""
        keys = [entry.key for entry in self.store.list(self.prefix)]
        self._entries = len(keys)
        parts = [self._part(key) for key in keys]
        empty = manifest.typed(pd.DataFrame(columns=list(COLUMNS)))
        return pd.concat([empty, *parts], ignore_index=True).drop_duplicates("sha256", ignore_index=True)

    def append(self, rows: pd.DataFrame) -> bool:
        """Add assignments to those last read; False when another run has added some since."""
        content = manifest.to_parquet(rows[list(COLUMNS)].reset_index(drop=True))
        return self.store.create(f"{self.prefix}{self._entries + 1:08d}.parquet", content)

    def _part(self, key: str) -> pd.DataFrame:
        try:
            return manifest.from_parquet(self.store.read(key))
        except manifest.Unreadable:
            remedy = "Bring the file back from a backup; without it images could move between splits."
            raise StoreError(received(self.store.uri(key), "a damaged file", "parquet"), remedy=remedy) from None
