"""What images look like, told from their signatures: the luminance averaged down to one small square; pure NumPy."""

import numpy as np

# Of a signature.
SIDE = 32
# The cosine transform's 8 lowest frequencies of a line.
_COSINES = np.cos(np.pi / (2 * SIDE) * np.outer(np.arange(8), 2 * np.arange(SIDE) + 1)).astype(np.float32)


def appearance(signatures: np.ndarray) -> dict[str, np.ndarray]:
    """Perceptual hash (64 bits in hex), brightness and contrast of signatures, uint8 (n, SIDE, SIDE); each (n,).

    Brightness and contrast are the luminance's mean and standard deviation, 0…1. The hash says which of the 8×8 lowest
    frequencies are above their median (Zauner 2010, "pHash"): ImageHash's `phash`, of all images at once.
    """
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
