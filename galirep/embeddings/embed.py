"""`embed`: an extractor over a set of images into an embedding file; resumable, in bounded memory."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor
from tqdm import tqdm

from galirep.data.catalog import open_data
from galirep.data.sources import ImageSource
from galirep.embeddings.encoder_of import identity
from galirep.embeddings.reader import load_embeddings
from galirep.embeddings.schema import StoreMeta, differences, partial_path
from galirep.embeddings.writer import RESUME, EmbeddingWriter, require_startable
from galirep.errors import ConfigError, DataError, format_list
from galirep.features.extraction import build_extractor
from galirep.features.pipeline import BATCH_SIZE, Batch, extract_batch, read_batches, to_numpy
from galirep.features.protocol import Description, FeatureExtractor
from galirep.system.devices import autocast_of, device_of
from galirep.system.signals import stop_signals
from galirep.system.threads import Sink, prefetched


@dataclass(frozen=True)
class EmbedResult:
    """What `embed` made: `rows` in `path`, with those of unreadable images, listed in `errors`; the first `resumed_from` were there before.

    `images_per_second` counts what this call embedded, `seconds` all that it took.
    """

    path: Path
    rows: int
    dim: int
    layers: tuple[str, ...]
    errors: list[tuple[str, str]]
    resumed_from: int
    seconds: float
    images_per_second: float


def embed(
    encoder: str | FeatureExtractor,
    data: str | ImageSource,
    out: str | Path,
    *,
    split: str | None = None,
    layers: Sequence[str] | None = None,
    dtype: Literal["float32", "float16"] = "float32",
    batch_size: int = BATCH_SIZE,
    num_workers: int | None = None,
    device: str = "auto",
    precision: Literal["fp32", "bf16", "fp16"] = "fp32",
    seed: int = 0,
    resume: bool = False,
    overwrite: bool = False,
    on_error: Literal["fail", "skip"] = "fail",
    max_errors: int | None = None,
    max_upscale: float = 2.0,
    data_root: str | Path | None = None,
    download: bool = False,
    file_locking: bool | None = None,
    progress: bool = False,
) -> EmbedResult:
    """Embed every image of `data` with `encoder` into the HDF5 file `out` (docs/embeddings.md).

    The file grows as `out.partial` and takes its name when complete; `resume` continues it after a kill, with the same features to the bit.
    An image that cannot be read never ends the job: its row is marked as not valid and the rest is embedded. Then `on_error="fail"`
    raises, leaving all the work in the .partial, which `resume=True, on_error="skip"` accepts; "skip" finishes the file. `max_errors` ends
    the job early. `layers` are those the encoder names; `seed` is set while it is built; `file_locking=False` does without HDF5's lock;
    `progress` shows a bar on a terminal.

    Raises:
        ConfigError: an option that does not fit, or an output that exists.
        DataError: no images; unreadable ones; features that are NaN or overflow float16; a .partial that was made otherwise; no space.
        PluginError: the encoder cannot be built.
        KeyboardInterrupt: on SIGINT or SIGTERM, after everything computed was written.
    """
    begun = time.perf_counter()
    path = Path(out)
    _check(batch_size, on_error, max_errors, resume, overwrite)
    require_startable(path, overwrite=overwrite, resume=resume)
    where = device_of(device)
    autocast_of(where, precision)  # what the device cannot do is refused before a file is begun
    source = data if isinstance(data, ImageSource) else open_data(data, split, root=data_root, download=download)
    if not len(source):
        raise DataError(f"{source.spec} holds no images")
    extractor, about = build_extractor(encoder, layers=layers, download=download, device=where, seed=seed)
    meta = _meta(about, source, dtype, precision, seed)
    batch_size = min(batch_size, len(source))

    def result(errors: list[tuple[str, str]], start: int) -> EmbedResult:
        seconds = time.perf_counter() - begun
        names = tuple(name for name, _ in about.layers)
        return EmbedResult(path, len(source), about.dim, names, errors, start, seconds, (len(source) - start) / seconds)

    if resume and path.exists() and not partial_path(path).exists():
        return result(_errors_of_complete(path, meta, file_locking), len(source))
    if resume and partial_path(path).exists():
        writer = EmbeddingWriter.resume(path, meta, multiple_of=batch_size, locking=file_locking)
    else:
        writer = EmbeddingWriter.create(
            path, meta, source.ids, source.labels, overwrite=overwrite or resume, locking=file_locking
        )
    with writer:
        start = writer.n_written
        errors = writer.errors

        def write(item: tuple[Batch, Tensor]) -> None:
            batch, rows = item
            writer.append(to_numpy(rows), batch.errors)
            errors.extend((source.ids[batch.start + place], reason) for place, reason in batch.errors.items())
            if max_errors is not None and len(errors) > max_errors:
                raise DataError(
                    f"{len(errors)} images could not be read, more than --max-errors {max_errors}: {_listed(errors)}"
                )

        batches = read_batches(source, about, batch_size, start=start, num_workers=num_workers, max_upscale=max_upscale)
        bar = tqdm(total=len(source), initial=start, unit=" images", desc="embed", disable=None if progress else True)
        with stop_signals() as stop, bar, prefetched(batches) as ready, Sink(write) as sink:
            try:
                for batch in ready:
                    sink.put((batch, extract_batch(extractor, about.dim, batch, batch_size, where, precision)))
                    bar.update(batch.size)
                    if stop.is_set():
                        break
            except DataError:
                if not stop.is_set():  # a signal to the whole group also ends the workers
                    raise
        if not writer.complete:
            safe = f"{writer.n_written} of {len(source)} rows are in {partial_path(path)}"
            raise KeyboardInterrupt(f"{safe}: the same command with --resume continues")
        if len(errors) == len(source):
            raise DataError(f"none of the {len(source)} images of {source.spec} could be read: {_listed(errors)}")
        if errors and on_error == "fail":
            raise DataError(
                f"{len(errors)} of {len(source)} images could not be read: {_listed(errors)}; the others are in {partial_path(path)}, "
                "which --resume --on-error skip accepts"
            )
        writer.finish()
    return result(errors, start)


def _meta(about: Description, source: ImageSource, dtype: str, precision: str, seed: int) -> StoreMeta:
    return StoreMeta(
        **identity(about),
        encoder_spec=about.spec,
        n_expected=len(source),
        dtype=dtype,
        precision=precision,
        seed=seed,
        source=source.spec,
        split=source.split,
        fingerprint=source.fingerprint,
        label_names=source.label_names,
        argv=tuple(sys.argv),
    )


def _check(batch_size: int, on_error: str, max_errors: int | None, resume: bool, overwrite: bool) -> None:
    if batch_size < 1 or on_error not in ("fail", "skip") or (max_errors is not None and max_errors < 0):
        raise ConfigError(
            f"batch_size {batch_size} (1 or more), on_error {on_error!r} (fail or skip), max_errors {max_errors} (0 or more)"
        )
    if resume and overwrite:
        raise ConfigError("--resume continues what is there, --overwrite starts again: choose one")


def _errors_of_complete(path: Path, meta: StoreMeta, locking: bool | None) -> list[tuple[str, str]]:
    with load_embeddings(path, locking=locking) as done:
        if differ := differences(done.meta, meta, RESUME):
            raise DataError(
                f"{path} is complete, but of another job: {'; '.join(differ)}; choose another name or pass --overwrite"
            )
        return done.errors


def _listed(errors: Sequence[tuple[str, str]]) -> str:
    return format_list((f"{name}: {reason}" for name, reason in errors), 10, "; ")
