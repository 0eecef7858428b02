"""The command `galirep verify`."""

from typing import Any

import click

from .common import emit, shared


@click.command("verify")
@click.argument("path", type=click.Path(), metavar="FILE.h5|INDEX|FOLDER")
@click.option(
    "--encoder",
    metavar="RUN|EXTRACTOR",
    help="Embed a sample again with this encoder [default with --data: the file's].",
)
@click.option(
    "--data", metavar="SPEC", help="The images that were embedded [default with --encoder: those the file names]."
)
@click.option("--split", help="Split of the data set [default: the file's].")
@click.option("--sample", type=click.IntRange(1), default=64, show_default=True, help="Images to embed again.")
@click.option(
    "--tolerance",
    type=click.FloatRange(0),
    help="Largest relative difference [default: 1e-3; float16 5e-3; bf16, fp16 5e-2].",
)
@click.option("--no-file-locking", is_flag=True, help="Do without HDF5's file lock.")
@shared("seed", "device", "workers", "data-root", "download", "trust-encoder")
@click.pass_context
def verify_command(ctx: click.Context, /, path: str, as_json: bool, no_file_locking: bool, **options: Any) -> None:
    """Check that an embedding file is complete and what was written, or an index, run or export; exit code 1 if not.

    With --encoder or --data a random sample of its images is embedded again and compared.

    \b
    Example:
      galirep verify test.h5 --data mnist.tar --sample 200
    """
    from galirep.inspection.verify import verify

    result = verify(path, file_locking=False if no_file_locking else None, **options)
    if result.kind == "embeddings":
        lines = [f"{result.path}: {result.rows} rows, {result.valid} of them valid, {result.dim} columns"]
    elif result.rows:
        lines = [f"{result.path}: {result.kind}, {result.rows} rows of {result.dim} columns"]
    else:
        lines = [f"{result.path}: {result.kind}"]
    if result.checked:
        lines.append(f"read: {', '.join(result.checked)}")
    if result.worst is not None:
        lines.append(
            f"{result.compared} images embedded again: they differ by {result.worst:.2g} at most; "
            f"tolerance {result.tolerance:g}"
        )
    lines += [f"warning: {line}" for line in result.warnings]
    lines += [f"problem: {line}" for line in result.problems]
    lines.append("in order" if result.ok else "not fit for use")
    emit(as_json, result.to_dict(), lines)
    ctx.exit(0 if result.ok else 1)
