"""Gives every image its split: as the ledger has it, or, to new ones, by what they resemble and belong to."""

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import chain

import pandas as pd

from training import manifest, split
from training.assignment import bridging, place
from training.config import SplitConfig
from training.errors import NightshiftError
from training.ledger import Ledger
from training.looks import Looks
from training.near_duplicates import candidates, hash_numbers

log = logging.getLogger(__name__)
_ATTEMPTS = 5
_IMAGE = ["sha256", "perceptual_hash", "group"]
_PLACED = ["split", "leakage", "near_duplicate_of"]


def assign_splits(table: pd.DataFrame, ledger: Ledger, config: SplitConfig, looks: Callable[[], Looks]) -> pd.DataFrame:
    """The table with the columns split, near_duplicate_of and leakage; new assignments are added to the ledger.

    Args:
        table: path, group, and an image's facts; rows of what could not be decoded get no split.
        looks: gives what the table's images look like; asked for where there are new ones.
    """
    for _ in range(_ATTEMPTS):
        known = ledger.read()
        ties = _ties(table, known)
        placed = _placed(_fresh(table, known), known, ties, looks, config)
        new = placed[placed["split"].notna()]
        if not len(new) or ledger.append(new):
            return _with_splits(table, known, placed, ties)
    raise NightshiftError("ingest: other runs keep adding to the ledger of splits", remedy="Try again later.")


def _fresh(table: pd.DataFrame, known: pd.DataFrame) -> pd.DataFrame:
    """Images that the ledger does not have, those of one group together, in order of paths."""
    found = table[["sha256"]].merge(known[["sha256", "split"]], how="left", on="sha256")["split"].set_axis(table.index)
    images = table.loc[found.isna() & table["perceptual_hash"].notna(), ["path", *_IMAGE]]
    images = images.sort_values("path").drop_duplicates("sha256")
    images = images.assign(unit=images["group"].fillna(images["sha256"]))
    together = pd.Series(pd.factorize(images["unit"])[0], images.index).sort_values(kind="stable")
    return images.loc[together.index].reset_index(drop=True)


def _ties(table: pd.DataFrame, known: pd.DataFrame) -> dict[str, frozenset[str]]:
    """Group -> its split in the ledger; of a group that is not in it, the splits of its images that are."""
    grouped = table.loc[table["group"].notna(), ["sha256", "group"]]
    if grouped.empty:
        return {}
    now = grouped.merge(known[["sha256", "split"]], on="sha256")
    now = now[~now["group"].isin(known["group"].dropna())]
    both = pd.concat([known[["group", "split"]], now[["group", "split"]]]).dropna().drop_duplicates()
    both = both[both["group"].isin(grouped["group"])]
    return {str(group): frozenset(splits) for group, splits in both.groupby("group")["split"]}


def _placed(
    fresh: pd.DataFrame,
    known: pd.DataFrame,
    ties: Mapping[str, frozenset[str]],
    looks: Callable[[], Looks],
    config: SplitConfig,
) -> pd.DataFrame:
    """The ledger's columns, and `leakage`, of the fresh images."""
    elders = _elders(known, fresh, looks()) if len(fresh) else {}
    related = {*elders, *chain.from_iterable(elders.values())}
    # Most images belong to nothing, and of millions each object would count.
    alone = fresh["group"].isna() & ~fresh["sha256"].isin(related)
    lone, others = fresh[alone], fresh[~alone]
    splits = pd.DataFrame({"split": [split.assign(name, config) for name in lone["sha256"]]}, lone.index)
    rows = _in_company(others, known[known["sha256"].isin(related)], ties, elders, config)
    columns = pd.concat([splits, pd.DataFrame(rows, others.index, _PLACED)]).reindex(columns=_PLACED)
    return manifest.typed(fresh[_IMAGE].join(columns))


def _in_company(
    fresh: pd.DataFrame,
    known: pd.DataFrame,
    ties: Mapping[str, frozenset[str]],
    elders: Mapping[str, Sequence[str]],
    config: SplitConfig,
) -> list[tuple[str | None, str | None, str | None]]:
    """The columns of `_PLACED` for fresh images with a group or look-alikes, some of which are known."""
    units = {str(unit): list(images) for unit, images in fresh.groupby("unit", sort=False)["sha256"]}
    splits = dict(zip(known["sha256"], known["split"], strict=True))
    placed = place(units, tied=ties, elders=elders, known=splits, config=config)
    found = [(placed[image], next(iter(elders.get(image, ())), None)) for image in fresh["sha256"]]
    return [(placement.split, placement.leakage, elder) for placement, elder in found]


def _elders(known: pd.DataFrame, fresh: pd.DataFrame, looks: Looks) -> dict[str, list[str]]:
    """Fresh image -> older ones of the same picture: the hash proposes them, their pixels confirm.

    Only among images that are still there: what is gone can leak nothing, and who resembled it has its split already.
    """
    both = pd.concat([known[_IMAGE], fresh[_IMAGE]], ignore_index=True)
    names = both["sha256"].to_numpy(object)
    proposed = names[candidates(hash_numbers(both["perceptual_hash"]), len(known))]
    pairs = looks.present(proposed)
    elders = defaultdict[str, list[str]](list)
    for elder, younger in pairs[looks.same(pairs)]:
        elders[younger].append(elder)
    log.info("%d pairs of images look alike, %d images show what an older one shows", len(pairs), len(elders))
    return elders


def _with_splits(
    table: pd.DataFrame, known: pd.DataFrame, placed: pd.DataFrame, ties: Mapping[str, frozenset[str]]
) -> pd.DataFrame:
    columns = ["sha256", "split", "near_duplicate_of", "leakage"]
    every = pd.concat([known, placed], ignore_index=True) if len(placed) else known.assign(leakage=None)
    found = table.merge(every[columns], how="left", on="sha256")
    if ties:
        pairs = zip(found["group"], found["split"], strict=True)
        torn = pd.Series([_torn(group, split, ties) for group, split in pairs], found.index, dtype="string")
        found["leakage"] = found["leakage"].fillna(torn)
    return manifest.typed(found.assign(split=found["split"].where(found["leakage"].isna())))


def _torn(group: object, split: object, ties: Mapping[str, frozenset[str]]) -> str | None:
    """What is wrong with an image of this group in this split."""
    splits = ties.get(group, frozenset()) if isinstance(group, str) else frozenset[str]()
    if len(splits) > 1:
        return bridging(f"group {group!r}", splits)
    moved = isinstance(split, str) and splits and split not in splits
    return f"it has been in {split}, its group {group!r} in {' '.join(splits)}" if moved else None
