"""Damage to a file that its format's own structure survives: the fault is in what the file says, not in its bytes."""

import json
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from soak_parts.mutations import mutate_bytes, mutate_json, mutate_value

Damage = Callable[[Path, random.Random], None]


def bytes_of(path: Path, draw: random.Random) -> None:
    """Mutate the bytes of a file."""
    path.write_bytes(mutate_bytes(path.read_bytes(), draw))


def json_of(path: Path, draw: random.Random) -> None:
    """Mutate a JSON file."""
    path.write_bytes(mutate_json(path.read_text(), draw))


def lines_of(path: Path, draw: random.Random) -> None:
    """Mutate one line of a JSONL file."""
    lines = path.read_bytes().splitlines()
    at = draw.randrange(len(lines))
    lines[at] = mutate_json(lines[at].decode(), draw)
    path.write_bytes(b"\n".join(lines) + b"\n")


def yaml_of(path: Path, draw: random.Random) -> None:
    """Mutate a YAML file; at times put aliases, tags or deep nesting into it."""
    import yaml

    text = path.read_text()
    bombs = (
        "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(f"b{i}: &b{i} [{'*a, ' * 9}]\n" for i in range(3)),
        "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30)),
        "width: !!python/object/apply:os.system ['true']\n",
        "width: !!timestamp x\n",
        "width: !!bool x\n",
        f"width: {'[' * 3000}\n",
        f"steps: 0x{'f' * 6000}\n",
        "steps: 2001-99-99\n",
        "? [1, 2]\n: 3\n",
        "&a width: *a\n",
        "<<: *nothing\n",
    )
    if draw.random() < 0.2:
        path.write_text(text + draw.choice(bombs))
    elif draw.random() < 0.4:
        bytes_of(path, draw)
    else:
        with suppress(RecursionError):
            path.write_text(yaml.safe_dump(mutate_value(yaml.safe_load(text), draw)))


def hdf5_of(path: Path, draw: random.Random) -> None:
    """Mutate attributes and datasets of an HDF5 file: removed, of other types, shapes and declared sizes."""
    with h5py.File(path, "r+") as file:
        for _ in range(draw.choice((1, 1, 2))):
            names = [*file.keys()]
            if draw.random() < 0.5 and len(file.attrs):
                _mutate_attribute(file, draw.choice(list(file.attrs)), draw)
            elif names:
                _mutate_dataset(file, draw.choice(names), draw)


def _mutate_attribute(file: Any, name: str, draw: random.Random) -> None:
    value = file.attrs[name]
    action = draw.random()
    if action < 0.2:
        del file.attrs[name]
    elif action < 0.6 and isinstance(value, str) and value[:1] in "[{":
        # a second mutation may meet what the first one left
        with suppress(ValueError):
            file.attrs[name] = mutate_json(value, draw).decode(errors="replace").replace("\0", "?")[:60_000]
    else:
        new = draw.choice(
            (0, -1, 2**62, 1.5, np.nan, "", "x", "[]", "{}", b"\xff\xfe", [1, 2], np.zeros((2, 2)), np.True_)
        )
        file.attrs[name] = new if draw.random() < 0.9 else h5py.Empty("f")


def _mutate_dataset(file: Any, name: str, draw: random.Random) -> None:
    old = file[name]
    content = old[()] if isinstance(old, h5py.Dataset) and old.size < 1e6 else np.zeros(3)
    action = draw.random()
    if action < 0.15 and isinstance(old, h5py.Dataset) and old.chunks and old.ndim:
        with suppress(TypeError, ValueError, RuntimeError):
            # HDF5 itself goes through the chunks of a size that it is asked for
            old.resize(draw.choice((0, 1, 2**20)), axis=0)
            return
    whole = isinstance(old, h5py.Dataset) and old.shape == np.shape(content)
    if action < 0.3 and whole and np.asarray(content).dtype.kind in "iuf" and np.size(content):
        content = np.asarray(content).copy()
        value = draw.choice((-1, -5, 127, 2**30 if content.itemsize > 3 else 9))
        content.reshape(-1)[draw.randrange(content.size)] = np.array(value).astype(content.dtype)
        old[...] = content
        return
    del file[name]
    if action < 0.45:
        return
    if action < 0.55:
        file.create_group(name)
    elif action < 0.65:
        file[name] = draw.choice((1, "x", 1.5, np.zeros((2, 2, 2)), np.array([b"\xff"]), np.zeros(0), [b"a", b"b"]))
    elif action < 0.75:
        file.create_dataset(name, (2**40, 4), "f4", chunks=(64, 4))
    elif action < 0.85:
        shape = (draw.choice((0, 1, 24, 2**33)),)
        file.create_dataset(name, shape, draw.choice(("i1", "f8", "S4", "?")), chunks=(1,), maxshape=(None,))
    else:
        with suppress(TypeError, ValueError, UnicodeEncodeError):
            file[name] = (
                np.asarray(content).astype(draw.choice(("f8", "i4", "S8", "?")))
                if np.asarray(content).dtype.names is None
                else np.zeros(2)
            )


def safetensors_of(path: Path, draw: random.Random) -> None:
    """Mutate the description of the network in the header of a safetensors file, or the header itself."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    if draw.random() < 0.8:
        header["__metadata__"]["galirep"] = mutate_json(header["__metadata__"]["galirep"], draw).decode(
            errors="replace"
        )
        text = json.dumps(header).encode()
    else:
        text = mutate_json(json.dumps(header), draw)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])


def checkpoint_of(path: Path, draw: random.Random) -> None:
    """Swap values of a checkpoint for others: of other types, shapes and sizes."""
    import torch

    content = torch.load(path, weights_only=True)
    tensors = [torch.zeros(0), torch.tensor(float("nan")), torch.zeros(3, 3), torch.zeros(2, dtype=torch.int64)]
    mutated = mutate_value(content, draw)
    if draw.random() < 0.3:
        part = content[draw.choice(list(content))]
        if isinstance(part, dict) and part:
            part[draw.choice(list(part))] = draw.choice(tensors)
            mutated = content
    with suppress(RecursionError):
        torch.save(mutated, path)


def toml_of(path: Path, draw: random.Random) -> None:
    """Mutate the text of a TOML file; at times let its expressions share their parts to a depth of 40."""
    text = path.read_text()
    shared = "\n".join(f'y{i} = "Mix(y{i - 1}, y{i - 1}, M1)"' for i in range(1, 41))
    chain = "\n".join(f'y{i} = "G(E(y{i - 1}))"' for i in range(1, 41))
    rows = ", ".join(['["x", "E(x)"]'] * 3000)
    bombs = (
        f'name = "a"\nclasses = [["y40", "E(x)"], ["G(z)", "z"]]\n[where]\ny0 = "x"\n{shared}\n',
        f'name = "a"\nclasses = [["y40", "E(x)"], ["G(z)", "z"]]\n[where]\ny0 = "x"\n{chain}\n',
        f'name = "a"\nclasses = [["{"G(E(" * 500}x{"))" * 500}", "E(x)"], ["G(z)", "z"]]\n',
        f'name = "a"\nclasses = [{rows}]\n',
        f"a = {'[' * 3000}\n",
        f"a{'.a' * 20_000} = 1\n",
        f"seeds = 0x{'f' * 9000}\n{text}",
        f"name = {'9' * 5000}\n",
    )
    if draw.random() < 0.15:
        path.write_text(draw.choice(bombs))
        return
    values = (
        "1",
        "-1",
        '"x"',
        "[]",
        "[[]]",
        "{}",
        "nan",
        "inf",
        "1979-05-27",
        "true",
        '["x", "E(x)"]',
        "1e999",
        "0x" + "f" * 5000,
        '"E(E(x))"',
        '"M1"',
        '"\\u0000"',
    )
    if draw.random() < 0.4:
        bytes_of(path, draw)
        return
    tokens = text.replace("[", " [ ").replace("]", " ] ").replace(",", " , ").split(" ")
    for _ in range(draw.choice((1, 1, 2))):
        tokens[draw.randrange(len(tokens))] = draw.choice(values)
    path.write_text(" ".join(tokens))
