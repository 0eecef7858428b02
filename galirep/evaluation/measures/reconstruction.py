"""`pixel-mse` and `feature-mse`: how well G(mu(x)) is x."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from galirep.evaluation.measures.scene import (
    Measure,
    Scene,
    Score,
    format_spread,
    no_settings,
    require_network,
    warn_own_network,
)
from galirep.metrics.reconstruction import BATCH, FeatureErrors, batch_std, squared_errors

SPREAD = f"means of batches of {BATCH} images, in a fixed random order"


@torch.inference_mode()
def _pixel_mse(scene: Scene) -> Score:
    rebuild, mean = scene.need("rebuild"), mean_image(scene)
    errors, errors_of_mean = [], []
    for x in scene.blocks("pixel-mse"):
        errors.append(squared_errors(x, rebuild(x)).cpu())
        errors_of_mean.append(squared_errors(x, mean.expand_as(x)).cpu())
    values, of_mean = (torch.cat(part).numpy() for part in (errors, errors_of_mean))
    details = {"mean_image": {"mean": float(of_mean.mean()), "std": batch_std(of_mean), "n": len(of_mean)}}
    return Score(
        float(values.mean()),
        batch_std(values),
        SPREAD,
        len(values),
        details,
        {"mse": values, "mean_image_mse": of_mean},
    )


def mean_image(scene: Scene) -> torch.Tensor:
    """Return the mean (C, S, S) of the evaluated images in [-1, 1]: no constant has a smaller pixel-MSE on them."""
    total = sum(x.double().sum(0) for x in scene.blocks("mean image"))
    assert isinstance(total, torch.Tensor)
    return (total / len(scene.images)).float()


@torch.inference_mode()
def _feature_mse(scene: Scene) -> Score:
    network, rebuild = require_network(scene, "feature-mse"), scene.need("rebuild")
    errors = FeatureErrors(f"{scene.subject.name} in {network.about.spec}")
    for x in scene.blocks("feature-mse"):
        errors.add(network.extract(x).flatten(1), network.extract(rebuild(x)).flatten(1))
    variance = errors.variance()
    scaled = errors.rows / variance
    spread = batch_std(errors.rows)
    details = {
        "unscaled": {"mean": float(errors.rows.mean()), "std": spread, "n": len(scaled)},
        "feature_variance": variance,
        "extractor": network.record(),
    }
    return Score(
        float(scaled.mean()),
        batch_std(scaled),
        SPREAD,
        len(scaled),
        details,
        {"scaled": scaled, "unscaled": np.asarray(errors.rows)},
        warn_own_network(scene, network),
    )


def plan_extractor(scene: Scene) -> dict[str, Any]:
    """Return the settings of a metric that --extractor decides."""
    return {"extractor": require_network(scene, "feature-mse").key()}


def _pixel_line(entry: Mapping[str, Any]) -> str:
    return f"{format_spread(entry)}  (mean image {entry['mean_image']['mean']:.4f})"


def _feature_line(entry: Mapping[str, Any]) -> str:
    about = entry["extractor"]
    return (
        f"{format_spread(entry)}  (unscaled {entry['unscaled']['mean']:.4g}; {about['name']}, {about['dim']} features)"
    )


PIXEL_MSE = Measure(
    "squared error of G(mu(x)) in pixels, images in [0, 1]", ("rebuild",), no_settings, _pixel_mse, _pixel_line, True
)
FEATURE_MSE = Measure(
    "squared error of G(mu(x)) in the features of --extractor, divided by their variance",
    ("rebuild",),
    plan_extractor,
    _feature_mse,
    _feature_line,
    True,
)
