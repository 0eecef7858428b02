"""A full disk ends every command that writes in one line, with the old output whole and nothing left beside it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from full_disk_job import __file__ as script
from toy_galleries import clusters, write_embeddings

from galirep.embeddings.schema import StoreMeta, partial_path
from galirep.embeddings.writer import EmbeddingWriter
from galirep.errors import DataError
from galirep.runs.log import run_log
from galirep.system.outputs.full_disk import explain_full_disk, is_full_disk
from galirep.system.outputs.hdf5 import HDF5Output, writing_hdf5

RUN = Path(__file__).parents[1] / "fixtures" / "written_by_04408f9" / "run"


def write_jobs(folder, limits):
    """Write embedding files and the list of commands that have `limits`, by name."""
    gallery = write_embeddings(folder / "g.h5", *clusters(200))
    queries = write_embeddings(folder / "q.h5", *clusters(20, seed=1))
    (folder / "o").mkdir()
    images = ("sklearn:digits", "--split", "test")
    search = ("retrieve", "--gallery", gallery, "--queries", queries)
    jobs = (
        (("embed", "--encoder", "pixels:4", "--data", *images, "--num-workers", 0), "--out", "o/e.h5"),
        (("merge", gallery, queries), "--out", "o/m.h5"),
        (("merge", "--virtual", gallery, queries), "--out", "v.h5"),
        (("index", gallery), "--out", "o/i.faiss"),
        (search, "--out", "o/r.h5"),
        (search, "--out", "o/r.json"),
        (search, "--report", "o/r.html"),
        (("export", gallery, "--format", "npy-parquet"), "--out", "o/n"),
        (("export", RUN), "--out", "o/x"),
        (("probe", gallery), "--out", "o/p.json"),
        (("sample", RUN), "--out", "o/s.png"),
    )
    described = [
        {
            "args": [*map(str, args), option, str(folder / out)],
            "out": out,
            "limits": limits[args[0]],
        }
        for args, option, out in jobs
        if args[0] in limits
    ]
    (folder / "jobs.json").write_text(json.dumps(described))


def run_jobs(folder, *options):
    done = subprocess.run(
        [sys.executable, "-W", "error", script, folder, *options], capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, (done.returncode, done.stdout[-500:], done.stderr[-2000:])
    results = [row for row in map(json.loads, done.stdout.splitlines()) if len(row) > 2]
    failed = set()
    for command, limit, exit_code, stderr, same, left in results:
        case = (command, limit, stderr)
        assert not left, (case, left)
        assert not any("Traceback" in line for line in stderr), case
        if exit_code:
            assert exit_code == 1 and same and "no space" in stderr[-1], case
            assert [line for line in stderr if "error" in line] == stderr[-1:], case
            failed.add((command, limit))
    return failed


def test_a_limit_of_a_files_size(tmp_path):
    names = ("merge", "index", "retrieve", "export", "probe", "sample")
    write_jobs(tmp_path, {**{name: [300] for name in names}, "embed": [0, 3000, 30_000], "merge": [300, 3000]})
    failed = run_jobs(tmp_path)
    assert failed == {
        ("embed", 0),
        ("embed", 3000),
        ("embed", 30_000),
        ("merge", 3000),
        *((name, 300) for name in names),
    }


def test_a_small_disk(tmp_path):
    if os.geteuid():
        pytest.skip("only root can mount a disk of a fixed size")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.strip()}")
    try:
        write_jobs(disk, {"embed": [0, 8192], "merge": [8192], "index": [0]})
        assert run_jobs(disk, "--ballast") == {("embed", 0), ("embed", 8192), ("merge", 8192), ("index", 0)}
    finally:
        subprocess.run(["umount", disk], check=True)


FULL_LATER = """
import resource, sys
import numpy as np
from galirep.embeddings.schema import StoreMeta
from galirep.embeddings.writer import EmbeddingWriter
from galirep.errors import DataError

path, meta = sys.argv[1], StoreMeta("toy", (("f", 4),), 300)
with EmbeddingWriter.create(path, meta, [str(i) for i in range(300)]) as writer:
    writer.append(np.ones((100, 4)))
    # of the bytes of the rows to come
    resource.setrlimit(resource.RLIMIT_FSIZE, (writer._store._offsets["features"] + 2000, -1))
    try:
        writer.append(np.ones((100, 4)), {i: "bad" for i in range(0, 100, 1)})
    except DataError as err:
        print(err)
    print(writer.n_written)
"""


def test_a_disk_that_is_full_later_keeps_the_rows(tmp_path):
    """The space was reserved, but a quota or another limit may come between."""
    path = tmp_path / "x.h5"
    done = subprocess.run([sys.executable, "-c", FULL_LATER, path], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        f"no space left for {partial_path(path)}: free some and run again; what was there before is untouched",
        "100",
    ]
    with EmbeddingWriter.resume(path, StoreMeta("toy", (("f", 4),), 300)) as writer:
        assert writer.n_written == 100 and not writer.notes and not writer.errors
        writer.append(np.ones((200, 4)))
        writer.finish()


def test_hdf5_is_not_told_and_its_owner_is(tmp_path, monkeypatch):
    written = []

    def full(fd, data, offset):
        written.append(offset)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(OSError, match="No space left"), writing_hdf5(tmp_path / "x.h5") as file:
            file["a"] = np.zeros(10_000)
            file.flush()
    # after the first error nothing is tried
    assert len(written) == 1
    with writing_hdf5(tmp_path / "x.h5") as file:
        file["a"] = np.arange(3)
    output = HDF5Output(tmp_path / "x.h5", "r+")
    assert output.file["a"][:].tolist() == [0, 1, 2]
    with pytest.raises(BlockingIOError):
        HDF5Output(tmp_path / "x.h5", "r+")
    HDF5Output(tmp_path / "x.h5", "r+", locking=False).close()
    output.close()
    HDF5Output(tmp_path / "x.h5", "r+").close()


def test_which_errors_are_those_of_a_full_disk(tmp_path):
    texts = ("... errno = 28, error message = ...", "[Errno 27] x", "File too large (os error 27)", "[errno 122] y")
    assert all(map(is_full_disk, [OSError(28, "x"), *map(RuntimeError, texts)]))
    assert not any(map(is_full_disk, [OSError(2, "x"), RuntimeError("errno = 281"), ValueError("28")]))
    with pytest.raises(RuntimeError, match="else"), explain_full_disk(tmp_path):
        raise RuntimeError("else")


def test_the_log_of_a_run(tmp_path, monkeypatch):
    """A log that cannot be written ends the run; logging itself would print a traceback and go on."""

    def full(*_):
        raise OSError(28, "No space left on device")

    with pytest.raises(DataError, match=r"no space left for .*train\.log"), run_log(tmp_path / "train.log") as logger:
        monkeypatch.setattr(logger.handlers[0].stream, "write", full)
        logger.info("step 1")
