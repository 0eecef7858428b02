"""Folders that take their place: at every moment the old or the new one is there, and other files are kept."""

import pytest
from ended_processes import end_at, moments

from galirep.errors import ConfigError
from galirep.system.outputs import folders
from galirep.system.outputs.folders import replacing_folder, take_place
from galirep.system.outputs.locks import acquire
from galirep.system.outputs.temporary import is_temporary, restore_folder, temporary_name


def content(folder):
    return {str(p.relative_to(folder)): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def old_folder(tmp_path):
    path = tmp_path / "out"
    (path / ".git").mkdir(parents=True)
    for name in ("a", "b", "notes", ".git/head"):
        (path / name).write_text(f"old {name}")
    (path / "link").symlink_to("notes")
    return path


def renew(path, renewed=("a", "b")):
    with replacing_folder(path, renewed=renewed) as folder:
        (folder / "a").write_text("new a")


OLD = {".git/head": "old .git/head", "a": "old a", "b": "old b", "link": "old notes", "notes": "old notes"}
NEW = {**OLD, "a": "new a"}
del NEW["b"]


def test_the_named_ones_are_renewed_and_all_others_kept(tmp_path):
    path = old_folder(tmp_path)
    inode = (path / "notes").stat().st_ino
    renew(path)
    assert content(path) == NEW and (path / "notes").stat().st_ino == inode and (path / "link").is_symlink()
    renew(path, None)
    assert content(path) == {"a": "new a"} and names(tmp_path) == ["out"]


def test_an_error_leaves_the_old_one(tmp_path):
    path = old_folder(tmp_path)
    with pytest.raises(ValueError, match="stop"), replacing_folder(path, renewed=()) as folder:
        (folder / "a").write_text("new a")
        raise ValueError("stop")
    assert content(path) == OLD and names(tmp_path) == ["out"]


def test_a_kill_at_any_moment_leaves_one_of_them(tmp_path):
    path, seen = old_folder(tmp_path), []
    for _ in moments(lambda: renew(path), tmp_path):
        assert content(path) in (OLD, NEW)
        seen.append(content(path) == NEW)
        # the next writer removes what was left
        acquire(path).release()
        assert names(tmp_path) == ["out"]
        renew(path, None)
        renew(path, None)
        folders.remove(path)
        old_folder(tmp_path)
    assert seen == sorted(seen) and seen.count(True) >= 2 and seen.count(False) >= 5


def test_without_an_exchange_of_names_the_next_writer_puts_the_old_one_back(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "_exchange", lambda *_: False)
    path = old_folder(tmp_path)
    missing = 0
    for _ in moments(lambda: renew(path), tmp_path):
        missing += not path.exists()
        restore_folder(path)
        assert content(path) in (OLD, NEW)
        acquire(path).release()
        assert names(tmp_path) == ["out"]
        folders.remove(path)
        old_folder(tmp_path)
    assert missing == 1
    assert content(path) == NEW
    assert end_at(99, lambda: renew(path), tmp_path) is False


def test_a_folder_by_a_link_is_replaced_behind_it(tmp_path):
    path = old_folder(tmp_path)
    (tmp_path / "by-link").symlink_to("out")
    renew(tmp_path / "by-link", None)
    assert (tmp_path / "by-link").is_symlink() and content(path) == {"a": "new a"}


def test_a_missing_or_an_empty_place(tmp_path):
    for name in ("none", "empty"):
        new = temporary_name(tmp_path / name, "new.")
        new.mkdir()
        (new / "a").write_text("new a")
        if name == "empty":
            (tmp_path / name).mkdir()
        take_place(new, tmp_path / name)
        assert content(tmp_path / name) == {"a": "new a"}
    assert names(tmp_path) == ["empty", "none"]


def test_the_working_folder_is_not_replaced(tmp_path, monkeypatch):
    path = old_folder(tmp_path)
    monkeypatch.chdir(path)
    with pytest.raises(ConfigError, match=r"cannot replace the folder .*out: it is the working folder; name a"):
        renew(path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(type(path), "is_mount", lambda self: True)
    with pytest.raises(ConfigError, match="a disk is mounted on it"):
        renew(path)
    assert content(path) == OLD


def test_temporary_names_are_known_and_others_are_not(tmp_path):
    names = [temporary_name(tmp_path / "x.h5", purpose).name for purpose in ("", "new.", "old.", "lock.")]
    assert all(map(is_temporary, [*names, f"{names[0]}.partial.new", ".x.h5.0123abcd.tmp"]))
    for name in ("x.h5", ".x.h5.tmp", ".x.h5.lock", "x.h5.partial", ".x.0123.tmp", f"{names[0]}.bak", names[0][1:]):
        assert not is_temporary(name), name
