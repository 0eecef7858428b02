"""The retrieval report in a real browser, and what is in the file."""

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
from galirep.projection import project
from galirep.store import EmbeddingWriter, StoreMeta
from galirep.thumbnails import COLUMNS, ROWS, sheets

EVIL = "class0/<script>document.title='owned'</script><img src=x onerror=alert(1)>&\"'.png"


def _pictures(folder, n, seed, classes=3):
    """n noisy pictures, of about the same colour in each class, not so different that no neighbour is of another class."""
    r = np.random.default_rng(seed)
    colours = np.array([[200, 60, 60], [60, 180, 90], [70, 90, 210], [200, 180, 60]])
    ids = []
    for i in range(n):
        name = f"class{i % classes}/{i:03d}.png"
        pixels = np.clip(colours[i % classes] + r.normal(0, 60, 3) + r.normal(0, 30, (24, 24, 3)), 0, 255).astype(np.uint8)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / name)
        ids.append(name)
    return ids


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A gallery and queries with pictures, embedded as 2x2 pixels."""
    folder = tmp_path_factory.mktemp("report")
    for name, n, seed in (("train", 60, 0), ("test", 30, 1)):
        _pictures(folder / name, n, seed)
        galirep.embed("pixels:2", str(folder / name), folder / f"{name}.h5", num_workers=0)
    return folder


def _payload(page):
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(encoding="utf-8"))
    return json.loads(data)


def _hand_made(path, ids, features, labels, names, **meta):
    meta = StoreMeta("toy", (("features", features.shape[1]),), len(ids), label_names=names, fingerprint=path.stem, **meta)
    writer = EmbeddingWriter.create(path, meta, ids, labels)
    writer.append(features.astype(np.float32))
    return writer.finish()


def test_the_page_holds_everything_and_names_nothing_outside(files, tmp_path):
    found = galirep.retrieve(files / "train.h5", files / "test.h5", k=5, report=tmp_path / "r.html", duplicates=0.999, outliers=3)
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text) and not re.search(r'(src|href)="(?!#|data:)', text)
    payload = _payload(tmp_path / "r.html")
    assert payload["summary"]["precision_at_1"] == found.summary()["precision_at_1"] and len(payload["queries"]) == 30
    assert payload["note"] == "" and payload["pictures"]["cell"] == 24 and -1 not in payload["pictures"]["of"]
    items = payload["items"]
    for query in payload["queries"]:
        row = found.query_ids.tolist().index(items[query["item"]][0])
        assert [items[item][0] for item, *_ in query["neighbors"]] == found.gallery_ids[found.neighbors[row]].tolist()
        hits = found.gallery_labels[found.neighbors[row]] == found.query_labels[row]
        assert [hit for *_, hit in query["neighbors"]] == hits.astype(int).tolist()
        assert [value for _, value, _ in query["neighbors"]] == pytest.approx(1 - found.distances[row], abs=1e-4)
        assert query["score"] == pytest.approx(found.measured.map_at_r[row], abs=1e-4)
    assert len({tuple(item) for item in items}) == len(items), "an image stands on the page once"
    assert [items[i][0] for i, _ in payload["outliers"]] == [row["id"] for row in found.summary()["outliers"]]


def test_thumbnails_show_the_image_that_they_stand_for(files, tmp_path):
    galirep.retrieve(files / "train.h5", files / "test.h5", k=3, report=tmp_path / "r.html")
    payload, text = _payload(tmp_path / "r.html"), (tmp_path / "r.html").read_text(encoding="utf-8")
    uris = re.findall(r"\.sheet\d+\{background-image:url\(data:image/webp;base64,([^)]+)\)", text)
    images = [np.asarray(Image.open(io.BytesIO(base64.b64decode(uri))).convert("RGB"), dtype=float) for uri in uris]
    cell = payload["pictures"]["cell"]
    for (name, _, query), at in zip(payload["items"], payload["pictures"]["of"], strict=True):
        sheet, at = divmod(at, COLUMNS * ROWS)
        y, x = at // COLUMNS * cell, at % COLUMNS * cell
        original = np.asarray(Image.open(files / ("test" if query else "train") / name), dtype=float)
        shown = images[sheet][y : y + cell, x : x + cell]
        assert np.abs(shown.mean(axis=(0, 1)) - original.mean(axis=(0, 1))).max() < 12, name


def test_thumbnails_shrink_until_they_fit_the_budget(tmp_path):
    """As many bytes a picture as the page has for 200 queries, 10 neighbours each and 1,000 points; nothing compresses worse than noise."""
    r = np.random.default_rng(0)
    n, budget = 300, 300 * 3_400_000 // 3000
    noise = r.integers(0, 256, (n, 72, 72, 3), dtype=np.uint8)
    np.savez(tmp_path / "noise.npz", images=noise)
    source = galirep.open_data(f"npz:{tmp_path / 'noise.npz'}")
    made = sheets([(source, i) for i in range(n)], budget)
    assert sum(map(len, made.uris)) < 1.36 * budget and 24 <= made.cell < 64 and len(made.uris) == 2
    assert sheets([(source, i) for i in range(n)], 10**9).cell == 64


def test_a_report_without_pictures_says_so_and_options_find_them(files, tmp_path):
    train, test = shutil.copy(files / "train.h5", tmp_path), shutil.copy(files / "test.h5", tmp_path)
    for name in ("train", "test"):
        (files / name).rename(files / f"{name}-moved")
    try:
        galirep.retrieve(train, test, k=2, report=tmp_path / "bare.html")
        payload = _payload(tmp_path / "bare.html")
        assert payload["pictures"] is None and "--data says where" in payload["note"] and "--query-data says where" in payload["note"]
        options = {"data": str(files / "train-moved"), "query_data": str(files / "test-moved")}
        galirep.retrieve(train, test, k=2, report=tmp_path / "full.html", **options)
        assert _payload(tmp_path / "full.html")["note"] == "" and -1 not in _payload(tmp_path / "full.html")["pictures"]["of"]
        with pytest.raises(DataError, match=r"test-moved has no image '.*' \(\d+ of \d+ are not there\)"):
            galirep.retrieve(train, test, k=2, report=tmp_path / "no.html", data=str(files / "test-moved"))
        assert not (tmp_path / "no.html").exists()
    finally:
        for name in ("train", "test"):
            (files / f"{name}-moved").rename(files / name)


def test_the_sample_is_drawn_by_seed(files, tmp_path):
    def drawn(name, **options):
        galirep.retrieve(files / "train.h5", files / "test.h5", k=1, report=tmp_path / name, report_queries=10, **options)
        payload = _payload(tmp_path / name)
        return [payload["items"][query["item"]][0] for query in payload["queries"]]

    assert drawn("a.html") == drawn("b.html") != drawn("c.html", seed=1)
    assert len(drawn("d.html", seed=2)) == 10


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_projections_keep_groups_together(method):
    r = np.random.default_rng(0)
    group = np.repeat([0, 1], 20)
    points = project((r.normal(size=(40, 6)) + 30 * group[:, None]).astype(np.float32), method, 0)
    assert points.shape == (40, 2) and points.min() >= 0 and points.max() <= 1
    centres = np.stack([points[group == g].mean(axis=0) for g in (0, 1)])
    assert (np.linalg.norm(points[:, None] - centres, axis=2).argmin(axis=1) == group).all()


def test_projections_of_nothing_to_tell_apart():
    np.testing.assert_array_equal(project(np.ones((5, 3), np.float32), "pca", 0), np.full((5, 2), 0.5))
    assert np.isfinite(project(np.arange(4, dtype=np.float32)[:, None], "pca", 0)).all()


def test_bad_options_are_refused_before_the_search(files, tmp_path):
    for options, message in (
        ({"projection": "pac"}, "unknown projection 'pac': did you mean 'pca'"),
        ({"report_queries": 0}, "report queries 0: show at least one"),
        ({"report": tmp_path / "no" / "r.html"}, "does not exist"),
    ):
        with pytest.raises(ConfigError, match=message):
            galirep.retrieve(files / "train.h5", files / "test.h5", k=1, **{"report": tmp_path / "r.html", **options})
    (tmp_path / "r.html").write_text("mine")
    with pytest.raises(ConfigError, match=r"r\.html exists"):
        galirep.retrieve(files / "train.h5", k=1, report=tmp_path / "r.html")
    assert (tmp_path / "r.html").read_text() == "mine"


# --- in a browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A headless Chromium that keeps its console; skipped where there is none (.ci/browser installs it)."""
    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not chromedriver:
        pytest.skip("no chromium or no chromedriver on the PATH: run .ci/browser as root")
    selenium = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install galirep[test]")
    options = selenium.ChromeOptions()
    options.binary_location = chromium
    profile = tmp_path_factory.mktemp("chromium")
    for argument in ("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking"):
        options.add_argument(f"--{argument}")
    for argument in ("disable-component-update", "disable-sync", "disable-dev-shm-usage", f"user-data-dir={profile}"):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = selenium.Chrome(options=options, service=selenium.ChromeService(chromedriver))
    yield driver
    driver.quit()


class Page:
    """An open report."""

    def __init__(self, driver, path, width=1280):
        self.driver = driver
        driver.get_log("performance")
        screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        driver.get(path.as_uri())
        assert self.js("return document.documentElement.dataset.ready") == "true", self.console()

    def js(self, code, *args):
        return self.driver.execute_script(code, *args)

    def console(self):
        return [entry for entry in self.driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]

    def requests(self):
        """What the page asked for, beside itself and the data within it."""
        events = (json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance"))
        urls = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
        return [url for url in urls if not url.startswith(("data:", "file:", "chrome"))]

    def keys(self, *keys):
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def count(self, selector):
        return self.js("return document.querySelectorAll(arguments[0]).length", selector)

    def shown(self):
        return self.js("return [...document.querySelectorAll('.card:not([hidden]) strong')].map(s => s.textContent)")


@pytest.fixture
def page(browser, files, tmp_path):
    path = tmp_path / "r.html"
    galirep.retrieve(files / "train.h5", files / "test.h5", k=5, report=path, duplicates=0.999, outliers=3)
    return Page(browser, path)


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_draws_without_errors_in_both_schemes_and_widths(browser, page, files, tmp_path, width, scheme):
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
    page = Page(browser, tmp_path / "r.html", width)
    assert page.console() == [] and page.requests() == []
    assert page.js("return document.documentElement.scrollWidth") <= width
    paper = page.js("return getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", paper)[:3])) < 200) == (scheme == "dark")
    assert page.count(".card") == 30 and page.count("#plot .point") == 90
    # hit and miss differ by more than colour: a solid and a dashed frame, a tick and a cross
    for kind, style, mark in (("hit", "solid", "✓"), ("miss", "dashed", "✕")):
        frame = f"document.querySelector('.found .{kind} .frame')"
        assert page.js(f"return getComputedStyle({frame}).borderTopStyle") == style
        assert mark in page.js(f"return getComputedStyle({frame}, '::after').content")
    # pictures are there: every thumbnail has a sheet behind it
    behind = page.js("return [...document.querySelectorAll('.thumb')].map(t => getComputedStyle(t).backgroundImage.slice(0, 20))")
    assert set(behind) == {'url("data:image/webp'}


def test_filters_choose_by_class_outcome_and_name(page):
    assert len(page.shown()) == 30
    page.js("const s = document.getElementById('class'); s.value = 'class1'; s.dispatchEvent(new Event('input', {bubbles: true}))")
    assert page.shown() == ["class1"] * 10
    assert page.js("return document.getElementById('count').textContent") == "10 of 30 queries"
    page.js("const s = document.getElementById('outcome'); s.value = 'first'; s.dispatchEvent(new Event('input', {bubbles: true}))")
    wrong = page.js("return D.queries.filter(q => labelOf(q.item) === 'class1' && q.neighbors[0][2] === 0).length")
    assert len(page.shown()) == wrong
    page.js("for (const id of ['class', 'outcome']) document.getElementById(id).value = ''; document.getElementById('text').focus()")
    page.keys("class2/005")
    assert page.shown() == ["class2"]
    page.js("document.getElementById('text').value = ''; document.getElementById('order').value = 'worst'; filter()")
    scores = page.js("return [...document.querySelectorAll('.card .score')].map(s => Number(s.textContent.replace('AP@R ', '')))")
    assert scores == sorted(scores) and len(scores) == 30


def test_the_keyboard_reaches_everything(page):
    from selenium.webdriver import Keys

    page.keys(Keys.TAB)
    assert page.js("return document.activeElement.className") == "skip"
    visited = set()
    for _ in range(60):
        page.keys(Keys.TAB)
        visited.add(page.js("return document.activeElement.id || document.activeElement.tagName"))
    assert {"class", "outcome", "order", "text", "SUMMARY", "A"} <= visited
    # a class of the table filters the queries
    page.js("document.querySelector('#table td button').focus()")
    name = page.js("return document.activeElement.textContent")
    page.keys(Keys.ENTER)
    assert page.shown() == [name] * 10 and page.js("return document.activeElement.id") == "class"
    # the map: arrows go from point to point, Enter goes to a query's card
    page.js("document.getElementById('plot').focus()")
    seen = set()
    for _ in range(90):
        page.keys(Keys.ARROW_RIGHT)
        seen.add(page.js("return document.getElementById('tip').textContent"))
        if page.js("return document.querySelector('#tip').textContent.includes('Enter')"):
            break
    assert seen and page.count("#plot .on") == 1
    page.keys(Keys.ENTER)
    assert page.js("return document.activeElement.className") == "card" and len(page.shown()) == 30
    assert page.console() == []


def test_the_table_sorts_and_the_legend_hides(page):
    from selenium.webdriver import Keys

    page.js("document.querySelector('#table th button').focus()")
    page.keys(Keys.ENTER)
    names = page.js("return [...document.querySelectorAll('#table td:first-child')].map(t => t.textContent)")
    assert names == ["class0", "class1", "class2"]
    assert page.js("return document.querySelector('#table th').getAttribute('aria-sort')") == "ascending"
    page.keys(Keys.ENTER)
    assert page.js("return document.querySelector('#table td').textContent") == "class2"
    page.js("document.querySelector('#map-legend button').click()")
    assert page.count("#plot .off") == 30
    assert page.js("return document.querySelector('#map-legend button').getAttribute('aria-pressed')") == "false"


def test_names_are_text_never_markup(browser, tmp_path):
    r = np.random.default_rng(0)
    names = ("</script><script>document.title='owned'</script>", "{{data}}", "b & c")
    ids = [EVIL.replace("class0", f"{i}") for i in range(12)]
    gallery = _hand_made(tmp_path / "g.h5", ids, r.normal(size=(12, 4)), np.arange(12) % 3, names, source="<b>nowhere</b>")
    galirep.retrieve(gallery, k=2, report=tmp_path / "<i>r.html")
    page = Page(browser, tmp_path / "<i>r.html")
    assert page.js("return document.title") == "Retrieval: g.h5 in g.h5" and page.console() == []
    assert page.count("img") == 0 and set(page.shown()) == set(names)
    assert page.js("return document.querySelector('.name').textContent").endswith(EVIL.removeprefix("class0"))
    assert "<b>nowhere</b>" in page.js("return document.getElementById('note').textContent")


def test_without_labels_there_is_no_hit_or_miss(browser, tmp_path):
    r = np.random.default_rng(0)
    gallery = _hand_made(tmp_path / "g.h5", [f"{i}.png" for i in range(9)], r.normal(size=(9, 4)), None, ())
    galirep.retrieve(gallery, k=2, report=tmp_path / "r.html")
    page = Page(browser, tmp_path / "r.html")
    assert page.console() == [] and page.count(".hit, .miss, #classes, #class, #outcome") == 0
    assert page.count(".card") == 9


def test_a_search_without_a_miss_draws_too(browser, tmp_path):
    labels = np.arange(12) % 3
    features = np.eye(3)[labels] + np.random.default_rng(0).normal(0, 0.01, (12, 3))
    gallery = _hand_made(tmp_path / "g.h5", [f"{i}.png" for i in range(12)], features, labels, ("a", "b", "c"))
    galirep.retrieve(gallery, k=3, report=tmp_path / "r.html")
    page = Page(browser, tmp_path / "r.html")
    assert page.console() == [] and page.count(".found .miss") == page.count("#confused") == 0 and page.count(".found .hit") == 36
