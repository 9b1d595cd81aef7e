"""Makes a picture of ours out of whatever somebody sends: small, square, and without a trace of the original file.

Names and claimed types are not looked at. What is kept was drawn anew, so nothing that was hidden in the file or
written beside the picture, such as where it was taken, comes along.
"""

import asyncio
import logging
from io import BytesIO
from typing import TYPE_CHECKING, BinaryIO
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from PIL.Image import Image

log = logging.getLogger(__name__)

CONTENT_TYPE = "image/webp"
SIDE = 256  # pixels
# Millions of pixels that an original may have, so that drawing takes 200 MB at the most. A JPEG is read at an eighth.
MILLIONS = {"JPEG": 50, "MPO": 50, "PNG": 25, "GIF": 25, "WEBP": 13}
PASSES = 200  # over the whole picture that a progressive JPEG may ask for: thousands fit into a small file
AT_ONCE = 1  # a large picture takes most of a small host's memory

NO_IMAGE = "That is no picture that can be read here. Choose a JPEG, PNG, WebP or GIF file."
TOO_MANY_PIXELS = "That picture has more than {} million pixels. Choose a smaller one."

_places: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()


class ImageError(Exception):
    """What was sent is no picture that can be taken: a sentence for the person."""

    status = 422


async def make_square(upload: BinaryIO) -> bytes:
    """Draw a square WebP of somebody's picture, in a thread, and one after the other."""
    place = _places.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(AT_ONCE))
    async with place:
        return await asyncio.to_thread(draw_square, upload)


def draw_square(upload: BinaryIO) -> bytes:
    from PIL import ImageOps

    try:
        image = flatten(shrink(read_image(upload)))
        square = ImageOps.fit(image, (SIDE, SIDE))
    except ImageError:
        raise
    except Exception as error:  # a broken file makes the decoders raise whatever there is
        log.info("A picture could not be read: %s: %s", type(error).__name__, error)
        raise ImageError(NO_IMAGE) from None
    drawn = BytesIO()
    square.save(drawn, "WEBP", quality=85)
    return drawn.getvalue()


def read_image(upload: BinaryIO) -> "Image":
    """Look at what the file says of itself, and decode it only if that can be afforded."""
    from PIL import Image, WebPImagePlugin  # noqa: F401 (else Pillow imports all of its forty formats to find this one)

    Image.MAX_IMAGE_PIXELS = max(MILLIONS.values()) * 1_000_000
    try:
        image = Image.open(upload, formats=("JPEG", "PNG", "WEBP", "GIF"))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(TOO_MANY_PIXELS.format(max(MILLIONS.values()))) from None
    limit = MILLIONS[image.format or ""]
    if image.width * image.height > limit * 1_000_000:
        raise ImageError(TOO_MANY_PIXELS.format(limit))
    if limit == MILLIONS["JPEG"]:
        count_passes(upload)
        image.draft("RGB", (2 * SIDE, 2 * SIDE))
    image.load()
    return image


def count_passes(upload: BinaryIO) -> None:
    place = upload.tell()
    upload.seek(0)
    if upload.read().count(b"\xff\xda") > PASSES:
        raise ImageError(NO_IMAGE)
    upload.seek(place)


def shrink(image: "Image") -> "Image":
    """Leave out most pixels of a large picture, in whatever way it is stored: every other step copies what there is."""
    from PIL import Image, ImageOps

    if (factor := min(image.size) // (4 * SIDE)) > 1:
        image = image.resize((image.width // factor, image.height // factor), Image.Resampling.NEAREST)
    ImageOps.exif_transpose(image, in_place=True)
    return image


def flatten(image: "Image") -> "Image":
    """Give plain colours, transparent where the original was; nothing else that it carried."""
    if image.mode.startswith("I;16"):
        image = image.point(lambda value: value * (1 / 256))
    image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    image.info = {}
    return image
