"""Which files are images, by their type: one list of formats, and the endings that the installed Pillow reads."""

import posixpath
from collections.abc import Callable
from functools import cache

# The formats that Pillow decodes itself to pixels. Left out are EPS, PDF, PS and WMF, which run an interpreter; the
# stubs of scientific containers (HDF5, GRIB, BUFR); FITS, whose numbers are no grey values; video (MPEG, FLI); and PCD,
# whose ending is that of point clouds.
FORMATS = (
    *("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000", "DIB", "QOI", "SGI", "SUN", "PCX", "DCX"),
    *("ICO", "CUR", "ICNS", "DDS", "PSD", "BLP", "FTEX", "GBR", "IM", "MSP", "PIXAR", "XBM", "XPM"),
    # last, because it has no signature: what is none of the others may look like one
    "TGA",
)
"""The formats, by Pillow's names, in which images are read; the commonest first."""

_CODECS = {"WEBP": "webp", "AVIF": "avif", "JPEG2000": "jpg_2000", "JPEG": "jpg", "PNG": "zlib"}
# endings in use that Pillow does not register; Pillow goes by the content
_MORE = {".jp2000": "JPEG2000", ".jpeg2000": "JPEG2000", ".pjpeg": "JPEG", ".pjp": "JPEG"}
_PHOTOS = frozenset(
    {
        *(
            ".3fr",
            ".arw",
            ".fit",
            ".fits",
            ".avif",
            ".avifs",
            ".bpg",
            ".cr2",
            ".cr3",
            ".crw",
            ".dcm",
            ".dcr",
            ".dicom",
            ".dng",
            ".erf",
        ),
        *(".exr", ".flif", ".hdr", ".heic", ".heics", ".heif", ".heifs", ".hif", ".j2c", ".j2k", ".jp2", ".jp2000"),
        *(".jpc", ".jpf", ".jpx", ".jxl", ".jxr", ".hdp", ".kdc", ".mef", ".mos", ".mrw", ".nef", ".nrw", ".orf"),
        *(".pef", ".psb", ".raf", ".raw", ".rw2", ".sr2", ".srf", ".srw", ".wdp", ".webp", ".x3f", ".xcf"),
    }
)
_DRAWINGS = frozenset({".ai", ".emf", ".eps", ".ps", ".svg", ".svgz", ".wmf"})


@cache
def readable_formats() -> tuple[str, ...]:
    """Return those of `FORMATS` that the installed Pillow knows."""
    from PIL import Image

    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


@cache
def image_types() -> frozenset[str]:
    """Return the endings, such as `.png`, of the files that are read as images with the installed Pillow."""
    from PIL import Image, features

    # a Pillow that does not know a codec warns of its name
    known_codecs = {*features.codecs, *features.modules}
    readable = {
        name
        for name in FORMATS
        if (codec := _CODECS.get(name)) is None or (codec in known_codecs and features.check(codec))
    }
    if "JPEG" in readable:
        # an .mpo is read as the JPEG that it begins with
        readable.add("MPO")
    known = {**Image.registered_extensions(), **_MORE}
    return frozenset(ending for ending, name in known.items() if name in readable)


@cache
def _unread_photos() -> frozenset[str]:
    return _PHOTOS - image_types()


def type_of(name: str) -> str:
    """Return the ending of a file's name in lower case, `.png`; empty if it has none."""
    return posixpath.splitext(name)[1].lower()


def is_image(name: str) -> bool:
    """Return whether a file is read as an image, by its type."""
    return type_of(name) in image_types()


def is_unread_photo(name: str) -> bool:
    """Return whether a file is a photograph or scan of a type that is not read, such as `.heic`."""
    return type_of(name) in _unread_photos()


def is_drawing(name: str) -> bool:
    """Return whether a file is a drawing that would have to be rendered, such as `.svg`."""
    return type_of(name) in _DRAWINGS


def is_picture(name: str) -> bool:
    """Return whether a file looks like a picture by its type, read or not."""
    kinds: tuple[Callable[[str], bool], ...] = (is_image, is_unread_photo, is_drawing)
    return any(kind(name) for kind in kinds)


def unread(ending: str) -> str:
    """Return the reason for a type that is not read."""
    return f"type {ending} is not read by this Pillow"
