"""`classifier:DIR`: a net of `galirep train-classifier` as a feature extractor, and the files of its export."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from galirep.errors import CheckpointError, PluginError, similar
from galirep.features.frozen import freeze
from galirep.features.gali import GaliEncoder
from galirep.features.network import NetworkExtractor
from galirep.networks.export_file import load_export, save_export
from galirep.networks.families import NETWORKS
from galirep.networks.header import Accuracy, check_header
from galirep.networks.parts import Encoder, Shapes
from galirep.runs.checkpoint import require_like
from galirep.supervised.config import SUPERVISED
from galirep.supervised.nets import Classifier, EncoderTrunk, build_net, net_shapes
from galirep.system.files import write_json, write_text
from galirep.system.layer_names import split_layer
from galirep.system.outputs.folders import replacing_folder
from galirep.system.reading.files import parsing


def export_classifier(folder: Path, net: Classifier, facts: Mapping[str, Any]) -> None:
    """Write `classifier.safetensors` with `facts` in its header, `classifier.json` with the same, and the model card.

    `facts` needs `net`, `image_size`, `channels`, `names` (of classes or attributes; empty without labels), `binary`,
    `objective`, `labels_used`, `projector`, `report`, `step`, `data`, `config` and `identity`; of a network family also
    `networks` and `shapes`. E's tensors are then those named `trunk.blocks.`.
    """
    with replacing_folder(folder, renewed=("classifier.safetensors", "classifier.json", "README.md")) as new:
        header = save_export(new / "classifier.safetensors", "classifier", net, facts)
        write_json(new / "classifier.json", header)
        write_text(new / "README.md", _card(header))


def load_classifier(folder: Path) -> tuple[Classifier, dict[str, Any]]:
    """Load the exported net of a run directory (or of an export folder itself), frozen, and its header.

    Raises:
        CheckpointError: see `galirep.networks.export_file.load_export`.
    """
    tensors, header = load_export(folder, "classifier")
    # what only the families' encoders have, and exports since they can be trained
    shapes = net_shapes(header["net"], header["image_size"], header["channels"])
    if "shapes" in header:
        shapes = Shapes(**header["shapes"])
    build = partial(
        build_net, header["net"], shapes, classes=len(header["names"]), projector=header.get("projector", 0)
    )
    damaged = f"the classifier of {folder} is not what its header says"
    with parsing(damaged, CheckpointError):
        with torch.device("meta"):
            require_like(tensors, build().state_dict())
        net = build()
        net.load_state_dict(tensors)
    if _supervised(header):
        check_header(header["report"], Accuracy, folder)
    return freeze(net), header


def build(argument: str, *, download: bool = False) -> NetworkExtractor | GaliEncoder:  # noqa: ARG001 (nothing to download)
    """Build `classifier:DIR`: the last hidden layer of a net of galirep train-classifier; other layers by name.

    DIR is its run directory, or the export folder in it. The encoder of a network family has the layers of `run:RUN`
    but for mu, and takes images of exactly its size.

    Raises:
        PluginError: no directory is given.
        CheckpointError: see `load_classifier`.
    """
    if not argument:
        raise PluginError("classifier: needs the directory that galirep train-classifier made, as in classifier:runs/m")
    net, header = load_classifier(Path(argument))
    name, tag, origin = f"classifier-{header['net']}", _tag(header), _origin(header)
    if isinstance(net.trunk, EncoderTrunk):
        shapes = Shapes(**header["shapes"])
        encoder = NETWORKS[header["net"]].build(shapes).encoder
        encoder.blocks = net.trunk.blocks
        return _HiddenLayers(encoder, shapes, name=name, tag=tag, origin=origin)
    extractor = NetworkExtractor(
        net.trunk,
        name=name,
        tag=tag,
        sha256=header["sha256"],
        image_size=header["image_size"],
        channels=header["channels"],
    )
    extractor.origin = origin
    return extractor


class _HiddenLayers(GaliEncoder):
    """E of a network family that has learned without its head: the hidden layers alone, by default the last one."""

    def __init__(
        self,
        encoder: Encoder,
        shapes: Shapes,
        *,
        name: str,
        tag: str,
        origin: Mapping[str, Any],
        layers: Sequence[str] | None = None,
    ) -> None:
        # the head that E has by its type says nothing, and not at random
        for parameter in encoder.head.parameters():
            nn.init.zeros_(parameter)
        hidden = tuple(encoder.blocks)
        chosen = hidden[-1:] if layers is None else layers
        try:
            super().__init__(encoder, shapes, name=name, tag=tag, layers=chosen)
        except PluginError as err:
            # E's own message counts mu among the layers
            wrong = next((text for text in chosen if split_layer(text.removeprefix("e."))[0] not in hidden), None)
            if wrong is None or wrong == "mu":
                raise
            known = f"{similar(wrong, hidden) or ':'} known: {', '.join(hidden)}"
            raise PluginError(f"{name}: unknown layer {wrong!r}{known}") from err
        self.origin = origin
        if "mu" in self.layers:
            raise PluginError(f"{name}: mu was not trained: name hidden layers, of {', '.join(hidden)}")

    def with_layers(self, layers: Sequence[str]) -> "_HiddenLayers":
        """Return an extractor of the same encoder giving `layers`, in that order; see `GaliEncoder`."""
        return _HiddenLayers(self.encoder, self.shapes, name=self.name, tag=self.tag, origin=self.origin, layers=layers)


def _kind(header: Mapping[str, Any]) -> str:
    return "attributes" if header["binary"] else "classes"


def _supervised(header: Mapping[str, Any]) -> bool:
    """Return whether the net learned from labels; exports of earlier versions do not say, as all did."""
    return bool(header.get("labels_used", True))


def _tag(header: Mapping[str, Any]) -> str:
    if _supervised(header):
        return f"{len(header['names'])} {_kind(header)}, accuracy {header['report']['accuracy']:.4f}"
    return f"{header['objective']}, no labels, {header['step']} updates"


def _origin(header: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the net was trained on; see `galirep.features.protocol.origin_of`."""
    config = header["config"]
    data = {"spec": config["data"], "split": config["split"], "fingerprint": header["identity"]["data"]}
    return {
        "data": header.get("data", data),
        "objective": header.get("objective", SUPERVISED),
        "labels": _supervised(header),
    }


def _card(header: Mapping[str, Any]) -> str:
    report, side = header["report"], header["image_size"]
    images = f"images {side} x {side}, {header['channels']} channels, in [-1, 1]"
    data = header["data"]
    split = f" ({data['split']})" if data["split"] else ""
    trained = f"trained on `{data['spec']}`{split}: {data['images']} images"
    if _supervised(header):
        kind = _kind(header)
        rows = "".join(f"| {name} | {_number(value)} |\n" for name, value in report[kind].items())
        title, about = f"{header['net']} classifier", "A supervised net"
        effect = "Its features carry its labels along."
        facts = f"""- {len(header["names"])} {kind}; {images}
- {trained}
- accuracy {report["accuracy"]:.4f} on {report["n"]} held-out training images \
(always the commonest answer: {report["commonest"]:.4f})

| {kind} | accuracy |
|---|---|
{rows}"""
    else:
        title, about, effect = f"{header['net']}, {header['objective']}", "A net", "It saw no labels."
        facts = f"""- {images}
- {trained}, without labels
- {header["objective"]} of two views ({header["config"]["views"]}), {header["step"]} updates, \
batch {header["config"]["batch_size"]}
- loss {report["loss"]:.4f} on {report["n"]} held-out training images; effective rank of their features \
{report["feature_rank"]:.1f}
"""
    return f"""# {title}

{about} made by galirep to serve as M(.) of GALI-PT or as a yardstick. {effect}

{facts}
```python
from galirep.features import load_extractor

extractor = load_extractor("classifier:DIR")  # images in [-1, 1] -> (B, dim)
```
"""


def _number(value: Any) -> str:
    value = value["accuracy"] if isinstance(value, dict) else value
    return "none" if value is None else f"{value:.4f}"
