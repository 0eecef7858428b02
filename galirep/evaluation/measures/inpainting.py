"""`inpainting`: the pixels inside a mask, from the pixels outside it."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from galirep.data.tensors import BLOCK
from galirep.evaluation.measures.reconstruction import SPREAD, mean_image
from galirep.evaluation.measures.scene import Measure, Scene, Score, format_spread, warn_own_network
from galirep.game.masks import ERASED, erase, mix, random_boxes
from galirep.metrics.reconstruction import FeatureErrors, batch_std, squared_errors


def draw_masks(count: int, size: int, seed: int) -> torch.Tensor:
    """Draw the fixed masks of an evaluation from P(M): (N, 1, S, S) bool on the CPU.

    They depend on the three numbers alone, and are the same on every device.
    """
    random = torch.Generator().manual_seed(seed)
    counts = [min(BLOCK, count - start) for start in range(0, count, BLOCK)]
    return torch.cat([random_boxes(n, size, random) for n in counts])


@torch.inference_mode()
def _inpainting(scene: Scene) -> Score:
    complete, network = scene.need("complete"), scene.network
    masks = draw_masks(len(scene.images), scene.shape[0], scene.options.seed)
    mean = mean_image(scene)
    features = FeatureErrors(f"{scene.subject.name}" + (f" in {network.about.spec}" if network else ""))
    errors, errors_of_mean = [], []
    for x, block in zip(scene.blocks("inpainting"), torch.split(masks, BLOCK), strict=True):
        mask = block.to(scene.device)
        composite = mix(x, complete(erase(x, mask)), mask)
        errors.append(squared_errors(x, composite, mask).cpu())
        errors_of_mean.append(squared_errors(x, mean.expand_as(x), mask).cpu())
        if network is not None:
            features.add(network.extract(x).flatten(1), network.extract(composite).flatten(1))
    values, of_mean = (torch.cat(part).numpy() for part in (errors, errors_of_mean))
    areas = masks.sum((1, 2, 3)).numpy()
    arrays: dict[str, Any] = {"mse": values, "mask": masks.squeeze(1).numpy()}
    details: dict[str, Any] = {
        # the mean above gives every image one vote, this one every masked pixel
        "by_area": float((values * areas).sum() / areas.sum()),
        "mean_image": {"mean": float(of_mean.mean()), "std": batch_std(of_mean), "n": len(of_mean)},
        "mask_area": float(areas.mean() / masks[0].numel()),
        "masks_sha256": hashlib.sha256(np.packbits(masks.numpy()).tobytes()).hexdigest(),
        "trained_with_masks": scene.subject.masked,
        "statistics": scene.subject.facts.get("statistics", {}).get("masked"),
        "feature_mse": None,
    }
    warnings: list[str] = []
    if network is not None:
        scaled = features.rows / features.variance()
        details["feature_mse"] = {
            "mean": float(scaled.mean()),
            "std": batch_std(scaled),
            "n": len(scaled),
            "unscaled": float(features.rows.mean()),
            "extractor": network.record(),
        }
        arrays["feature_mse"] = scaled
        warnings += warn_own_network(scene, network)
    if scene.subject.masked is False:
        warnings.append(f"{scene.subject.name} never saw a masked image in training: it has not learned to inpaint")
    return Score(float(values.mean()), batch_std(values), SPREAD, len(values), details, arrays, tuple(warnings))


def _plan(scene: Scene) -> dict[str, Any]:
    extractor = None if scene.network is None else scene.network.key()
    return {"seed": scene.options.seed, "fill": ERASED, "extractor": extractor}


def _line(entry: Mapping[str, Any]) -> str:
    features, untrained = entry["feature_mse"], entry["trained_with_masks"] is False
    notes = [f"mean image {entry['mean_image']['mean']:.4f}"]
    notes += [f"feature-MSE of the composite {features['mean']:.4f}"] if features else []
    notes += ["no masks in training"] if untrained else []
    return f"{format_spread(entry)}  ({'; '.join(notes)})"


INPAINTING = Measure(
    "squared error inside random masks, of G(mu(M(x))) put into them", ("complete",), _plan, _inpainting, _line, True
)
