"""Report: one page that needs nothing beside it, shows every fact, and runs nothing of what others wrote."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from modelrel import plots
from modelrel.delivered import Promotion
from modelrel.promoted import Entry, Rule, Verdict
from modelrel.steps import report, summary
from modelrel.steps.facts import Known
from tests.serving.browser import Page, browser, contrast, tab
from tests.steps.told import HOSTILE, known, packaged

SECTIONS = ["Verdict", "Lineage", "Parity", "Latency", "Sizes", "Bill of materials", "History", "Notes"]


def promoted(one: Known, *rules: Rule) -> Known:
    """Return the version as champion, by the given rules."""
    verdict = Verdict(policy="", rules=rules, at="2026-05-04T03:02:01+00:00")
    done = Promotion(
        smokes=one.smokes, registry="sqlite", name=one.source.name, version=one.source.version, kind="alias",
        to="champion", previous="6", by="ada", at="2026-05-04T03:02:01+00:00", verdict=verdict, message="better",
    )  # fmt: skip
    entry = Entry(
        id="1", event="promoted", kind="alias", to="champion", version=one.source.version, previous="6", by="ada",
        at="2026-05-04T03:02:01+00:00", message="better",
    )  # fmt: skip
    return replace(one, promotions=(done,), history=(entry,), aliases=("champion",))


def whole(folder: Path, name: str = "churn") -> Known:
    """Return a version of which there is something to show in every section."""
    one = packaged(packaged(known(folder, name=name)), "lambda", p99_ms=9.0)
    smoke = Rule(name="smoke", outcome="passed", wanted="docker", found="docker, lambda")
    return promoted(one, smoke, Rule(name="p99 docker", outcome="passed", wanted="at most 50 ms", found="4 ms"))


def hostile(folder: Path) -> Known:
    one = packaged(packaged(known(folder, name=HOSTILE)), "lambda", licence=HOSTILE)
    source = replace(
        one.source, metrics={HOSTILE: 0.5}, tags={HOSTILE: HOSTILE, "mlflow.user": HOSTILE}, experiment=HOSTILE,
        run_id=HOSTILE, git_commit=HOSTILE,
    )  # fmt: skip
    (copy,) = one.copies
    assert copy.parity is not None
    outputs = tuple(replace(output, name=HOSTILE, worst_source=HOSTILE) for output in copy.parity.outputs)
    converted = replace(copy.converted, source=source, notes=(HOSTILE,), estimator=HOSTILE, tools={HOSTILE: HOSTILE})
    parity = replace(copy.parity, converted=converted, outputs=outputs, sources={HOSTILE: 7})
    parts = {HOSTILE: 5, "</title></svg>" + HOSTILE: 3}
    made = tuple(replace(one, package=replace(one.package, parity=parity, parts=parts)) for one in copy.deliveries)
    changed = replace(one, source=source, copies=(replace(copy, converted=converted, parity=parity, deliveries=made),))
    rule = Rule(name=HOSTILE, outcome="failed", wanted=HOSTILE, found=HOSTILE, hint=HOSTILE)
    return promoted(replace(changed, description=HOSTILE, problems=(HOSTILE,)), rule)


def test_the_same_facts_give_the_same_bytes_and_name_no_folder_of_this_machine(tmp_path: Path) -> None:
    first, second = (report.page(whole(tmp_path / name)) for name in ("one", "two"))
    assert first == second
    assert str(tmp_path) not in first


def test_every_fact_is_on_the_page(tmp_path: Path) -> None:
    one = whole(tmp_path / "one")
    page = report.page(one)
    said = [
        "promoted to champion", "p99 docker", "at most 50 ms", "1,000", "0 answers differ", "1.5e-07", "churn",
        one.source.run_id, one.source.git_commit, one.copies[0].converted.file.sha256, one.source.digest, "aa11",
        *(delivery.package.digest for delivery in one.deliveries), "numpy", "2.4.6", "MIT", "20.0 MB", "accuracy",
        "computes in float32", "ada", "better",
    ]  # fmt: skip
    assert [text for text in said if text not in page] == []


@pytest.mark.parametrize("outcome", ["failed", "missing"])
def test_a_rule_that_does_not_hold_is_the_first_thing_said(tmp_path: Path, outcome: str) -> None:
    rule = Rule(name="p99 docker", outcome=outcome, wanted="at most 1 ms", found="4 ms")  # type: ignore[arg-type]
    page = report.page(promoted(packaged(known(tmp_path / "one")), rule))
    assert '<p class="state bad">1 rule does not hold</p>' in page
    assert f'<span class="badge {outcome}">{outcome}</span>' in page


def test_a_version_of_which_nothing_was_made_has_a_page_too(tmp_path: Path) -> None:
    bare = replace(known(tmp_path / "one"), copies=())
    page = report.page(bare)
    assert "not proven yet" in page
    assert "Nothing was packaged yet." in page


def test_a_promotion_that_was_only_judged_is_told_as_such(tmp_path: Path) -> None:
    one = whole(tmp_path / "one")
    failed = Rule(name="accuracy", outcome="failed", wanted="at least 0.95", found="0.9")
    verdict = Verdict(policy="", rules=(failed,), at="2026-05-04T03:02:01+00:00")
    planned = replace(one.promotions[0], to="staging", verdict=verdict, at="")
    page = report.page(replace(one, promotions=(), aliases=()), planned)
    assert "would be refused as staging" in page
    assert "Policy for staging, not promoted yet" in page


def test_nothing_is_fetched_and_no_script_is_there(tmp_path: Path) -> None:
    page = report.page(whole(tmp_path / "one"))
    assert "<script" not in page
    assert re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?(?!#)[^"'\s>]+""", page) == []


def test_a_report_that_is_made_anew_leaves_the_release_as_it_was(tmp_path: Path) -> None:
    one = whole(tmp_path / "one")
    (one.source.folder / summary.REPORT).write_text(report.page(one))
    path = summary.write(one.source.folder, {"model": "churn"}, {})
    before = path.read_bytes()
    (one.source.folder / summary.REPORT).write_text(report.page(replace(one, promotions=(), aliases=())))
    assert summary.changed(one.source.folder, {}) == []
    assert summary.write(one.source.folder, {"model": "churn"}, {}).read_bytes() == before


@pytest.mark.parametrize(
    ("exact", "halves", "limit"),
    [(0, (), 1e-5), (5, (), 0.0), (0, ((-8, 1),), 1e-5), (10**7, ((-36, 5), (12, 3)), 1e-5), (0, ((616, 1),), 0.0)],
)
def test_any_errors_make_a_picture(exact: int, halves: tuple[tuple[int, int], ...], limit: float) -> None:
    assert_drawn(plots.histogram(exact, halves, limit, "said"))


@pytest.mark.parametrize(
    "pairs",
    [
        [], [(0.0, 0.0)], [(5.0, 5.0)] * 3, [(-1e-300, 1e-300)], [(1e300, -1e300), (0.0, 0.0)],
        [(float(value), value + 0.5) for value in range(-10, 10)],
        [(10.0**power, 10.0**power) for power in range(-9, 9)],
    ],
)  # fmt: skip
def test_any_pairs_make_a_picture(pairs: list[tuple[float, float]]) -> None:
    svg = plots.scatter(pairs, "said")
    assert_drawn(svg)
    assert svg.count("<circle") == len(pairs)


def assert_drawn(svg: str) -> None:
    """Everything stands inside the picture, and is a number."""
    import xml.etree.ElementTree as ET

    drawn = ET.fromstring(svg)
    assert drawn.find("title") is not None
    assert drawn.find("desc") is not None
    _, _, width, height = map(float, drawn.attrib["viewBox"].split())
    for node in drawn.iter():
        if node.tag in ("circle", "rect"):
            x, y = (float(node.attrib.get(f"c{name}", node.attrib.get(name, "nan"))) for name in "xy")
            assert 0 <= x <= width
            assert 0 <= y <= height


# in a real browser

CONTRAST = contrast("h1,h2,h3,h4,p,a,td,th,dt,dd,summary,caption,figcaption,li,.badge,.state", drawn="svg text")

# Letters of one plot that stand on one another.
COLLISIONS = """
[...document.querySelectorAll("svg.plot")].flatMap(svg => {
  const boxes = [...svg.querySelectorAll("text")].map(node => [node.textContent, node.getBoundingClientRect()]);
  return boxes.flatMap(([a, one], index) => boxes.slice(index + 1).filter(([b, two]) =>
    one.left < two.right - 1 && two.left < one.right - 1 && one.top < two.bottom - 2 && two.top < one.bottom - 2)
    .map(([b]) => a + " / " + b));
})
"""

SMALL = """
Math.min(...[...document.querySelectorAll("svg.plot text")].map(node => node.getBoundingClientRect().height))
"""


@pytest.fixture(scope="module")
def devtools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with browser(tmp_path_factory.mktemp("profile")) as address:
        yield address


def look(page: Page, path: Path, width: int, scheme: str = "light") -> None:
    page.call("Log.enable")
    page.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
    page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    page.open(path.as_uri())


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written")
    path = folder / "report.html"
    path.write_text(report.page(whole(folder / "one")), encoding="utf-8")
    return path


def test_the_page_asks_nobody_for_anything_and_complains_of_nothing(devtools: str, written: Path) -> None:
    with tab(devtools) as page:
        look(page, written, 1200)
        page.run("new Promise(done => setTimeout(done, 100))")
        assert [url for url in page.requested if url not in ("about:blank", written.as_uri())] == []
        complaints = {"Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown"}
        assert complaints.isdisjoint(page._events)
        assert page.run("window.stopped") == []


def test_every_section_is_there_and_every_plot_has_marks(devtools: str, written: Path) -> None:
    with tab(devtools) as page:
        look(page, written, 1200)
        assert page.run("[...document.querySelectorAll('h2')].map(one => one.textContent)") == SECTIONS
        links = page.run("[...document.querySelectorAll('nav a')].map(one => one.getAttribute('href'))")
        assert page.run(f"{links}.every(one => document.querySelector(one))")
        marks = page.run("[...document.querySelectorAll('svg.plot')].map(one => one.querySelectorAll('.mark').length)")
        assert len(marks) == 5  # two of parity, one of latency, two of sizes
        assert min(marks) >= 2


@pytest.mark.parametrize("width", [1200, 400, 320])
def test_nothing_is_wider_than_the_window_and_no_letters_stand_on_others(
    devtools: str, written: Path, width: int
) -> None:
    with tab(devtools) as page:
        look(page, written, width)
        assert page.run("document.documentElement.scrollWidth") <= width
        assert page.run(COLLISIONS) == []
        assert page.run(SMALL) >= 9


def test_dark_has_other_colours_and_both_can_be_read(devtools: str, written: Path) -> None:
    colours = []
    with tab(devtools) as page:
        for scheme in ("light", "dark"):
            look(page, written, 1200, scheme)
            page.run("document.querySelectorAll('details').forEach(one => one.open = true)")
            colours.append(page.run("getComputedStyle(document.body).backgroundColor"))
            assert page.run(CONTRAST) >= 4.5
    assert colours == ["rgb(255, 255, 255)", "rgb(17, 22, 29)"]


def test_on_paper_all_of_it_is_open_and_light(devtools: str, written: Path) -> None:
    with tab(devtools) as page:
        look(page, written, 1200, "dark")
        page.call(
            "Emulation.setEmulatedMedia", media="print", features=[{"name": "prefers-color-scheme", "value": "dark"}]
        )
        assert page.run("document.querySelectorAll('details[open]').length") == 0
        shown = "[...document.querySelectorAll('details td')].every(one => one.getBoundingClientRect().height > 0)"
        assert page.run(shown)
        assert page.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert page.run("getComputedStyle(document.querySelector('nav')).display") == "none"


def test_what_others_wrote_is_shown_and_not_run(devtools: str, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(report.page(hostile(tmp_path / "one")), encoding="utf-8")
    with tab(devtools) as page:
        look(page, path, 1200)
        assert page.run("window.hacked") is None
        assert page.run("document.scripts.length + document.images.length") == 0
        assert page.run("document.querySelectorAll('style').length") == 1
        assert page.run("document.body.textContent").count(HOSTILE) >= 12
        assert page.run("[...document.querySelectorAll('h2')].map(one => one.textContent)") == SECTIONS
        assert page.run("document.documentElement.scrollWidth") <= 1200


def test_what_is_drawn_has_a_name_for_those_who_do_not_see_it(devtools: str, written: Path) -> None:
    with tab(devtools) as page:
        look(page, written, 1200)
        nodes = page.call("Accessibility.getFullAXTree")["nodes"]
        found = [
            (node["role"]["value"], node.get("name", {}).get("value", ""))
            for node in nodes
            if not node.get("ignored")
            and node.get("role", {}).get("value") in ("image", "columnheader", "heading", "link")
        ]
        assert [role for role, name in found if not name] == []
        assert len([role for role, _ in found if role == "image"]) == 5
        assert page.run("document.documentElement.lang") == "en"
        heads = page.run("[...document.querySelectorAll('h1,h2,h3,h4')].map(one => +one.tagName[1])")
        assert heads[0] == 1
        assert all(after - before <= 1 for before, after in itertools.pairwise(heads))
