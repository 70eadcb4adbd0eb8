import hashlib
import io
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT
from tests.training.fuzzing import KINDS
from training.appearance import SIDE, appearance
from training.images import Memory, Undecodable, decode, describe, thumbnail


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
    assert len(facts["signature"]) == SIDE**2


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
    signatures = [np.frombuffer(describe(encoded(cell, kind))["signature"], np.uint8) for kind in ("PNG", "JPEG")]
    hashes = appearance(np.stack(signatures).reshape(2, SIDE, SIDE))["perceptual_hash"]
    assert (int(hashes[0], 16) ^ int(hashes[1], 16)).bit_count() <= 2


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_are_decoded_or_refused_and_never_end_the_process(kind):
    command = [sys.executable, "-m", "tests.training.fuzzing", kind, "200"]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    decoded, refused = map(int, done.stdout.split())
    assert decoded + refused == 200 and min(decoded, refused) > 0


def test_sixteen_bits_are_scaled_and_not_cut_off():
    ramp = np.linspace(0, 65535, 40 * 50).reshape(40, 50).astype(np.uint16)
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(ramp)))[..., 0], ramp // 256)


def test_memory_is_shared_out():
    """Threads that together need more than there is wait for one another; one that needs more than all runs alone."""
    memory, most, using = Memory(100), [], []

    def work(amount):
        with memory.taken(amount):
            using.append(min(amount, 100))
            most.append(sum(using))
            time.sleep(0.005)
            using.remove(min(amount, 100))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, [30, 60, 500, 10, 90, 100, 40] * 4))
    assert max(most) <= 100 and memory.left == 100


def test_a_thumbnail_is_small_and_keeps_the_sides():
    with Image.open(io.BytesIO(thumbnail(encoded(photo()), 15))) as small:
        assert small.size == (15, 10)
    assert thumbnail(b"nothing", 15) is None


def test_what_a_limit_let_in_is_not_refused_later():
    large = encoded(Image.new("L", (6000, 6000)))
    assert "data.max_pixels" in describe(large)["error"]
    assert describe(large, 6000**2)["error"] is None
    assert decode(large).shape == (6000, 6000, 3)
