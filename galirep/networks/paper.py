"""The families `svhn32` and `celeba64`: the networks of the paper (Dandi et al. 2021, tables of architectures)."""

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

_STD = 0.01  # of the initial weights of every layer
_FEATURE_WIDTH = 512  # of the trunk that takes M's features


def _paper(
    shapes: Shapes,
    convs: Sequence[tuple[int, int, int]],
    ups: Sequence[tuple[int, int, int]],
    *,
    slope: float,
    dense: int | None,
    pixel_convs: Sequence[int],
    latent_trunk: Sequence[int],
    head: Sequence[int],
) -> Parts:
    """Build the paper's networks.

    `convs` are (kernel, stride, channels) of E's convolutions, the last of which covers its whole 4 x 4 input, and
    `ups` those of G's transposed convolutions, the first of which covers its whole output. `dense` is the width of
    another layer of E, `pixel_convs` the channels of G's 1 x 1 convolutions before the last.
    """
    *inner, (last_side, _, top) = convs
    widths = [shapes.channels, *(channels for _, _, channels in inner)]

    def image_trunk(norm: str) -> dict[str, nn.Module]:
        blocks: dict[str, nn.Module] = {}
        for i, (kernel, stride, channels) in enumerate(inner):
            blocks[f"conv{i + 1}"] = conv_block(widths[i], channels, kernel, stride, slope, norm)
        blocks[f"conv{len(convs)}"] = dense_block(widths[-1] * last_side * last_side, top, slope, norm)
        return blocks

    blocks = image_trunk(shapes.norm)
    if dense:
        blocks["fc1"] = dense_block(top, dense, slope, shapes.norm)
    (first_side, _, width), *rest = ups
    body: list[nn.Module] = [latent_projection(shapes.latent, width, first_side, slope, shapes.norm)]
    for kernel, stride, channels in rest:
        body.append(up_block(width, channels, kernel, stride, slope, shapes.norm))
        width = channels
    for channels in pixel_convs:
        body.append(conv_block(width, channels, 1, 1, slope, shapes.norm))
        width = channels
    body.append(nn.Conv2d(width, shapes.channels, 1))
    trunks: dict[str, nn.Module] = {
        "image": nn.Sequential(*image_trunk("none").values()),
        "latent": mlp((shapes.latent, *latent_trunk), slope),
    }
    if shapes.features:
        trunks["features"] = mlp((shapes.features, _FEATURE_WIDTH, _FEATURE_WIDTH), slope)
    parts = Parts(
        encoder=Encoder(blocks, dense or top, shapes.latent),
        generator=Generator(nn.Sequential(*body), shapes.channels, shapes.size),
        trunks=trunks,
        trunk_dims={"image": top, "latent": latent_trunk[-1], "features": _FEATURE_WIDTH},
        head_widths=tuple(head),
        slope=slope,
        head_std=_STD,
    )
    for module in (parts.encoder, parts.generator, *trunks.values()):
        init_normal(module, _STD)
    return parts


def svhn32(shapes: Shapes) -> Parts:
    """Build the paper's networks for 32 x 32 images (SVHN).

    Parameters at latent 256: E 3.32 M, G 1.77 M, D of GALI-4 5.29 M.
    """
    return _paper(
        shapes,
        [(5, 1, 32), (4, 2, 64), (4, 1, 128), (4, 2, 256), (4, 1, 512)],
        [(4, 1, 256), (4, 2, 128), (4, 1, 64), (4, 2, 32), (5, 1, 32)],
        slope=0.01,
        dense=512,
        pixel_convs=(32,),
        latent_trunk=(512, 512),
        head=(1024, 1024),
    )


def celeba64(shapes: Shapes) -> Parts:
    """Build the paper's networks for 64 x 64 images (CelebA)."""
    return _paper(
        shapes,
        [(2, 1, 64), (7, 2, 128), (5, 2, 256), (7, 2, 256), (4, 1, 512)],
        [(4, 1, 512), (7, 2, 256), (5, 2, 256), (7, 2, 128), (2, 1, 64)],
        slope=0.02,
        dense=None,
        pixel_convs=(),
        latent_trunk=(1024, 1024),
        head=(2048, 2048),
    )
