"""The networks of the paper: `svhn32` and `celeba64`."""

from collections.abc import Sequence

from torch import nn

from galirep.networks.parts import (
    Encoder,
    Generator,
    Parts,
    Shapes,
    conv_block,
    dense_block,
    init_normal,
    latent_projection,
    mlp,
    up_block,
)


def _paper(
    shapes: Shapes,
    convs: Sequence[tuple[int, int, int]],
    ups: Sequence[tuple[int, int, int]],
    *,
    slope: float,
    fc: int | None,
    to_pixels: Sequence[int],
    latent_trunk: Sequence[int],
    head: Sequence[int],
) -> Parts:
    """The paper's networks (GALI's Tables of architectures): (kernel, stride, out) of E's convolutions, the last of which covers its 4 x 4
    input.
    """
    *inner, (last, _, top) = convs
    widths = [shapes.channels, *(out for _, _, out in inner)]

    def image_trunk(norm: str) -> dict[str, nn.Module]:
        blocks: dict[str, nn.Module] = {}
        for i, (kernel, stride, out) in enumerate(inner):
            blocks[f"conv{i + 1}"] = conv_block(widths[i], out, kernel, stride, slope, norm)
        blocks[f"conv{len(convs)}"] = dense_block(widths[-1] * last * last, top, slope, norm)
        return blocks

    blocks = image_trunk(shapes.norm)
    if fc:
        blocks["fc1"] = dense_block(top, fc, slope, shapes.norm)
    (first, _, out), *rest = ups
    body: list[nn.Module] = [latent_projection(shapes.latent, out, first, slope, shapes.norm)]
    for kernel, stride, wide in rest:
        body.append(up_block(out, wide, kernel, stride, slope, shapes.norm))
        out = wide
    for wide in to_pixels:
        body.append(conv_block(out, wide, 1, 1, slope, shapes.norm))
        out = wide
    body.append(nn.Conv2d(out, shapes.channels, 1))
    trunks: dict[str, nn.Module] = {
        "image": nn.Sequential(*image_trunk("none").values()),
        "latent": mlp((shapes.latent, *latent_trunk), slope),
    }
    if shapes.features:
        trunks["features"] = mlp((shapes.features, 512, 512), slope)
    parts = Parts(
        Encoder(blocks, fc or top, shapes.latent),
        Generator(nn.Sequential(*body), shapes.channels, shapes.size),
        trunks,
        {"image": top, "latent": latent_trunk[-1], "features": 512},
        tuple(head),
        slope,
    )
    for module in (parts.encoder, parts.generator, *trunks.values()):
        init_normal(module, 0.01)
    return parts


def svhn32(shapes: Shapes) -> Parts:
    """The paper's networks for 32 x 32 images (SVHN): E 3.32 M, G 1.77 M, D of GALI-4 5.29 M parameters at latent 256."""
    return _paper(
        shapes,
        [(5, 1, 32), (4, 2, 64), (4, 1, 128), (4, 2, 256), (4, 1, 512)],
        [(4, 1, 256), (4, 2, 128), (4, 1, 64), (4, 2, 32), (5, 1, 32)],
        slope=0.01,
        fc=512,
        to_pixels=(32,),
        latent_trunk=(512, 512),
        head=(1024, 1024),
    )


def celeba64(shapes: Shapes) -> Parts:
    """The paper's networks for 64 x 64 images (CelebA)."""
    return _paper(
        shapes,
        [(2, 1, 64), (7, 2, 128), (5, 2, 256), (7, 2, 256), (4, 1, 512)],
        [(4, 1, 512), (7, 2, 256), (5, 2, 256), (7, 2, 128), (2, 1, 64)],
        slope=0.02,
        fc=None,
        to_pixels=(),
        latent_trunk=(1024, 1024),
        head=(2048, 2048),
    )
