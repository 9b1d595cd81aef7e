"""Pictures for the tests, good and evil, made here."""

import struct
import zlib
from io import BytesIO
from typing import Any

from PIL import Image

RED, BLUE = (200, 30, 30), (30, 30, 200)
PLACE = b"Null Island 0.0N 0.0E"  # what nobody else shall read
ORIENTATION, DESCRIPTION, GPS = 0x0112, 0x010E, 0x8825


def draw(kind: str, size: tuple[int, int] = (300, 200), mode: str = "RGB", **options: Any) -> bytes:
    """Draw a picture that is red at the left and blue at the right."""
    image = Image.new("RGB", size, RED)
    image.paste(BLUE, (size[0] // 2, 0, *size))
    file = BytesIO()
    image.convert(mode).save(file, kind, **options)
    return file.getvalue()


def note_place(orientation: int = 1) -> Image.Exif:
    """What a phone writes beside a picture."""
    exif = Image.Exif()
    exif[ORIENTATION], exif[DESCRIPTION] = orientation, PLACE.decode()
    exif.get_ifd(GPS)[1] = "N"
    return exif


def make_png(width: int, height: int, depth: int, colours: int, rows: bytes) -> bytes:
    """A PNG that says of itself what the test wants."""
    head = struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    packed = (struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def make_webp_head(side: int) -> bytes:
    """The beginning of a WebP file of so many pixels, and nothing after it."""
    size = (side - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + size + size
    return b"RIFF" + struct.pack("<I", len(body)) + body


def make_slow_jpeg(passes: int) -> bytes:
    """A small JPEG that asks for its last pass over the picture again and again."""
    jpeg = draw("JPEG", (2000, 2000), progressive=True)
    last = jpeg.rindex(b"\xff\xda")
    return jpeg[:last] + jpeg[last:-2] * passes + jpeg[-2:]


def make_animation(frames: int) -> bytes:
    first, *rest = [Image.new("P", (400, 400), number % 256) for number in range(frames)]
    file = BytesIO()
    first.save(file, "GIF", save_all=True, append_images=rest)
    return file.getvalue()


SCRIPT = b"<script>alert(document.domain)</script>"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)">' + SCRIPT + b"</svg>"
HTML_IN_GIF = draw("GIF", (20, 20)) + b"<!doctype html>" + SCRIPT
HTML_AS_GIF = b"GIF89a/*" + SCRIPT + b"*/"

NO_PICTURES = {
    "nothing": b"\0",
    "text": b"Dear diary",
    "html": b"<!doctype html>" + SCRIPT,
    "svg": SVG,
    "svg with a prolog": b'<?xml version="1.0"?>' + SVG,
    "html that begins like a gif": HTML_AS_GIF,
    "cut jpeg": draw("JPEG", (2000, 2000))[:3000],
    "cut png": draw("PNG")[:60],
    "cut webp": draw("WEBP")[:40],
    "tiff": draw("TIFF"),
    "bmp": draw("BMP"),
    "ico": draw("ICO", (32, 32)),
    "pdf": draw("PDF"),
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(/etc/passwd) run\n",
    "zip": b"PK\3\4" + bytes(100),
    "no pixels": make_png(0, 0, 8, 2, b""),
    "wrong data": make_png(100, 100, 8, 2, b"\0\1\2"),
    "a jpeg of a thousand passes": make_slow_jpeg(1000),
}
TOO_LARGE = {
    "png": make_png(60_000, 60_000, 8, 2, b""),
    "png of half a million columns": make_png(500_000, 101, 1, 0, b""),
    "png just above": make_png(5001, 5000, 8, 0, bytes(5002 * 5000)),
    "webp": make_webp_head(16_384),
    "gif whose frame is larger": b"GIF89a" + struct.pack("<HH", 1, 1) + b"\0\0\0,"
    + struct.pack("<HHHH", 0, 0, 65_535, 65_535) + b"\0\2\2L\1\0;",
}  # fmt: skip
