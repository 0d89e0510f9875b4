"""The whole report: what stands in it, that the data is never executed, and that a real browser draws it without a network."""

import html
import json
import re
import shutil
import sys
from pathlib import Path

import pytest
from tiny_comparison import example

from recbole_molar.__main__ import main
from recbole_molar.compare import comparison
from recbole_molar.compare.report.catalogue import Catalogue
from recbole_molar.compare.report.page import write_report
from recbole_molar.compare.report.template import render
from recbole_molar.compare.report.rankings import user_panels

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
TITLES = ("<script>document", '"><img src=x', "</script><b>", "{{ 7*7 }}", "<!--")


def test_the_page_holds_every_part(compared):
    for part in ("accuracy", "differences", "segments", "learning", "cost", "users", "map", "alignment", "notes"):
        assert f'<section id="{part}">' in compared.page
    assert compared.page.count("<svg") > 15 and "left out" not in compared.out and "With alignment: Molar &lt;i&gt;" in compared.page
    assert "Without alignment: w/o CL" in compared.page and "http" not in compared.page.lower().replace("http-equiv", "")


def test_nothing_of_the_data_becomes_markup(compared):
    markup = re.sub(r"<script.*?</script>", "", compared.page, flags=re.S)  # ours: two, checked below
    assert compared.page.count("<script") == 2 and "<img src=x" not in compared.page and "</script><b>" not in compared.page
    assert "<b>evil" not in markup and "<!--" not in markup and "Molar <i>" not in markup
    assert html.escape(TITLES[0]) in markup or html.escape(TITLES[1]) in markup  # the titles are there, as text


def test_hits_are_marked_and_only_hits(compared):
    catalogue = Catalogue([Path(model["folders"][0]) for model in compared.found["models"]])
    panels = user_panels(compared.found, catalogue)
    assert panels
    for panel in panels:
        for model in panel["models"]:
            hits = [place for place, item in enumerate(model["items"], start=1) if item["hit"]]
            assert hits in ([], [model["place"]]) and bool(hits) == (model["place"] <= 10)
        assert panel["target"]["id"] == catalogue.dataset.field2id_token["item_id"][catalogue.dataset.sorted_items[_last(catalogue, panel["name"])]]
    assert compared.page.count('class="card hit"') == sum(item["hit"] for panel in panels for model in panel["models"] for item in model["items"])


def _last(catalogue, user):
    return catalogue.dataset.user_ends[catalogue._users[user]] - 1


def test_the_size_is_bounded_by_leaving_pictures_out(compared, tmp_path):
    whole = len(compared.page.encode())
    left_out = write_report(compared.found, tmp_path / "report.html", most_bytes=whole - 3000)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert len(page.encode()) <= whole - 3000 and "pictures, to keep the file below" in left_out[-1] and "pictures, to keep the file below" in page


def test_each_picture_stands_in_the_page_once(compared):
    posters = json.loads(re.search(r'<script type="application/json" id="posters">(.*?)</script>', compared.page, flags=re.S)[1])
    assert len(posters) >= 20 and "i20" not in posters and "i1" not in posters  # broken; none
    assert all(compared.page.count(data) == list(posters.values()).count(data) for data in posters.values())


def test_without_its_packages_the_tables_stand(monkeypatch, tmp_path):
    for name in [name for name in sys.modules if name.startswith("recbole_molar.compare.report")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert 'pip install -e ".[report]"' in comparison._report(example(0.2), tmp_path / "report.html") and not list(tmp_path.iterdir())


def test_report_must_be_true_or_false(capsys):
    assert main(["compare", "--models=Popularity", "--report=maybe"]) == 2 and "--report=maybe: give True or False" in capsys.readouterr().err


def test_our_script_alone_may_run():
    content = dict.fromkeys(("tables", "at_k", "validation", "losses", "differences", "segments", "cost"), {})
    found = {**example(0.2), "dataset": "<script>", "split_hash": "", "mask_history": True, "machine": {"gpu": None, "threads": 1, "cores": 1}}
    for model in found["models"]:
        model["training"] = "<b>"
    content["tables"] = {"Test items": [["", "<td>"]], "Beyond accuracy": [[""]], "Cost of a run": [[""]]}
    page = render("page.html", {**content, "searches": [],
                   "found": found, "headline": "<i>", "notes": [], "colours": 8, "users": [], "shown": 10, "ways": [], "mapped": 0, "n_items": 0,
                   "alignment": [], "left_out": ["<u>"], "posters": {"</script>": "</script>"}})
    assert page.count("<script") == page.count("</script>") == 2 and "&lt;td&gt;" in page and "<i>" not in page
    assert "&lt;u&gt;" in page and "script-src 'sha256-" in page and "default-src 'none'" in page


@pytest.fixture
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.mark.parametrize("width, scheme", [(1280, "light"), (390, "dark")])
def test_a_browser_draws_it_without_errors_or_network(compared, browser, width, scheme):
    page = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme).new_page()
    errors, requests = [], []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type in ("error", "warning") else None)
    page.on("dialog", lambda dialog: errors.append(dialog.message))
    page.on("request", lambda request: requests.append(request.url) if not request.url.startswith("data:") else None)
    page.goto((compared.folder / "report.html").as_uri())
    assert page.evaluate("document.documentElement.dataset.drawn") == "true" and page.evaluate("document.documentElement.dataset.hacked") is None
    assert page.evaluate("document.documentElement.scrollWidth") <= width  # nothing sticks out
    seen = "[...document.querySelectorAll('svg')].filter(c => c.getBoundingClientRect().width)"
    charts = page.evaluate(seen + ".map(c => c.querySelectorAll('path, circle').length)")
    assert len(charts) >= 8 and min(charts) > 0
    images = page.evaluate("[...document.querySelectorAll('img.there')].map(i => i.complete && i.naturalWidth > 0)")
    assert len(images) > 20 and all(images)
    assert page.evaluate("document.querySelectorAll('#learning [data-panel].on').length") == 2
    page.click("text=seconds")
    assert page.evaluate("document.querySelector('#learning .on').dataset.panel") == "seconds"
    mark = page.locator("#map .on circle.item[data-item=i7]").first
    mark.scroll_into_view_if_needed()
    page.wait_for_timeout(200)  # a tip goes away while the page scrolls
    mark.hover(force=True)
    assert page.locator("#tip").inner_text().startswith("Title number") and page.evaluate("!!document.querySelector('#tip img')")
    assert errors == [] and requests == [(compared.folder / "report.html").as_uri()]
