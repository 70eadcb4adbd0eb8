"""What images look like, told from their signatures: the luminance averaged down to one small square; pure NumPy."""

import numpy as np

# Of a signature.
SIDE = 32
# Pictures looked at at once, since as numbers with a fraction each takes a dozen times its bytes.
_BLOCK = 1 << 10
# The cosine transform's 8 lowest frequencies of a line.
_COSINES = np.cos(np.pi / (2 * SIDE) * np.outer(np.arange(8), 2 * np.arange(SIDE) + 1)).astype(np.float32)


def appearance(signatures: np.ndarray) -> dict[str, np.ndarray]:
    """Perceptual hash (64 bits in hex), brightness and contrast of signatures, uint8 (n, SIDE, SIDE); each (n,).

    Brightness and contrast are the luminance's mean and standard deviation, 0…1. The hash says which of the 8×8 lowest
    frequencies are above their median (Zauner 2010, "pHash"): ImageHash's `phash`, of all images at once.
    """
    starts = range(0, max(len(signatures), 1), _BLOCK)
    blocks = [_appearance(signatures[start : start + _BLOCK]) for start in starts]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def _appearance(signatures: np.ndarray) -> dict[str, np.ndarray]:
    values = signatures.astype(np.float32) / 255
    low = (_COSINES @ values @ _COSINES.T).reshape(len(values), 64)
    bits = low > np.median(low, axis=1, keepdims=True)
    hashes = [row.tobytes().hex() for row in np.packbits(bits, axis=1)]
    places = (1, 2)
    return {
        "perceptual_hash": np.array(hashes, object),
        "brightness": values.mean(axis=places),
        "contrast": values.std(axis=places),
    }
