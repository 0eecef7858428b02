"""Mutations of bytes and of plain data, all drawn from one `random.Random`."""

import copy
import json
import random
from typing import Any

_WORDS = [b"\0", b"\xff" * 8, b"\x7f" * 4, b"-1", b"1e999", b"NaN", b"{", b"[", b'"', b"\n", b",", b"\xff\xff\xff\x7f"]


def mutate_bytes(data: bytes, draw: random.Random, other: bytes = b"") -> bytes:
    """Return a file's bytes after one to four mutations: cut, flipped, spliced, doubled, zeroed, words put in."""
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        data = draw.choice(_BYTES)(data or b"\0", draw, other)
    return data


def _place(data: bytes, draw: random.Random) -> int:
    # heads have the structure: half of all mutations are there
    return draw.randrange(min(len(data), 512) if draw.random() < 0.5 else len(data))


def _cut(data: bytes, draw: random.Random, _: bytes) -> bytes:
    return data[: draw.randrange(len(data))]


def _flip(data: bytes, draw: random.Random, _: bytes) -> bytes:
    flipped = bytearray(data)
    for _ in range(draw.choice((1, 1, 8, 64))):
        flipped[_place(data, draw)] ^= 1 << draw.randrange(8)
    return bytes(flipped)


def _overwrite(data: bytes, draw: random.Random, _: bytes) -> bytes:
    at, word = _place(data, draw), draw.choice(_WORDS)
    return data[:at] + word + data[at + len(word) :]


def _insert(data: bytes, draw: random.Random, _: bytes) -> bytes:
    at = _place(data, draw)
    return data[:at] + draw.choice(_WORDS) * draw.choice((1, 1, 100)) + data[at:]


def _splice(data: bytes, draw: random.Random, other: bytes) -> bytes:
    source = other or data
    start, at = draw.randrange(len(source)), _place(data, draw)
    piece = source[start : start + draw.randrange(1, 256)]
    return data[:at] + piece + data[at + len(piece) * draw.randrange(2) :]


def _remove(data: bytes, draw: random.Random, _: bytes) -> bytes:
    at = _place(data, draw)
    return data[:at] + data[at + draw.randrange(1, 64) :]


def _zero(data: bytes, draw: random.Random, _: bytes) -> bytes:
    at, length = _place(data, draw), draw.choice((4, 64, 4096))
    return data[:at] + bytes(min(length, len(data) - at)) + data[at + length :]


_BYTES = (_cut, _flip, _flip, _overwrite, _insert, _splice, _remove, _zero)


def nested(depth: int) -> Any:
    """Return lists within each other."""
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def strange(draw: random.Random) -> Any:
    """Return a value that is not the one that was there."""
    return draw.choice(
        (
            *(None, True, False, 0, -1, 1, 2**31, 2**53 + 1, -(2**63), 2**64, 10**30, 0.5, -0.0, 1e308),
            *(float("nan"), float("inf"), -float("inf"), "", "x", "E(x)", "\0\x1b[2J", "-1", "z" * 5000, "../../x"),
            *([], {}, [[]], [None], {"": None}, {"a": {"b": []}}, [1, "a", None], nested(40), nested(900)),
        )
    )


def mutate_value(value: Any, draw: random.Random) -> Any:
    """Return plain data after one to three mutations: types swapped, keys deleted or added, numbers of any size."""
    value = copy.deepcopy(value)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        places = _places(value)
        if not places:
            return strange(draw)
        holder, key = draw.choice(places)
        action = draw.random()
        if action < 0.6:
            holder[key] = strange(draw)
        elif action < 0.8:
            del holder[key]
        elif action < 0.9 and isinstance(holder, dict):
            holder[draw.choice(("", "name", "x" * 1000, "__class__", "0"))] = strange(draw)
        else:
            other, inner = draw.choice(places)
            if key in holder if isinstance(holder, dict) else key < len(holder):
                holder[key] = copy.deepcopy(other[inner] if _has(other, inner) else None)
    return value


def _has(holder: Any, key: Any) -> bool:
    return key in holder if isinstance(holder, dict) else key < len(holder)


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Return every place of a value within its lists and dicts."""
    found, todo = [], [value]
    while todo:
        item = todo.pop()
        keys = list(item) if isinstance(item, dict) else range(len(item)) if isinstance(item, list) else ()
        found += [(item, key) for key in keys]
        todo += [item[key] for key in keys]
    return found


def mutate_json(text: str, draw: random.Random) -> bytes:
    """Return a JSON text whose value, or whose bytes, are mutated; at times with a key twice."""
    action = draw.random()
    if action < 0.25:
        return mutate_bytes(text.encode(), draw)
    value = json.loads(text)
    if action < 0.3 and isinstance(value, dict) and value:
        key = draw.choice(list(value))
        return f"{{{json.dumps(key)}: {_dump(strange(draw))}, {text.strip()[1:]}".encode()
    if action < 0.33:
        return b"[" * draw.choice((100, 5000, 200_000))
    return _dump(mutate_value(value, draw)).encode(errors="replace")


def _dump(value: Any) -> str:
    return json.dumps(value)
