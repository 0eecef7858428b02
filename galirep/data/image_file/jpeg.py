"""Holes in JPEG files that Pillow does not report, because it drops the warnings of its decoder.

Where a part of a JPEG file is missing or overwritten but its end is there, the decoder (libjpeg) finds too few or too
many bits, fills the rest with grey or leaves the rest over, and warns; Pillow gives the pixels without a word. What is
noticed here, and what is not, is in docs/data.md. All checks together cost about a tenth of decoding.
"""

import contextlib
import io
import re
from dataclasses import dataclass

from galirep.data.image_file.jpeg_segments import DHT, DRI, EOI, SOS, Segment, is_frame, segments

_SOF_SEQUENTIAL, _SOF_PROGRESSIVE = (0xC0, 0xC1), 0xC2
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")

# bytes left over after the last row that are tolerated: some cameras leave a few
_LEFT_OVER = 16
# ones are no code of JPEG, so that the decoder makes little of them; as many as it reads ahead, and no more than needed
_PADDING = b"\xff\x00" * 8
# runs of zeros that no encoder makes in scans of AC coefficients; in a progressive one, correction bits may be zeros
# over 1,000 bits
_HOLE, _HOLE_IN_PROGRESSIVE = bytes(128), bytes(512)

CUT_OFF = "damaged: its compressed data ends before the last row (a part of the file is missing or overwritten)"
LEFT_OVER = "damaged: compressed data is left over after the last row (a part of the file is overwritten)"
NO_END = "damaged: it has no end-of-image marker (the end of the file is missing)"
HOLE = "damaged: its compressed data has a hole of zeros"


@dataclass(frozen=True)
class _Frame:
    """What the header of a file says: `dimensions` is the place of height and width, `mcu` the size of a unit."""

    marker: int
    dimensions: int
    width: int
    height: int
    components: int
    mcu: tuple[int, int]

    @classmethod
    def parse(cls, data: bytes, segment: Segment) -> "_Frame":
        payload = data[segment.start : segment.end]
        factors = [payload[k] for k in range(7, 6 + 3 * payload[5], 3)]
        # one component is not interleaved, so its unit is a block whatever its factors
        across, down = (1, 1) if len(factors) == 1 else (max(f >> 4 for f in factors), max(f & 15 for f in factors))
        height, width = int.from_bytes(payload[1:3], "big"), int.from_bytes(payload[3:5], "big")
        return cls(segment.marker, segment.start + 1, width, height, payload[5], (8 * across, 8 * down))

    @property
    def units(self) -> tuple[int, int]:
        """Units in a row, and rows of units."""
        return -(-self.width // self.mcu[0]), -(-self.height // self.mcu[1])


class WatchedJpeg(io.BytesIO):
    """A JPEG file for Pillow that sees how much of its compressed data the decoder takes.

    Some bytes that are no code stand before its end marker. A decoder that wants more than these was short of data; one
    that has finished long before them has left data over. After `watch`, reads stop at `_cuts`, so that the position
    after decoding tells.
    """

    def __init__(self, data: bytes) -> None:
        self._cuts: tuple[int, ...] = ()
        self._reason = ""
        # a header that is damaged is for the decoder to refuse
        with contextlib.suppress(IndexError, ValueError):
            data = self._prepare(data)
        super().__init__(data)

    def _prepare(self, data: bytes) -> bytes:
        """Find what can be seen in the bytes, and return them with padding if there is one scan of Huffman codes."""
        parts = list(segments(data))
        frames = [_Frame.parse(data, part) for part in parts if is_frame(part.marker)]
        scans = [part for part in parts if part.marker == SOS]
        if len(frames) != 1 or not scans or not frames[0].height or not frames[0].width:
            return data
        if parts[-1].marker != EOI and scans[-1].scan_end == len(data):
            self._reason = NO_END
        elif frames[0].marker == _SOF_PROGRESSIVE:
            self._reason = _find_hole(data, parts, _HOLE_IN_PROGRESSIVE)
        elif frames[0].marker in _SOF_SEQUENTIAL:
            self._reason = _find_hole(data, parts, _HOLE)
            if data[scans[0].start] == frames[0].components:
                self._reason = self._reason or _check_restarts(data, parts, frames[0], scans[0])
                self._reason = self._reason or _check_end(data, scans[0].scan_end)
                return self._pad(data, scans[0])
        return data

    def _pad(self, data: bytes, scan: Segment) -> bytes:
        # zeros at the end: padding of some encoders, or a hole
        data_end = scan.end + len(data[scan.end : scan.scan_end].rstrip(b"\0"))
        cuts = [data_end - _LEFT_OVER]
        if scan.scan_end - data_end > 4 * _LEFT_OVER:
            cuts += [data_end + 16, scan.scan_end - 16]
        self._cuts = (*(cut for cut in cuts if cut > scan.end), scan.scan_end + len(_PADDING))
        self._early = cuts[0] if cuts[0] > scan.end else 0
        self._within_fill = cuts[2] if len(cuts) > 1 else 0
        return data[: scan.scan_end] + _PADDING + data[scan.scan_end :]

    def watch(self) -> None:
        """Read in pieces from now on; only now, because the many reads of a header would take twice the time."""
        self.read = self._read_piece  # type: ignore[method-assign]

    def _read_piece(self, size: int | None = -1, /) -> bytes:
        position = self.tell()
        following = [cut for cut in self._cuts if cut > position]
        if following and size is not None and size > 0:
            size = min(size, following[0] - position)
        return super().read(size)

    def damage(self) -> str:
        """Return what is wrong with the compressed data, after Pillow has decoded it; an empty text if nothing is."""
        if self._reason or not self._cuts:
            return self._reason
        taken = self.tell()
        if taken > self._cuts[-1]:
            return CUT_OFF
        if taken <= self._early:
            return LEFT_OVER
        return HOLE if taken == self._within_fill else ""


def _find_hole(data: bytes, parts: list[Segment], hole: bytes) -> str:
    """Find a run of zeros in scans whose zeros would be coefficients, or empty blocks that the encoder would join."""
    # most files have no such run at all
    if data.find(hole, next(part.end for part in parts if part.marker == SOS)) < 0:
        return ""
    telling: dict[int, bool] = {}
    for part in parts:
        payload = data[part.start : part.end]
        if part.marker == DHT:
            telling.update(_telling_tables(payload))
        elif part.marker == SOS:
            count = payload[0]
            # a scan of DC coefficients alone is zeros where the image is flat
            with_ac = payload[2 + 2 * count] > 0
            tables = [payload[k] & 15 for k in range(2, 2 + 2 * count, 2)]
            if with_ac and any(map(telling.get, tables)) and data.find(hole, part.end, part.scan_end) >= 0:
                return HOLE
    return ""


def _telling_tables(payload: bytes) -> dict[int, bool]:
    """Return for each AC table whether a long run of zeros is none of its data.

    The first code of a table is zeros. So a run of them is one symbol again and again: a coefficient of -1, which fills
    block after block in no image, or empty blocks, which an encoder joins if its table has codes for that (EOB1 to
    EOB14). A table for empty blocks one by one may give the zeros of a flat image.
    """
    found: dict[int, bool] = {}
    while len(payload) > 17:
        table, count = payload[0], sum(payload[1:17])
        symbols = payload[17 : 17 + count]
        if table >> 4:
            joins = any(symbol & 15 == 0 and 0 < symbol >> 4 < 15 for symbol in symbols)
            found[table & 15] = joins or symbols[0] & 15 > 0
        payload = payload[17 + count :]
    return found


def _check_end(data: bytes, position: int) -> str:
    """Check that what ends the only scan is a marker that may stand there: the end, the height, tables or texts."""
    while data[position] == 0xFF:
        position += 1
    marker = data[position]
    if marker in (EOI, 0xDC, DHT, 0xDB, DRI, 0xFE) or 0xE0 <= marker <= 0xEF:
        return ""
    return f"damaged: bytes FF {marker:02X} within its compressed data"


def _check_restarts(data: bytes, parts: list[Segment], frame: _Frame, scan: Segment) -> str:
    """Check that the restart markers of a scan are all there, in order, and decode alone what has a run of zeros."""
    intervals = [part for part in parts if part.marker == DRI and part.position < scan.position]
    interval = int.from_bytes(data[intervals[-1].start :][:2], "big") if intervals else 0
    if not interval:
        return ""
    places = [found.start() for found in _RESTART.finditer(data, scan.end, scan.scan_end)]
    across, down = frame.units
    expected = -(-across * down // interval) - 1
    in_order = all(data[place + 1] == 0xD0 + number % 8 for number, place in enumerate(places))
    # some encoders also put one after the last interval
    if not in_order or len(places) not in (expected, expected + 1):
        return f"damaged: {len(places)} restart markers, of which {expected} in order would be right"
    starts = [scan.end, *(place + 2 for place in places[:expected])]
    ends = [*places[:expected], scan.scan_end]
    for number, (start, end) in enumerate(zip(starts[:-1], ends[:-1], strict=True)):
        if data.find(_HOLE, start, end) >= 0 and (size := _size_of_units(interval, frame)):
            changed = bytearray(data[: scan.end])
            changed[frame.dimensions : frame.dimensions + 4] = size[1].to_bytes(2, "big") + size[0].to_bytes(2, "big")
            if not _decodes(bytes(changed) + data[start:end] + b"\xff\xd9"):
                return f"{HOLE}, before restart marker {number}"
    return ""


def _size_of_units(count: int, frame: _Frame) -> tuple[int, int] | None:
    """Return the width and height of an image of so many units, if there can be one."""
    across = frame.units[0]
    columns, rows = (across, count // across) if count % across == 0 else (count, 1)
    width, height = columns * frame.mcu[0], rows * frame.mcu[1]
    return (width, height) if max(width, height) <= 65_500 else None


def _decodes(data: bytes) -> bool:
    from PIL import Image

    file = WatchedJpeg(data)
    try:
        with Image.open(file, formats=("JPEG",)) as image:
            file.watch()
            image.load()
    except (OSError, SyntaxError, ValueError):
        return False
    return not file.damage()
