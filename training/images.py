"""Image files in, arrays and facts out; the only module that imports Pillow."""

import hashlib
import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from training.appearance import SIDE

# Others that Pillow reads are documents, containers, or need programs of their own. Imported here, since Pillow would
# import them when the first is needed, and a second thread would find half of them.
_PLUGINS = (
    PngImagePlugin.PngImageFile,
    JpegImagePlugin.JpegImageFile,
    TiffImagePlugin.TiffImageFile,
    WebPImagePlugin.WebPImageFile,
    GifImagePlugin.GifImageFile,
    BmpImagePlugin.BmpImageFile,
)
FORMATS = tuple(plugin.format for plugin in _PLUGINS)
MAX_PIXELS = 2**25
# What Pillow warns of is an error a moment later, or a tag that nobody asks for.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
# Pillow's own limit is one for all of the process; here it is an argument, held before anything is decoded.
Image.MAX_IMAGE_PIXELS = None
_BYTES_A_PIXEL = 8  # as decoded, and once more as turned upright
_MOST_MEMORY = 2**28


class Undecodable(Exception):
    """The bytes are not an image that can be decoded to its end."""


class Memory:
    """So many bytes that threads share: who needs more than is left waits; who needs more than all takes all."""

    def __init__(self, most: int) -> None:
        self.most = self.left = most
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, amount: int) -> Iterator[None]:
        amount = min(amount, self.most)
        with self._changed:
            self._changed.wait_for(lambda: self.left >= amount)
            self.left -= amount
        try:
            yield
        finally:
            with self._changed:
                self.left += amount
                self._changed.notify_all()


_decoding = Memory(_MOST_MEMORY)


def decode(content: bytes) -> np.ndarray:
    """The image as uint8 height×width×3 RGB, turned upright as its EXIF orientation says.

    Transparency is dropped, CMYK converted without a profile, and of 16 bits the upper 8 are kept. However large it is:
    what `describe` let in by its limit must not be refused later.

    Raises:
        Undecodable: it is damaged, of another format, or moves.
    """
    with _loaded(content) as (image, _):
        return np.asarray(_eight_bits(image).convert("RGB"))


def luminance(content: bytes, side: int) -> np.ndarray:
    """The luminance (ITU-R 601-2) averaged down to one square, uint8 (side, side); raises as `decode` does."""
    with _loaded(content) as (image, _):
        return np.asarray(_square(image, side))


def describe(content: bytes, max_pixels: int = MAX_PIXELS) -> dict[str, object]:
    """What the manifest keeps of an image.

    Format and mode (Pillow's names), width and height when upright, size in bytes, the content's hash, and the
    signature from which `training.appearance` tells what it looks like. An image that cannot be decoded has an `error`,
    and null for what could not be known.
    """
    facts: dict[str, object] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    try:
        with _loaded(content, max_pixels) as (image, kind):
            size = {"width": image.width, "height": image.height, "mode": image.mode, "format": kind}
            return facts | size | {"signature": _square(image, SIDE).tobytes(), "error": None}
    except Undecodable as error:
        return facts | unknown(str(error))


def unknown(error: str) -> dict[str, object]:
    """The facts of an image of which nothing could be decoded."""
    return dict.fromkeys(("width", "height", "mode", "format", "signature")) | {"error": error}


def thumbnail(content: bytes, side: int, kind: Literal["PNG", "JPEG"] = "PNG") -> bytes | None:
    """A small picture of at most `side` pixels a side; None of what cannot be decoded."""
    try:
        image = Image.fromarray(decode(content))
    except Undecodable:
        return None
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


@contextmanager
def _loaded(content: bytes, max_pixels: int | None = None) -> Iterator[tuple[Any, str]]:
    """The decoded image, upright, and its format; while inside, its memory is counted."""
    with _told():
        image = Image.open(io.BytesIO(content), formats=FORMATS)
        _refuse(image, max_pixels)
    with _decoding.taken(_BYTES_A_PIXEL * image.width * image.height):
        with _told():
            image.load()
            upright = ImageOps.exif_transpose(image) if _may_be_turned(image) else image
        yield upright, str(image.format)


@contextmanager
def _told() -> Iterator[None]:
    """Turns whatever Pillow's decoders raise over damaged bytes, which is almost anything, into one line."""
    try:
        yield
    except Undecodable:
        raise
    except UnidentifiedImageError:
        raise Undecodable(f"cannot identify the content as one of {', '.join(FORMATS)}") from None
    except Exception as error:  # noqa: BLE001
        reason = " ".join(str(error).split("<")[0].split()) or type(error).__name__
        raise Undecodable(f"{type(error).__name__}: {reason}") from None


def _refuse(image: Any, max_pixels: int | None) -> None:
    width, height = image.size
    if max_pixels is not None and width * height > max_pixels:
        raise Undecodable(f"{width}×{height} pixels, more than data.max_pixels ({max_pixels}): not decoded")
    # The second picture of a camera's MPO is a preview or the other eye's view.
    if getattr(image, "is_animated", False) and image.format != "MPO":
        raise Undecodable(f"more than one frame in a {image.format}, expected a single picture")


def _may_be_turned(image: Any) -> bool:
    """Whether there is an EXIF block to look into, which takes time."""
    return image.format == "TIFF" or any("exif" in str(key).lower() or "xmp" in str(key).lower() for key in image.info)


def _eight_bits(image: Any) -> Any:
    """Pillow would cut 16-bit values off at 255 instead of scaling them."""
    if not image.mode.startswith("I;16"):
        return image
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))


def _square(image: Any, side: int) -> Any:
    luminance = image if image.mode == "L" else _eight_bits(image).convert("L")
    # Nearly the exact means of equal areas, at a third of the price.
    return luminance.resize((side, side), Image.Resampling.HAMMING, reducing_gap=3)
