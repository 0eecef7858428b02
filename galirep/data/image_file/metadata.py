"""Image files without their texts, profiles, times and EXIF, where these keep Pillow from reading the pixels.

Each function returns the file with what its pixels need alone; `keep_exif` leaves the EXIF in, for the orientation.
Nothing is repaired: what is damaged in the pixels stays so.
"""

import struct
import zlib
from collections.abc import Iterator

from galirep.data.image_file.jpeg_segments import is_jpeg, segments

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_ORIENTATION = (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")
# an orientation needs a few bytes; larger texts are what the file is stripped of
_MAX_TEXT = 1 << 16
_WEBP_PIXELS = {b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF"}
# animation and alpha; not profile, EXIF and XMP
_WEBP_FLAGS, _WEBP_EXIF = 0x12, 0x08
# sizes, kinds of values, strips and tiles, colours, predictor, JPEG tables, extra samples; 274 is the orientation
_TIFF_PIXELS = {
    *(254, 255, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 290, 291, 292, 293, 317, 320, 322, 323),
    *(324, 325, 332, 334, 336, 338, 339, 340, 341, 347, 512, 513, 514, 515, 517, 518, 519, 520, 521),
    *(529, 530, 531, 532),
}
_TIFF_EXIF = 34665


def without_metadata(data: bytes, *, keep_exif: bool) -> bytes | None:
    """Return a PNG, JPEG, WebP or TIFF file without metadata; None for other files and where there is nothing to do."""
    try:
        if data.startswith(_PNG):
            stripped = _strip_png(data, keep_exif)
        elif is_jpeg(data):
            stripped = _strip_jpeg(data, keep_exif)
        elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            stripped = _strip_webp(data, keep_exif)
        elif data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            stripped = _strip_tiff(data, keep_exif)
        else:
            return None
    except (struct.error, IndexError):
        return None
    return None if stripped == data else stripped


def png_damage(data: bytes) -> str:
    """Return what is wrong with the checksums of a PNG's pixels, which Pillow does not compare; empty if nothing is."""
    if data.startswith(_PNG):
        for kind, start, end in _png_chunks(data):
            # in capitals: the pixels need it
            is_whole = end + 4 <= len(data)
            if kind[:1].isupper() and is_whole and zlib.crc32(data[start - 4 : end]) != _uint(data, end):
                return f"damaged: the checksum of its {kind.decode('latin-1')} chunk is wrong"
    return ""


def _uint(data: bytes, position: int) -> int:
    return int.from_bytes(data[position : position + 4], "big")


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the kind of each chunk and the place of its content."""
    position = len(_PNG)
    while position + 8 <= len(data):
        start = position + 8
        end = start + _uint(data, position)
        yield data[position + 4 : start], start, end
        position = end + 4


def _strip_png(data: bytes, keep_exif: bool) -> bytes:
    kept = [_PNG]
    for kind, start, end in _png_chunks(data):
        is_intact = zlib.crc32(data[start - 4 : end]) == _uint(data, end)
        for_orientation = kind == b"eXIf" or (
            kind in (b"tEXt", b"zTXt", b"iTXt")
            and end - start <= _MAX_TEXT
            and data[start:end].startswith(_PNG_ORIENTATION)
        )
        if kind[:1].isupper() or kind == b"tRNS" or (keep_exif and for_orientation and is_intact):
            kept.append(data[start - 8 : end + 4])
    return b"".join(kept)


def _strip_jpeg(data: bytes, keep_exif: bool) -> bytes:
    kept, position = [data[:2]], 2
    for part in segments(data):
        # APP0 and APP14 say how colours are coded, if they are long enough
        payload = data[part.start : part.end]
        codes_colour = (part.marker == 0xE0 and payload.startswith(b"JFIF\0") and len(payload) >= 14) or (
            part.marker == 0xEE and payload.startswith(b"Adobe") and len(payload) >= 12
        )
        is_exif = part.marker == 0xE1 and payload.startswith(b"Exif\0\0")
        if 0xE0 <= part.marker <= 0xEF or part.marker == 0xFE:
            if codes_colour or (is_exif and keep_exif):
                kept.append(data[part.position : part.end])
        else:
            kept.append(data[part.position : part.scan_end])
        position = part.scan_end
    # what follows the end of a picture are other pictures; what breaks off stays so
    return b"".join(kept) if data[position - 1 : position] == b"\xd9" else b"".join([*kept, data[position:]])


def _strip_webp(data: bytes, keep_exif: bool) -> bytes:
    chunks, position = [], 12
    kinds = {*_WEBP_PIXELS, *([b"EXIF"] if keep_exif else [])}
    while position + 8 <= len(data):
        kind, size = data[position : position + 4], int.from_bytes(data[position + 4 : position + 8], "little")
        chunk = bytearray(data[position : position + 8 + size + size % 2])
        if kind == b"VP8X" and len(chunk) > 8:
            chunk[8] &= _WEBP_FLAGS | (_WEBP_EXIF if keep_exif else 0)
        if kind in kinds:
            chunks.append(bytes(chunk))
        position += 8 + size + size % 2
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + len(body).to_bytes(4, "little") + body


def _strip_tiff(data: bytes, keep_exif: bool) -> bytes:
    """Leave only the first directory, at its place, without the entries that its pixels do not need."""
    order, is_big = "<" if data[:2] == b"II" else ">", 43 in (data[2], data[3])
    offset, count_format, entry_size = ("Q", "Q", 20) if is_big else ("I", "H", 12)
    (place,) = struct.unpack_from(order + offset, data, 8 if is_big else 4)
    (count,) = struct.unpack_from(order + count_format, data, place)
    first = place + struct.calcsize(order + count_format)
    kept = []
    for start in range(first, min(first + count * entry_size, len(data)), entry_size):
        (tag,) = struct.unpack_from(order + "H", data, start)
        if tag in _TIFF_PIXELS or (keep_exif and tag == _TIFF_EXIF):
            kept.append(data[start : start + entry_size])
    directory = struct.pack(order + count_format, len(kept)) + b"".join(kept) + bytes(struct.calcsize(offset))
    return data[:place] + directory + data[place + len(directory) :]
