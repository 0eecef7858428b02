"""`classifier:DIR`: a net of `galirep train-classifier` as a feature extractor, and the files of its export."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from galirep.errors import PluginError
from galirep.features.frozen import freeze
from galirep.features.network import NetworkExtractor
from galirep.networks.export_file import load_export, save_export
from galirep.supervised.nets import Classifier, build_net
from galirep.system.files import write_json, write_text


def export_classifier(folder: Path, net: Classifier, facts: Mapping[str, Any]) -> None:
    """Write `classifier.safetensors` with `facts` in its header, `classifier.json` with the same, and the model card.

    `facts` needs `net`, `image_size`, `channels`, `names` (of classes or attributes), `binary` and `report`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    header = save_export(folder / "classifier.safetensors", "classifier", net, facts)
    write_json(folder / "classifier.json", header)
    write_text(folder / "README.md", _card(header))


def load_classifier(folder: Path) -> tuple[Classifier, dict[str, Any]]:
    """Load the exported net of a run directory (or of an export folder itself), frozen, and its header.

    Raises:
        CheckpointError: see `galirep.networks.export_file.load_export`.
    """
    tensors, header = load_export(folder, "classifier")
    net = build_net(header["net"], header["image_size"], header["channels"], len(header["names"]))
    net.load_state_dict(tensors)
    return freeze(net), header


def build(argument: str, *, download: bool = False) -> NetworkExtractor:  # noqa: ARG001 (nothing to download)
    """Build `classifier:DIR`: the hidden layer, 256 wide, of a net of galirep train-classifier; other layers by number.

    DIR is its run directory, or the export folder in it.

    Raises:
        PluginError: no directory is given.
        CheckpointError: see `load_classifier`.
    """
    if not argument:
        raise PluginError("classifier: needs the directory that galirep train-classifier made, as in classifier:runs/m")
    net, header = load_classifier(Path(argument))
    return NetworkExtractor(
        net.trunk,
        name=f"classifier-{header['net']}",
        tag=f"{len(header['names'])} {_kind(header)}, accuracy {header['report']['accuracy']:.4f}",
        sha256=header["sha256"],
        image_size=header["image_size"],
        channels=header["channels"],
    )


def _kind(header: Mapping[str, Any]) -> str:
    return "attributes" if header["binary"] else "classes"


def _card(header: Mapping[str, Any]) -> str:
    report, kind, side = header["report"], _kind(header), header["image_size"]
    rows = "".join(f"| {name} | {_number(value)} |\n" for name, value in report[kind].items())
    return f"""# {header["net"]} classifier

A supervised net made by galirep to serve as M(.) of GALI-PT or as a yardstick. Its features carry its labels along.

- {len(header["names"])} {kind}; images {side} x {side}, {header["channels"]} channels, in [-1, 1]
- accuracy {report["accuracy"]:.4f} on {report["n"]} held-out training images \
(always the commonest answer: {report["commonest"]:.4f})

| {kind} | accuracy |
|---|---|
{rows}
```python
from galirep.features import load_extractor

extractor = load_extractor("classifier:DIR")  # images in [-1, 1] -> (B, 256)
```
"""


def _number(value: Any) -> str:
    value = value["accuracy"] if isinstance(value, dict) else value
    return "none" if value is None else f"{value:.4f}"
