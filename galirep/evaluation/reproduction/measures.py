"""The columns of a table: what is measured of a subject, on the test images of a set. Less is better, but for
the gradient norm, which only tells."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from galirep.data.memory import Images
from galirep.data.tensors import BLOCK, ImageFunction, image_blocks
from galirep.errors import DataError
from galirep.evaluation.few_labels import attribute_labels, compute_features, few_label_error
from galirep.evaluation.reproduction.study import ImageSet
from galirep.evaluation.reproduction.subjects import Subject
from galirep.features.registry import load_extractor
from galirep.game import masks
from galirep.metrics.arrays import F32, Ints
from galirep.metrics.frechet import frechet_distance
from galirep.metrics.reconstruction import feature_mse, pixel_mse
from galirep.runs.directory import RunDirectory
from galirep.runs.metrics import MetricsRow

_SAMPLES = 10_000  # generated images of a Fréchet distance, at most; as many as there are test images
_LATENTS = 2_000  # of the cycle error
Measured = dict[str, float | None]


class Yardstick:
    """The test images of a set, their labels and features, computed once for all subjects."""

    def __init__(
        self,
        image_set: ImageSet,
        train: Images,
        test: Images,
        *,
        judge: Path | None,
        labels: Path | None,
        test_labels: Path | None,
    ) -> None:
        self.image_set, self.train, self.test = image_set, train, test
        self._judge, self._files = judge, (labels, test_labels)

    @cached_property
    def judge(self) -> ImageFunction:
        """The network that features of images are compared in; never the M that a run was trained with.

        Raises:
            DataError: the set names none.
        """
        if self._judge is None:
            raise DataError(f"the set {self.image_set.name!r} names no judge, which features are measured with")
        return load_extractor(f"classifier:{self._judge}")

    @cached_property
    def judged(self) -> F32:
        """The judge's features of the test images."""
        return compute_features(self.judge, self.test.pixels)

    @cached_property
    def targets(self) -> Mapping[str, tuple[Ints, Ints]]:
        """Labels of the training and the test images: of the classes, or of each attribute by name.

        Raises:
            DataError: the images have neither classes nor a CSV file of attributes.
        """
        train_file, test_file = self._files
        if train_file is not None and test_file is not None:
            train, test = attribute_labels(train_file, self.train.ids), attribute_labels(test_file, self.test.ids)
            return {name: (labels, test[name]) for name, labels in train.items()}
        if self.train.labels is None or self.test.labels is None:
            raise DataError(f"the set {self.image_set.name!r} has no labels to probe")
        return {"class": (self.train.labels, self.test.labels)}

    @cached_property
    def boxes(self) -> list[Tensor]:
        """A box for each test image, in blocks as the images are read: fixed, drawn from P(M)."""
        generator = torch.Generator().manual_seed(0)
        size = self.test.pixels.shape[-1]
        return [masks.random_boxes(len(x), size, generator) for x in image_blocks(self.test.pixels)]

    def features(self, function: ImageFunction) -> F32:
        """Return the features of the test images."""
        return compute_features(function, self.test.pixels)


def _pixel_mse(subject: Subject, yardstick: Yardstick) -> Measured:
    if subject.rebuild is None:
        return {"pixel_mse": None}
    with torch.inference_mode():
        return {"pixel_mse": pixel_mse((x, subject.rebuild(x)) for x in image_blocks(yardstick.test.pixels))}


def _feature_mse(subject: Subject, yardstick: Yardstick) -> Measured:
    rebuild = subject.rebuild
    if rebuild is None:
        return {"feature_mse": None}
    return {"feature_mse": feature_mse(yardstick.judged, yardstick.features(lambda x: yardstick.judge(rebuild(x))))}


def _frechet(subject: Subject, yardstick: Yardstick) -> Measured:
    if subject.generate is None or subject.latent is None:
        return {"frechet": None}
    count = min(_SAMPLES, len(yardstick.test))
    z = torch.randn(count, subject.latent, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        samples = torch.cat([yardstick.judge(subject.generate(part)) for part in torch.split(z, BLOCK)]).numpy()
    return {"frechet": frechet_distance(samples, yardstick.judged)}


def _inpainting(subject: Subject, yardstick: Yardstick) -> Measured:
    """Measure the composite of x outside the box and the reconstruction inside: over the box, and in features."""
    inpaint = subject.inpaint
    names = ("inpainting_mse", "inpainting_feature_mse")
    if inpaint is None:
        return dict.fromkeys(names)
    error = pixels = 0.0
    features = []
    with torch.inference_mode():
        for x, box in zip(image_blocks(yardstick.test.pixels), yardstick.boxes, strict=True):
            composite = masks.mix(x, inpaint(masks.erase(x, box)), box)
            error += float((x - composite).square().sum(dtype=torch.float64)) / 4
            pixels += float(box.sum()) * x.shape[1]
            features.append(yardstick.judge(composite))
    return dict(zip(names, (error / pixels, feature_mse(yardstick.judged, torch.cat(features).numpy())), strict=True))


def _latent_mse(subject: Subject, yardstick: Yardstick) -> Measured:  # noqa: ARG001
    if subject.generate is None or subject.encode is None or subject.latent is None:
        return {"latent_mse": None}
    z = torch.randn(_LATENTS, subject.latent, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        errors = [(subject.encode(subject.generate(part)) - part).square().sum() for part in torch.split(z, BLOCK)]
    return {"latent_mse": float(torch.stack(errors).sum(dtype=torch.float64) / z.numel())}


def _gradient_norm(subject: Subject, yardstick: Yardstick) -> Measured:  # noqa: ARG001
    """Take the median norm of G's gradient over the second half of training: near 0 where the objective saturates."""
    if subject.run is None:
        return {"gradient_norm": None}
    rows = [MetricsRow.from_dict(row) for row in RunDirectory(subject.run).metrics()]
    return {"gradient_norm": float(np.median([row.gradient_norms["G"] for row in rows[len(rows) // 2 :]]))}


def _probe(name: str, protocol: str) -> Callable[[Subject, Yardstick], Measured]:
    def measure(subject: Subject, yardstick: Yardstick) -> Measured:
        extract, image_set = subject.features, yardstick.image_set
        if extract is None:
            return {name: None}
        test = yardstick.features(extract)
        errors = {
            target: few_label_error(
                lambda rows: compute_features(extract, yardstick.train.pixels[rows]),
                train_labels,
                (test, test_labels),
                image_set.probe_labels,
                image_set.probe_draws,
                protocol=protocol,
            )
            for target, (train_labels, test_labels) in yardstick.targets.items()
        }
        each = {f"{name}:{target}": error for target, error in errors.items()} if len(errors) > 1 else {}
        return {name: float(np.mean(list(errors.values()))), **each}

    return measure


@dataclass(frozen=True)
class Column:
    """A column: what it is, in one line, how many digits it is printed with, and how it is measured.

    `measure` returns the value under the column's own name, None where a subject has none, and details beside.
    """

    about: str
    digits: int
    measure: Callable[[Subject, Yardstick], Measured]


COLUMNS: Mapping[str, Column] = {
    "pixel_mse": Column("mean squared error of G(mu(x)) in [0, 1]", 4, _pixel_mse),
    "feature_mse": Column("the same of the judge's features, over their variance", 3, _feature_mse),
    "frechet": Column("Fréchet distance of samples to test images in the judge's features", 2, _frechet),
    "inpainting_mse": Column("mean squared error inside a random box, by G(mu(M(x)))", 4, _inpainting),
    "inpainting_feature_mse": Column("of the inpainted image in the judge's features", 3, _inpainting),
    "latent_mse": Column("mean squared error of mu(G(z)) against z (1: the prior's variance)", 3, _latent_mse),
    "gradient_norm": Column("norm of G's gradient, median over the second half of training", 4, _gradient_norm),
    "svm_v1": Column("test error of linear-svm/v1", 4, _probe("svm_v1", "linear-svm/v1")),
    "svm": Column("test error of linear-svm/v2", 4, _probe("svm", "linear-svm/v2")),
    "logistic": Column("test error of logistic/v1", 4, _probe("logistic", "logistic/v1")),
}
"""Column name -> column."""
