"""The page of a report, in a real browser: self-contained, readable, and safe with any name."""

from __future__ import annotations

import itertools
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import reports

from llmrec_kernels.profiler import html, human

PAGES = reports.pages()
WIDE, NARROW = 1280, 360
SVG = "{http://www.w3.org/2000/svg}"
ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
# Of every element that has text of its own and is drawn: the text, its colour, and the colours
# of what is behind it from the nearest to the page.
COLOURS = """
() => [...document.querySelectorAll("body *")].flatMap(element => {
  const own = [...element.childNodes].filter(node => node.nodeType === 3).map(n => n.data.trim());
  if (!own.join("") || !element.getClientRects().length) return [];
  if (["title", "desc"].includes(element.tagName)) return [];
  const style = getComputedStyle(element), behind = [];
  for (let box = element; box; box = box.parentElement)
    behind.push(getComputedStyle(box).backgroundColor);
  const drawn = element instanceof SVGElement ? style.fill : style.color;
  return [[own.join(" "), drawn, behind]];
})
"""
# Of every roofline that is drawn: its size, and its texts with their boxes, in its own units.
LABELS = """
() => [...document.querySelectorAll("svg.roofline")].filter(e => e.getClientRects().length)
  .map(svg => {
    const texts = [...svg.querySelectorAll("text")].map(text => {
      const box = text.getBBox();
      return [text.textContent, box.x, box.y, box.x + box.width, box.y + box.height];
    });
    return [svg.viewBox.baseVal.width, svg.viewBox.baseVal.height, texts];
  })
"""


class Shown:
    """A page in a window: what it asked for, and what it complained of."""

    def __init__(self, browser: Any, path: Path) -> None:
        self.page = browser.new_page()
        self.requests: list[str] = []
        self.messages: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.goto(path.as_uri())
        self.page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium; LLMREC_REQUIRE_BROWSER=1 makes its absence a failure."""
    missing = pytest.fail if os.environ.get("LLMREC_REQUIRE_BROWSER") == "1" else pytest.skip
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        missing(f"no browser: {error}")
    path = shutil.which("chromium")
    if path is None:
        missing("no browser: there is no chromium on the path")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        yield started
        started.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The pages on the disk."""
    folder = tmp_path_factory.mktemp("pages")
    found = {name: folder / f"{name}.html" for name in PAGES}
    for name, path in found.items():
        html.write_html(PAGES[name], path)
    return found


@pytest.fixture(scope="module")
def show(browser: Any, files: dict[str, Path]) -> Iterator[Any]:
    """Show a page at a width and in a theme; every page is opened once."""
    opened: dict[str, Shown] = {}

    def show_it(name: str, width: int = WIDE, theme: str = "light") -> Shown:
        if name not in opened:
            opened[name] = Shown(browser, files[name])
        shown = opened[name]
        shown.page.set_viewport_size({"width": width, "height": 800})
        shown.page.emulate_media(color_scheme=theme)
        return shown

    yield show_it
    for each in opened.values():
        each.page.close()


def channels(colour: str) -> list[float]:
    """Red, green, blue, and how opaque."""
    found = [float(each) for each in re.findall(r"[\d.]+", colour)]
    return found if len(found) == 4 else [*found, 1.0]


def contrast(front: str, back: str) -> float:
    """As WCAG 2 has it."""

    def luminance(colour: str) -> float:
        linear = [
            c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
            for c in (channel / 255 for channel in channels(colour)[:3])
        ]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(front), luminance(back)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_asks_for_nothing_and_complains_of_nothing(show, files, name):
    shown = show(name)
    assert shown.requests == [files[name].as_uri()]
    assert shown.messages == []


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_never_scrolls_sideways(show, name, width):
    page = show(name, width).page
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    # Nothing sticks out of the text column either, but for what scrolls in itself.
    sticking = page.evaluate(
        """width => [...document.querySelectorAll("main *")].filter(element =>
          !element.closest(".scroll") && element.getBoundingClientRect().right > width + 0.5)
          .map(element => element.outerHTML.slice(0, 80))""",
        width,
    )
    assert sticking == []


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", ["predicted", "hostile", "above the roof", "merged"])
def test_all_text_can_be_read(show, name, theme):
    found = show(name, WIDE, theme).page.evaluate(COLOURS)
    assert len(found) > 50
    for text, front, behind in found:
        back = next(colour for colour in behind if channels(colour)[3] == 1)
        assert contrast(front, back) >= 4.5, text


def test_light_and_dark_differ(show):
    light, dark = (
        show("cpu", WIDE, theme).page.evaluate("getComputedStyle(document.body).backgroundColor")
        for theme in ("light", "dark")
    )
    assert contrast(light, dark) > 10


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("name", [name for name in PAGES if name != "without roofline"])
def test_the_labels_of_a_roofline_lie_inside_it_and_on_no_other(show, name, width):
    drawn = show(name, width).page.evaluate(LABELS)
    assert len(drawn) == (2 + len(PAGES["merged"]) if name == "merged" else 1)
    for wide, high, texts in drawn:
        assert len(texts) >= 8
        for text, left, top, right, bottom in texts:
            assert left >= 0, text
            assert top >= 0, text
            assert right <= wide, text
            assert bottom <= high, text
        for one, other in itertools.combinations(texts, 2):
            apart = (
                one[3] <= other[1] or other[3] <= one[1] or one[4] <= other[2] or other[4] <= one[2]
            )
            assert apart, (one, other)


def test_the_roofline_names_its_axes_roofs_call_and_operators(show):
    page = show("gpu").page
    texts = set(page.locator("svg.wide text").all_text_contents())
    assert {"operations a second", "operations per byte", "whole call"} <= texts
    assert {"main memory 2.90 TB/s", "cache 6.50 TB/s", "bfloat16 941 TFLOP/s"} <= texts
    assert {"llmrec.cosine_topk", "llmrec.embedding_bag"} <= texts
    dashes = {
        style: page.locator(f"svg.wide path.{style}").last.evaluate(
            "path => getComputedStyle(path).strokeDasharray"
        )
        for style in ("cache", "level")
    }
    assert dashes["cache"] != "none"
    assert dashes["level"] == "none"


def test_the_caption_says_what_is_not_in_the_picture(show):
    caption = show("cpu").page.locator("figcaption").inner_text()
    assert "there is no place for aten.copy_, aten.sort." in caption
    assert "no place" not in show("gpu").page.locator("figcaption").inner_text()
    page = show("hostile").page
    unnamed = 1 + 44 - page.locator("svg.wide text.mark").count()
    assert unnamed > 0
    assert f"No room for {unnamed} labels" in page.locator("figcaption").inner_text()


def test_marks_are_hollow_where_they_are_modelled(show):
    def fills(name: str) -> list[bool]:
        page = show(name).page
        behind = page.evaluate("getComputedStyle(document.body).backgroundColor")
        marks = page.locator("svg.wide .call path, svg.wide .operator circle")
        colours = marks.evaluate_all("all => all.map(each => getComputedStyle(each).fill)")
        return [colour == behind for colour in colours]

    assert fills("modelled") == [True] * 3
    assert fills("gpu") == [False] * 3
    assert "Hollow: modelled." in show("modelled").page.locator("figcaption").inner_text()


def test_names_are_text_and_never_markup(show):
    page = show("hostile").page
    assert page.locator("script, img").count() == 0
    assert page.title() == f"{reports.SCRIPT} {reports.LONG}"
    assert page.locator("h1").text_content() == f"{reports.SCRIPT} {reports.LONG}"
    operators = page.locator("tbody th code").all_text_contents()
    assert operators[:2] == [reports.SCRIPT, reports.IMAGE]
    assert operators[2] == human.plain(reports.ESCAPE)
    assert len(operators) == 44
    described = page.locator("svg.wide desc").text_content()
    assert reports.SCRIPT in described


def test_the_ten_slowest_operators_are_shown_and_the_rest_on_demand(show):
    page = show("hostile").page
    assert page.locator("section > .scroll tbody code").count() == 10
    assert page.locator("details tbody code").count() == 34
    assert page.locator("details summary").inner_text().startswith("34 more: 14.44 ms, 33%")


def test_bars_are_as_long_as_shares(show):
    page = show("cpu").page
    wide = page.locator(".bar").evaluate_all(
        "all => all.map(bar => bar.getBoundingClientRect().width)"
    )
    assert wide[1] / wide[0] == pytest.approx(0.7 / 13.1, rel=0.05)


def test_lookups_say_how_many_of_their_rows_differ(show):
    names = show("gpu").page.get_by_role("region", name="Time by operator").locator("tbody th")
    assert names.all_inner_texts() == [
        "llmrec.cosine_topk",
        "llmrec.embedding_bag\n12,000 rows, 9,000 differ",
    ]


def test_the_environment_says_what_is_not_known(show):
    def facts(name: str) -> dict[str, str]:
        rows = show(name).page.get_by_role("region", name="Environment").locator("tr")
        return dict(row.split("\t") for row in rows.all_inner_texts())

    gpu = facts("gpu")
    assert gpu["GPU"] == "NVIDIA H100 80GB HBM3"
    assert gpu["GPU memory"] == "85.0 GB"
    assert gpu["Multiprocessor clock"] == "1,980 MHz"
    assert gpu["Slice of a GPU (MIG)"] == "no"
    assert gpu["Shared with other processes"] == "not known"
    cpu = facts("cpu")
    assert cpu["CPU clock"] == "not known"
    assert cpu["CUDA"] == "none"
    assert "GPU" not in cpu


def test_every_figure_stands_with_its_label(show):
    page = show("cpu").page
    rows = dict(
        zip(
            *(
                page.locator(f"table tbody {cell}").all_inner_texts()
                for cell in ("th:first-child", "th + td")
            ),
            strict=True,
        )
    )
    assert rows["cpu"].split("\n") == ["900 mJ", "estimated", "360 to 1,440 mJ"]
    assert rows["dram"] == rows["Price of machine"] == "unavailable"
    assert "dram: RAPL has no dram domain here" in page.locator(".note").all_inner_texts()
    keys = page.locator(".keys dd").all_inner_texts()
    assert keys[2].split("\n") == ["87%", "bound: compute"]
    assert keys[3].split("\n") == ["14.1 mJ", "estimated", "5.63 to 22.5 mJ"]
    assert keys[5] == "unavailable"
    modelled = show("modelled").page.locator(".keys dd").all_inner_texts()
    assert modelled[2].split("\n") == ["63%", "bound: memory, modelled"]


def test_a_share_above_the_roof_is_explained(show):
    text = show("above the roof").page.locator("p.warnings").inner_text()
    assert text == "Above 100%: the items stay in the cache, which is faster than main memory"


def test_predictions_keep_their_order_and_are_modelled(show):
    page = show("predicted").page
    rows = page.get_by_role("region", name="Predictions").locator("tbody tr").all_inner_texts()
    assert [row.split()[0] for row in rows] == ["H100-SXM", "L4", "V100-PCIe"]
    assert rows[0].count("modelled") == 3
    assert rows[2].split() == ["V100-PCIe", "unavailable"]


def test_merged_runs_begin_with_cells_by_machines(show):
    page = show("merged").page
    table = page.locator("table.summary")
    machines = table.locator("thead th").all_inner_texts()[2:]
    assert machines == ["AMD EPYC 7R13 Processor, cpu", "NVIDIA H100 80GB HBM3, cuda:0"]
    rows = [row.split("\n") for row in table.locator("tbody tr").all_inner_texts()]
    assert len(rows) == 4
    last = " ".join(rows[3])
    assert "151.7 ms" in last
    assert "81% of the roof" in last
    assert "14.1 mJ for 1 query, estimated" in last
    assert last.endswith("not run")


def test_a_roofline_of_merged_runs_has_all_cells_of_its_machine_by_number(show):
    figures = show("merged").page.locator("main > section > figure")
    assert figures.count() == 2
    for figure, numbers in ((figures.nth(0), "1234"), (figures.nth(1), "123")):
        assert set(figure.locator("svg.wide text.mark").all_text_contents()) == set(numbers)


def test_a_cell_leads_to_its_report(browser, files):
    page = browser.new_page()
    page.goto(files["merged"].as_uri())
    report = page.locator("#report-6")
    assert not report.is_visible()
    page.get_by_role("link", name="339.5 µs").click()
    assert report.is_visible()
    assert "NVIDIA H100" in report.locator(".about").inner_text()
    page.close()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_well_formed_and_its_parts_are_named(name):
    tree = ElementTree.fromstring(html.page(PAGES[name]))
    ids = [element.get("id") for element in tree.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    levels = [int(e.tag[1]) for e in tree.iter() if re.fullmatch("h[1-6]", e.tag)]
    assert levels[0] == 1
    assert all(deeper <= level + 1 for level, deeper in itertools.pairwise(levels))
    assert all(th.get("scope") in ("col", "row") for th in tree.iter("th"))
    for svg in tree.iter("svg"):
        named = (svg.get("aria-labelledby") or "").split()
        assert named == [svg.find(part).get("id") for part in ("title", "desc")]


def test_a_page_is_written_whole(tmp_path):
    path = tmp_path / "report.html"
    reports.cpu_report().to_html(path)
    assert path.read_text(encoding="utf-8") == html.page([reports.cpu_report()])
    with pytest.raises(ValueError, match="there is no folder"):
        html.write_html([reports.cpu_report()], tmp_path / "nowhere" / "report.html")


def test_a_page_of_nothing_is_refused():
    with pytest.raises(ValueError, match="reports is empty; expected at least one report"):
        html.page([])
