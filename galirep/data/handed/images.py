"""What people hand over in Python as images: paths, Pillow images and arrays, read as the files of a data set are."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence, Set
from os import PathLike
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from galirep.data.files.formats import FORMATS
from galirep.data.image_file.loading import turn_upright
from galirep.data.picture import PixelArray, from_pillow, one_line, read_image
from galirep.data.sources import HANDED, ImageSource, row_numbers
from galirep.errors import ConfigError, DataError, plural
from galirep.system.reading.files import read_regular

ValueRange = Literal["0..1", "-1..1"]
"""What float images mean: black and white are 0 and 1, or -1 and 1."""

# rounding of a network that gives values in the range
_TOLERANCE = 1e-3


class PythonImages(ImageSource):
    """Images that Python hands over, whose ids are row numbers; a subclass converts one to pixels."""

    in_memory = True

    def __init__(self, spec: str, count: int, value_range: ValueRange | None) -> None:
        self._value_range = value_range
        super().__init__(spec, row_numbers(count))

    @abstractmethod
    def _pixels(self, index: int) -> PixelArray:
        """Convert one image to (H, W, C) uint8; raise DataError if it cannot be used."""

    def read(self, index: int) -> PixelArray:
        """Convert one image to (H, W, C) uint8, see `ImageSource.read`."""
        try:
            return self._pixels(index)
        except DataError as err:
            raise DataError(f"{self.ids[index]}: {err}") from err

    def content(self, index: int) -> bytes:
        """Return the pixels of one image; empty if it cannot be read."""
        try:
            pixels = self.read(index)
        except DataError:
            return b""
        return f"{pixels.shape}".encode() + pixels.tobytes()

    def sizes(self) -> list[int]:
        """Return the number of bytes of each image's content."""
        return [len(self.content(index)) for index in range(len(self))]


class HandedImages(PythonImages):
    """Images in memory or at paths, for the functions that take any `ImageSource`; their ids are row numbers.

    Args:
        images: a path, a Pillow image, an array (N, H, W), (N, H, W, C) or (N, C, H, W), or a sequence in which each
            item is a path, a Pillow image or an array (H, W), (H, W, C) or (C, H, W), of any sizes. Arrays are uint8
            with C = 1, 3 or 4 (RGBA, channels last), or float with C = 1 or 3.
        value_range: what floats mean. Without it they are in [-1, 1] if one of them is negative, else refused.

    Raises:
        DataError: something else was handed over, or floats of another range or of one that is not certain.
        ConfigError: `value_range` is not one of `ValueRange`.
    """

    def __init__(self, images: Any, value_range: ValueRange | None = None) -> None:
        require_value_range(value_range)
        self._items = split_images(images)
        super().__init__(HANDED, len(self._items), range_of_floats(self._items, value_range))

    @property
    def floats(self) -> NDArray[np.floating] | None:
        """The images as (N, C, H, W) in their own range, where they were handed over as one array of floats."""
        items = self._items
        if not isinstance(items, np.ndarray) or items.ndim != 4 or self._value_range is None:
            return None
        return items if items.shape[3] not in (1, 3) else np.moveaxis(items, 3, 1)

    def _pixels(self, index: int) -> PixelArray:
        return to_pixels(self._items[index], self._value_range)


def require_value_range(value_range: str | None) -> None:
    """Check a `ValueRange`; raise ConfigError if it is none."""
    if value_range not in (None, *get_args(ValueRange)):
        raise ConfigError(f"value_range {value_range!r}: it must be '0..1' or '-1..1', what black and white are")


def split_images(images: Any) -> Sequence[Any] | NDArray[Any]:
    """Return what was handed over as a sequence of single images; tensors become arrays.

    Raises:
        DataError: it is no array of images and no sequence, or an array that may be one image or several; or a masked
            array with masked values.
    """
    if isinstance(images, str | PathLike | Image.Image):
        return [images]
    if isinstance(images, Set):
        raise DataError(f"a {type(images).__name__} of images has no order: hand over a list, e.g. sorted(paths)")
    if isinstance(images, Mapping):
        raise DataError(f"a {type(images).__name__} is no images: hand over the list or array of images in it")
    if isinstance(images, bytes | bytearray | memoryview):
        raise DataError(
            f"images are arrays, Pillow images or paths, not {type(images).__name__}; "
            "of an encoded image: PIL.Image.open(io.BytesIO(data))"
        )
    is_tensor = _is_tensor(images)
    if is_tensor or isinstance(images, np.ndarray):
        array = _to_array(images)
        if array.dtype == object and array.ndim == 1:
            return split_images(list(array))
        _require_batch(array, is_tensor)
        # as in a file of arrays: if both axes could be channels, it is the last one
        return array
    try:
        return as_items(images)
    except TypeError:
        raise DataError(f"images are arrays, Pillow images or paths, not {type(images).__name__}") from None


def as_items(images: Iterable[Any]) -> list[Any]:
    """Return single images, tensors and masked arrays without a masked value as arrays."""
    return [
        _to_array(image) if _is_tensor(image) or isinstance(image, np.ma.MaskedArray) else image for image in images
    ]


def range_of_floats(items: Sequence[Any] | NDArray[Any], value_range: ValueRange | None) -> ValueRange | None:
    """Return what the float arrays among `items` mean; None if there are none.

    Raises:
        DataError: they are in neither range, not in `value_range`, or it cannot be told in which.
    """
    arrays = [items] if isinstance(items, np.ndarray) else [item for item in items if isinstance(item, np.ndarray)]
    floats = [array for array in arrays if array.dtype.kind == "f" and array.size]
    if not floats:
        return None
    low, high = (float(function([function(array) for array in floats])) for function in (np.min, np.max))
    require_in_range(low, high, value_range)
    if value_range is None and low >= 0:
        raise DataError(
            f"float images from {low:g} to {high:g} may be meant as 0..1 or as -1..1: "
            "say load_encoder(..., value_range='0..1') or value_range='-1..1'"
        )
    return value_range or "-1..1"


def require_in_range(low: float, high: float, value_range: ValueRange | None) -> None:
    """Check the smallest and the largest value of float images; None allows either range.

    Raises:
        DataError: they are outside.
    """
    smallest = 0 if value_range == "0..1" else -1
    # written so that NaN fails
    if not (low >= smallest - _TOLERANCE and high <= 1 + _TOLERANCE):
        allowed = value_range or "0..1 or -1..1"
        raise DataError(f"float images from {low:g} to {high:g}: only {allowed} is supported; give uint8 for 0..255")


def to_pixels(image: Any, value_range: ValueRange | None) -> PixelArray:
    """Convert a path, a Pillow image or one array to (H, W, C) uint8, C = 1 or 3, by the rules of docs/data.md.

    Raises:
        DataError: it is something else or cannot be read.
    """
    if isinstance(image, str | PathLike):
        try:
            return read_image(read_regular(str(image)))
        except IsADirectoryError:
            raise DataError(f"{str(image)!r} is a folder: hand over galirep.open_data({str(image)!r})") from None
        except (OSError, DataError) as err:
            reason = (isinstance(err, OSError) and err.strerror) or one_line(err)
            raise DataError(f"{str(image)!r}: {reason}") from err
    if isinstance(image, Image.Image):
        if _unread_format(image):
            raise DataError(
                f"a Pillow image of the format {image.format} is not decoded, as no such file is: load it yourself"
            )
        try:
            image.load()
        except Exception as err:
            # see `read_image`
            raise DataError(f"cannot be decoded: {one_line(err)}") from err
        return from_pillow(turn_upright(image))
    if not isinstance(image, np.ndarray | list | tuple):
        raise DataError(f"an image is an array, a Pillow image or a path, not {type(image).__name__}")
    return _array_to_pixels(np.asarray(image), value_range)


def _unread_format(image: Image.Image) -> bool:
    """Return whether a Pillow image is a file that is still to be decoded, of a format that is not read from files."""
    waiting = isinstance(image, ImageFile.StubImageFile) or bool(getattr(image, "tile", None))
    # an .mpo is a JPEG with more behind it
    return waiting and image.format is not None and image.format not in (*FORMATS, "MPO")


def _array_to_pixels(array: NDArray[Any], value_range: ValueRange | None) -> PixelArray:
    is_float = array.dtype.kind == "f"
    if not (is_float and value_range) and array.dtype != np.uint8:
        extent = f" from {array.min():g} to {array.max():g}" if array.dtype.kind in "iuf" and array.size else ""
        raise DataError(f"an image of {array.dtype}{extent}: arrays are uint8 in 0..255, or float")
    if not array.size or array.ndim not in (2, 3):
        raise DataError(f"an image must be (H, W), (H, W, C) or (C, H, W), not of shape {array.shape}")
    if array.ndim == 2:
        array = array[:, :, None]
    elif array.shape[2] not in (1, 3, 4):
        if array.shape[0] not in (1, 3):
            raise DataError(f"an image must have 1, 3 or 4 channels, first or last, not the shape {array.shape}")
        array = np.moveaxis(array, 0, 2)
    if array.shape[2] == 4:
        if is_float:
            raise DataError(f"a float image must have 1 or 3 channels, not the shape {array.shape}")
        return from_pillow(Image.fromarray(np.ascontiguousarray(array), "RGBA"))
    return to_uint8(array, value_range) if is_float and value_range else array


def to_uint8(values: NDArray[Any], value_range: ValueRange) -> PixelArray:
    """Round floats of a range to uint8, which gives back exactly what was uint8 before."""
    unit = values.astype(np.float64) if value_range == "0..1" else (values.astype(np.float64) + 1) / 2
    pixels: PixelArray = np.rint(unit.clip(0, 1) * 255).astype(np.uint8)
    return pixels


def _require_batch(array: NDArray[Any], is_tensor: bool) -> None:
    shape = array.shape
    if array.ndim == 3:
        # documented as N grey images; of these forms the other meaning is the likelier
        if shape[2] in (1, 3, 4) or (is_tensor and shape[0] == 3):
            raise DataError(
                f"an array of shape {shape} may be one image or {shape[0]} grey ones: "
                f"give images[None] for one, images[..., None] for {shape[0]}"
            )
    elif array.ndim != 4 or not (shape[3] in (1, 3, 4) or shape[1] in (1, 3)):
        raise DataError(f"images must be (N, H, W), (N, H, W, C) or (N, C, H, W) with C = 1 or 3, not {shape}")


def _is_tensor(value: Any) -> bool:
    # torch is not imported here: whoever has a tensor has imported it
    return type(value).__module__.partition(".")[0] == "torch" and hasattr(value, "detach")


def _to_array(value: Any) -> NDArray[Any]:
    if np.ma.is_masked(value):
        count = int(np.ma.getmaskarray(value).sum())
        raise DataError(f"a masked array with {plural(count, 'masked value')}: fill them, e.g. images.filled(0)")
    if not _is_tensor(value):
        return np.asarray(value)
    value = value.detach().cpu()
    # numpy has no bfloat16
    array: NDArray[Any] = (value.float() if value.is_floating_point() else value).numpy()
    return array
