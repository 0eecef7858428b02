"""Decoding of one image file to (H, W, C) uint8 by fixed rules for every mode, and cropping to a network's square."""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from galirep.data.files.formats import readable_formats
from galirep.data.image_file.loading import load
from galirep.data.image_file.pixel_limit import pixel_limit
from galirep.errors import DataError

PixelArray = NDArray[np.uint8]

BACKGROUND = 255
"""The grey value behind transparent pixels: white."""


def read_image(data: bytes, max_pixels: int | None = None) -> PixelArray:
    """Decode the bytes of an image file to (H, W, C) uint8 in 0..255, C = 1 for grey and 3 for colour.

    Of several frames the first is decoded, and rotated by its EXIF orientation. Text, profiles and EXIF that cannot be
    read do not matter. `max_pixels` None is `pixel_limit`.

    Raises:
        DataError: the file is empty, truncated, damaged or not an image, has more pixels than `max_pixels`, or its mode
            is not supported; the message does not name the file.
        ConfigError: the environment variable of the limit is not a number.
    """
    if not data:
        raise DataError("the file is empty (0 bytes)")
    limit = pixel_limit() if max_pixels is None else max_pixels
    try:
        return from_pillow(load(data, readable_formats(), limit))
    except DataError:
        raise
    except UnidentifiedImageError:
        raise DataError("not an image of a known type") from None
    except Exception as err:
        # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and more for damaged files
        raise DataError(f"cannot be decoded: {one_line(err)}") from err


def from_pillow(image: Image.Image) -> PixelArray:
    """Convert a loaded Pillow image to (H, W, C) uint8, by the rules of docs/data.md.

    Raises:
        DataError: the mode is not supported, or 32-bit values are out of range.
    """
    mode = image.mode
    if mode.startswith("I"):
        return _from_16_bit(np.asarray(image))[:, :, None]
    if mode == "F":
        return from_unit(np.asarray(image))[:, :, None]
    if mode not in {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV"}:
        raise DataError(f"mode {mode!r} is not supported: save the image as grey or RGB")
    grey = mode in {"1", "L", "LA", "La"}
    if image.has_transparency_data:
        return _over_background(np.asarray(image.convert("LA" if grey else "RGBA")))
    target_mode = "L" if grey else "RGB"
    pixels = np.asarray(image if mode == target_mode else image.convert(target_mode))
    return pixels[:, :, None] if grey else pixels


def _from_16_bit(values: NDArray[np.integer]) -> PixelArray:
    low, high = int(values.min()), int(values.max())
    # a 32-bit file does not say which value is white
    if low < 0 or high > 65535:
        raise DataError(f"32-bit integer pixels from {low} to {high}: only 0..65535 is supported")
    # round(v * 255 / 65535), exactly
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def from_unit(values: NDArray[np.floating]) -> PixelArray:
    """Convert floats in [0, 1] to uint8, rounded.

    Raises:
        DataError: a value is NaN or outside [0, 1].
    """
    low, high = float(values.min()), float(values.max())
    # written so that NaN fails
    if not (low >= 0 and high <= 1):
        raise DataError(f"float pixels from {low:g} to {high:g}: only 0..1 is supported")
    pixels: PixelArray = np.rint(values * 255).astype(np.uint8)
    return pixels


def _over_background(pixels: PixelArray) -> PixelArray:
    alpha = pixels[:, :, -1:].astype(np.uint16)
    return ((pixels[:, :, :-1] * alpha + BACKGROUND * (255 - alpha) + 127) // 255).astype(np.uint8)


def resize_square(
    image: PixelArray,
    size: int | None,
    channels: int | None = None,
    max_upscale: float = 2.0,
    *,
    shrink_only: bool = False,
) -> PixelArray:
    """Crop the centre square and resize it for a network: (H, W, C) uint8 -> (channels, S, S) uint8.

    Pillow's bicubic filter is used, which is antialiased when it reduces. `size` None keeps the square's size; so does
    `shrink_only` for a square smaller than `size`. `channels` None keeps the image's channels; grey becomes RGB by
    replication, RGB becomes grey by ITU-R 601 luma.

    Raises:
        DataError: the square would be enlarged more than `max_upscale` times; the message does not name the image.
    """
    height, width, image_channels = image.shape
    side = min(height, width)
    target = side if size is None or (shrink_only and side < size) else size
    if target > side * max_upscale:
        raise DataError(
            f"{width}x{height} pixels are too small for {target}x{target} (over {max_upscale:g} times enlarged): "
            f"pass --image-size {math.floor(side * max_upscale)} or less, "
            f"or --max-upscale {math.ceil(target / side * 10) / 10:g} or more"
        )
    top, left = (height - side) // 2, (width - side) // 2
    square = image[top : top + side, left : left + side]
    if target != side or (image_channels == 3 and channels == 1):
        picture = Image.fromarray(square[:, :, 0] if image_channels == 1 else square)
        if image_channels == 3 and channels == 1:
            picture = picture.convert("L")
        square = np.asarray(picture.resize((target, target), Image.Resampling.BICUBIC)).reshape(target, target, -1)
    planes = square.transpose(2, 0, 1)
    if channels == 3 and image_channels == 1:
        return np.repeat(planes, 3, axis=0)
    # a copy, because Pillow's arrays cannot be written to
    copied: PixelArray = planes.copy()
    return copied


def one_line(err: BaseException) -> str:
    """Return an exception's message on one line, or the name of its type if it has no message."""
    return " ".join(str(err).split()) or type(err).__name__
