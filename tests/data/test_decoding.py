"""Decoding in worker processes: order, bad images, and what happens when a worker or the parent dies."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import psutil
import pytest
from PIL import Image

from galirep.data.catalog import open_data
from galirep.data.decoding import auto_workers, decode
from galirep.errors import DataError

COUNT = 600  # three tasks


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    """Write a flat folder: image i is 6x6 of grey i % 251, but 7 is empty, 300 truncated, 301 text, 302 too small."""
    root = tmp_path_factory.mktemp("numbered")
    for i in range(COUNT):
        Image.new("L", (2, 2) if i == 302 else (6, 6), i % 251).save(root / f"{i:03}.png")
    (root / "007.png").write_bytes(b"")
    (root / "300.png").write_bytes((root / "300.png").read_bytes()[:50])
    (root / "301.png").write_text("no picture")
    return root


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Write a flat folder of 60 colour pictures whose tasks are much larger than the buffer of a pipe."""
    root = tmp_path_factory.mktemp("large")
    Image.new("RGB", (512, 512), (1, 2, 3)).save(root / "00.png")
    for i in range(1, 60):
        (root / f"{i:02}.png").write_bytes((root / "00.png").read_bytes())
    return root


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_images_come_in_order_and_bad_ones_shift_nothing(numbered, workers):
    images = list(decode(open_data(str(numbered)), size=8, channels=1, num_workers=workers))
    assert [image.index for image in images] == list(range(COUNT))
    assert [image.id for image in images] == [f"{i:03}.png" for i in range(COUNT)]
    bad = {image.index: image.error for image in images if image.pixels is None}
    assert sorted(bad) == [7, 300, 301, 302]
    assert (
        "empty" in bad[7] and "cannot be decoded" in bad[300] and "not an image" in bad[301] and "too small" in bad[302]
    )
    assert not any(".png" in reason for reason in bad.values()), "the id stands in Decoded.id already"
    for image in images:
        if image.index not in bad:
            assert image.error is None and image.pixels.shape == (1, 8, 8) and image.pixels.dtype == np.uint8
            assert (image.pixels == image.index % 251).all()
    assert not multiprocessing.active_children()


def test_decoding_may_start_anywhere(numbered):
    images = list(decode(open_data(str(numbered)), size=8, channels=3, start=299, num_workers=2))
    assert [image.index for image in images] == list(range(299, COUNT))
    assert images[0].pixels.shape == (3, 8, 8) and (images[0].pixels == 299 % 251).all()
    assert list(decode(open_data(str(numbered)), size=8, channels=3, start=COUNT)) == []


def test_sizes_may_differ(tmp_path):
    for i, size in enumerate([(3, 9), (20, 30), (8, 8)]):
        Image.new("RGB", size).save(tmp_path / f"{i}.png")
    source = open_data(str(tmp_path))
    for workers in (0, 1):
        shapes = [
            image.pixels.shape
            for image in decode(source, size=10, channels=None, shrink_only=True, num_workers=workers)
        ]
        assert shapes == [(3, 3, 3), (3, 10, 10), (3, 8, 8)]
    assert [image.pixels.shape for image in decode(source, size=None, channels=1)] == [
        (1, 3, 3),
        (1, 20, 20),
        (1, 8, 8),
    ]


def test_workers_are_taken_where_they_pay(numbered):
    assert auto_workers(open_data(str(numbered)), 1999) == 0
    assert 1 <= auto_workers(open_data(str(numbered)), 2000) <= 8
    assert auto_workers(open_data("sklearn:digits"), 10**6) == 0


def test_a_killed_worker_is_an_error_without_delay(large):
    images = decode(open_data(str(large)), size=512, channels=3, num_workers=2)
    assert next(images).index == 0
    for process in multiprocessing.active_children():
        os.kill(process.pid, signal.SIGKILL)  # one of them while it sends: its task is larger than the pipe
    with pytest.raises(DataError, match=r"a worker .* was killed by signal 9"):
        list(images)
    assert not multiprocessing.active_children()


def test_no_worker_outlives_an_abandoned_decoding(large):
    images = decode(open_data(str(large)), size=512, channels=3, num_workers=2)
    next(images)
    assert len(multiprocessing.active_children()) == 2
    images.close()
    assert not multiprocessing.active_children()


@contextlib.contextmanager
def script(tmp_path, folder, body, guard="if __name__ == '__main__':"):
    """Start a program that decodes `folder` with two workers and prints its workers' ids after the first image."""
    path = tmp_path / "program.py"
    path.write_text(
        textwrap.dedent(f"""
            import multiprocessing, sys, time
            from galirep.data.decoding import decode
            from galirep.data.catalog import open_data
            {guard}
                images = decode(open_data({str(folder)!r}), size=512, channels=3, num_workers=2)
                next(images)
                print(*[p.pid for p in multiprocessing.active_children()], flush=True)
                {body}
        """)
    )
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, path], **pipes, text=True, start_new_session=True) as program:
        try:
            yield program
        finally:
            program.kill()  # if it still lives; leaving the context waits for it


def assert_gone(pids):
    _, alive = psutil.wait_procs([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], timeout=30)
    assert all(process.status() == psutil.STATUS_ZOMBIE for process in alive)


def test_workers_end_with_a_killed_parent(tmp_path, large):
    with script(tmp_path, large, "time.sleep(600)") as program:
        pids = [int(pid) for pid in program.stdout.readline().split()]
        assert len(pids) == 2
        program.kill()
    assert_gone(pids)


def test_interrupting_ends_parent_and_workers_without_messages_of_workers(tmp_path, large):
    with script(tmp_path, large, "time.sleep(600)") as program:
        pids = [int(pid) for pid in program.stdout.readline().split()]
        os.killpg(program.pid, signal.SIGINT)  # as a terminal does on ^C
        stderr = program.communicate(timeout=60)[1]
    assert program.returncode == -signal.SIGINT
    assert stderr.count("Traceback") == 1 and stderr.strip().endswith("KeyboardInterrupt")
    assert_gone(pids)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Write a flat folder of 2,000 images; their names alone are larger than the buffer of a pipe."""
    root = tmp_path_factory.mktemp("many")
    Image.new("L", (6, 6)).save(root / f"{'n' * 100}-0000.png")
    for i in range(1, 2000):
        (root / f"{'n' * 100}-{i:04}.png").hardlink_to(root / f"{'n' * 100}-0000.png")
    return root


def test_a_script_without_a_guard_is_told_so(tmp_path, many):
    with script(tmp_path, many, "pass", guard="if True:") as program:
        stderr = program.communicate(timeout=60)[1]
    assert program.returncode == 1
    assert stderr.count("Traceback") == 1  # the workers say nothing
    last = stderr.splitlines()[-1]
    assert "ConfigError: decoding workers run the calling script again" in last
    assert "`if __name__ == '__main__':`" in last and "num_workers=0" in last


def test_a_worker_that_dies_before_it_has_its_tasks_is_an_error_without_delay(tmp_path, many):
    with script(
        tmp_path, many, "pass", guard="if multiprocessing.current_process().name == 'MainProcess' or sys.exit(3):"
    ) as program:
        stderr = program.communicate(timeout=60)[1]
    assert program.returncode == 1
    assert "DataError: a worker that decoded images" in stderr.splitlines()[-1] and " died: " in stderr.splitlines()[-1]


def test_workers_do_not_import_torch():
    code = (
        "import sys, galirep.data.decoding, galirep.data.files.folders; "
        "assert not {'torch', 'h5py', 'sklearn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
