"""Which split new images go to, so that nothing that belongs together is ever on two sides; pure."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from training import split
from training.config import SplitConfig


@dataclass(frozen=True, slots=True)
class Placement:
    """An image's split, or why it has none."""

    split: str | None
    leakage: str | None = None


def place(
    units: Mapping[str, Sequence[str]],
    *,
    tied: Mapping[str, frozenset[str]],
    elders: Mapping[str, Sequence[str]],
    known: Mapping[str, str],
    config: SplitConfig,
) -> dict[str, Placement]:
    """The placement of every new image, by its content hash.

    A unit with images in the ledger follows these; else the elders of its images, of which they are near-duplicates;
    else the hash of its name. What would have to be in two splits at once is in none.

    Args:
        units: group -> its new images; an image without a group is a unit of its own. The eldest first.
        tied: group -> the splits that its known images are in.
        elders: image -> older images of the same picture, known or new.
        known: image -> its split.
    """
    splits, placed = dict(known), dict[str, Placement]()
    for unit, images in units.items():
        placed |= _place_unit(unit, images, tied.get(unit, frozenset()), _seen(images, elders, splits), config)
        splits |= {image: found for image in images if (found := placed[image].split)}
    return placed


def _seen(
    images: Sequence[str], elders: Mapping[str, Sequence[str]], splits: Mapping[str, str]
) -> dict[str, dict[str, str]]:
    """For each image, the splits of its elders outside its unit, each with one such elder."""
    return {
        image: {splits[elder]: elder for elder in elders.get(image, ()) if elder in splits and elder not in images}
        for image in images
    }


def _place_unit(
    unit: str,
    images: Sequence[str],
    tied: frozenset[str],
    seen: Mapping[str, Mapping[str, str]],
    config: SplitConfig,
) -> Iterator[tuple[str, Placement]]:
    wanted = tied or {name for splits in seen.values() for name in splits}
    own = next(iter(wanted)) if wanted else split.assign(unit, config)
    for image in images:
        if len(wanted) > 1:
            yield image, Placement(None, bridging(f"group {unit!r}" if tied or len(images) > 1 else "it", wanted))
        elif set(seen[image]) - {own}:
            yield image, Placement(None, f"it belongs to {own} by its group, its picture to {_and(seen[image])}")
        else:
            yield image, Placement(own)


def bridging(what: str, splits: Collection[str]) -> str:
    """Why something can be in no split."""
    return f"{what} would be in {_and(splits)}"


def _and(splits: Collection[str]) -> str:
    return " and ".join(name for name in split.SPLITS if name in splits)
