"""The retrieval report: content of the file and refused options."""

import base64
import io
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

import galirep
from galirep.errors import ConfigError, DataError
from galirep.visuals.thumbnails import COLUMNS, ROWS


def _payload(page):
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(encoding="utf-8"))
    return json.loads(data)


def test_the_page_holds_everything_and_names_nothing_outside(pictured, tmp_path):
    result = galirep.retrieve(
        pictured / "train.h5", pictured / "test.h5", k=5, report=tmp_path / "r.html", duplicates=0.999, outliers=3
    )
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)
    assert not re.search(r'(src|href)="(?!#|data:)', text)
    payload = _payload(tmp_path / "r.html")
    assert payload["summary"]["precision_at_1"] == result.summary()["precision_at_1"] and len(payload["queries"]) == 30
    assert payload["note"] == "" and payload["pictures"]["cell"] == 24 and -1 not in payload["pictures"]["of"]
    items = payload["items"]
    for query in payload["queries"]:
        row = result.query_ids.tolist().index(items[query["item"]][0])
        assert [items[item][0] for item, *_ in query["neighbors"]] == result.gallery_ids[result.neighbors[row]].tolist()
        hits = result.gallery_labels[result.neighbors[row]] == result.query_labels[row]
        assert [hit for *_, hit in query["neighbors"]] == hits.astype(int).tolist()
        assert [value for _, value, _ in query["neighbors"]] == pytest.approx(1 - result.distances[row], abs=1e-4)
        assert query["score"] == pytest.approx(result.measured.map_at_r[row], abs=1e-4)
    assert len({tuple(item) for item in items}) == len(items), "an image stands on the page once"
    assert [items[i][0] for i, _ in payload["outliers"]] == [row["id"] for row in result.summary()["outliers"]]


def test_thumbnails_show_the_image_that_they_stand_for(pictured, tmp_path):
    galirep.retrieve(pictured / "train.h5", pictured / "test.h5", k=3, report=tmp_path / "r.html")
    payload, text = _payload(tmp_path / "r.html"), (tmp_path / "r.html").read_text(encoding="utf-8")
    uris = re.findall(r"\.sheet\d+\{background-image:url\(data:image/webp;base64,([^)]+)\)", text)
    images = [np.asarray(Image.open(io.BytesIO(base64.b64decode(uri))).convert("RGB"), dtype=float) for uri in uris]
    cell = payload["pictures"]["cell"]
    for (name, _, query), thumbnail in zip(payload["items"], payload["pictures"]["of"], strict=True):
        sheet, place = divmod(thumbnail, COLUMNS * ROWS)
        y, x = place // COLUMNS * cell, place % COLUMNS * cell
        original = np.asarray(Image.open(pictured / ("test" if query else "train") / name), dtype=float)
        shown = images[sheet][y : y + cell, x : x + cell]
        assert np.abs(shown.mean(axis=(0, 1)) - original.mean(axis=(0, 1))).max() < 12, name


def test_a_report_without_pictures_says_so_and_options_find_them(pictured, tmp_path):
    train, test = shutil.copy(pictured / "train.h5", tmp_path), shutil.copy(pictured / "test.h5", tmp_path)
    for name in ("train", "test"):
        (pictured / name).rename(pictured / f"{name}-moved")
    try:
        galirep.retrieve(train, test, k=2, report=tmp_path / "bare.html")
        payload = _payload(tmp_path / "bare.html")
        assert payload["pictures"] is None
        assert "--data says where" in payload["note"] and "--query-data says where" in payload["note"]
        options = {"data": str(pictured / "train-moved"), "query_data": str(pictured / "test-moved")}
        galirep.retrieve(train, test, k=2, report=tmp_path / "full.html", **options)
        payload = _payload(tmp_path / "full.html")
        assert payload["note"] == "" and -1 not in payload["pictures"]["of"]
        with pytest.raises(DataError, match=r"test-moved has no image '.*' \(\d+ of \d+ are missing\)"):
            galirep.retrieve(train, test, k=2, report=tmp_path / "no.html", data=str(pictured / "test-moved"))
        assert not (tmp_path / "no.html").exists()
    finally:
        for name in ("train", "test"):
            (pictured / f"{name}-moved").rename(pictured / name)


def test_the_sample_is_drawn_by_seed(pictured, tmp_path):
    def drawn(name, **options):
        galirep.retrieve(
            pictured / "train.h5", pictured / "test.h5", k=1, report=tmp_path / name, report_queries=10, **options
        )
        payload = _payload(tmp_path / name)
        return [payload["items"][query["item"]][0] for query in payload["queries"]]

    assert drawn("a.html") == drawn("b.html") != drawn("c.html", seed=1)
    assert len(drawn("d.html", seed=2)) == 10


def test_bad_options_are_refused_before_the_search(pictured, tmp_path):
    for options, message in (
        ({"projection": "pac"}, "unknown projection 'pac': did you mean 'pca'"),
        ({"report_queries": 0}, "report queries must be at least 1, not 0"),
        ({"report": tmp_path / "no" / "r.html"}, "does not exist"),
    ):
        with pytest.raises(ConfigError, match=message):
            galirep.retrieve(
                pictured / "train.h5", pictured / "test.h5", k=1, **{"report": tmp_path / "r.html", **options}
            )
    (tmp_path / "r.html").write_text("mine")
    with pytest.raises(ConfigError, match=r"r\.html exists"):
        galirep.retrieve(pictured / "train.h5", k=1, report=tmp_path / "r.html")
    assert (tmp_path / "r.html").read_text() == "mine"
