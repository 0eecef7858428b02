"""Writing, reading and copying the exported networks of a run."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from galirep.errors import CheckpointError, ConfigError
from galirep.networks.body import BodyLoader
from galirep.networks.export_file import export_folder, load_export, save_export
from galirep.networks.families import NETWORKS
from galirep.networks.parts import Encoder, Generator, Parts, Shapes
from galirep.system.files import atomic_write, sync, write_json, write_text
from galirep.system.outputs.folders import replacing_folder
from galirep.system.outputs.full_disk import explain_full_disk
from galirep.system.outputs.holding import locks_outputs
from galirep.system.reading.files import parsing

EXPORTED = ("encoder.safetensors", "generator.safetensors", "discriminator.safetensors", "encoder.json", "README.md")
_OPTIONAL = "discriminator.safetensors"
"""D's image trunk: exports of earlier versions, and of variants whose D sees no image, have none."""
_WHOLE = "whole"
"""What the BatchNorm statistics of an export are of whose header does not say it."""


BODY_FOLDER = "body"
"""Where an export has a copy of the net that its E stands on."""


def export_networks(
    folder: Path,
    nets: Mapping[str, nn.Module],
    header: Mapping[str, Any],
    card: str,
    statistics: Mapping[str, Mapping[str, Tensor]] | None = None,
    body_files: Mapping[str, bytes] | None = None,
) -> None:
    """Write `encoder.safetensors`, `generator.safetensors`, `encoder.json` (E's header) and README.md (the model card).

    `nets` may have `discriminator`, too: D's image trunk alone. `header` needs `networks`, `shapes` and `name`.
    `statistics` are E's BatchNorm statistics by what E is fed (default: those of E itself, of whole images); the first
    must be those of E, the others are written beside them under `KIND.NAME`. `body_files` go to the folder `body`. All
    files take the place of earlier ones in one step; other files in the folder are kept.
    """
    first, *others = statistics or {_WHOLE: {}}
    header = {**header, "statistics": [first, *others]}
    extra = {f"{kind}.{name}": value for kind in others for name, value in (statistics or {})[kind].items()}
    with replacing_folder(folder, renewed=EXPORTED) as new:
        # they never change, and what is there is kept
        if any(not (folder / BODY_FOLDER / name).is_file() for name in body_files or {}):
            for name, content in (body_files or {}).items():
                path = new / BODY_FOLDER / name
                path.parent.mkdir(parents=True, exist_ok=True)
                with atomic_write(path) as temporary:
                    temporary.write_bytes(content)
        for kind, net in nets.items():
            own = extra if kind == "encoder" else None
            written_header = save_export(new / f"{kind}.safetensors", kind, net, header, own)
            if kind == "encoder":
                write_json(new / "encoder.json", written_header)
        write_text(new / "README.md", card)


def read_export(folder: Path) -> dict[str, bytes]:
    """Return the files of an export that stand for its encoder or classifier, relative path -> content."""
    files = [path for path in sorted(folder.rglob("*")) if path.suffix in (".safetensors", ".json")]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files if path.stem != "generator"}


def load_network(
    run: str | Path,
    kind: str,
    device: str | torch.device = "cpu",
    statistics: str | None = None,
    *,
    body: BodyLoader | None = None,
) -> tuple[nn.Module, dict[str, Any]]:
    """Load the exported network of `kind`, frozen and in eval mode, and its header.

    `kind` is `encoder`, `generator` or `discriminator` (the image trunk, see `load_image_trunk`). `run` is a run
    directory or an export folder. `statistics` chooses E's BatchNorm statistics, those of `whole` or of `masked`
    images, of the ones that the header lists (default: the first). `body` builds what an encoder on a body stands on
    (`galirep.features.extraction.load_body`).

    Raises:
        CheckpointError: the export has no such statistics; the encoder stands on a body and there is no `body` to build
            it; or see `load_export`.
    """
    run = Path(run)
    tensors, header = load_export(run, kind, device)
    first, *others = header.get("statistics") or [_WHOLE]
    if statistics not in (None, first, *others):
        raise CheckpointError(
            f"{run} has no BatchNorm statistics {statistics!r}: it has {' and '.join([first, *others])}"
        )
    for other in others:
        prefix = f"{other}."
        second = {name.removeprefix(prefix): tensors.pop(name) for name in list(tensors) if name.startswith(prefix)}
        if other == statistics:
            tensors |= second
    shapes, family = Shapes(**header["shapes"]), NETWORKS.get(header["networks"])
    if family is None or not family.takes(shapes.size):
        raise CheckpointError(
            f"{run} has networks that this galirep has not: {header['networks']!r} of {shapes.size} pixels"
        )
    damaged = f"the {kind} of {run} is not what its header says"
    with parsing(damaged, CheckpointError), torch.device("meta"):
        # nothing is allocated before the sizes in the header are known to be those of the tensors
        outline = family.build(shapes)
    if kind == "encoder" and (record := header.get("body")):
        if body is None:
            raise CheckpointError(f"the encoder of {run} stands on the body {record['name']!r}: load it as run:{run}")
        net: nn.Module = body(record, export_folder(run)).encoder(outline, shapes)
    else:
        _require_shapes(tensors, _of_kind(outline, kind), damaged)
        net = _of_kind(family.build(shapes), kind)
    with parsing(damaged, CheckpointError):
        net.load_state_dict(tensors)
    return net.requires_grad_(False).eval().to(device), header


def _of_kind(parts: Parts, kind: str) -> nn.Module:
    by_kind = {"encoder": parts.encoder, "generator": parts.generator, "discriminator": parts.trunks["image"]}
    return by_kind[kind]


def _require_shapes(tensors: Mapping[str, Tensor], net: nn.Module, damaged: str) -> None:
    shapes = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    for name in sorted(shapes.keys() | tensors.keys()):
        found = tuple(tensors[name].shape) if name in tensors else "not there"
        if found != shapes.get(name, "unknown"):
            raise CheckpointError(f"{damaged}: {name} is {found}, not {shapes.get(name, 'known')}")


def load_image_trunk(run: str | Path, step: int) -> nn.Module:
    """Load the exported image trunk of D, an `nn.Sequential`, of the `step` that E was exported at.

    Raises:
        CheckpointError: there is none, or it is of another step; see also `load_network`.
    """
    run = Path(run)
    if not (export_folder(run) / _OPTIONAL).is_file():
        raise CheckpointError(
            f"{run} has no layers of D: it was exported without {_OPTIONAL}, which a run gets when it is resumed "
            "(galirep train --resume)"
        )
    trunk, header = load_network(run, "discriminator")
    if header.get("step") != step:
        raise CheckpointError(
            f"{run} has an encoder of step {step} and a discriminator of step {header.get('step')}: "
            "try again when the run has written both"
        )
    return trunk


def load_autoencoder(
    run: str | Path,
    device: str | torch.device = "cpu",
    statistics: str | None = None,
    *,
    body: BodyLoader | None = None,
) -> tuple[Encoder, Generator, dict[str, Any]]:
    """Load the exported E (with `statistics` as in `load_network`) and G, and E's header; raise as `load_network`."""
    encoder, header = load_network(run, "encoder", device, statistics, body=body)
    generator, other = load_network(run, "generator", device)
    if header.get("step") != other.get("step"):
        raise CheckpointError(
            f"{run} has an encoder of step {header.get('step')} and a generator of step {other.get('step')}: "
            "try again when the run has written both, or export it again"
        )
    assert isinstance(encoder, Encoder) and isinstance(generator, Generator)
    return encoder, generator, header


@locks_outputs("out", inputs=("run",))
def export_run(
    run: str | Path,
    out: str | Path,
    *,
    overwrite: bool = False,
    force_unlock: bool = False,  # noqa: ARG001 (of the lock)
) -> list[Path]:
    """Check the export of a run (or of its folder `best`) and copy it into the folder `out`; return the files written.

    They are the encoder, the generator, D's image trunk if the run exported it, encoder.json and the model card, and
    what the encoder stands on if the run has a copy of it.

    It appears in one step. Other files in `out` are kept.

    Raises:
        CheckpointError: see `load_network`.
        ConfigError: `out` exists, unless `overwrite`.
        DataError: no space is left.
        InUseError: another process writes the output (see `galirep.train`, also for `force_unlock`).
    """
    run, out = Path(run), Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())) and not overwrite:
        raise ConfigError(f"{out} exists: choose another name or pass --overwrite")
    if not out.parent.is_dir():
        raise ConfigError(f"cannot write {out}: the folder {out.parent} does not exist")
    folder = export_folder(run)
    # what reads a body is in a room above; its files are checked like the others, each by the hash in its header
    bodies = sorted((folder / BODY_FOLDER).rglob("*.safetensors"))
    _, checked = load_export(run, "encoder")
    if checked.get("body") is None:
        load_autoencoder(run)
    else:
        load_network(run, "generator")
        for path in bodies:
            load_export(path.parent, path.stem)
    names = [*EXPORTED, *(f"{BODY_FOLDER}/{name}" for name in read_export(folder / BODY_FOLDER))]
    if (folder / _OPTIONAL).is_file():
        load_image_trunk(run, checked.get("step", 0))
    else:
        names.remove(_OPTIONAL)
    with replacing_folder(out, renewed=(*EXPORTED, BODY_FOLDER)) as new:
        for name in names:
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            with explain_full_disk(out):
                shutil.copyfile(folder / name, new / name)
                sync(new / name)
    return [out / name for name in names]
