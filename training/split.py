"""Which split an image belongs to: a hash against fixed thresholds, so that new images never move old ones."""

import hashlib

from training.config import SplitConfig

SPLITS = ("train", "validation", "test")


def position(salt: str, key: str) -> float:
    """A number in [0, 1) that depends on nothing but `salt` and `key`."""
    digest = hashlib.sha256(f"{salt}\0{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def assign(key: str, config: SplitConfig) -> str:
    """The split of an image whose group (or content hash, where it has none) is `key`."""
    place = position(config.salt, key)
    if place < config.test:
        return "test"
    return "validation" if place < config.test + config.validation else "train"
