"""What was read of a data set's images before, so that an unchanged file is not read again."""

import hashlib
from collections.abc import Iterable

import pandas as pd

from training import manifest
from training.config import DataConfig
from training.store import NotFound, Store

# To be raised when `images.describe` finds something else in the same bytes.
_VERSION = 1
# When these are the same, so is the content.
_IDENTITY = ["path", "bytes", "version"]


class KnownImages:
    """The facts of one data set's images, kept in a store from night to night; losing them costs time alone."""

    def __init__(self, store: Store, data: DataConfig) -> None:
        settings = f"{_VERSION}\0{data.location}\0{data.max_pixels}\0{data.max_bytes}"
        self.store, self.key = store, f"images/{hashlib.sha256(settings.encode()).hexdigest()[:16]}.parquet"

    def of(self, files: pd.DataFrame) -> pd.DataFrame:
        """The known facts of those of `files` (path, bytes, version) that have not changed, without signatures."""
        return self._read(["path", "version", *manifest.FACTS]).merge(files[_IDENTITY], on=_IDENTITY)

    def signatures(self) -> pd.DataFrame:
        """sha256 and signature of every known image that could be decoded, once each; a thousand bytes an image."""
        return self._read(["sha256", "signature"]).dropna().drop_duplicates("sha256")

    def keep(self, facts: pd.DataFrame) -> None:
        """Replace what is known by `facts`, each with its signature; those of files without a version are left out."""
        self.store.write(self.key, manifest.to_parquet(facts[facts["version"].notna()]))

    def add(self, more: Iterable[pd.DataFrame]) -> None:
        """Know these too, tables as for `keep`; what is known of a file in them is replaced."""
        every = pd.concat([*more, self._read(["path", "version", "signature", *manifest.FACTS])], ignore_index=True)
        self.keep(every.drop_duplicates("path", ignore_index=True))

    def _read(self, columns: list[str]) -> pd.DataFrame:
        try:
            return manifest.from_parquet(self.store.read(self.key), columns)
        except (NotFound, manifest.Unreadable):
            return manifest.typed(pd.DataFrame(columns=columns, dtype="string"))
