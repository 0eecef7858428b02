"""Load an image file with Pillow: pixels first, whatever is wrong with the rest of the file."""

import io
import os
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import ExifTags, Image, ImageFile

from galirep.data.image_file.jpeg import WatchedJpeg
from galirep.data.image_file.jpeg_segments import is_jpeg
from galirep.data.image_file.metadata import png_damage, without_metadata
from galirep.data.image_file.pixel_limit import over_limit, require_pixels
from galirep.errors import DataError

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TILE_WIDTH, _TILE_LENGTH = 322, 323


def load(data: bytes, formats: tuple[str, ...], max_pixels: int) -> Image.Image:
    """Decode the first frame of an image file and turn it upright by its EXIF orientation.

    A file that Pillow refuses is tried again without its metadata, so that only the pixels can be at fault.

    Raises:
        DataError: the image has more than `max_pixels`, or a part of its pixels is damaged.
        Exception: Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and more for damaged files.
    """
    with _own_settings():
        try:
            return _load(data, formats, max_pixels)
        except DataError:
            raise
        except Exception as err:
            error = err
        for keep_exif in (True, False):
            stripped = without_metadata(data, keep_exif=keep_exif)
            if stripped is None:
                continue
            try:
                return _load(stripped, formats, max_pixels)
            except DataError:
                raise
            except Exception as err:
                error = err
        raise error


def turn_upright(image: Image.Image) -> Image.Image:
    """Return the image turned by its EXIF orientation; as it is where there is none or it cannot be read."""
    try:
        method = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    # the readers of EXIF raise any exception for damaged data
    except Exception:
        return image
    return image if method is None else image.transpose(method)


def _load(data: bytes, formats: tuple[str, ...], max_pixels: int) -> Image.Image:
    file = WatchedJpeg(data) if is_jpeg(data) else io.BytesIO(data)
    image = _open(file, formats, max_pixels, allocates=data[8:12] == b"WEBP")
    # a tile is decoded whole, however little of it is in the image
    tags = getattr(image, "tag_v2", {})
    if isinstance(tags.get(_TILE_WIDTH), int) and isinstance(tags.get(_TILE_LENGTH), int):
        require_pixels(tags[_TILE_WIDTH], tags[_TILE_LENGTH], max_pixels)
    if isinstance(file, WatchedJpeg):
        file.watch()
    try:
        image.load()
    except Image.DecompressionBombError as err:
        # a picture in an icon, larger than the icon says
        raise _too_large(err, max_pixels) from err
    if damage := file.damage() if isinstance(file, WatchedJpeg) else png_damage(data):
        raise DataError(damage)
    return turn_upright(image)


def _open(file: io.BytesIO, formats: tuple[str, ...], max_pixels: int, *, allocates: bool) -> ImageFile.ImageFile:
    """Read the header, and check the size by it; `allocates` says that the decoder makes its canvas here."""
    # where nothing is allocated yet Pillow need not refuse, so that the message can give the size
    Image.MAX_IMAGE_PIXELS = max_pixels if allocates else None
    try:
        image = Image.open(file, formats=formats)
    except Image.DecompressionBombError as err:
        raise _too_large(err, max_pixels) from err
    require_pixels(*image.size, max_pixels)
    Image.MAX_IMAGE_PIXELS = max_pixels
    return image


def _too_large(err: Image.DecompressionBombError, max_pixels: int) -> DataError:
    # "Image size (N pixels) exceeds limit of ..."
    count = re.search(r"\d+", str(err))
    return DataError(over_limit(f"{int(count[0]):,} pixels" if count else "its pixels", max_pixels, count and count[0]))


_lock = threading.Lock()


def _renew_lock() -> None:
    """Replace the lock in a forked child, where the thread that held it does not exist."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


@contextmanager
def _own_settings() -> Iterator[None]:
    """Set Pillow's limit and silence its warnings, which name no image; both are of the process, so one at a time.

    They are put back, because the program that imports galirep may have its own.
    """
    with _lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = Image.MAX_IMAGE_PIXELS
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before
