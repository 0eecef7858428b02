"""The model card of an export."""

from collections.abc import Mapping
from typing import Any

from galirep.version import __version__


def model_card(about: Mapping[str, Any]) -> str:
    """README.md of an export: what the encoder is, what it was trained on and how to use it."""
    shapes, data = about["shapes"], about["data"]
    knowledge = (
        f"\nIts training used the features of {about['adapter']['name']}, so it carries that network's supervision along.\n"
        if about["adapter"]
        else ""
    )
    return (
        f"# {about['name']}\n\nA GALI encoder and generator (Dandi et al. 2021, arXiv 2006.08089) made by galirep {__version__}.\n\n"
        f"- variant `{about['variant']['name']}`, {about['step']} updates, "
        f"batch {about['config']['batch_size']}, seed {about['config']['seed']}\n"
        f"- trained on `{data['spec']}`{' (' + data['split'] + ')' if data['split'] else ''}: {data['images']} images, without labels\n"
        f"- images {shapes['size']} x {shapes['size']}, {shapes['channels']} channels, in [-1, 1]; "
        f"latent dimension {shapes['latent']}\n{knowledge}\n"
        "```python\nimport galirep\n\nencoder = galirep.load_encoder('RUN')  # this run's directory\n"
        "features = encoder.transform(images)  # uint8 (N, H, W) or (N, H, W, 3)\n```\n"
    )
