"""Locks: one writer at a time; a lock of an ended process is taken over, one of another host only if it is forced."""

import json
import os
import signal
import threading
import time
from dataclasses import replace

import pytest
from ended_processes import moments, run

from galirep.errors import ConfigError, DataError, InUseError
from galirep.system.outputs import processes
from galirep.system.outputs.holding import hold, is_held, locks_outputs, own_lock
from galirep.system.outputs.locks import acquire, lock_file
from galirep.system.outputs.processes import Process, start_time, state_of_tag, this_process


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def left_lock(path, **changes):
    """Leave the lock of another process."""
    lock = acquire(path)
    owner = {**vars(lock.owner), **changes}
    lock_file(path).write_text(json.dumps(owner))
    return owner


def test_a_lock_is_there_for_its_time_and_says_whose_it_is(tmp_path):
    lock = acquire(tmp_path / "x.h5")
    assert names(tmp_path) == [".x.h5.lock"]
    owner = json.loads((tmp_path / ".x.h5.lock").read_text())
    assert owner["pid"] == os.getpid() and owner["since"].endswith("+00:00") and len(owner["token"]) == 8
    with pytest.raises(InUseError, match=r"x\.h5 is in use by another call in this process, since 2") as caught:
        acquire(tmp_path / "x.h5")
    assert caught.value.alive
    lock.release()
    assert names(tmp_path) == []
    acquire(tmp_path / "x.h5").release()


def test_another_living_process_is_named_even_where_it_is_forced(tmp_path):
    lock = acquire(tmp_path / "x.h5")

    def attempt():
        for force in (False, True):
            with pytest.raises(InUseError, match=rf"in use: process {os.getppid()} writes it since .* UTC; wait"):
                acquire(tmp_path / "x.h5", force=force)

    assert run(attempt) == 0
    lock.release()


def test_one_output_by_several_names_has_one_lock(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "run")
    monkeypatch.chdir(tmp_path / "run")
    with hold(tmp_path / "run"):
        for name in (".", "../run", tmp_path / "link", "../link/"):
            with pytest.raises(InUseError):
                acquire(name)
    acquire("../link").release()


def test_locks_of_ended_processes_are_taken_over_and_their_files_removed(tmp_path):
    target = tmp_path / "x.h5"

    def leave():
        acquire(target)
        (tmp_path / f".x.h5.{this_process().tag}-0a1b.tmp").write_text("half")
        (tmp_path / f".x.h5.{this_process().tag}-0a1b.tmp.partial").write_text("half")
        (tmp_path / f".x.h5.new.{this_process().tag}-0a1b.tmp").mkdir()
        (tmp_path / f".y.h5.{this_process().tag}-0a1b.tmp").write_text("of another output")
        os.kill(os.getpid(), signal.SIGKILL)

    assert run(leave) == -signal.SIGKILL
    living = f".x.h5.{replace(this_process(), pid=1, started=start_time(1)).tag}-0000.tmp"
    (tmp_path / living).write_text("of a living process")
    (tmp_path / ".x.h5.0123abcd.tmp").write_text("of version 0.1")
    assert len(names(tmp_path)) == 7
    lock = acquire(target)
    left = names(tmp_path)
    assert left[:2] == [".x.h5.lock", living][:: 1 if living > ".x.h5.lock" else -1] and left[2].startswith(".y.h5.")
    lock.release()
    assert len(names(tmp_path)) == 2


def test_a_zombie_and_a_process_of_the_same_number_do_not_hold_a_lock(tmp_path):
    child = os.fork()
    if not child:
        os._exit(0)
    while start_time(child) is not None:
        time.sleep(0.01)
    assert os.path.exists(f"/proc/{child}")  # noqa: PTH110
    assert replace(this_process(), pid=child).state == "gone"
    os.waitpid(child, 0)
    assert replace(this_process(), started="1").state == "gone" and this_process().state == "alive"
    assert state_of_tag(this_process().tag) == "alive"
    left_lock(tmp_path / "x", started="1")
    acquire(tmp_path / "x").release()


def test_a_process_after_a_restart_of_the_machine_is_gone_one_elsewhere_is_unknown():
    own = this_process()
    named = replace(own, machine="host/installation")
    assert replace(own, namespace="pid:[1]").state == "unknown" and named.state == "unknown"
    assert state_of_tag(named.tag) == "unknown"
    known = "/" in own.machine and not own.machine.endswith("/")
    assert replace(own, boot="earlier").state == ("gone" if known else "unknown")


def test_without_proc_the_start_time_is_what_ps_prints(monkeypatch, tmp_path):
    monkeypatch.setattr(processes, "Path", lambda path: tmp_path / str(path).lstrip("/"))
    assert len(start_time(os.getpid()).split()) == 5
    assert start_time(2**22 - 1) is None


@pytest.mark.parametrize("changes", ({"machine": "node7/x"}, {"namespace": "pid:[1]"}))
def test_a_lock_of_another_host_is_told_and_can_be_forced(tmp_path, changes):
    owner = left_lock(tmp_path / "x.h5", **changes)
    host = changes.get("machine", this_process().machine).partition("/")[0]
    message = (
        rf"may be in use: process {owner['pid']} on {host} has its lock since .*; if it has ended, pass --force-un"
    )
    with pytest.raises(InUseError, match=message) as caught:
        acquire(tmp_path / "x.h5")
    assert not caught.value.alive and names(tmp_path) == [".x.h5.lock"]
    acquire(tmp_path / "x.h5", force=True).release()
    assert names(tmp_path) == []


@pytest.mark.parametrize("content", (b"", b"{", b'{"pid": 1}', b"[" * 5000, b"\xff", b"0" * 100_000))
def test_a_lock_that_cannot_be_read_is_told(tmp_path, content):
    (tmp_path / ".x.lock").write_bytes(content)
    with pytest.raises(InUseError, match=r"its lock .*\.x\.lock does not say by whom; .* pass --force-unlock"):
        acquire(tmp_path / "x")
    acquire(tmp_path / "x", force=True).release()
    assert names(tmp_path) == []


def test_whoever_took_over_keeps_the_lock(tmp_path):
    lock = acquire(tmp_path / "x")
    lock_file(tmp_path / "x").unlink()
    other = acquire(tmp_path / "x")
    lock.release()
    with pytest.raises(InUseError):
        acquire(tmp_path / "x")
    other.release()


def test_a_kill_at_any_moment_of_a_take_over_leaves_a_lock_that_is_taken_over(tmp_path):
    count = 0
    left_lock(tmp_path / "x", started="1")
    for count in moments(lambda: acquire(tmp_path / "x").release(), tmp_path):  # noqa: B007
        acquire(tmp_path / "x").release()
        assert names(tmp_path) == []
        left_lock(tmp_path / "x", started="1")
    assert count >= 10


def test_of_many_processes_at_once_one_has_the_lock(tmp_path):
    left_lock(tmp_path / "x", started="1")
    (start, started), (told, telling), (end, ended) = os.pipe(), os.pipe(), os.pipe()
    children = []
    for _ in range(12):
        child = os.fork()
        if not child:
            for writing in (started, ended):
                os.close(writing)
            os.read(start, 1)
            try:
                acquire(tmp_path / "x")
                os.write(telling, b"1")
            except InUseError:
                os.write(telling, b"0")
            # so that nobody ends before all have tried
            os.read(end, 1)
            os._exit(0)
        children.append(child)
    os.close(started)
    answers = b"".join(os.read(told, 1) for _ in children)
    os.close(ended)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 12
    assert sorted(answers) == sorted(b"1" + b"0" * 11)
    for pipe in (start, told, telling, end):
        os.close(pipe)


def test_without_hard_links_the_file_is_made_in_one_step(tmp_path, monkeypatch):
    def no_links(*_, **__):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    lock = acquire(tmp_path / "x")
    with pytest.raises(InUseError):
        acquire(tmp_path / "x")
    lock.release()
    assert names(tmp_path) == []


def test_where_nothing_can_be_written_one_line_says_so(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"the folder .*/none does not exist"):
        acquire(tmp_path / "none" / "x")
    write_bytes = type(tmp_path).write_bytes
    for number, error in ((28, DataError), (27, DataError), (30, ConfigError)):

        def fail(path, data, number=number):
            write_bytes(path, data[:10])
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patch:
            patch.setattr(type(tmp_path), "write_bytes", fail)
            with pytest.raises(error, match=f"write .*/x: {os.strerror(number)}"):
                acquire(tmp_path / "x")
        assert names(tmp_path) == []


def test_folders_above_are_made_and_removed_if_nothing_came_into_them(tmp_path):
    with hold(tmp_path / "a" / "b" / "x", parents=True):
        assert (tmp_path / "a" / "b").is_dir()
    assert names(tmp_path) == []
    with hold(tmp_path / "a" / "b" / "x", parents=True):
        (tmp_path / "a" / "y").touch()
    assert names(tmp_path) == ["a"] and names(tmp_path / "a") == ["y"]


def test_calls_within_a_call_need_not_lock_again_other_threads_must(tmp_path):
    @locks_outputs("out", "report")
    def write(out, *, report=None, force_unlock=False):
        with own_lock(out) as lock, hold(out):
            assert lock is None and is_held(out) and is_held(out.with_name(f".{out.name}.0123abcd.tmp"))
        assert report is None or is_held(report)
        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join()
        return names(tmp_path)

    def attempt():
        assert not is_held(tmp_path / "x")
        try:
            acquire(tmp_path / "x")
        except InUseError as err:
            refused.append(err)

    def child():
        # forked within the call, it is another process all the same
        assert not is_held(tmp_path / "z")
        with pytest.raises(InUseError, match="in use: process"), hold(tmp_path / "z"):
            pass

    with hold(tmp_path / "z"):
        assert run(child) == 0
    refused = []
    assert write(tmp_path / "x") == [".x.lock"]
    assert write(tmp_path / "x", report=tmp_path / "y") == [".x.lock", ".y.lock"]
    assert len(refused) == 2 and names(tmp_path) == [] and not is_held(tmp_path / "x")
    left_lock(tmp_path / "x", machine="elsewhere/")
    with pytest.raises(InUseError):
        write(tmp_path / "x")
    write(tmp_path / "x", force_unlock=True)


def test_waiting_for_a_living_process(tmp_path):
    child = os.fork()
    if not child:
        lock = acquire(tmp_path / "x")
        time.sleep(0.3)
        lock.release()
        os._exit(0)
    while not lock_file(tmp_path / "x").exists():
        time.sleep(0.01)
    with hold(tmp_path / "x", wait=True):
        assert os.waitpid(child, 0)[1] == 0
    left_lock(tmp_path / "x", machine="elsewhere/")
    with pytest.raises(InUseError), hold(tmp_path / "x", wait=True):
        pass


def test_a_process_is_plain_data():
    own = this_process()
    assert Process(**own.to_dict()) == own and own.host == own.machine.split("/")[0]
