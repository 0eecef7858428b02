"""`galirep embed`."""

import sys
from typing import Any

import click

from .common import Choice, emit, layers_option, shared


@click.command("embed")
@click.option(
    "--encoder",
    required=True,
    metavar="RUN|EXTRACTOR",
    help="A run directory, timm:NAME[@FILE], random:NETWORKS, pixels, ...",
)
@click.option(
    "--data",
    required=True,
    metavar="SPEC",
    help="Folder, .tar, sklearn:digits, torchvision:NAME, npz:FILE, hdf5:FILE, ...",
)
@click.option("--out", required=True, type=click.Path(dir_okay=False), help="The HDF5 file to make.")
@click.option("--split", help="Split of the data set, where it has splits.")
@layers_option("Layers by name, with commas [default: the encoder's own choice].")
@click.option(
    "--dtype",
    type=Choice(["float32", "float16"]),
    default="float32",
    show_default=True,
    help="How features are stored.",
)
@click.option(
    "--batch-size", type=click.IntRange(1), default=64, show_default=True, help="Images the network takes at once."
)
@click.option(
    "--resume", is_flag=True, help="Continue what an interrupted run left; from the start if there is nothing."
)
@click.option(
    "--on-error",
    type=Choice(["fail", "skip"]),
    default="fail",
    show_default=True,
    help="Unreadable images: embed all others, then fail, or finish the file without them.",
)
@click.option("--max-errors", type=click.IntRange(0), help="Stop at once after more unreadable images than this.")
@click.option(
    "--max-upscale", type=click.FloatRange(1), default=2.0, show_default=True, help="Largest enlargement of an image."
)
@click.option("--no-file-locking", is_flag=True, help="Do without HDF5's file lock (for file systems without locks).")
@shared("seed", "device", "precision", "workers", "overwrite", "data-root", "download")
@click.pass_context
def embed_command(ctx: click.Context, /, as_json: bool, no_file_locking: bool, **options: Any) -> None:
    """Embed a set of images into an HDF5 file.

    The file grows as OUT.partial and takes its name when it is complete; after a kill, --resume continues it. Exit code 0 means that the
    file is there and complete.

    \b
    Example:
      galirep embed --encoder runs/mnist --data mnist.tar --split test --out test.h5
    """
    from galirep.embeddings.embed import embed
    from galirep.system.devices import keep_freed_memory

    keep_freed_memory()
    try:
        result = embed(file_locking=False if no_file_locking else None, progress=sys.stderr.isatty(), **options)
    except KeyboardInterrupt as stop:
        click.echo(f"galirep: interrupted: {stop}" if str(stop) else "galirep: interrupted", err=True)
        ctx.exit(130)
    bad = (
        f", {len(result.errors)} of them unreadable and not valid (galirep verify lists them)" if result.errors else ""
    )
    if result.resumed_from == result.rows:
        text = f"{result.path} is complete: {result.rows} rows of {result.dim} columns{bad}"
    else:
        part = f" (the first {result.resumed_from} were there)" if result.resumed_from else ""
        speed = f"{result.seconds:.1f} s, {result.images_per_second:.0f} images/s"
        text = f"{result.path}: {result.rows} rows{part} of {result.dim} columns ({', '.join(result.layers)}){bad}; {speed}"
    emit(
        as_json,
        {**vars(result), "path": str(result.path), "errors": [{"id": i, "reason": r} for i, r in result.errors]},
        text,
    )
