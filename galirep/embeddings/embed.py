"""`embed`: run an extractor over a set of images into an embedding file; resumable, in bounded memory."""

import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from galirep.data.handed.datasets import open_images
from galirep.data.report import DataReport, announce
from galirep.data.sources import ImageSource
from galirep.embeddings.embedding_loop import ErrorPolicy, ImageErrors, embed_missing_rows
from galirep.embeddings.encoder_of import encoder_fields
from galirep.embeddings.file_access import require_startable
from galirep.embeddings.reader import load_embeddings
from galirep.embeddings.schema import MAX_REPORT, StoreMeta, differences, partial_path
from galirep.embeddings.storage.resuming import check_complete
from galirep.embeddings.writer import RESUME, EmbeddingWriter
from galirep.errors import ConfigError, DataError
from galirep.features.extraction import build_extractor, note_of_best
from galirep.features.pipeline import BATCH_SIZE, BatchExtractor, read_batches
from galirep.features.protocol import Description, FeatureExtractor
from galirep.system.devices import autocast_of, device_of
from galirep.system.outputs.holding import locks_outputs

_log = logging.getLogger("galirep.embeddings")


@dataclass(frozen=True)
class EmbedResult:
    """The outcome of `embed`: a file `path` of `rows`, including those of unreadable images, listed in `errors`.

    The first `resumed_from` rows were written by an earlier call. `images_per_second` counts the images embedded by
    this call, `seconds` is all the time it took. `data_report` says what was read and left out of the images. `notes`
    say what the encoder stands for, and what was found in a file that was resumed.
    """

    path: Path
    rows: int
    dim: int
    layers: tuple[str, ...]
    errors: ImageErrors
    resumed_from: int
    seconds: float
    images_per_second: float
    data_report: DataReport
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the result as a JSON object."""
        errors = [{"id": image_id, "reason": reason} for image_id, reason in self.errors]
        lists = {"layers": list(self.layers), "errors": errors, "notes": list(self.notes)}
        return {**vars(self), **lists, "path": str(self.path), "data_report": self.data_report.to_dict()}


@dataclass(frozen=True)
class _Output:
    """The file to make, and what to do if it or its .partial exists."""

    path: Path
    resume: bool
    overwrite: bool
    locking: bool | None

    @property
    def partial(self) -> Path:
        return partial_path(self.path)

    def open_writer(self, meta: StoreMeta, source: ImageSource, batch_size: int) -> EmbeddingWriter:
        """Resume the .partial at a whole batch, or create it."""
        if self.resume and self.partial.exists():
            return EmbeddingWriter.resume(self.path, meta, multiple_of=batch_size, locking=self.locking)
        overwrite = self.overwrite or self.resume
        return EmbeddingWriter.create(
            self.path, meta, source.ids, source.labels, overwrite=overwrite, locking=self.locking
        )

    def check_complete(self, meta: StoreMeta) -> tuple[ImageErrors, tuple[str, ...]]:
        """Return the errors of a complete file, and notes about it.

        Raises:
            DataError: it was not made with these settings, or does not have its checksums.
        """
        with load_embeddings(self.path, locking=self.locking) as embeddings:
            if mismatches := differences(embeddings.meta, meta, RESUME):
                raise DataError(
                    f"{self.path} is complete, but of another job: {'; '.join(mismatches)}; "
                    "choose another name or pass --overwrite"
                )
            return embeddings.errors, check_complete(embeddings)


@locks_outputs("out", inputs=("encoder", "data"))
def embed(  # noqa: PLR0913
    encoder: str | Path | FeatureExtractor,
    data: str | Path | ImageSource | Any,
    out: str | Path,
    *,
    split: str | None = None,
    splits: str | Sequence[str] | None = "auto",
    layers: Sequence[str] | None = None,
    dtype: Literal["float32", "float16"] = "float32",
    batch_size: int = BATCH_SIZE,
    num_workers: int | None = None,
    device: str = "auto",
    precision: Literal["fp32", "bf16", "fp16"] = "fp32",
    seed: int = 0,
    resume: bool = False,
    overwrite: bool = False,
    force_unlock: bool = False,  # noqa: ARG001 (of the lock)
    on_error: Literal["fail", "skip"] = "fail",
    max_errors: int | None = None,
    max_upscale: float = 2.0,
    data_root: str | Path | None = None,
    download: bool = False,
    trust_encoder: bool = False,
    file_locking: bool | None = None,
    progress: bool = False,
) -> EmbedResult:
    """Embed every image of `data` with `encoder` into the HDF5 file `out` (docs/embeddings.md).

    `data` is a SPEC, a source, or images in any form that `encoder.transform` takes.

    The file grows as `out.partial` and is renamed when complete; `resume` continues it after a kill, with bit-equal
    features. An image that cannot be read does not end the job: its row is marked as not valid and the rest is
    embedded. After that, `on_error="fail"` raises and leaves the work in the .partial, which
    `resume=True, on_error="skip"` accepts; "skip" finishes the file. More than `max_errors` such images end the job at
    once.

    `split` and `splits` are as in `open_data`; `layers` are names of the encoder's layers; `seed` is set while it is
    built; `trust_encoder` is as in `galirep.load_extractor`; `file_locking=False` does without HDF5's lock; `progress`
    shows a bar on a terminal.

    Raises:
        InUseError: another process writes the output (see `galirep.train`, also for `force_unlock`).
        ConfigError: an option has a wrong value, or the output exists.
        DataError: there are no images, or unreadable ones; features are NaN or overflow float16; the .partial was made
            with other settings; no space is left.
        PluginError: the encoder cannot be built.
        KeyboardInterrupt: SIGINT or SIGTERM was received; everything computed until then is written.
    """
    started = time.perf_counter()

    # Check the options, so that nothing is opened or built in vain.
    output = _Output(Path(out), resume, overwrite, file_locking)
    policy = ErrorPolicy(on_error, max_errors)
    _check_options(output, policy, batch_size, max_upscale)
    require_startable(output.path, overwrite=overwrite, resume=resume)
    torch_device = device_of(device)
    # raises if the device does not support the precision
    autocast_of(torch_device, precision)

    # Open the images.
    source = open_images(data, split, splits=splits, root=data_root, download=download)
    if not len(source):
        raise DataError(f"{source.spec} contains no images")
    announce(source.report)

    # Build the extractor.
    extractor, description = build_extractor(
        encoder, layers=layers, download=download, device=torch_device, seed=seed, trust_encoder=trust_encoder
    )
    of_encoder = note_of_best(str(encoder)) if isinstance(encoder, str | Path) else ""
    if of_encoder:
        _log.warning("%s", of_encoder)
    meta = _make_meta(description, source, dtype, precision, seed)
    batch_size = min(batch_size, len(source))
    extract_batch = BatchExtractor(extractor, description.dim, batch_size, torch_device, precision)

    # Resume or create the file, and run the pipeline unless it is complete already.
    if resume and output.path.exists() and not output.partial.exists():
        resumed_from, errors, notes = len(source), *output.check_complete(meta)
    else:
        with output.open_writer(meta, source, batch_size) as writer:
            resumed_from, notes = writer.n_written, writer.notes
            try:
                batches = read_batches(
                    source,
                    description,
                    batch_size,
                    start=resumed_from,
                    num_workers=num_workers,
                    max_upscale=max_upscale,
                )
                errors = embed_missing_rows(writer, source.ids, batches, extract_batch, policy, progress)
                policy.check_finished(errors, source, output.partial)
            except Exception:
                # so that the corrected command is not refused because of a file with nothing in it
                writer.discard_if_empty()
                raise
            writer.finish()

    seconds = time.perf_counter() - started
    return EmbedResult(
        path=output.path,
        rows=len(source),
        dim=description.dim,
        layers=tuple(name for name, _ in description.layers),
        errors=errors,
        resumed_from=resumed_from,
        seconds=seconds,
        images_per_second=(len(source) - resumed_from) / seconds,
        data_report=source.report,
        notes=(of_encoder, *notes) if of_encoder else tuple(notes),
    )


def _check_options(output: _Output, policy: ErrorPolicy, batch_size: int, max_upscale: float) -> None:
    on_error, max_errors = policy.on_error, policy.max_errors
    if batch_size < 1 or on_error not in ("fail", "skip") or (max_errors is not None and max_errors < 0):
        raise ConfigError(
            f"batch_size {batch_size} (1 or more), on_error {on_error!r} (fail or skip), "
            f"max_errors {max_errors} (0 or more)"
        )
    # NaN is not 1 or more either
    if not max_upscale >= 1:
        raise ConfigError(f"max_upscale is {max_upscale:g}, but must be 1 or more (1: no image is enlarged)")
    if output.resume and output.overwrite:
        raise ConfigError("--resume continues an interrupted run, --overwrite starts again: choose one")


def _make_meta(description: Description, source: ImageSource, dtype: str, precision: str, seed: int) -> StoreMeta:
    return StoreMeta(
        **encoder_fields(description),
        encoder_spec=description.spec,
        n_expected=len(source),
        dtype=dtype,
        precision=precision,
        seed=seed,
        source=source.spec,
        split=source.split,
        fingerprint=source.fingerprint,
        label_names=source.label_names,
        argv=tuple(sys.argv),
        splits=source.splits,
        data_report=source.report.short_dict(MAX_REPORT),
    )
