"""The command `galirep embed`."""

from typing import TYPE_CHECKING, Any

import click

from .common import Choice, emit, layers_option, say, shared

if TYPE_CHECKING:
    from galirep.embeddings.embed import EmbedResult


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
@layers_option(
    "Layers by name, with commas, each NAME[:POOLING]; of a run conv1:8x8, fc1, mu, d2:flat (of D), paper, ...  "
    "[default: the encoder's own choice]"
)
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
@shared(
    "seed",
    "device",
    "precision",
    "workers",
    "overwrite",
    "splits",
    "data-root",
    "download",
    "trust-encoder",
    "max-pixels",
)
@click.pass_context
def embed_command(ctx: click.Context, /, as_json: bool, no_file_locking: bool, **options: Any) -> None:
    """Embed a set of images into an HDF5 file.

    The file grows as OUT.partial and is renamed when it is complete; after a kill, --resume continues it. Exit code 0
    means that the file exists and is complete.

    \b
    Example:
      galirep embed --encoder runs/mnist --data mnist.tar --split test --out test.h5
    """
    from galirep.embeddings.embed import embed
    from galirep.system.devices import keep_freed_memory

    keep_freed_memory()
    try:
        result = embed(file_locking=False if no_file_locking else None, progress=True, **options)
    except KeyboardInterrupt as err:
        say(f"interrupted: {err}" if str(err) else "interrupted")
        ctx.exit(130)
    emit(as_json, result.to_dict(), _summary(result))


def _summary(result: "EmbedResult") -> str:
    """Return the line for people."""
    unreadable = ""
    if result.errors:
        unreadable = f", {len(result.errors)} of them unreadable and not valid (galirep verify lists them)"
    if result.resumed_from == result.rows:
        return f"{result.path} is complete: {result.rows} rows of {result.dim} columns{unreadable}"
    resumed = f" (the first {result.resumed_from} were there)" if result.resumed_from else ""
    layers = ", ".join(result.layers)
    speed = f"{result.seconds:.1f} s, {result.images_per_second:.0f} images/s"
    return f"{result.path}: {result.rows} rows{resumed} of {result.dim} columns ({layers}){unreadable}; {speed}"
