"""The command `galirep export`, whose output depends on what PATH is."""

from pathlib import Path

import click

from galirep.errors import plural

from .common import Choice, emit, layers_option, shared

FORMATS = ["npy-parquet", "hdf5", "safetensors"]


@click.command("export")
@click.argument("path", type=click.Path(path_type=Path), metavar="RUN|FILE.h5|FOLDER")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder, or FILE.h5, to make.")
@click.option("--format", "form", type=Choice(FORMATS), help="What to write [default: what fits].")
@layers_option("Of a FILE.h5: layers, with commas [default: all].")
@click.option(
    "--rows-per-file", type=click.IntRange(1), default=1_000_000, show_default=True, help="Rows a pair of files."
)
@shared("overwrite")
def export_command(
    path: Path,
    out: Path,
    form: str | None,
    layers: list[str] | None,
    rows_per_file: int,
    overwrite: bool,
    force_unlock: bool,
    as_json: bool,
) -> None:
    """Export the encoder of a run (safetensors), or embeddings in the layout of clip-retrieval and back.

    \b
    Examples:
      galirep export runs/mnist --out encoder
      galirep export test.h5 --format npy-parquet --out folder
      galirep export folder --format hdf5 --out back.h5
    """
    from galirep.embeddings.interchange.folder import is_npy_parquet
    from galirep.embeddings.interchange.npy_parquet import export_embeddings, import_embeddings
    from galirep.networks.export_file import run_folder
    from galirep.networks.saved import export_run

    if not run_folder(path).exists():
        raise click.UsageError(
            f"{path} does not exist: name a run, an embedding file or a folder of exported embeddings"
        )
    if path.is_file():
        output_format = "npy-parquet"
    elif is_npy_parquet(path):
        output_format = "hdf5"
    else:
        output_format = "safetensors"
    if form not in (None, output_format):
        raise click.UsageError(f"--format {form} does not fit {path}, which is exported as {output_format}")
    if layers is not None and output_format != "npy-parquet":
        raise click.UsageError(f"--layers chooses columns of a FILE.h5, which {path} is not")
    if output_format == "safetensors":
        written = export_run(path, out, overwrite=overwrite, force_unlock=force_unlock)
        names = ", ".join(file.name for file in written)
        emit(as_json, {"path": str(out), "files": [str(file) for file in written]}, f"{out}: {names}")
        return
    if output_format == "hdf5":
        result = import_embeddings(path, out, overwrite=overwrite, force_unlock=force_unlock)
    else:
        result = export_embeddings(
            path, out, layers=layers, rows_per_file=rows_per_file, overwrite=overwrite, force_unlock=force_unlock
        )
    pairs = f" in {plural(result.files, 'pair')} of files" if output_format == "npy-parquet" else ""
    notes = "".join(f"\nnote: {note}" for note in result.notes)
    emit(
        as_json,
        result.to_dict(),
        f"{result.path}: {plural(result.rows, 'row')} of {plural(result.dim, 'column')}{pairs}{notes}",
    )
