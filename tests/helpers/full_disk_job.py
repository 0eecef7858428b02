"""Run commands of galirep where space ends; print what each left: `python full_disk_job.py FOLDER [--ballast]`.

FOLDER/jobs.json has the commands. Space ends by a limit of a file's size or, with --ballast, since a file fills the
disk of FOLDER, which must be small. It is a process of its own, as a library may end it.
"""

import hashlib
import json
import resource
import sys
from contextlib import contextmanager
from pathlib import Path

from click.testing import CliRunner
from galirep.cli import cli


def digest(path):
    """Return a hash of the names and contents of a file or folder."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    content = [[str(file.relative_to(path)), file.read_bytes().hex()] for file in files if file.is_file()]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


@contextmanager
def limited_files(_, limit):
    """Let no file grow beyond `limit` bytes."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


@contextmanager
def filled_disk(folder, limit):
    """Leave `limit` bytes of the disk, in whole pages."""
    ballast = folder / "ballast"
    try:
        with ballast.open("wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError:
                file.truncate(max(0, file.tell() - limit))
        yield
    finally:
        ballast.unlink()


def run(args):
    """Run a command."""
    return CliRunner().invoke(cli, args)


def main(folder, limited):
    """Run each job at each of its limits; print one JSON object for each."""
    for job in json.loads((folder / "jobs.json").read_text()):
        args, out = job["args"], folder / job["out"]
        first = run(args)
        assert first.exit_code == 0, (args, first.output)
        before, names = digest(out), {path.name for path in out.parent.iterdir()}
        for limit in job["limits"]:
            print(json.dumps([args[0], limit]), flush=True)
            with limited(folder, limit):
                done = run([*args, "--overwrite"])
            left = {path.name for path in out.parent.iterdir()} - names
            same = digest(out) == before
            print(
                json.dumps([args[0], limit, done.exit_code, done.stderr.splitlines(), same, sorted(left)]), flush=True
            )
            before = digest(out)
        # there is space again
        again = run([*args, "--overwrite"])
        assert again.exit_code == 0, (args, again.output)


if __name__ == "__main__":
    main(Path(sys.argv[1]), filled_disk if "--ballast" in sys.argv else limited_files)
