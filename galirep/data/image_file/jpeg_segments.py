"""The segments of a JPEG file: its markers, their payloads, and where compressed data ends."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

DHT, EOI, SOS, DRI = 0xC4, 0xD9, 0xDA, 0xDD
_NO_LENGTH = {0x00, 0x01, *range(0xD0, 0xD8)}
# compressed data ends at a marker; FF 00 is a byte FF, FF D0 to FF D7 are restarts
_END_OF_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7]")


@dataclass(frozen=True)
class Segment:
    """A marker and the place of its payload; the compressed data of a scan is `end` to `scan_end`."""

    marker: int
    position: int
    start: int
    end: int
    scan_end: int


def is_jpeg(data: bytes) -> bool:
    """Return whether the bytes begin like a JPEG file."""
    return data.startswith(b"\xff\xd8\xff")


def segments(data: bytes) -> Iterator[Segment]:
    """Yield the segments of a JPEG file after its first marker, up to its end or as far as they go."""
    position = 2
    while 0 <= (position := data.find(b"\xff", position)) < len(data) - 1:
        marker = data[position + 1]
        # a marker may be preceded by any number of FF
        if marker == 0xFF:
            position += 1
            continue
        start = position + 2
        if marker == EOI:
            yield Segment(marker, position, start, start, start)
            return
        if marker in _NO_LENGTH:
            position = start
            continue
        end = start + max(2, int.from_bytes(data[start : start + 2], "big"))
        scan_end = end
        if marker == SOS:
            found = _END_OF_SCAN.search(data, end)
            scan_end = found.start() if found else len(data)
        yield Segment(marker, position, start + 2, end, scan_end)
        position = scan_end


def is_frame(marker: int) -> bool:
    """Return whether a marker begins a frame (SOF), of whatever kind."""
    return 0xC0 <= marker <= 0xCF and marker not in (DHT, 0xC8, 0xCC)
