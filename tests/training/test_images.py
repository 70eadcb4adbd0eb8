import hashlib
import io

import numpy as np
import pytest
from PIL import Image

from training.images import Undecodable, decode, describe


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def photo():
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8))


def test_facts_of_a_good_image():
    content = encoded(photo())
    facts = describe(content)
    assert (facts["width"], facts["height"], facts["mode"], facts["error"]) == (30, 20, "RGB", None)
    assert facts["sha256"] == hashlib.sha256(content).hexdigest() and facts["bytes"] == len(content)
    assert len(facts["perceptual_hash"]) == 16


def test_grey_images_become_three_equal_channels():
    pixels = decode(encoded(photo().convert("L")))
    assert pixels.shape == (20, 30, 3) and pixels.dtype == np.uint8
    assert (pixels[..., 0] == pixels[..., 2]).all()


def test_images_are_turned_upright():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by a quarter
    content = encoded(photo(), "JPEG", exif=exif, quality=95)
    assert decode(content).shape == (30, 20, 3)
    assert (describe(content)["width"], describe(content)["height"]) == (20, 30)


@pytest.mark.parametrize("content", [b"", b"plain text", encoded(photo())[:200], encoded(photo(), "JPEG")[:300]])
def test_damage_is_an_error_not_a_crash(content):
    facts = describe(content)
    assert facts["error"] and facts["width"] is None and "\n" not in facts["error"]
    with pytest.raises(Undecodable):
        decode(content)


def test_same_picture_other_encoding_has_nearly_the_same_hash():
    cell = photo().resize((200, 200))
    hashes = [int(describe(encoded(cell, kind))["perceptual_hash"], 16) for kind in ("PNG", "JPEG")]
    assert (hashes[0] ^ hashes[1]).bit_count() <= 2
