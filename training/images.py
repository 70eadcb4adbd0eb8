"""Image files in, arrays and facts out; the only module that imports Pillow."""

import hashlib
import io
from typing import Any

import numpy as np
from PIL import Image, ImageOps


class Undecodable(Exception):
    """The bytes are not an image that can be decoded to its end."""


def decode(content: bytes) -> np.ndarray:
    """The image as uint8 height×width×3 RGB, turned upright as its EXIF orientation says."""
    return np.asarray(_open(content).convert("RGB"))


def describe(content: bytes) -> dict[str, object]:
    """What the manifest keeps of an image: size in pixels and bytes, mode and hashes.

    An image that cannot be decoded has an `error`, and null for what could not be known.
    """
    facts: dict[str, object] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    try:
        image = _open(content)
        return facts | {"width": image.width, "height": image.height, "mode": image.mode, **_hash(image), "error": None}
    except Undecodable as error:
        return facts | unknown(str(error))


def unknown(error: str) -> dict[str, object]:
    """The facts of an image of which nothing could be decoded."""
    return {"width": None, "height": None, "mode": None, "perceptual_hash": None, "error": error}


def _open(content: bytes) -> Any:
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            return ImageOps.exif_transpose(image)
    except Exception as error:  # noqa: BLE001 damaged files make Pillow's decoders raise almost anything
        reason = str(error).split("<")[0].strip() or type(error).__name__
        raise Undecodable(f"{type(error).__name__}: {reason}") from None


def _hash(image: Any) -> dict[str, object]:
    import imagehash  # brings SciPy, which only `ingest` needs

    return {"perceptual_hash": str(imagehash.phash(image.convert("L")))}
