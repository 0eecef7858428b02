"""The family `compact`: strided convolutions, for small images and small machines."""

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

_SLOPE = 0.2


def compact(shapes: Shapes) -> Parts:
    """Build 4 x 4 convolutions of stride 2 down to a side of 2 or 3 and back.

    The width doubles up to 8 x `width`. Takes square images of 8, 16, 24, ..., 128 pixels.
    """
    sides = [shapes.size]
    while sides[-1] > 3:
        sides.append(sides[-1] // 2)
    widths = [shapes.channels, *(shapes.width * min(2**i, 8) for i in range(len(sides) - 1))]
    flat = widths[-1] * sides[-1] ** 2
    dense = 8 * shapes.width

    def image_trunk(norm: str) -> dict[str, nn.Module]:
        blocks: dict[str, nn.Module] = {
            f"conv{i + 1}": conv_block(widths[i], widths[i + 1], 4, 2, _SLOPE, norm, padding=1)
            for i in range(len(sides) - 1)
        }
        blocks["fc1"] = dense_block(flat, dense, _SLOPE, norm)
        return blocks

    body: list[nn.Module] = [latent_projection(shapes.latent, widths[-1], sides[-1], _SLOPE, shapes.norm)]
    for i in range(len(sides) - 1, 1, -1):
        # 1 where halving the side rounded down
        output_padding = sides[i - 1] - 2 * sides[i]
        body.append(
            up_block(widths[i], widths[i - 1], 4, 2, _SLOPE, shapes.norm, padding=1, output_padding=output_padding)
        )
    body.append(nn.ConvTranspose2d(widths[1], shapes.channels, 4, 2, 1, sides[0] - 2 * sides[1]))
    trunks: dict[str, nn.Module] = {
        "image": nn.Sequential(*image_trunk("none").values()),
        "latent": mlp((shapes.latent, dense, dense), _SLOPE),
    }
    if shapes.features:
        trunks["features"] = mlp((shapes.features, dense, dense), _SLOPE)
    parts = Parts(
        encoder=Encoder(image_trunk(shapes.norm), dense, shapes.latent),
        generator=Generator(nn.Sequential(*body), shapes.channels, shapes.size),
        trunks=trunks,
        trunk_dims=dict.fromkeys(("image", "latent", "features"), dense),
        head_widths=(dense, dense),
        slope=_SLOPE,
    )
    # the scale of Radford et al. 2016; D keeps torch's own initialisation, whose scale does not shrink with depth
    for module in (parts.encoder, parts.generator):
        init_normal(module, 0.02)
    return parts
