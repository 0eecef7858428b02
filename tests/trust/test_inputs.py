"""No command destroys what it reads, and none replaces a pipe or device, whatever --overwrite says."""

import os
import shutil
from pathlib import Path

import pytest

from galirep.errors import ConfigError
from galirep.runs.directory import RunDirectory
from galirep.system.files import require_free, require_free_folder
from galirep.system.outputs.inputs import RUN_FILES, require_apart
from galirep.system.outputs.locks import acquire

OLD = Path(__file__).parents[1] / "fixtures" / "written_by_04408f9"


@pytest.fixture
def files(galleries, tmp_path):
    """Embedding files, links to one, a run, and a folder of an image."""
    (tmp_path / "link.h5").symlink_to("gallery.h5")
    os.link(tmp_path / "gallery.h5", tmp_path / "hard.h5")
    shutil.copytree(OLD / "run", tmp_path / "run")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "1.png").write_bytes(b"an image")
    (tmp_path / "p.json").symlink_to("gallery.h5")
    return tmp_path


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "command",
    [
        "index gallery.h5 --out gallery.h5",
        "index gallery.h5 --out run/../gallery.h5",
        "index gallery.h5 --out link.h5",
        "index link.h5 --out hard.h5",
        "probe gallery.h5 --out gallery.h5",
        "probe gallery.h5 --test queries.h5 --out queries.h5",
        "probe gallery.h5 --out p.json",
        "retrieve --gallery gallery.h5 --queries queries.h5 --out queries.h5",
        "retrieve --gallery gallery.h5 --queries queries.h5 --report gallery.h5",
        "report run --out run/run.json",
        "report run --out run/samples/new.html",
        "report run@last --out images/../run/config.yaml",
        "sample run --out run/samples/x.png",
        "reconstruct run --data images --out images/1.png",
        "info images --out images/1.png",
        "embed --encoder pixels:2 --data images --out images/1.png",
        "embed --encoder run:run --data images --out run/export/encoder.safetensors",
        "evaluate run --data images --out run/run.json",
        "export run --out run/export",
        "export run --out run",
        "train --data images --init-from run --out run",
        "train-classifier --data run/samples --out run",
        "export gallery.h5 --out gallery.h5",
    ],
)
def test_an_output_that_is_an_input_is_refused_and_nothing_changes(command, cli, files, monkeypatch):
    monkeypatch.chdir(files)
    before = contents(files)
    (files / "run" / "samples").mkdir(exist_ok=True)
    result = cli(*command.split(), "--overwrite")
    assert result.exit_code == 1, result.output
    assert "is an input of this command" in result.stderr and result.stderr.count("\n") == 1
    assert contents(files) == before


def test_an_index_and_its_files_are_inputs(files):
    names = [files / name for name in ("x.faiss", "x.faiss.json", "x.faiss.rows.h5")]
    for path in names:
        path.touch()
    for path in names:
        with pytest.raises(ConfigError, match="is an input of this command"):
            require_apart([path], [names[0]])


def test_outputs_beside_inputs_pass(files):
    (files / "run" / "report.html").touch()
    (files / "images" / "all.h5").touch()
    require_apart([files / "run" / "report.html", files / "run" / "new.png"], [files / "run", "sklearn:digits", None])
    require_apart([files / "images" / "all.h5", files / "images" / "new.h5"], [str(files / "images"), object()])
    require_apart([files / "gallery.h5.json"], [files / "gallery.h5"])
    require_apart([files / "run"], [files / "run" / "samples"])


def test_the_files_of_a_run_are_all_known(tmp_path):
    run = RunDirectory(tmp_path)
    own = {path.relative_to(tmp_path).parts[0] for path in vars(run).values() if path != tmp_path}
    assert own | {"tb"} == RUN_FILES


@pytest.mark.parametrize("kind", ["pipe", "link to a device"])
def test_pipes_and_devices_are_never_replaced(kind, cli, galleries, tmp_path):
    out = tmp_path / "out.json"
    if kind == "pipe":
        os.mkfifo(out)
    else:
        out.symlink_to("/dev/null")
    for check in (require_free, require_free_folder, lambda path, _: acquire(path)):
        with pytest.raises(ConfigError, match=r"is a (pipe|device)"):
            check(out, True)
    result = cli("probe", galleries[0], "--out", out, "--overwrite")
    assert result.exit_code == 1 and "never replaced" in result.stderr
    assert out.is_fifo() or out.is_symlink()
    assert not list(tmp_path.glob(".*"))


def test_of_a_link_to_a_file_the_link_is_replaced(cli, galleries, tmp_path):
    (tmp_path / "old.json").write_text("kept")
    (tmp_path / "out.json").symlink_to("old.json")
    assert cli("probe", galleries[0], "--out", tmp_path / "out.json", "--overwrite").exit_code == 0
    assert (tmp_path / "old.json").read_text() == "kept" and not (tmp_path / "out.json").is_symlink()
