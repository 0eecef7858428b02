"""What can be evaluated, as functions of images: a run, an extractor, or any pair of E and G in memory."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from galirep.data.tensors import ImageFunction
from galirep.evaluation.baselines import Baseline
from galirep.features.extraction import build_extractor, load_body
from galirep.features.gali import GaliEncoder
from galirep.features.protocol import FeatureExtractor, describe
from galirep.features.registry import load_extractor
from galirep.game.variant import Variant
from galirep.networks.body import BodyEncoder
from galirep.networks.export_file import run_folder
from galirep.networks.header import RunHeader, check_header
from galirep.networks.parts import Encoder, Generator, Shapes
from galirep.networks.saved import load_autoencoder, load_network

Posterior = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Subject:
    """What is evaluated, as functions; None for what it does not have.

    Attributes:
        name: how messages and tables call it.
        kind: `run`, `extractor` or `baseline`.
        size: side of the images that it takes; None: any.
        channels: their channels.
        latent: dimensions of z; 0 without a generator.
        rebuild: images (B, C, S, S) in [-1, 1] -> reconstructions.
        complete: images with erased pixels (`game.masks.ERASED`) -> images.
        generate: z (B, latent) -> images.
        posterior: images -> mu and log sigma, (B, latent) each.
        extract: images -> features (B, D), for the probe.
        layers: of `extract`, name -> width.
        facts: what identifies it in a result: hashes, step, variant.
        adapter: the M(.) that it was trained with, as its export records it.
        body: what its E stands on, likewise.
        masked: whether E saw masked images in training; None where that is not known.
    """

    name: str
    kind: str
    size: int | None
    channels: int
    latent: int = 0
    rebuild: ImageFunction | None = None
    complete: ImageFunction | None = None
    generate: ImageFunction | None = None
    posterior: Posterior | None = None
    extract: ImageFunction | None = None
    layers: Mapping[str, int] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    adapter: Mapping[str, Any] | None = None
    body: Mapping[str, Any] | None = None
    masked: bool | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """What makes it the same in another result, wherever it lies."""
        hashes = self.facts.get("sha256")
        return {"kind": self.kind, "sha256": hashes} if hashes else {"kind": self.kind, "name": self.name}


def load_subject(
    run: str | Path,
    device: torch.device,
    *,
    layers: Sequence[str] | None = None,
    download: bool = False,
    trust_encoder: bool = False,
) -> Subject:
    """Load a run directory or export folder, or build the extractor of a spec, of which only `probe` can be had.

    `layers` are those of the encoder that are probed (default: its own choice).

    Raises:
        CheckpointError: a directory without an export of E and G.
        PluginError: an unknown extractor or layer.
    """
    path = run_folder(str(run).removeprefix("run:"))
    if path.is_dir():
        return _load_run(path, device, layers, trust_encoder)
    extractor, about = build_extractor(
        run, layers=layers, device=device, download=download, trust_encoder=trust_encoder
    )
    facts = {"name": about.name, "tag": about.tag, "sha256": about.sha256, "image_size": about.image_size}
    size = about.image_size if about.exact_size else None
    return Subject(
        str(run), "extractor", size, about.channels, extract=extractor, layers=dict(about.layers), facts=facts
    )


def network_subject(
    name: str,
    encoder: Encoder,
    generator: Generator,
    shapes: Shapes,
    *,
    masked_encoder: Encoder | None = None,
    extractor: FeatureExtractor | None = None,
    **about: Any,
) -> Subject:
    """Make a subject of an E and a G in eval mode.

    `masked_encoder` is E with the statistics of masked images, `extractor` the features that are probed (default: E's
    default layers), `about` are other attributes of `Subject`; `kind` defaults to `baseline`.
    """
    if extractor is None:
        extractor = GaliEncoder(encoder, shapes, name=name)
    hole_encoder = masked_encoder or encoder
    return Subject(
        name,
        about.pop("kind", "baseline"),
        shapes.size,
        shapes.channels,
        shapes.latent,
        rebuild=lambda x: generator(encoder(x)[0]),
        complete=lambda x: generator(hole_encoder(x)[0]),
        generate=generator,
        posterior=encoder,
        extract=extractor,
        layers=dict(describe(extractor).layers),
        **about,
    )


def baseline_subject(name: str, baseline: Baseline, size: int, channels: int) -> Subject:
    """Make a subject of a baseline: mean image, raw pixels, PCA."""
    rebuild = baseline.rebuild
    return Subject(name, "baseline", size, channels, rebuild=rebuild, complete=rebuild, extract=baseline.extract)


def _load_run(path: Path, device: torch.device, layers: Sequence[str] | None, trust_encoder: bool) -> Subject:
    body = partial(load_body, trust_encoder=trust_encoder)
    encoder, generator, header = load_autoencoder(path, device, body=body)
    _, generator_header = load_network(path, "generator", device)
    check_header(header, RunHeader, path)
    # the sets of BatchNorm statistics that the export has; the first is what was loaded
    available = tuple(header.get("statistics") or ("whole",))
    encoders = {available[0]: encoder}
    for name in available[1:]:
        encoders[name] = load_autoencoder(path, device, name, body=body)[0]
    used = {images: images if images in encoders else available[0] for images in ("whole", "masked")}
    return network_subject(
        str(path),
        encoders[used["whole"]],
        generator,
        Shapes(**header["shapes"]),
        masked_encoder=encoders[used["masked"]],
        extractor=load_extractor(f"run:{path}", layers=layers, device=device, trust_encoder=trust_encoder),
        kind="run",
        facts={
            "name": header["name"],
            "variant": header["variant"]["name"],
            "step": header["step"],
            "training_seed": header["config"]["seed"],
            "trained_on": dict(header["data"]),
            "sha256": {"encoder": header["sha256"], "generator": generator_header["sha256"]},
            "statistics": used,
        },
        adapter=header["adapter"],
        body=encoder.body_record if isinstance(encoder, BodyEncoder) else None,
        masked=any("Erase" in e.heads for e in Variant.from_dict(header["variant"]).expressions),
    )
