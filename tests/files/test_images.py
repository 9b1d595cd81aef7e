"""Pictures are drawn anew: what comes out is small, square and ours, whatever went in."""

import resource
import struct
import subprocess
import sys
from io import BytesIO
from time import process_time

import pytest
from PIL import Image

from app.files.images import SIDE, ImageError, draw_square
from app.settings import ROOT
from tests.files.pictures import (
    BLUE,
    HTML_IN_GIF,
    NO_PICTURES,
    PLACE,
    RED,
    SCRIPT,
    TOO_LARGE,
    draw,
    make_animation,
    make_png,
    make_slow_jpeg,
    note_place,
)

Colour = tuple[int, ...]


def redraw(content: bytes) -> Image.Image:
    drawn = draw_square(BytesIO(content))
    assert drawn[:4] == b"RIFF" and drawn[8:12] == b"WEBP"
    for hidden in (PLACE, SCRIPT, b"EXIF", b"XMP ", b"ICCP"):
        assert hidden not in drawn
    image = Image.open(BytesIO(drawn))
    assert image.size == (SIDE, SIDE)
    return image


def colour(image: Image.Image, x: int, y: int) -> Colour:
    found = image.getpixel((x, y))
    assert isinstance(found, tuple)
    return found


def is_near(found: Colour, wanted: Colour) -> bool:
    return all(abs(one - other) < 40 for one, other in zip(found, wanted, strict=False))


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("JPEG", "RGB"), ("JPEG", "CMYK"), ("PNG", "RGB"), ("PNG", "RGBA"), ("PNG", "P"), ("WEBP", "RGB"), ("GIF", "P")],
)
@pytest.mark.parametrize("size", [(300, 200), (2000, 3000), (40, 40)])
def test_every_kind_is_cut_to_a_square(kind: str, mode: str, size: tuple[int, int]) -> None:
    image = redraw(draw(kind, size, mode))
    assert is_near(colour(image, 40, 128), RED)
    assert is_near(colour(image, 215, 128), BLUE)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("size", [(300, 200), (3000, 2000)])
def test_a_picture_taken_upside_down_stands_up_and_does_not_say_where(kind: str, size: tuple[int, int]) -> None:
    content = draw(kind, size, exif=note_place(orientation=3))
    assert PLACE in content
    image = redraw(content)
    assert is_near(colour(image, 40, 128), BLUE)
    assert not image.getexif()


def test_what_is_transparent_stays_so() -> None:
    palette = Image.new("P", (64, 64), 1)
    palette.putpalette([0, 0, 0, *RED])
    palette.paste(0, (0, 0, 64, 32))
    file = BytesIO()
    palette.save(file, "PNG", transparency=0)
    image = redraw(file.getvalue()).convert("RGBA")
    assert colour(image, 128, 20)[3] == 0
    assert colour(image, 128, 230)[3] == 255 and is_near(colour(image, 128, 230), RED)


def test_sixteen_bits_of_grey_keep_their_grey() -> None:
    row = b"\0" + struct.pack(">8H", *[0x4000] * 4, *[0xC000] * 4)
    image = redraw(make_png(8, 8, 16, 0, row * 8)).convert("RGB")
    assert is_near(colour(image, 40, 128), (0x40,) * 3)
    assert is_near(colour(image, 215, 128), (0xC0,) * 3)


def test_of_an_animation_the_first_picture_is_taken() -> None:
    content = make_animation(frames=500)
    before = process_time()
    redraw(content)
    assert process_time() - before < 1


def test_what_is_hidden_behind_a_picture_does_not_come_along() -> None:
    assert SCRIPT in HTML_IN_GIF
    redraw(HTML_IN_GIF)
    redraw(draw("JPEG") + SCRIPT)
    redraw(draw("PNG", icc_profile=PLACE * 20, exif=note_place()))


@pytest.mark.parametrize("name", NO_PICTURES)
def test_what_is_no_picture_is_refused_in_one_sentence(name: str) -> None:
    with pytest.raises(ImageError, match="JPEG, PNG, WebP or GIF"):
        draw_square(BytesIO(NO_PICTURES[name]))


@pytest.mark.parametrize("name", TOO_LARGE)
def test_a_small_file_of_many_pixels_is_not_unpacked(name: str) -> None:
    assert len(TOO_LARGE[name]) < 100_000
    memory, before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, process_time()
    with pytest.raises(ImageError, match="million pixels"):
        draw_square(BytesIO(TOO_LARGE[name]))
    assert process_time() - before < 0.5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 20_000  # KB


def test_what_cameras_do_is_taken() -> None:
    redraw(make_slow_jpeg(passes=20))
    redraw(draw("MPO", save_all=True, append_images=[Image.new("RGB", (300, 200))]))  # a second picture in the file


def test_only_the_formats_that_are_taken_are_loaded() -> None:
    """The others are forty more parsers, in which somebody may find a hole."""
    program = (
        "import io, sys; from app.files.images import *\n"
        "try: draw_square(io.BytesIO(b'%!PS-Adobe'))\n"
        "except ImageError: print([n for n in ('Eps', 'Tiff', 'Psd', 'Fits') if f'PIL.{n}ImagePlugin' in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n"
