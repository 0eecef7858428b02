"""The family `resnet`: residual blocks in E, G and D; D has no normalisation."""

from itertools import pairwise

from torch import Tensor, nn

from galirep.networks.parts import (
    Encoder,
    Generator,
    Parts,
    Shapes,
    dense_block,
    init_normal,
    largest_divisor,
    latent_projection,
    mlp,
    norm_layers,
)

_SLOPE = 0.2
_LAST_SIDE = 4  # of the smallest feature map, in pixels


class Residual(nn.Module):
    """A residual block x + f(x), f being an inverted bottleneck (Huang et al. 2024, R3GAN, section 3.3).

    f is a 1 x 1 convolution to twice the channels, a 3 x 3 convolution in groups of about 16 channels and a 1 x 1
    convolution back; the first two are normalised unless `norm` is `none`.

    The first two convolutions start at the scale of He et al. (2015) times depth^(-1/4), `depth` being the number of
    blocks in sequence (Fixup, Zhang et al. 2019, for three layers in a block). The last one starts near zero, not at
    zero, because spectral norm divides by its norm.
    """

    def __init__(self, channels: int, norm: str, depth: int) -> None:
        super().__init__()
        wide = 2 * channels
        first = nn.Conv2d(channels, wide, 1)
        last = nn.Conv2d(wide, channels, 1)
        grouped = nn.Conv2d(wide, wide, 3, 1, 1, groups=largest_divisor(wide, wide / 16))
        for layer in (first, grouped):
            _init_he(layer, depth**-0.25)
        init_normal(last, 0.001)
        self.branch = nn.Sequential(
            *(first, *norm_layers(norm, wide), nn.LeakyReLU(_SLOPE)),
            *(grouped, *norm_layers(norm, wide), nn.LeakyReLU(_SLOPE)),
            last,
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, S, S) -> (B, C, S, S)."""
        y: Tensor = x + self.branch(x)
        return y


def _init_he(layer: nn.Conv2d | nn.Linear, gain: float = 1.0) -> None:
    nn.init.kaiming_normal_(layer.weight, _SLOPE)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    layer.weight.data.mul_(gain)


def _linear_conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    """Return a 1 x 1 convolution that keeps the scale of its input."""
    layer = nn.Conv2d(in_channels, out_channels, 1)
    init_normal(layer, in_channels**-0.5)
    return layer


def resnet(shapes: Shapes) -> Parts:
    """Build one residual block at each side from `size` (8, 16, 32, 64 or 128) down to 4.

    The width doubles from `width` up to 8 x `width`, with bilinear resampling by 2 between the blocks.

    Millions of parameters of E, G and D of GALI-4 at width 32, latent 128, RGB: 0.76, 0.43, 0.98 at 16 pixels; 1.65,
    1.07, 1.88 at 32; 2.06, 1.48, 2.28 at 64; 2.46, 1.92, 2.68 at 128.
    """
    sides = [shapes.size]
    while sides[-1] > _LAST_SIDE:
        sides.append(sides[-1] // 2)
    widths = [shapes.width * min(2**i, 8) for i in range(len(sides))]
    flat = widths[-1] * _LAST_SIDE**2
    dense = 8 * shapes.width
    depth = len(sides)

    def image_trunk(norm: str) -> dict[str, nn.Module]:
        stem = nn.Conv2d(shapes.channels, widths[0], 3, 1, 1)
        _init_he(stem)
        blocks: dict[str, nn.Module] = {"res1": nn.Sequential(stem, Residual(widths[0], norm, depth))}
        for i, (a, b) in enumerate(pairwise(widths)):
            # the mean of 2 x 2 pixels is bilinear interpolation at half the side
            blocks[f"res{i + 2}"] = nn.Sequential(nn.AvgPool2d(2), _linear_conv(a, b), Residual(b, norm, depth))
        blocks["fc1"] = dense_block(flat, dense, _SLOPE, norm)
        return blocks

    body: list[nn.Module] = [
        latent_projection(shapes.latent, widths[-1], _LAST_SIDE, _SLOPE, shapes.norm),
        Residual(widths[-1], shapes.norm, depth),
    ]
    for b, a in reversed(list(pairwise(widths))):
        upsample = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        body += [_linear_conv(a, b), upsample, Residual(b, shapes.norm, depth)]
    to_pixels = nn.Conv2d(widths[0], shapes.channels, 3, 1, 1)
    init_normal(to_pixels, 0.02)
    body += [nn.LeakyReLU(_SLOPE), to_pixels]
    trunks: dict[str, nn.Module] = {
        "image": nn.Sequential(*image_trunk("none").values()),
        "latent": mlp((shapes.latent, dense, dense), _SLOPE),
    }
    if shapes.features:
        trunks["features"] = mlp((shapes.features, dense, dense), _SLOPE)
    encoder = Encoder(image_trunk(shapes.norm), dense, shapes.latent)
    init_normal(encoder.head, 0.02)
    return Parts(
        encoder=encoder,
        generator=Generator(nn.Sequential(*body), shapes.channels, shapes.size),
        trunks=trunks,
        trunk_dims=dict.fromkeys(("image", "latent", "features"), dense),
        head_widths=(dense, dense),
        slope=_SLOPE,
    )
