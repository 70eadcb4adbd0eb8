"""Bad rows and what becomes of each: `PLANTED` name -> (plant, rule or None where it is good, words of the reason).

`plant(folder)` makes what it needs and returns lines of labels.csv.
"""

import io
import os
import struct
import unicodedata
import zlib

import numpy as np
from PIL import Image


def cell(folder, number=0):
    """Bytes of one of the good images."""
    return sorted((folder / "images").iterdir())[number].read_bytes()


def photo(seed=0, size=(64, 48), mode="RGB"):
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def put(name, content, label="intact"):
    """Plants one file that is listed as `label`."""

    def plant(folder):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content(folder) if callable(content) else content)
        return [f"{name},{label}"]

    return plant


def listed(*lines):
    return lambda folder: list(lines)


def png_that_says(width, height):
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


def frames(kind, **options):
    first, *others = (photo(seed) for seed in range(3))
    return encoded(first, kind, save_all=True, append_images=others, **options)


def broken_checksum(folder):
    content = bytearray(cell(folder))
    content[len(content) // 2] ^= 0xFF
    return bytes(content)


def link_to(target):
    def plant(folder):
        (folder / "link.png").symlink_to(target)
        return ["link.png,intact"]

    return plant


def pipe(folder):
    os.mkfifo(folder / "pipe.png")
    return ["pipe.png,intact"]


def folder_as_image(folder):
    (folder / "folder.png").mkdir()
    return ["folder.png,intact"]


def sparse(folder):
    with (folder / "sparse.png").open("wb") as file:
        file.truncate(2**33)
    return ["sparse.png,intact"]


def two_labels(folder):
    (folder / "twice.png").write_bytes(encoded(photo(7), "PNG"))
    return ["twice.png,intact", "twice.png,defective"]


def copy(folder):
    for name in ("original.png", "other.png"):
        (folder / name).write_bytes(encoded(photo(16), "PNG"))
    return ["original.png,intact", "other.png,intact"]


def listed_again(folder):
    (folder / "again.png").write_bytes(encoded(photo(8), "PNG"))
    return ["again.png,intact", "again.png,intact"]


def decomposed(folder):
    """Stored as some file systems do, listed as people type."""
    name = "zelle_ü.png"
    (folder / unicodedata.normalize("NFD", name)).write_bytes(encoded(photo(11), "PNG"))
    return [f"{unicodedata.normalize('NFC', name)},intact"]


JPEG = encoded(photo(3), "JPEG")
PLANTED = {
    "zero bytes": (put("empty.png", b""), "decodable", "cannot identify"),
    "text": (put("text.png", b"this is no image"), "decodable", "cannot identify"),
    "html": (put("page.png", b"<html><script>alert(1)</script>"), "decodable", "cannot identify"),
    "pdf": (put("paper.png", b"%PDF-1.4\n1 0 obj\n"), "decodable", "cannot identify"),
    "postscript": (put("drawing.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), "decodable", "cannot"),
    "svg": (put("drawing.svg", b'<svg xmlns="http://www.w3.org/2000/svg"/>'), "decodable", "cannot identify"),
    "icon": (put("icon.png", encoded(photo(size=(32, 32)), "ICO")), "decodable", "cannot identify"),
    "cut png": (put("cut.png", lambda folder: cell(folder)[:3000]), "decodable", "truncated"),
    "cut jpeg": (put("cut.jpg", JPEG[: len(JPEG) // 2]), "decodable", "truncated"),
    "cut header": (put("header.jpg", JPEG[:20]), "decodable", ""),
    "broken checksum": (put("checksum.png", broken_checksum), "decodable", ""),
    "bomb": (put("bomb.png", png_that_says(60_000, 60_000)), "decodable", "data.max_pixels"),
    "lies about its size": (put("lies.png", png_that_says(5_000, 5_000)), "decodable", "truncated"),
    "real bomb": (
        put("real_bomb.png", lambda _: encoded(Image.new("L", (8_000, 8_000)), "PNG")),
        "decodable",
        "data.max_pixels",
    ),
    "animated gif": (put("moves.gif", frames("GIF")), "decodable", "more than one frame in a GIF"),
    "endless gif": (put("endless.gif", frames("GIF", loop=0)), "decodable", "more than one frame"),
    "animated webp": (put("moves.webp", frames("WEBP")), "decodable", "more than one frame in a WEBP"),
    "animated png": (put("moves.png", frames("PNG")), "decodable", "more than one frame in a PNG"),
    "pages": (put("pages.tiff", frames("TIFF")), "decodable", "more than one frame in a TIFF"),
    "cmyk": (put("cmyk.jpg", encoded(photo(mode="CMYK"), "JPEG")), "known_mode", "CMYK"),
    "16 bits": (
        put("deep.png", encoded(Image.fromarray(np.full((40, 40), 40_000, np.uint16)), "PNG")),
        "known_mode",
        "I;16",
    ),
    "floats": (put("float.tiff", encoded(photo(mode="F"), "TIFF")), "known_mode", "'F'"),
    "tiny": (put("tiny.png", encoded(photo(size=(8, 8)), "PNG")), "width_in_bounds", "received 8"),
    "narrow": (put("narrow.png", encoded(photo(size=(40, 9)), "PNG")), "height_in_bounds", "received 9"),
    "wide": (put("wide.png", encoded(photo(size=(9_000, 40)), "PNG")), "width_in_bounds", "received 9000"),
    "unknown label": (put("typo.png", encoded(photo(4), "PNG"), "intakt"), "known_label", "'intakt'"),
    "no label": (put("unlabelled.png", encoded(photo(5), "PNG"), ""), "label_present", "received no label"),
    "no file": (listed("nowhere.png,intact"), "decodable", "no such file"),
    "no path": (listed(",intact"), "path_present", "received no path"),
    "above the folder": (listed("../../etc/passwd,intact"), "decodable", "leads out"),
    "absolute": (listed("/etc/passwd,intact"), "decodable", "leads out"),
    "zero in its name": (listed("a\0b.png,intact"), "decodable", "leads out"),
    "line break in its name": (listed('"two\nlines.png",intact'), "decodable", r"two\nlines.png"),
    "long name": (listed(f"{'a' * 5000}.png,intact"), "decodable", "no such file"),
    "too many fields": (listed("many.png,intact,,what,else"), "decodable", "fields"),
    "link outside": (link_to("/etc/hostname"), "decodable", "leads out"),
    "link in a circle": (link_to("link.png"), "decodable", "no such file"),
    "endless file": (link_to("/dev/zero"), "decodable", "leads out"),
    "named pipe": (pipe, "decodable", "no such file"),
    "folder": (folder_as_image, "decodable", "no such file"),
    "huge file": (sparse, "decodable", "data.max_bytes"),
    "two labels": (two_labels, "one_label_an_image", "2 labels"),
    "copy": (copy, "unique_content", "the same content as original.png"),
    "listed again": (listed_again, "unique_content", "a second time"),
    "palette": (put("palette.png", encoded(photo(6, mode="P"), "PNG")), None, ""),
    "alpha": (put("alpha.png", encoded(photo(9, mode="RGBA"), "PNG")), None, ""),
    "wrong extension": (put("really_a_jpeg.png", JPEG), None, ""),
    "no extension": (put("image", encoded(photo(10), "BMP")), None, ""),
    "spaces and unicode": (put("zelle nr 1 ☀.png", encoded(photo(12), "PNG")), None, ""),
    "other unicode form": (decomposed, None, ""),
    "backslashes": (
        lambda folder: (put("deep/er/cell.png", encoded(photo(13), "PNG"))(folder), ["deep\\er\\cell.png,intact"])[1],
        None,
        "",
    ),
    "dot in its path": (
        lambda folder: (put("dot.png", encoded(photo(14), "PNG"))(folder), ["./dot.png,intact"])[1],
        None,
        "",
    ),
    "a camera's two pictures": (put("camera.jpg", frames("MPO")), None, ""),
    "two files in one": (put("joined.png", encoded(photo(15), "PNG") + JPEG), None, ""),
}
