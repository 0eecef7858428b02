"""A report shows the pictures of --data or of the file's own folder, and no text of a file fills its template."""

import json
import re
import shutil

import h5py
import pytest
from toy_galleries import draw_pictures

import galirep
from galirep.visuals.page import render_page


def _payload(page):
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(encoding="utf-8"))
    return json.loads(data)


@pytest.fixture
def strange(pictured, tmp_path):
    """Make an embedding file of a stranger, in a folder of its own, that says its pictures are elsewhere."""
    (tmp_path / "theirs").mkdir()
    path = shutil.copy(pictured / "train.h5", tmp_path / "theirs" / "train.h5")
    with h5py.File(path, "r") as file:
        assert file.attrs["source"].decode() == str(pictured / "train")
    return path


def test_pictures_are_not_taken_from_a_folder_that_the_file_names(strange, pictured, tmp_path, cli):
    arguments = ("retrieve", "--gallery", strange, "-k", 2, "--report", tmp_path / "r.html", "--overwrite")
    done = cli(*arguments)
    assert done.exit_code == 0 and "--data says where they are" in done.stderr
    payload = _payload(tmp_path / "r.html")
    assert payload["pictures"] is None and "is not under the folder of train.h5" in payload["note"]
    assert "data:image/webp" not in (tmp_path / "r.html").read_text(encoding="utf-8")
    assert cli(*arguments, "--data", pictured / "train").exit_code == 0
    payload = _payload(tmp_path / "r.html")
    assert payload["note"] == "" and -1 not in payload["pictures"]["of"]


def test_queries_likewise(strange, pictured, tmp_path):
    galirep.retrieve(pictured / "test.h5", strange, k=2, report=tmp_path / "r.html")
    payload = _payload(tmp_path / "r.html")
    shown = [thumbnail >= 0 for thumbnail in payload["pictures"]["of"]]
    assert [not query for *_, query in payload["items"]] == shown and any(shown)
    assert "pictures of the queries were not found" in payload["note"]


@pytest.mark.parametrize("way", ("link", "list", "up"))
def test_nor_by_a_link_or_a_list_in_its_folder(way, pictured, tmp_path):
    folder = tmp_path / "theirs"
    folder.mkdir()
    draw_pictures(tmp_path / "mine", 8, 5)
    if way == "link":
        (folder / "photos").symlink_to(tmp_path / "mine")
        spec = str(folder / "photos")
    elif way == "up":
        spec = str(folder / ".." / "mine")
    else:
        names = sorted((tmp_path / "mine").rglob("*.png"))
        (folder / "list.csv").write_text(
            "path\n" + "".join(f"../mine/{n.relative_to(tmp_path / 'mine')}\n" for n in names)
        )
        spec = f"csv:{folder / 'list.csv'}"
    galirep.embed("pixels:2", spec, folder / "x.h5", num_workers=0)
    galirep.retrieve(folder / "x.h5", k=2, report=tmp_path / "r.html")
    payload = _payload(tmp_path / "r.html")
    assert payload["pictures"] is None and "is not under the folder of x.h5" in payload["note"]
    galirep.retrieve(folder / "x.h5", k=2, report=tmp_path / "given.html", data=spec)
    assert _payload(tmp_path / "given.html")["note"] == ""


def test_a_single_picture_that_is_a_link(tmp_path):
    folder = tmp_path / "theirs"
    draw_pictures(folder / "photos", 8, 5)
    victim = sorted((folder / "photos").rglob("*.png"))[0]
    victim.rename(tmp_path / "mine.png")
    victim.symlink_to(tmp_path / "mine.png")
    galirep.embed("pixels:2", str(folder / "photos"), folder / "x.h5", num_workers=0)
    galirep.retrieve(folder / "x.h5", k=2, report=tmp_path / "r.html")
    assert _payload(tmp_path / "r.html")["pictures"] is None


def test_a_set_without_a_place_of_its_own_is_shown(tmp_path):
    galirep.embed("pixels:2", "sklearn:digits", tmp_path / "x.h5", split="test", num_workers=0)
    galirep.retrieve(tmp_path / "x.h5", k=2, report=tmp_path / "r.html")
    assert _payload(tmp_path / "r.html")["note"] == ""


@pytest.mark.parametrize("name", ("{{script}}", "{{style}}", "{{data}}", "{{policy}}", "{{title}}"))
def test_a_name_that_is_a_placeholder_stays_a_name(name, pictured, tmp_path):
    gallery = shutil.copy(pictured / "train.h5", tmp_path / f"{name}.h5")
    galirep.retrieve(gallery, k=2, report=tmp_path / "r.html", data=str(pictured / "train"))
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    for tag in ("title", "h1"):
        assert re.findall(f"<{tag}>(.*?)</{tag}>", page) == [f"Retrieval: {name}.h5 in {name}.h5"]
    assert page.count("<script") == 2 and page.count("<style>") == 1
    _payload(tmp_path / "r.html")


def test_every_part_of_the_page_is_taken_as_it_is():
    page = render_page("{{data}}", {"a": "{{script}} {{title}}"}, ["{{script}}"])
    assert "<title>{{data}}</title>" in page and '"{{script}} {{title}}"' in page and "url({{script}})" in page
