"""The door to torch-fidelity, which computes FID, KID, precision and recall, and has FID's Inception.

It is loaded when one of them is asked for; docs/evaluation.md says why it was chosen.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from galirep.data.tensors import to_float
from galirep.errors import PluginError
from galirep.metrics.arrays import F32
from galirep.system.files import sha256_file

WEIGHTS = (
    "weights-inception-2015-12-05-6726825d.pth of torch-fidelity's release v0.2.0 "
    "(github.com/toshas/torch-fidelity/releases), or pt_inception-2015-12-05-6726825d.pth of pytorch-fid"
)
KID_SUBSETS, KID_SUBSET_SIZE = 100, 1000
NEIGHBORS = 3  # of the k-NN balls of precision and recall (Kynkäänniemi et al. 2019)
_ROWS = 2000  # rows whose distances to all others are in memory at once


def library() -> Any:
    """Import torch-fidelity.

    Raises:
        PluginError: it is not installed.
    """
    try:
        import torch_fidelity
    except ImportError as err:
        raise PluginError(f"fid and kid need torch-fidelity ({err}): pip install 'galirep[fidelity]'") from err
    return torch_fidelity


def library_name() -> str:
    """Return what the label of a number says of the library: `torch-fidelity 0.4.0`."""
    return f"torch-fidelity {library().__version__}"


def as_bytes(images: Tensor) -> Tensor:
    """Round images in [-1, 1] to uint8 in 0..255, as a picture file would."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


class FidInception(torch.nn.Module):
    """FID's Inception-v3 as torch-fidelity has it, its resize of TensorFlow 1 included, as a feature extractor.

    Images (B, 1 or 3, H, W) in [-1, 1] are rounded to uint8; no gradient passes. `layer` is the library's name of the
    features: `2048` is FID's.

    Raises:
        PluginError: torch-fidelity is missing, or the file does not exist, holds more than tensors, or does not fit.
    """

    def __init__(self, weights: str | Path, layer: str = "2048") -> None:
        super().__init__()
        fidelity, path = library(), Path(weights)
        if not path.is_file():
            raise PluginError(f"the file {path} does not exist: FID's Inception needs {WEIGHTS}")
        try:
            # the library reads the file as a pickle that may run code; what passes here is tensors alone
            torch.load(path, map_location="cpu", weights_only=True)
            self.network = fidelity.FeatureExtractorInceptionV3(
                "inception-v3-compat", [layer], feature_extractor_weights_path=str(path)
            )
        # torch.load and load_state_dict raise many types for a file of another kind
        except Exception as err:
            reason = " ".join(str(err).split())[:200]
            raise PluginError(f"{path} does not fit FID's Inception ({reason}): it needs {WEIGHTS}") from None
        self.name, self.tag, self.sha256 = "fid-inception-v3", path.name, sha256_file(path)
        self.layer, self.dim, self.channels, self.image_size = layer, int(layer), 3, None
        self.preprocessing = {"resize": "bilinear of TensorFlow 1, no antialias", "size": 299, "input": "uint8"}

    def forward(self, images: Tensor) -> Tensor:
        """Map images in [-1, 1] to features (B, dim) float32."""
        pixels = as_bytes(images)
        (features,) = self.network(pixels.expand(-1, 3, -1, -1) if pixels.shape[1] == 1 else pixels)
        return features  # type: ignore[no-any-return]


def as_written(images: Tensor) -> Tensor:
    """Return images in [-1, 1] as they come back from a picture file of 8 bits."""
    return to_float(as_bytes(images))


def frechet(generated: F32, real: F32) -> float:
    """Return the Fréchet distance of two sets of features by torch-fidelity; with FID's Inception it is the FID."""
    from torch_fidelity import metric_fid

    statistics = [metric_fid.fid_features_to_statistics(torch.from_numpy(side)) for side in (generated, real)]
    return float(metric_fid.fid_statistics_to_metric(*statistics, False)[metric_fid.KEY_METRIC_FID])


def kernel_distance(generated: F32, real: F32, seed: int) -> tuple[float, float]:
    """Return mean and standard deviation over 100 subsets of the kernel distance, by torch-fidelity."""
    from torch_fidelity import metric_kid

    sides = torch.from_numpy(generated), torch.from_numpy(real)
    size = kid_subset_size(min(map(len, sides)))
    result = metric_kid.kid_features_to_metric(
        *sides, kid_subsets=KID_SUBSETS, kid_subset_size=size, rng_seed=seed, verbose=False
    )
    return float(result[metric_kid.KEY_METRIC_KID_MEAN]), float(result[metric_kid.KEY_METRIC_KID_STD])


def kid_subset_size(n: int) -> int:
    """Return the rows of a subset: the usual 1,000, or half of fewer than 1,000 images."""
    return KID_SUBSET_SIZE if n >= KID_SUBSET_SIZE else n // 2


def precision_recall(generated: F32, real: F32) -> dict[str, float]:
    """Return improved precision and recall (Kynkäänniemi et al. 2019) by torch-fidelity."""
    from torch_fidelity import metric_prc

    result = metric_prc.prc_features_to_metric(
        torch.from_numpy(generated),
        torch.from_numpy(real),
        prc_neighborhood=NEIGHBORS,
        prc_batch_size=_ROWS,
        save_cpu_ram=True,
        verbose=False,
    )
    return {"precision": float(result["precision"]), "recall": float(result["recall"])}
