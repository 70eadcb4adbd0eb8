"""Images that are one picture resized, re-encoded or brightened: the hash proposes, a pixel comparison confirms.

Among look-alikes (cells of one kind, parts off one line) neighbouring perceptual hashes chain into huge clusters, so a
small Hamming distance alone proves nothing. It makes few enough pairs for a comparison of the pictures themselves.
Nothing here reads a file; `benchmarks/near_duplicates.py` measures what the constants were chosen by.
"""

from collections.abc import Iterable, Iterator
from itertools import combinations

import numpy as np

# Of copies that are resized, re-encoded or made a tenth brighter, 99 % lie within 4 bits of a 64-bit pHash; of those
# brightened by a third until they clip, 90 % within 8.
RADIUS = 8
# So many images of one hash take part in the search; thousands of black ones would otherwise be millions of pairs.
EQUALS = 8
# The least correlation of one picture. In the sample, the likest different cells (sister wafers, cut from neighbouring
# slices of one crystal) reach 0.9986, and 99 % of the copies that do not clip exceed it: between what is alike and what
# is the same there is little room, so both sides were measured.
SAME = 0.9987
# From here on two pictures may be one of which a part is lost in white; a closer look decides.
ALIKE = 0.97
LOST = 250
# Clipping begins at 255, and averaging spreads its edge, the farther the smaller the picture; what is nearly white is
# not compared.
WHITE = {32: 215, 128: 240}
# The least share of an image that must remain to be compared.
COMPARABLE = 0.05
# The least standard deviation, in grey levels, of a picture that shows anything.
FEATURELESS = 1.0

# Up to so many comparisons, comparing each with each is faster than looking for whom to compare.
_EACH = 1 << 26
_PAIRS = 1 << 9
_BAND = 16
_BANDS = 64 // _BAND
_BLOCK = 1 << 22


def hash_numbers(texts: Iterable[str]) -> np.ndarray:
    """Perceptual hashes written in 16 hex digits, as in the manifest, as uint64 (n,).

    Raises:
        ValueError: a text is not hexadecimal.
    """
    return np.array([int(text, 16) for text in texts], np.uint64)


def candidates(hashes: np.ndarray, first_new: int) -> np.ndarray:
    """The pairs at Hamming distance of at most RADIUS whose younger image is new; int64 (m, 2), elder first, sorted.

    `hashes` are uint64 (n,) in order of age, of which those from `first_new` on are new. Every pair is found, but for
    one economy: of images with equal hashes, only the EQUALS eldest are searched for. A later one is paired with those
    and nothing else.

    Multi-index hashing: of four bands of 16 bits, three differ in more than two bits each, or else a band is found by
    flipping at most two; the fourth band then differs in one at most (Norouzi, Punjani & Fleet 2012, "Fast search in
    Hamming space with multi-index hashing").
    """
    if first_new >= len(hashes):
        return np.empty((0, 2), np.int64)
    searched, crowd = _crowds(hashes)
    new = int(np.searchsorted(searched, first_new))
    few = len(searched) * (len(searched) - new) <= _EACH
    found = _each(hashes[searched], new) if few else _by_bands(hashes[searched], new)
    near = [searched[pairs] for pairs in found]
    return np.unique(np.concatenate([*near, crowd[crowd[:, 1] >= first_new]]), axis=0)


def _crowds(hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The images to be searched, by age, and each other one's pairs (m, 2) with its EQUALS eldest equals."""
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    eldest = np.searchsorted(ordered, ordered)
    late = np.arange(len(hashes)) - eldest >= EQUALS
    elders = order[eldest[late, None] + np.arange(EQUALS)]
    youngers = np.broadcast_to(order[late, None], elders.shape)
    return np.sort(order[~late]), np.stack([elders.ravel(), youngers.ravel()], axis=1)


def _each(hashes: np.ndarray, first_new: int) -> Iterator[np.ndarray]:
    """The near pairs (m, 2), elder first, by comparing each new one with all."""
    for one, other in _within(hashes, np.arange(first_new, len(hashes)), np.arange(len(hashes))):
        yield np.stack([other, one], axis=1)[other < one]


def _by_bands(hashes: np.ndarray, first_new: int) -> Iterator[np.ndarray]:
    for band in range(_BANDS):
        yield from _near(hashes, first_new, band)


def _near(hashes: np.ndarray, first_new: int, band: int) -> Iterator[np.ndarray]:
    """The near pairs (m, 2) that one band finds, elder first; a pair may come twice."""
    keys = ((hashes >> np.uint64(band * _BAND)) & np.uint64((1 << _BAND) - 1)).astype(np.uint16)
    order = np.argsort(keys, kind="stable")
    ordered = hashes[order]
    ends = np.cumsum(np.bincount(keys, minlength=1 << _BAND))
    starts = np.concatenate([[0], ends[:-1]])
    # Stable sorting left each bucket in order of age.
    old = starts + np.bincount(keys[:first_new], minlength=1 << _BAND)
    flips = _flips(_reach(band))
    for key in np.unique(keys[first_new:]):
        buckets = flips ^ int(key)
        # A new image in an earlier bucket has looked into this one already.
        places = _ranges(starts[buckets], np.where(buckets < key, old[buckets], ends[buckets]))
        for one, other in _within(ordered, np.arange(old[key], ends[key]), places):
            pairs = np.sort(np.stack([order[one], order[other]], axis=1), axis=1)
            yield pairs[pairs[:, 0] < pairs[:, 1]]


def _reach(band: int) -> int:
    """The most bits flipped in a band: were every band further off than this, the distance would exceed RADIUS."""
    whole, rest = divmod(RADIUS, _BANDS)
    return whole if band <= rest else whole - 1


def _flips(reach: int) -> np.ndarray:
    """Every number of 16 bits of which at most `reach` are set."""
    chosen = [bits for count in range(reach + 1) for bits in combinations(range(_BAND), count)]
    return np.array([sum(1 << bit for bit in bits) for bits in chosen])


def _ranges(starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """The numbers from each start up to its end, one range after another."""
    lengths = ends - starts
    return np.arange(lengths.sum()) + np.repeat(starts - np.cumsum(lengths) + lengths, lengths)


def _within(hashes: np.ndarray, ones: np.ndarray, others: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Which of `ones` and `others`, places in `hashes`, are near each other; a block at a time, for memory's sake."""
    rows = max(1, _BLOCK // max(1, len(others)))
    theirs = hashes[others]
    for start in range(0, len(ones), rows):
        block = ones[start : start + rows]
        one, other = np.nonzero(np.bitwise_count(hashes[block, None] ^ theirs) <= RADIUS)
        yield block[one], others[other]


def likenesses(pictures: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """How alike two pictures are, apart from size, encoding, brightness and contrast; float (m,), at most 1.

    Their correlation where neither is nearly white. Pictures that show nothing there (black, white, plain) would
    correlate by their noise; they are 1 if they are equal, and else 0.

    Args:
        pictures: uint8 (n, side, side), each image's luminance brought to one square of a side in WHITE.
        pairs: indices into these, (m, 2).
    """
    blocks = [pairs[start : start + _PAIRS].T for start in range(0, len(pairs), _PAIRS)]
    return np.concatenate([np.empty(0), *(_likeness(pictures[one], pictures[other]) for one, other in blocks)])


def partly_lost(pictures: np.ndarray) -> np.ndarray:
    """Whether a part of a picture, (n, side, side), is as white as can be; bool (n,)."""
    return np.asarray((pictures >= LOST).any(axis=(1, 2)))


def _likeness(ones: np.ndarray, others: np.ndarray) -> np.ndarray:
    comparable = (np.maximum(ones, others) < WHITE[ones.shape[1]]).astype(np.float32)
    sums, *pair = (_blocks(values) for values in (comparable, ones * comparable, others * comparable))
    weights = sums / np.maximum(sums.sum(axis=1, keepdims=True), 1)
    first, second = (_deviations(values / np.maximum(sums, 1), weights) for values in pair)
    spreads = [np.sqrt(np.vecdot(weights, values**2)) for values in (first, second)]
    shows = (np.minimum(*spreads) >= FEATURELESS) & (comparable.mean(axis=(1, 2)) >= COMPARABLE)
    alike = np.vecdot(weights, first * second) / np.maximum(spreads[0] * spreads[1], 1e-9)
    return np.where((ones == others).all(axis=(1, 2)), 1, np.where(shows, alike, 0))


def _deviations(means: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return means - np.vecdot(weights, means)[:, None]


def _blocks(values: np.ndarray) -> np.ndarray:
    """The sums of 16×16 square blocks of (n, side, side), since a single place holds JPEG's noise; (n, 256)."""
    while values.shape[1] > 16:
        rows = values[:, ::2] + values[:, 1::2]
        values = rows[:, :, ::2] + rows[:, :, 1::2]
    return values.reshape(len(values), -1)
