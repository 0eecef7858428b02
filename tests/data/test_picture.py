"""Pixels of every mode of image file, and the centre square at the size of a network."""

import io

import numpy as np
import pytest
from PIL import Image

from galirep.data.picture import read_image, resize_square
from galirep.errors import DataError


def encoded(image, kind="png", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def picture(rows, dtype=np.uint8, mode=None):
    array = np.array(rows, dtype=dtype)
    return Image.fromarray(array) if mode is None else Image.frombytes(mode, array.shape[1::-1], array.tobytes())


def assert_reads(data, expected):
    pixels = read_image(data)
    assert pixels.dtype == np.uint8 and pixels.ndim == 3
    np.testing.assert_array_equal(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels, expected)


def test_grey_and_colour():
    assert_reads(encoded(picture([[0, 7], [200, 255]])), [[0, 7], [200, 255]])
    colours = [[[1, 2, 3], [255, 0, 9]]]
    assert_reads(encoded(picture(colours)), colours)
    assert read_image(encoded(picture(colours), "jpeg")).shape == (1, 2, 3)


def test_one_bit_is_black_and_white():
    assert_reads(encoded(picture([[0, 255, 255]]).convert("1")), [[0, 255, 255]])


def palette(*colours):
    image = Image.new("P", (len(colours), 1))
    image.putpalette([value for colour in colours for value in colour])
    image.putdata(range(len(colours)))
    return image


def test_a_palette_is_colour():
    assert_reads(encoded(palette((9, 8, 7), (0, 0, 0), (255, 1, 2))), [[[9, 8, 7], [0, 0, 0], [255, 1, 2]]])


def test_a_transparent_palette_entry_is_white():
    assert_reads(
        encoded(palette((9, 8, 7), (0, 0, 0), (255, 1, 2)), transparency=1), [[[9, 8, 7], [255, 255, 255], [255, 1, 2]]]
    )


def test_alpha_is_composited_on_white():
    half = (100 * 128 + 255 * 127 + 127) // 255
    assert_reads(encoded(picture([[[100, 255], [100, 0], [100, 128]]], mode="LA")), [[100, 255, half]])
    assert_reads(
        encoded(picture([[[10, 20, 30, 255], [10, 20, 30, 0]]], mode="RGBA")), [[[10, 20, 30], [255, 255, 255]]]
    )


def test_a_transparent_colour_is_white():
    assert_reads(encoded(picture([[5, 6]]), transparency=5), [[255, 6]])
    assert_reads(encoded(picture([[[1, 2, 3], [3, 2, 1]]]), transparency=(1, 2, 3)), [[[255, 255, 255], [3, 2, 1]]])


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_16_bit_grey_is_scaled_by_its_range(kind):
    values = [[0, 65535, 25700, 25828, 25829, 128, 129]]
    assert_reads(encoded(picture(values, np.uint16), kind), [[0, 255, 100, 100, 101, 0, 1]])


def test_32_bit_integers_are_supported_only_in_the_range_of_16_bits():
    assert_reads(encoded(picture([[0, 65535, 257]], np.int32), "tiff"), [[0, 255, 1]])
    with pytest.raises(DataError, match=r"from 0 to 70000: only 0\.\.65535 is supported"):
        read_image(encoded(picture([[0, 70000]], np.int32), "tiff"))


def test_floats_are_supported_only_in_0_to_1():
    assert_reads(encoded(picture([[0, 0.5, 1, 0.1]], np.float32), "tiff"), [[0, 128, 255, 26]])
    for bad in (1.5, -0.1, np.nan):
        with pytest.raises(DataError, match=r"only 0\.\.1 is supported"):
            read_image(encoded(picture([[0, bad]], np.float32), "tiff"))


def test_cmyk():
    inks = [[[255, 0, 0, 0], [0, 0, 0, 255], [0, 0, 0, 0], [0, 255, 255, 0]]]
    assert_reads(
        encoded(picture(inks, mode="CMYK"), "tiff"), [[[0, 255, 255], [0, 0, 0], [255, 255, 255], [255, 0, 0]]]
    )


def test_an_unsupported_mode_is_refused():
    with pytest.raises(DataError, match="mode 'LAB' is not supported"):
        read_image(encoded(picture([[[1, 2, 3]]], mode="LAB"), "tiff"))


def test_the_exif_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    assert_reads(encoded(picture([[10, 200, 30]]), exif=exif), [[10], [200], [30]])


def test_the_first_frame_is_read():
    frames = [picture([[value] * 4]) for value in (3, 90)]
    assert_reads(encoded(frames[0], "tiff", save_all=True, append_images=frames[1:]), [[3] * 4])


@pytest.mark.parametrize("kind", ["png", "jpeg", "gif", "bmp", "webp", "tiff"])
def test_a_truncated_file_is_refused(kind):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    with pytest.raises(DataError) as caught:
        read_image(data[: len(data) // 2])
    assert "\n" not in str(caught.value)


def test_an_empty_file_and_one_that_is_not_an_image_are_refused():
    with pytest.raises(DataError, match="empty"):
        read_image(b"")
    with pytest.raises(DataError, match="not an image"):
        read_image(b"id,label\n1,2\n")


def test_resize_square_takes_the_centre_square():
    image = np.arange(4 * 7, dtype=np.uint8).reshape(4, 7, 1)
    np.testing.assert_array_equal(resize_square(image, None), image[None, :, 1:5, 0])
    np.testing.assert_array_equal(resize_square(image.transpose(1, 0, 2), 4), image.transpose(1, 0, 2)[None, 1:5, :, 0])


def test_resize_square_converts_channels():
    grey = np.array([[[7]]], dtype=np.uint8)
    np.testing.assert_array_equal(resize_square(grey, 1, 3), [[[7]]] * 3)
    colour = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [10, 20, 30]]], dtype=np.uint8)
    # 0.299 R + 0.587 G + 0.114 B
    np.testing.assert_array_equal(resize_square(colour, None, 1), [[[76, 150], [29, 18]]])
    np.testing.assert_array_equal(resize_square(colour, None, 3), colour.transpose(2, 0, 1))
    assert resize_square(colour, None).shape == (3, 2, 2) and resize_square(grey, None).shape == (1, 1, 1)


def test_resize_square_reduces_without_aliasing():
    checks = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)[:, :, None]
    reduced = resize_square(checks, 8)[0].astype(int)
    assert reduced.shape == (8, 8) and abs(reduced - 127.5).max() < 8  # taking every eighth pixel would give 0 or 255


def test_resize_square_keeps_flat_colours_at_any_size():
    flat = np.full((6, 9, 3), (1, 128, 254), dtype=np.uint8)
    for size in (3, 6, 12):
        np.testing.assert_array_equal(
            resize_square(flat, size), np.broadcast_to(flat[0, 0, :, None, None], (3, size, size))
        )


def test_resize_square_gives_arrays_that_can_be_written_to():
    for size, channels in ((2, None), (4, 3), (4, 1)):
        resized = resize_square(read_image(encoded(picture([[1, 2], [3, 4]]))), size, channels)
        assert resized.flags.writeable and resized.flags.c_contiguous


def test_resize_square_refuses_to_enlarge_too_much_and_says_what_fits():
    image = np.zeros((10, 8, 1), dtype=np.uint8)
    assert resize_square(image, 16).shape == (1, 16, 16)
    with pytest.raises(
        DataError,
        match=r"8x10 pixels are too small for 20x20 \(over 2 times enlarged\): "
        r"pass --image-size 16 or less, or --max-upscale 2\.5",
    ):
        resize_square(image, 20)
    assert resize_square(image, 20, max_upscale=2.5).shape == (1, 20, 20)
    with pytest.raises(DataError, match="--image-size 8 or less"):
        resize_square(image, 9, max_upscale=1)


def test_resize_square_only_shrinks_where_asked():
    image = np.zeros((10, 8, 3), dtype=np.uint8)
    assert resize_square(image, 224, shrink_only=True).shape == (3, 8, 8)
    assert resize_square(image, 4, shrink_only=True).shape == (3, 4, 4)
