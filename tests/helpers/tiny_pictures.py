"""Runs small enough for pictures by hand, and pictures cut into their images."""

from pathlib import Path

import numpy as np
import torch

from galirep.data.catalog import open_data
from galirep.data.tensors import to_float
from galirep.networks.families import NETWORKS
from galirep.networks.parts import Shapes
from galirep.networks.saved import export_networks, load_autoencoder

RUN = Path(__file__).parents[1] / "fixtures" / "written_by_04408f9" / "run"
"""A run of GALI-4 on the 8 x 8 digits."""
RUNS = dict.fromkeys(("reconstruct", "inpaint", "interpolate"), (RUN, "--data", "sklearn:digits", "--split", "test"))
"""Arguments of each command of pictures, all but the output."""


def export(folder, *, seed=0, size=8, channels=1, **header):
    """Export untrained networks of 4 latent dimensions; return the folder."""
    shapes = Shapes(size=size, channels=channels, latent=4, width=4)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts = NETWORKS["compact"].build(shapes)
        # untrained, G would make every pixel about 0
        torch.nn.init.normal_(parts.generator.bias)
    folder.mkdir()
    header = {"networks": "compact", "shapes": vars(shapes), "name": "tiny", **header}
    export_networks(folder, {"encoder": parts.encoder, "generator": parts.generator}, header, "card")
    return folder


class Pixels(torch.nn.Module):
    """An E whose mu are the pixels, row by row."""

    def forward(self, images):
        return images.flatten(1), None


class Same(torch.nn.Module):
    """A G that makes grey images of pixels."""

    def forward(self, z):
        side = round(z.shape[1] ** 0.5)
        return z.view(-1, 1, side, side)


def header_of(side, **header):
    """Return the header of an export of `Pixels` and `Same`."""
    return {"shapes": {"size": side, "channels": 1, "latent": side * side}, **header}


def grey(path, *images):
    """Save images of integers (S, S) as a data set; return its spec."""
    np.savez(path, images=np.array(images, np.uint8))
    return f"npz:{path}"


def digits(ids):
    """Return test digits by id: (N, 8, 8) uint8."""
    source = open_data("sklearn:digits", "test")
    return np.stack([source.read(source.ids.index(name)).reshape(8, 8) for name in ids])


def to_bytes(images):
    """Return grey images in [-1, 1] as (N, S, S) integers in 0..255."""
    return np.floor((images.numpy()[:, 0].clip(-1, 1).astype(np.float64) + 1) * 127.5 + 0.5)


def reconstruct_by_hand(run, ids):
    """Return test digits and their reconstructions, each (N, 8, 8) in 0..255."""
    encoder, generator, _ = load_autoencoder(run)
    x = digits(ids)
    with torch.inference_mode():
        return x.astype(float), to_bytes(generator(encoder(to_float(torch.from_numpy(x[:, None])))[0]))


def cells(picture, *, side, rows, columns, left=2, top=2):
    """Cut a figure without groups of columns into its images: (block, row, column) -> (side, side)."""
    pixels = np.asarray(picture)
    assert (pixels[..., :1] == pixels).all(), "not grey"
    blocks = []
    for count in rows:
        lines = [pixels[top + i * (side + 2) :][:side, :, 0] for i in range(count)]
        blocks.append([[line[:, left + j * (side + 2) :][:, :side] for j in range(columns)] for line in lines])
        top += count * (side + 2) + 8
    assert top - 8 == pixels.shape[0], "the figure has other rows"
    return blocks
