"""The loop of `embed`: batches of images go through the network into the file, with a policy for unreadable images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from galirep.data.sources import ImageSource
from galirep.embeddings.schema import partial_path
from galirep.embeddings.writer import EmbeddingWriter
from galirep.errors import DataError, format_list
from galirep.features.pipeline import Batch, BatchExtractor, to_numpy
from galirep.system.progress import progress_bar
from galirep.system.signals import stop_signals
from galirep.system.threads import Sink, prefetched

ImageErrors = list[tuple[str, str]]
"""(id, reason) of each image that could not be read."""


@dataclass(frozen=True)
class ErrorPolicy:
    """What to do about images that cannot be read: see `embed`."""

    on_error: str
    max_errors: int | None

    def check_number(self, errors: ImageErrors) -> None:
        """Raise DataError if there are more than `max_errors`."""
        if self.max_errors is not None and len(errors) > self.max_errors:
            raise DataError(
                f"{len(errors)} images could not be read, more than --max-errors {self.max_errors}: {_listed(errors)}"
            )

    def check_finished(self, errors: ImageErrors, source: ImageSource, partial: Path) -> None:
        """Raise DataError if a file with all its rows must not be finished because of `errors`."""
        if len(errors) == len(source):
            raise DataError(f"none of the {len(source)} images of {source.spec} could be read: {_listed(errors)}")
        if errors and self.on_error == "fail":
            raise DataError(
                f"{len(errors)} of {len(source)} images could not be read: {_listed(errors)}; "
                f"the others are in {partial}, which --resume --on-error skip accepts"
            )


def embed_missing_rows(
    writer: EmbeddingWriter,
    ids: Sequence[str],
    batches: Iterator[Batch],
    extract_batch: BatchExtractor,
    policy: ErrorPolicy,
    progress: bool,
) -> ImageErrors:
    """Write the features of `batches`, which start at row `writer.n_written`; return the errors of all rows.

    `progress` shows a bar on a terminal.

    Raises:
        DataError: too many images could not be read, or features are not finite.
        KeyboardInterrupt: a signal ended the loop before all rows were written.
    """
    errors = writer.errors

    def write(item: tuple[Batch, Tensor]) -> None:
        batch, rows = item
        writer.append(to_numpy(rows), batch.errors)
        errors.extend((ids[batch.start + position], reason) for position, reason in batch.errors.items())
        policy.check_number(errors)

    bar = progress_bar(len(ids), "embed", "images", initial=writer.n_written, shown=progress)
    with stop_signals() as stop, bar, prefetched(batches) as ready, Sink(write) as sink:
        try:
            for batch in ready:
                sink.put((batch, extract_batch(batch)))
                bar.update(batch.size)
                if stop.is_set():
                    break
        except DataError:
            # a signal to the whole process group also ends the decoding workers: that is not an error of the data
            if not stop.is_set():
                raise
    if not writer.complete:
        written = f"{writer.n_written} of {len(ids)} rows are in {partial_path(writer.path)}"
        raise KeyboardInterrupt(f"{written}: the same command with --resume continues")
    return errors


def _listed(errors: ImageErrors) -> str:
    # each reason once
    by_reason: dict[str, list[str]] = {}
    for image_id, reason in errors:
        by_reason.setdefault(reason, []).append(image_id)
    return format_list((f"{format_list(ids, 10)}: {reason}" for reason, ids in by_reason.items()), 10, "; ")
