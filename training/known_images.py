"""What was read of a data set's images before, so that an unchanged file is not read again."""

import hashlib
from collections.abc import Iterable

import pandas as pd

from training import manifest
from training.config import DataConfig
from training.store import NotFound, Store

# To be raised when `images.describe` finds something else in the same bytes.
_VERSION = 2
# When these are the same, so is the content.
_IDENTITY = ["path", "bytes", "version"]
_FACTS = ["path", "version", *manifest.FACTS, "signature_file"]
_SIGNATURES = ["sha256", "signature"]


class KnownImages:
    """The facts of one data set's images, kept in a store from night to night; losing them costs time alone.

    Signatures, a thousand bytes an image, are kept apart: a file for each time that images came, which facts name.
    """

    def __init__(self, store: Store, data: DataConfig) -> None:
        settings = f"{_VERSION}\0{data.location}\0{data.max_pixels}\0{data.max_bytes}"
        self.store, self.folder = store, f"images/{hashlib.sha256(settings.encode()).hexdigest()[:16]}/"

    def of(self, files: pd.DataFrame) -> pd.DataFrame:
        """The known facts of those of `files` (path, bytes, version) that have not changed."""
        return self._read("facts.parquet", _FACTS).merge(files[_IDENTITY], on=_IDENTITY)

    def keep(self, facts: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
        """Replace what is known by `facts`, as `of` gives them, and the `new`, each with its signature; all of them.

        Those of files without a version are not kept.
        """
        both = pd.concat([facts, self._without_signatures(new)], ignore_index=True)
        self._keep(both)
        return both

    def add(self, more: Iterable[pd.DataFrame]) -> None:
        """Know these tables of new facts too, one of which is held at a time with its signatures."""
        every = [self._without_signatures(new) for new in more]
        known = pd.concat([*every, self._read("facts.parquet", _FACTS)], ignore_index=True)
        self._keep(known.drop_duplicates("path", ignore_index=True))

    def signatures(self, facts: pd.DataFrame) -> pd.DataFrame:
        """sha256 and signature of images given by their facts; what is lost is left out."""
        parts = [
            found[found["sha256"].isin(images["sha256"])]
            for name, images in facts.groupby("signature_file")
            for found in [self._read(str(name), _SIGNATURES)]
        ]
        empty = manifest.typed(pd.DataFrame(columns=_SIGNATURES, dtype="object"))
        return pd.concat([empty, *parts], ignore_index=True).drop_duplicates("sha256", ignore_index=True)

    def _without_signatures(self, new: pd.DataFrame) -> pd.DataFrame:
        signatures = new[_SIGNATURES].dropna().drop_duplicates("sha256", ignore_index=True)
        content = manifest.to_parquet(signatures)
        name = f"signatures-{hashlib.sha256(content).hexdigest()[:16]}.parquet"
        if len(signatures):
            self.store.write(self.folder + name, content)
        return new.drop(columns="signature").assign(signature_file=name).astype({"signature_file": "string"})

    def _keep(self, facts: pd.DataFrame) -> None:
        kept = facts.loc[facts["version"].notna(), _FACTS]
        self.store.write(f"{self.folder}facts.parquet", manifest.to_parquet(kept))

    def _read(self, name: str, columns: list[str]) -> pd.DataFrame:
        try:
            return manifest.from_parquet(self.store.read(self.folder + name), columns)
        except (NotFound, manifest.Unreadable):
            return manifest.typed(pd.DataFrame(columns=columns, dtype="string"))
