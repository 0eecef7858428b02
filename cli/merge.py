"""The command `galirep merge`."""

import click

from galirep.errors import plural

from .common import emit, shared


@click.command("merge")
@click.argument("paths", nargs=-1, required=True, type=click.Path(), metavar="FILE.h5 ...")
@click.option("--out", required=True, type=click.Path(dir_okay=False), help="The file to make.")
@click.option(
    "--virtual", is_flag=True, help="Point at the features of the parts, by relative paths, in place of copying them."
)
@click.option("--no-file-locking", is_flag=True, help="Do without HDF5's file lock.")
@shared("overwrite")
def merge_command(
    paths: tuple[str, ...],
    out: str,
    virtual: bool,
    overwrite: bool,
    force_unlock: bool,
    no_file_locking: bool,
    as_json: bool,
) -> None:
    """Join embedding files of one encoder into one.

    \b
    Example:
      galirep merge shard-0.h5 shard-1.h5 --out all.h5
    """
    from galirep.embeddings.merge import merge

    result = merge(
        paths,
        out,
        virtual=virtual,
        overwrite=overwrite,
        force_unlock=force_unlock,
        file_locking=False if no_file_locking else None,
    )
    linked = ", whose features it points at" if virtual else ""
    emit(
        as_json,
        result.to_dict(),
        f"{result.path}: {plural(result.rows, 'row')} of {plural(len(result.parts), 'file')}{linked}",
    )
