"""Describes images damaged at random: ``python -m tests.training.fuzzing KIND COUNT`` -> decoded, refused."""

import io
import sys

import numpy as np
from PIL import Image

from training.images import describe

KINDS = {
    "PNG": [{}],
    "JPEG": [{}, {"progressive": True}],
    "TIFF": [{}, {"compression": "tiff_lzw"}, {"compression": "jpeg"}, {"compression": "tiff_adobe_deflate"}],
    "WEBP": [{}, {"lossless": True}],
    "GIF": [{}],
    "BMP": [{}],
}


def damaged(kind, count, cell):
    """`count` files of this kind, each flipped, cut or joined with another in some place."""
    random = np.random.default_rng(sum(kind.encode()))
    files = []
    for options in KINDS[kind]:
        buffer = io.BytesIO()
        cell.save(buffer, kind, **options)
        files.append(buffer.getvalue())
    for number in range(count):
        content = bytearray(files[number % len(files)])
        # Headers are short and say how to read the rest, so half of the damage goes there.
        reach = len(content) if number % 2 else min(len(content), 200)
        way = number % 3
        if way == 0:
            for place in random.integers(reach, size=random.integers(1, 30)):
                content[place] = random.integers(256)
        elif way == 1:
            content = content[: random.integers(reach)]
        else:
            other = files[random.integers(len(files))]
            content = content[: random.integers(reach)] + other[random.integers(len(other)) :]
        yield bytes(content)


def main():
    kind, count = sys.argv[1], int(sys.argv[2])
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    cell = Image.fromarray(pixels.repeat(3, axis=0).repeat(3, axis=1))
    errors = [describe(content)["error"] for content in damaged(kind, count, cell)]
    assert all(error is None or "\n" not in str(error) for error in errors)
    print(errors.count(None), count - errors.count(None))


if __name__ == "__main__":
    main()
