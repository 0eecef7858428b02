"""The retrieval report in a real browser."""

import json
import re
import shutil

import numpy as np
import pytest
from toy_galleries import write_embeddings

import galirep

EVIL = "class0/<script>document.title='owned'</script><img src=x onerror=alert(1)>&\"'.png"
LAYERS = (("features", 4),)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Start a headless Chromium that keeps its console; skip without one (.ci/browser installs it)."""
    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not chromedriver:
        pytest.skip("no chromium or no chromedriver on the PATH: run .ci/browser as root")
    selenium = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install galirep[test]")
    options = selenium.ChromeOptions()
    options.binary_location = chromium
    profile = tmp_path_factory.mktemp("chromium")
    for argument in (
        "headless",
        "no-sandbox",
        "disable-gpu",
        "disable-quic",
        "no-first-run",
        "disable-background-networking",
    ):
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
        """Return what the page requested, besides itself and the data: URIs in it."""
        events = (json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance"))
        urls = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
        return [url for url in urls if not url.startswith(("data:", "file:", "chrome"))]

    def keys(self, *keys):
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def choose(self, select, value):
        self.js(
            "const select = document.getElementById(arguments[0]);"
            "select.value = arguments[1];"
            "select.dispatchEvent(new Event('input', {bubbles: true}))",
            select,
            value,
        )

    def count(self, selector):
        return self.js("return document.querySelectorAll(arguments[0]).length", selector)

    def shown(self):
        return self.js("return [...document.querySelectorAll('.card:not([hidden]) strong')].map(s => s.textContent)")


@pytest.fixture
def page(browser, pictured, tmp_path):
    path = tmp_path / "r.html"
    galirep.retrieve(pictured / "train.h5", pictured / "test.h5", k=5, report=path, duplicates=0.999, outliers=3)
    return Page(browser, path)


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_draws_without_errors_in_both_schemes_and_widths(browser, page, pictured, tmp_path, width, scheme):
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
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
    behind = page.js(
        "return [...document.querySelectorAll('.thumb')].map(t => getComputedStyle(t).backgroundImage.slice(0, 20))"
    )
    assert set(behind) == {'url("data:image/webp'}


def test_filters_choose_by_class_outcome_and_name(page):
    assert len(page.shown()) == 30
    page.choose("class", "class1")
    assert page.shown() == ["class1"] * 10
    assert page.js("return document.getElementById('count').textContent") == "10 of 30 queries"
    page.choose("outcome", "first")
    wrong = page.js("return D.queries.filter(q => labelOf(q.item) === 'class1' && q.neighbors[0][2] === 0).length")
    assert len(page.shown()) == wrong
    page.js("for (const id of ['class', 'outcome']) document.getElementById(id).value = ''")
    page.js("document.getElementById('text').focus()")
    page.keys("class2/005")
    assert page.shown() == ["class2"]
    page.js("document.getElementById('text').value = ''; document.getElementById('order').value = 'worst'; filter()")
    scores = page.js(
        "return [...document.querySelectorAll('.card .score')].map(s => Number(s.textContent.replace('AP@R ', '')))"
    )
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
    gallery = write_embeddings(
        tmp_path / "g.h5",
        r.normal(size=(12, 4)),
        np.arange(12) % 3,
        ids=ids,
        names=names,
        layers=LAYERS,
        source="<b>nowhere</b>",
    )
    galirep.retrieve(gallery, k=2, report=tmp_path / "<i>r.html")
    page = Page(browser, tmp_path / "<i>r.html")
    assert page.js("return document.title") == "Retrieval: g.h5 in g.h5" and page.console() == []
    assert page.count("img") == 0 and set(page.shown()) == set(names)
    assert page.js("return document.querySelector('.name').textContent").endswith(EVIL.removeprefix("class0"))
    assert "<b>nowhere</b>" in page.js("return document.getElementById('note').textContent")


def test_without_labels_there_is_no_hit_or_miss(browser, tmp_path):
    r = np.random.default_rng(0)
    gallery = write_embeddings(tmp_path / "g.h5", r.normal(size=(9, 4)), names=(), layers=LAYERS)
    galirep.retrieve(gallery, k=2, report=tmp_path / "r.html")
    page = Page(browser, tmp_path / "r.html")
    assert page.console() == [] and page.count(".hit, .miss, #classes, #class, #outcome") == 0
    assert page.count(".card") == 9


def test_a_search_without_a_miss_draws_too(browser, tmp_path):
    labels = np.arange(12) % 3
    features = np.eye(3)[labels] + np.random.default_rng(0).normal(0, 0.01, (12, 3))
    gallery = write_embeddings(tmp_path / "g.h5", features, labels, names=("a", "b", "c"), layers=(("features", 3),))
    galirep.retrieve(gallery, k=3, report=tmp_path / "r.html")
    page = Page(browser, tmp_path / "r.html")
    assert page.console() == []
    assert page.count(".found .miss") == page.count("#confused") == 0
    assert page.count(".found .hit") == 36
