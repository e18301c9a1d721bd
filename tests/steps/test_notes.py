"""Notes: Markdown that renders as meant, in which text of others stays text; and since when they are."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from modelrel import markdown
from modelrel.errors import Invalid
from modelrel.registry import Registry, VersionInfo
from modelrel.steps import answers, notes
from modelrel.steps.diff import diff
from modelrel.steps.facts import Known
from modelrel.steps.notes import Between
from tests.steps.told import HOSTILE, known, packaged

HARD = [
    "plain", "*bold* _it_ `code` ~~no~~", "# heading", "1. one", "2) two", "- item", "+ item", "= rule", "> quote",
    "| a | b |", r"back\slash \| bar", "<b>x</b> &amp; &lt;", "[link](http://evil.example)", "![i](x)", "$math$",
    "`", "``a`", "a``", "http://evil.example www.evil.example", "line\nbreak\r\nand\ttab", "ünïcödé 中文", HOSTILE,
]  # fmt: skip


def rendered(text: str) -> str:
    return MarkdownIt("commonmark").enable("table").render(text)


def shown(html: str) -> str:
    """Return the text that a person would see: no tag is left out quietly."""
    from html.parser import HTMLParser

    class Reader(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.text, self.tags = "", list[str]()

        def handle_data(self, data: str) -> None:
            self.text += data

        def handle_starttag(self, tag: str, attrs: object) -> None:
            self.tags.append(tag)

    reader = Reader()
    reader.feed(html)
    assert set(reader.tags) <= {"p", "code", "table", "thead", "tbody", "tr", "th", "td"}, reader.tags
    return " ".join(reader.text.replace("\u200b", "").split())


@pytest.mark.parametrize("said", HARD, ids=range(len(HARD)))
def test_text_of_others_shows_as_it_is(said: str) -> None:
    assert shown(rendered(markdown.text(said))) == " ".join(said.split())


@pytest.mark.parametrize("said", HARD, ids=range(len(HARD)))
def test_code_of_others_shows_as_it_is(said: str) -> None:
    html = rendered(f"x {markdown.code(said)}")
    assert shown(html) == " ".join(f"x {said}".split())
    assert html.count("<code>") == 1


@pytest.mark.parametrize("make", [markdown.text, markdown.code])
def test_a_table_keeps_its_columns_whatever_is_in_a_cell(make: object) -> None:
    lines = markdown.table(("a", "b"), [(make(said), "end") for said in HARD])  # type: ignore[operator]
    html = rendered("\n".join(lines))
    assert html.count("<tr>") == len(HARD) + 1
    assert html.count("<td>end</td>") == len(HARD)
    assert html.count("<td") == 2 * len(HARD)


def test_nobody_is_called_and_no_issue_is_linked() -> None:
    said = markdown.text("thanks @ada and @org/team, fixes #12 and GH-7")
    assert "@&#8203;ada" in said
    assert "@&#8203;org/team" in said
    assert "#&#8203;12" in said
    assert "GH-&#8203;7" in said


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Known, Known]:
    a, b = known(tmp_path / "one", "7"), known(tmp_path / "two", "8", shift=0.4)
    moved = replace(b.source, metrics={"accuracy": 0.95, "log_loss": 0.4}, params={"depth": "5"}, tags=a.source.tags)
    return a, packaged(replace(b, source=moved, description="Trained on the calls of May."))


def test_the_notes_say_what_changed_how_it_was_proven_and_what_to_know(pair: tuple[Known, Known]) -> None:
    a, b = pair
    text = notes.markdown(b, diff(a, b, answers.compare(a, b)))
    assert text.startswith("# churn/8\n\nTrained on the calls of May.\n\nChanges since churn/7.\n")
    heads = [line for line in text.splitlines() if line.startswith("## ")]
    assert heads == [
        "## Metrics",
        "## What changed",
        "## Answers",
        "## How it was proven",
        "## Known limits",
        "## Evidence",
    ]
    assert "| `accuracy` | 0.9 | 0.95 | +0.05 (better) |" in text
    assert "| `log_loss` | 0.3 | 0.4 | +0.1 (**worse**) |" in text
    assert "| depth | `3` | `5` | +2 |" not in text  # parameters are text: nothing is computed with them
    assert "| depth | `3` | `5` |  |" in text
    assert "The onnx copy answered 1,000 rows as the original: 0 labels differ" in text
    assert "The docker package was started and asked (1 checks): first answer after 400 ms, p99 4 ms." in text
    assert "- computes in float32" in text
    assert f"| onnx copy, sha256 | `{b.copies[0].converted.file.sha256}` |" in text


def test_a_change_that_breaks_callers_comes_before_the_others(pair: tuple[Known, Known]) -> None:
    a, b = pair
    signature = b.source.signature
    assert signature is not None
    new = replace(signature, inputs=(*signature.inputs, replace(signature.inputs[1], name="tenure")))
    text = notes.markdown(b, diff(a, replace(b, source=replace(b.source, signature=new)), answers.compare(a, b)))
    assert text.index("## Breaking\n\n- the input tenure is new and required") < text.index("## What changed")


def test_the_first_release_has_notes_too(pair: tuple[Known, Known]) -> None:
    text = notes.markdown(pair[1], None)
    assert "Changes since" not in text
    assert "| `accuracy` | 0.95 |" in text


def test_versions_in_between_are_described(pair: tuple[Known, Known]) -> None:
    others = Between(versions=(VersionInfo(name="churn", version="7", description="tried *trees*"),), more=2)
    text = notes.markdown(pair[1], None, others)
    assert "- churn/7: tried \\*trees\\*\n- and 2 older ones\n" in text


def test_hostile_text_stays_text_everywhere(tmp_path: Path) -> None:
    a = packaged(known(tmp_path / "one", "7", name=HOSTILE))
    source = replace(
        known(tmp_path / "two", "8", name=HOSTILE, shift=0.4).source, metrics={HOSTILE: 0.5}, params={HOSTILE: HOSTILE},
        tags={HOSTILE: HOSTILE}, requirements=(HOSTILE,), run_id=HOSTILE, git_commit=HOSTILE,
    )  # fmt: skip
    b = replace(known(tmp_path / "three", "8", name=HOSTILE), source=source, description=HOSTILE)
    html = rendered(notes.markdown(b, diff(a, b, answers.compare(a, b))))
    for wrong in ("<script", "<img", "<b>", "<em>b", "</style>"):
        assert wrong not in html
    assert "@team" not in re.sub("<code>.*?</code>", "", html, flags=re.DOTALL)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("flowers/1..flowers/2", ("flowers/1", "flowers/2")),
        ("flowers/1..2", ("flowers/1", "flowers/2")),
        ("flowers@candidate..3", ("flowers@candidate", "flowers/3")),
        ("flowers/1..candidate", ("flowers/1", "flowers@candidate")),
        ("flowers/1..latest", ("flowers/1", "flowers/latest")),
        ("flowers/1..Production", ("flowers/1", "flowers/Production")),
        ("flowers/3", ("flowers/2", "flowers/3")),
        ("flowers@candidate", ("flowers/1", "flowers@candidate")),
        ("flowers/1", ("", "flowers/1")),
    ],
)
def test_since_when_the_notes_are(sqlite_registry: str, said: str, expected: tuple[str, str]) -> None:
    assert notes.span(said, Registry(sqlite_registry)) == expected


def test_half_a_span_is_refused(sqlite_registry: str) -> None:
    with pytest.raises(Invalid, match="until when"):
        notes.span("flowers/1..", Registry(sqlite_registry))
