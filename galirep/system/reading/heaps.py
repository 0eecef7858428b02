"""Global heaps of an HDF5 file, where its texts of variable length are: a damaged one sends HDF5 round for ever.

A global heap collection is `GCOL`, a version, its size, and objects one behind the other, each with its number and
size; of a free one HDF5 adds a size that may be zero. Only those are looked at that something in the file refers to,
so the cost is that of reading the texts, and nothing where all is of fixed length (HDF5 File Format Specification,
III.E).
"""

import mmap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from galirep.system.reading.hdf5 import reading

Addresses = NDArray[np.int64]
_SIGNATURE = np.frombuffer(b"GCOL", np.uint8)
# of a collection and of an object
_HEAD = 16
# of an object of an object header, and the type of one that leads to its next block
_MESSAGE, _CONTINUATION = 8, 0x10
# objects of a collection are numbered by 16 bits
_MAX_OBJECTS = 1 << 16
# collections that are walked through together
_TOGETHER = 1 << 14
_REFERENCE = np.dtype([("length", "<u4"), ("address", "<u8"), ("index", "<u4")])
_WORD = 8


def require_sound_heaps(file: h5py.File, path: Path, names: Iterable[str] | None = None) -> None:
    """Check the heaps that an open file's root and datasets refer to; `names` are those of datasets (default: all).

    It comes before the first attribute or text is read.

    Raises:
        DataError: a collection does not end where it says, or what refers to it is damaged.
    """
    with reading(path):
        if file.id.get_create_plist().get_sizes() != (8, 8):
            raise ValueError("its addresses are not of 8 bytes")
        # a link may lead to another file
        own = (
            name
            for name in (file if names is None else names)
            if isinstance(file.get(name, getlink=True), h5py.HardLink)
        )
        objects = [file.get(name) for name in own]
        datasets = [item for item in objects if isinstance(item, h5py.Dataset)]
        if not any(map(_refers_to_heap, (file["/"], *datasets))):
            return
        with path.open("rb") as raw:
            # closed with the last array that looks at it
            content = mmap.mmap(raw.fileno(), 0, access=mmap.ACCESS_READ)
        view = np.frombuffer(content, np.uint8)
        addresses = np.unique(np.concatenate([np.empty(0, np.int64), *_referenced(file, datasets, view, content)]))
        for start in range(0, len(addresses), _TOGETHER):
            _walk(view, addresses[start : start + _TOGETHER])


def _refers_to_heap(item: Any) -> bool:
    """Return whether a dataset, or an attribute of it or of a group, is of variable length; no value is read."""
    if isinstance(item, h5py.Dataset) and item.dtype.hasobject:
        return True
    count = h5py.h5a.get_num_attrs(item.id)
    return any(h5py.h5a.open(item.id, index=i).dtype.hasobject for i in range(count))


def _referenced(
    file: h5py.File, datasets: Iterable[h5py.Dataset], view: NDArray[np.uint8], content: mmap.mmap
) -> Iterator[Addresses]:
    """Yield the addresses of collections that headers and texts of variable length refer to."""
    of_text = [item for item in datasets if item.dtype.hasobject]
    headers = [h5py.h5o.get_info(item.id).addr for item in (file["/"], *datasets)]
    blocks = [] if file.userblock_size else [block for address in headers for block in _header_blocks(view, address)]
    places = [place for item in of_text for place in _stored(item)]
    if file.userblock_size or None in blocks or None in places:
        # of a newer or rarer kind: look everywhere
        yield _everywhere(content)
        return
    for start, stop in filter(None, blocks):
        # every 8 bytes that could be an address: which ones are is not worth its own parser
        yield _collections(view, np.lib.stride_tricks.sliding_window_view(view[start:stop], 8).copy().view("<u8"))
    for start, stop in filter(None, places):
        stop -= (stop - start) % _REFERENCE.itemsize
        yield _collections(view, view[start:stop].view(_REFERENCE)["address"])


def _header_blocks(view: NDArray[np.uint8], address: int) -> Iterator[tuple[int, int] | None]:
    """Yield where the blocks of an object header of version 1 are; None for one of another version."""
    if view[address] != 1:
        yield None
        return
    todo, seen = [(address + 16, int(view[address + 8 : address + 12].view("<u4")[0]))], set()
    while todo:
        start, length = todo.pop()
        stop = min(start + length, len(view))
        if start in seen or start >= stop:
            continue
        seen.add(start)
        yield start, stop
        while start + _MESSAGE <= stop:
            kind, size = (int(n) for n in view[start : start + 4].view("<u2"))
            start += _MESSAGE
            if kind == _CONTINUATION and start + 16 <= stop:
                where, count = (int(n) for n in view[start : start + 16].view("<u8"))
                todo.append((where, count))
            start += size


def _stored(dataset: h5py.Dataset) -> Iterator[tuple[int, int] | None]:
    """Yield where the references of a dataset of texts are in the file; None if that is not known."""
    layout = dataset.id.get_create_plist().get_layout()
    if dataset.dtype.kind != "O" or layout not in (h5py.h5d.CONTIGUOUS, h5py.h5d.CHUNKED, h5py.h5d.COMPACT):
        yield None
    elif layout == h5py.h5d.CONTIGUOUS and dataset.id.get_offset() is not None:
        yield dataset.id.get_offset(), dataset.id.get_offset() + dataset.id.get_storage_size()
    elif layout == h5py.h5d.CHUNKED:
        if dataset.id.get_create_plist().get_nfilters() or not hasattr(dataset.id, "chunk_iter"):
            yield None
            return
        found: list[Any] = []
        dataset.id.chunk_iter(found.append)
        yield from ((chunk.byte_offset, chunk.byte_offset + chunk.size) for chunk in found)


def _everywhere(content: mmap.mmap) -> Addresses:
    found, at = [], content.find(b"GCOL")
    while at >= 0:
        found.append(at)
        at = content.find(b"GCOL", at + 4)
    return np.array(found, np.int64)


def _collections(view: NDArray[np.uint8], addresses: NDArray[np.uint64]) -> Addresses:
    """Return those of the addresses at which a collection begins, each once; HDF5 refuses the others itself."""
    addresses = addresses.reshape(-1)
    # neighbours are mostly in one collection
    changes = addresses[np.flatnonzero(np.diff(addresses, prepend=~addresses[:1]))]
    inside: Addresses = np.unique(changes[changes <= max(0, len(view) - _HEAD)]).astype(np.int64)
    signed: NDArray[np.bool_] = (view[inside[:, None] + np.arange(4)] == _SIGNATURE).all(axis=1)
    found: Addresses = inside[signed]
    return found


def _walk(view: NDArray[np.uint8], addresses: Addresses) -> None:
    """Go from object to object in all collections at once.

    Raises:
        ValueError: one does not end with its last object.
    """
    for rest in np.unique(addresses % _WORD):
        # all within a collection is in words of 8 bytes, though the collection may begin anywhere
        words = view[rest : rest + (len(view) - rest) // _WORD * _WORD].view("<u8")
        start = addresses[addresses % _WORD == rest] // _WORD
        size = words[start + 1]
        if (size > _WORD * (len(words) - start)).any() or (size < _HEAD).any():
            raise ValueError("a heap of its texts is larger than the file")
        _walk_words(words, start + _HEAD // _WORD, start + (size // _WORD).astype(np.int64))


def _walk_words(words: NDArray[np.uint64], at: Addresses, stop: Addresses) -> None:
    head = _HEAD // _WORD
    for _ in range(_MAX_OBJECTS + 1):
        left = stop - at >= head
        if not left.all():
            at, stop = at[left], stop[left]
        if not len(at):
            return
        used, size = (words[at] & 0xFFFF) > 0, words[at + 1]
        if (size > _WORD * (stop - at)).any():
            raise ValueError("a heap of its texts is damaged")
        # HDF5 counts the head in the size of the free space, which has the number 0
        length = np.where(used, head, 0) + (size.astype(np.int64) + _WORD - 1) // _WORD
        at = at + length
        if (length < head).any() or (at > stop).any():
            raise ValueError("a heap of its texts is damaged")
    raise ValueError("a heap of its texts has no end")
