"""The networks `compact`, for small images and small machines."""

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


def compact(shapes: Shapes) -> Parts:
    """4 x 4 convolutions of stride 2 down to a side of 2 or 3 and back, width doubling up to 8 x `width`; any square size of 8, 16, 24,
    ..., 128.
    """
    sides = [shapes.size]
    while sides[-1] > 3:
        sides.append(sides[-1] // 2)
    widths = [shapes.channels, *(shapes.width * min(2**i, 8) for i in range(len(sides) - 1))]
    flat, fc, slope = widths[-1] * sides[-1] ** 2, 8 * shapes.width, 0.2

    def image_trunk(norm: str) -> dict[str, nn.Module]:
        blocks: dict[str, nn.Module] = {
            f"conv{i + 1}": conv_block(widths[i], widths[i + 1], 4, 2, slope, norm, padding=1)
            for i in range(len(sides) - 1)
        }
        blocks["fc1"] = dense_block(flat, fc, slope, norm)
        return blocks

    body: list[nn.Module] = [latent_projection(shapes.latent, widths[-1], sides[-1], slope, shapes.norm)]
    for i in range(len(sides) - 1, 1, -1):
        body.append(
            up_block(widths[i], widths[i - 1], 4, 2, slope, shapes.norm, padding=1, extra=sides[i - 1] - 2 * sides[i])
        )
    body.append(nn.ConvTranspose2d(widths[1], shapes.channels, 4, 2, 1, sides[0] - 2 * sides[1]))
    trunks: dict[str, nn.Module] = {
        "image": nn.Sequential(*image_trunk("none").values()),
        "latent": mlp((shapes.latent, fc, fc), slope),
    }
    if shapes.features:
        trunks["features"] = mlp((shapes.features, fc, fc), slope)
    parts = Parts(
        Encoder(image_trunk(shapes.norm), fc, shapes.latent),
        Generator(nn.Sequential(*body), shapes.channels, shapes.size),
        trunks,
        dict.fromkeys(("image", "latent", "features"), fc),
        (fc, fc),
        slope,
    )
    for module in (parts.encoder, parts.generator):
        init_normal(
            module, 0.02
        )  # Radford et al. 2016; D keeps torch's own initialisation, whose scale does not shrink with depth
    return parts
