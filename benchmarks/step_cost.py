"""Cost of an update compared with the structure of the published code, in one run on one machine.

In the published structure every tuple is its own call of D, the backward pass of D's loss continues through E and G,
and then the backward pass of G's and E's loss runs through everything again; all in NCHW layout, with each convolution
as a convolution. (The authors' code steps D between the two, which every torch since 1.5 refuses, so both gradients are
taken before either step, as in their later code.) Both sides use the same losses, spectral norm, instance noise and
Adam.

    python benchmarks/step_cost.py [--variants gali-4,gali-8] [--networks svhn32] [--batch-size 100] [--repeats 5]
        [--json]

Expected on 2 idle CPU cores: a ratio (seconds of the published structure / seconds here, median of alternating steps)
of at least 1.7 for GALI-4 and 2.5 for GALI-8. `--json` prints {"rows": [{"variant", "networks", "batch", "ratio",
"seconds", "seconds_reference", ...}]}.
"""

import argparse
import json
import platform
import statistics
import time

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from galirep.game.discriminator import Discriminator
from galirep.game.expression import Expr
from galirep.game.objectives import discriminator_loss, product_loss
from galirep.game.step import Game, Rules, compute_gradients
from galirep.game.variant import Variant
from galirep.game.variants import get_variant
from galirep.networks.families import NETWORKS
from galirep.networks.parts import LOG_SIGMA_RANGE, Shapes, init_normal

NOISE = 0.1


def conv(in_channels: int, out_channels: int, kernel_size: int, stride: int, norm: bool) -> list[nn.Module]:
    return [
        nn.Conv2d(in_channels, out_channels, kernel_size, stride),
        *([nn.BatchNorm2d(out_channels)] if norm else []),
        nn.LeakyReLU(0.01),
    ]


def published_networks(variant: Variant, latent: int) -> tuple[nn.Module, nn.Module, nn.Module]:
    """Return E, G and D for 32 x 32 images, layer by layer as published: only convolutions, D called for each tuple."""
    layers = [(3, 32, 5, 1), (32, 64, 4, 2), (64, 128, 4, 1), (128, 256, 4, 2), (256, 512, 4, 1)]

    class E(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(
                *(m for spec in layers for m in conv(*spec, norm=True)), *conv(512, 512, 1, 1, norm=True)
            )
            self.head = nn.Conv2d(512, 2 * latent, 1)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            mu, log_sigma = self.head(self.body(x)).flatten(1).chunk(2, 1)
            return mu, log_sigma.clamp(*LOG_SIGMA_RANGE)

    class G(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            ups = [(latent, 256, 4, 1), (256, 128, 4, 2), (128, 64, 4, 1), (64, 32, 4, 2), (32, 32, 5, 1)]
            body: list[nn.Module] = []
            for in_channels, out_channels, kernel_size, stride in ups:
                body += [
                    nn.ConvTranspose2d(in_channels, out_channels, kernel_size, stride),
                    nn.BatchNorm2d(out_channels),
                    nn.LeakyReLU(0.01),
                ]
            self.body = nn.Sequential(*body, *conv(32, 32, 1, 1, norm=True), nn.Conv2d(32, 3, 1))
            self.bias = nn.Parameter(torch.zeros(3, 32, 32))

        def forward(self, z: Tensor) -> Tensor:
            return torch.tanh(self.body(z[:, :, None, None]) + self.bias)

    class D(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.image = nn.Sequential(*(m for spec in layers for m in conv(*spec, norm=False)))
            self.latent = nn.Sequential(*conv(latent, 512, 1, 1, norm=False), *conv(512, 512, 1, 1, norm=False))
            joint = 512 * len(variant.kinds)
            self.joint = nn.Sequential(
                *conv(joint, 1024, 1, 1, norm=False), *conv(1024, 1024, 1, 1, norm=False), nn.Conv2d(1024, variant.n, 1)
            )

        def forward(self, row: list[Tensor]) -> Tensor:
            embedded = [
                self.image(t + NOISE * torch.randn_like(t)) if kind == "image" else self.latent(t[:, :, None, None])
                for t, kind in zip(row, variant.kinds, strict=True)
            ]
            return self.joint(torch.cat(embedded, 1)).flatten(1)

    nets = E(), G(), D()
    for net in nets:
        init_normal(net, 0.01)
    for module in list(nets[2].modules()):
        if isinstance(module, nn.Conv2d):
            spectral_norm(module)
    return nets


class Published:
    """One update in the published structure, on any device."""

    def __init__(self, variant: Variant, shapes: Shapes, device: torch.device | str = "cpu") -> None:
        self.variant, self.latent = variant, shapes.latent
        self.e, self.g, self.d = (net.to(device) for net in published_networks(variant, shapes.latent))
        self.optimizer_eg = torch.optim.Adam([*self.e.parameters(), *self.g.parameters()], 2e-4, (0.5, 0.999))
        self.optimizer_d = torch.optim.Adam(self.d.parameters(), 2e-4, (0.5, 0.999))

    def step(self, x: Tensor) -> None:
        values = {Expr("x"): x, Expr("z"): torch.randn(len(x), self.latent, device=x.device)}

        def value(e: Expr) -> Tensor:
            if e not in values:
                (arg,) = (value(a) for a in e.args)
                if e.head == "G":
                    values[e] = self.g(arg)
                else:
                    mu, log_sigma = self.e(arg)
                    values[e] = mu + log_sigma.exp() * torch.randn_like(mu)
            return values[e]

        logits = torch.stack([self.d([value(e) for e in row]) for row in self.variant.tuples])
        loss_d, loss_g = discriminator_loss(logits), product_loss(logits)
        self.optimizer_d.zero_grad()
        loss_d.backward(retain_graph=True)
        d_gradients = [p.grad for p in self.d.parameters()]
        self.optimizer_eg.zero_grad()
        self.optimizer_d.zero_grad()
        loss_g.backward()
        for p, gradient in zip(self.d.parameters(), d_gradients, strict=True):
            p.grad = gradient
        self.optimizer_d.step()
        self.optimizer_eg.step()


class Galirep:
    """One update of galirep, with the optimizers of the training loop."""

    def __init__(self, variant: Variant, shapes: Shapes, networks: str) -> None:
        parts = NETWORKS[networks].build(shapes)
        nets = [
            n.to(memory_format=torch.channels_last)
            for n in (parts.encoder, parts.generator, Discriminator(variant, parts, "sn"))
        ]
        self.game = Game(variant, *nets)
        self.optimizer_eg = torch.optim.Adam(
            [*nets[0].parameters(), *nets[1].parameters()], 2e-4, (0.5, 0.999), fused=True
        )
        self.optimizer_d = torch.optim.Adam(nets[2].parameters(), 2e-4, (0.5, 0.999), fused=True)
        self.generator = torch.Generator()

    def step(self, x: Tensor) -> None:
        compute_gradients(
            self.game, x.contiguous(memory_format=torch.channels_last), self.generator, Rules(), noise=NOISE
        )
        self.optimizer_d.step()
        self.optimizer_eg.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--variants", default="gali-4,gali-8")
    parser.add_argument("--networks", default="svhn32", choices=["svhn32"])
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = []
    for name in args.variants.split(","):
        variant, shapes = get_variant(name), Shapes(32, 3, 256)
        torch.manual_seed(0)
        sides = {"seconds_reference": Published(variant, shapes), "seconds": Galirep(variant, shapes, args.networks)}
        x = torch.rand(args.batch_size, 3, 32, 32) * 2 - 1
        times: dict[str, list[float]] = {side: [] for side in sides}
        # the first step of each side is a warm-up
        for repeat in range(args.repeats + 1):
            for side, stepper in sides.items():
                began = time.perf_counter()
                stepper.step(x)
                if repeat:
                    times[side].append(time.perf_counter() - began)
        medians = {side: statistics.median(t) for side, t in times.items()}
        ratios = [a / b for a, b in zip(times["seconds_reference"], times["seconds"], strict=True)]
        rows.append(
            {
                "variant": name,
                "networks": args.networks,
                "batch": args.batch_size,
                "threads": args.threads,
                "repeats": args.repeats,
                "ratio": round(statistics.median(ratios), 3),
                **{side: round(t, 4) for side, t in medians.items()},
                "torch": torch.__version__,
                "machine": platform.machine(),
            }
        )
        if not args.json:
            row = rows[-1]
            print(
                f"{name:10} published structure {row['seconds_reference']:.3f} s, "
                f"here {row['seconds']:.3f} s: {row['ratio']:.2f}x"
            )
    if args.json:
        print(json.dumps({"rows": rows}))


if __name__ == "__main__":
    main()
