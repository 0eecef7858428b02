"""The model card of an export."""

from collections.abc import Mapping
from typing import Any

from galirep.version import __version__

_ORIGINS = {"paper": "of the paper", "galirep": "not of the paper: galirep's", "": "the user's own"}


def model_card(header: Mapping[str, Any], *, with_trunk: bool) -> str:
    """Return the README.md of an export: what the encoder is, what it was trained on and how to use it.

    `with_trunk`: D's image trunk is exported, too.
    """
    shapes, data, config = header["shapes"], header["data"], header["config"]
    split = f" ({data['split']})" if data["split"] else ""
    knowledge = ""
    if header["adapter"]:
        unlabelled = header["adapter"].get("origin", {}).get("labels") is False
        carried = "which saw no labels" if unlabelled else "so it carries that network's supervision along"
        knowledge = f"\nIts training used the features of {header['adapter']['name']}, {carried}.\n"
    if body := header.get("body"):
        trained = f"trained at {body['rate']:g} times E's rate" if body["rate"] else "frozen"
        knowledge += (
            f"\nThe encoder stands on {body['name']} ({body['tag'] or 'no tag'}), {trained}: "
            "what that network was trained with is in its features.\n"
        )
    if initial := header.get("init_from"):
        knowledge += f"\nIts training began with weights of `{initial['source']}`.\n"
    others = "; d1, d2, ... are those of D's image trunk (`discriminator.safetensors`)" if with_trunk else ""
    return (
        f"# {header['name']}\n\n"
        "A GALI encoder and generator (Dandi et al. 2021, arXiv 2006.08089) "
        f"made by galirep {__version__}.\n\n"
        f"- variant `{header['variant']['name']}` ({_ORIGINS[header['variant'].get('origin', '')]}), "
        f"{header['step']} updates, "
        f"batch {config['batch_size']}, seed {config['seed']}\n"
        f"- trained on `{data['spec']}`{split}: {data['images']} images, without labels\n"
        f"- images {shapes['size']} x {shapes['size']}, {shapes['channels']} channels, in [-1, 1]; "
        f"latent dimension {shapes['latent']}\n"
        f"- layers that are read by default: {', '.join(header['default_layers'])}{others}\n{knowledge}\n"
        "```python\nimport galirep\n\nencoder = galirep.load_encoder('RUN')  # this run's directory\n"
        "features = encoder.transform(images)  # uint8 (N, H, W) or (N, H, W, 3)\n```\n"
    )
