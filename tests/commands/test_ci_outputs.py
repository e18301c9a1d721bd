"""What a pipeline is told: outputs, a dotenv report, a summary, JUnit XML and annotations, however a release ends."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from junitparser import JUnitXml
from markdown_it import MarkdownIt

from modelrel.commands import outputs
from modelrel.commands.junit import xml
from modelrel.commands.outputs import Told, annotation, dotenv_text, github_text
from modelrel.commands.summary import escaped, markdown
from modelrel.errors import Refused, Unavailable
from tests.conftest import Run

hard = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
NAMES = st.sampled_from(["model", "error", "verdict", "uri"])
ANY = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"))


@pytest.fixture(scope="module")
def dist(sqlite_registry: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release folder in which flowers/1 is packaged and smoke-tested already."""
    from modelrel.commands import main

    folder = tmp_path_factory.mktemp("pipeline") / "dist"
    words = ["release", "flowers/1", "--target", "modelpack", "--registry", sqlite_registry, "--dist", str(folder)]
    assert main(words) == 0
    return folder


@pytest.fixture
def github(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that GitHub names to a step: `output` and `summary`."""
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "output"))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary"))
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    return tmp_path


def read(text: str) -> dict[str, str]:
    """Return outputs as GitHub's runner reads them: `name=value`, or `name<<delimiter` and lines."""
    found, lines = {}, iter(text.split("\n"))
    for line in lines:
        if match := re.fullmatch(r"([\w-]+)<<(.+)", line):
            inside = []
            while (part := next(lines)) != match[2]:
                inside.append(part)
            found[match[1]] = "\n".join(inside)
        elif line:
            name, _, value = line.partition("=")
            found[name] = value
    return found


def refusal(message: str = "flowers/1 may not become live", rules: int = 1) -> Refused:
    stop = Refused(message, "Look at the rules.")
    rule = {"name": "p99", "outcome": "failed", "wanted": "p99 <= 1 ms", "found": "9.5 ms", "hint": "Make it faster."}
    stop.evidence = {"policy": "ab", "rules": [{**rule, "name": f"p99-{index}"} for index in range(rules)], "at": ""}
    return stop


def test_a_release_tells_github_and_gitlab_what_it_did(
    run: Run, own_registry: str, dist: Path, github: Path, tmp_path: Path
) -> None:
    (github / "output").write_text("before=1\n")
    done = run("release", "flowers/1", "--target", "modelpack", "--promote", "live", "--registry", own_registry,
               "--dist", dist, "--junit", tmp_path / "new/j.xml", "--dotenv", tmp_path / "d.env", "--json")  # fmt: skip
    assert done.code == 0, done.err
    told = read((github / "output").read_text())
    assert told.pop("before") == "1"
    wanted = {"model": "flowers", "version": "1", "verdict": "passed", "promoted": "live", "previous": "",
              "dry_run": "false", "exit_code": "0", "error": "", "targets": "modelpack", "uri": "models:/flowers/1",
              "folder": str(dist / "flowers-1")}  # fmt: skip
    assert told.items() >= wanted.items()
    assert Path(json.loads(told["packages"])["modelpack"]["path"]).exists()
    environment = dict(line.split("=", 1) for line in (tmp_path / "d.env").read_text().splitlines())
    assert {name.removeprefix("RELEASE_").lower(): value for name, value in environment.items()} == told
    cases = {case.name: case.result for suite in JUnitXml.fromfile(tmp_path / "new" / "j.xml") for case in suite}
    assert cases == {name: [] for name in cases}
    assert {stage["stage"] for stage in done.json["stages"]} < set(cases)
    summary = (github / "summary").read_text()
    assert "promoted, alias live: nobody → 1" in summary
    assert "| modelpack |" in summary


def test_a_release_that_cannot_be_found_is_an_error_in_every_report(
    run: Run, own_registry: str, github: Path, tmp_path: Path
) -> None:
    done = run("release", "flowers/9", "--target", "docker", "--registry", own_registry, "--junit", "j.xml", "--json")
    assert (done.code, done.json["error"]["code"]) == (2, 2)
    [line] = [line for line in done.err.splitlines() if line.startswith("::error")]
    assert line == "::error title=modelrel%3A invalid::the model flowers has no version 9%0AThe latest is flowers/3."
    report = JUnitXml.fromfile("j.xml")
    assert (report.tests, report.errors, report.failures) == (1, 1, 0)
    told = read((github / "output").read_text())
    assert (told["exit_code"], told["error"]) == ("2", "the model flowers has no version 9")
    assert "has no version 9" in (github / "summary").read_text()


def test_the_stage_that_refused_is_a_failure(run: Run, own_registry: str, dist: Path, tmp_path: Path) -> None:
    done = run("package", "flowers/1", "--target", "modelpack", "--max-size", "10", "--registry", own_registry,
               "--dist", tmp_path / "dist", "--junit", "j.xml")  # fmt: skip
    assert done.code == 4
    failed = [case.name for suite in JUnitXml.fromfile("j.xml") for case in suite if case.result]
    assert failed == ["package modelpack"]


def test_promote_tells_its_pipeline_too(run: Run, own_registry: str, dist: Path, github: Path) -> None:
    done = run("promote", "flowers/1", "--to", "staging", "--registry", own_registry, "--dist", dist, "--dry-run",
               "--junit", "j.xml")  # fmt: skip
    assert done.code == 0, done.err
    told = read((github / "output").read_text())
    assert (told["promoted"], told["dry_run"], told["verdict"]) == ("", "true", "passed")
    assert {case.name for suite in JUnitXml.fromfile("j.xml") for case in suite} >= {"promote staging", "smoke"}


def test_a_report_that_the_disk_does_not_take_is_not_what_a_command_fails_for(
    run: Run, own_registry: str, tmp_path: Path
) -> None:
    done = run("release", "flowers/9", "--target", "modelpack", "--registry", own_registry, "--dist", tmp_path / "dist",
               "--junit", "/sys/j.xml")  # fmt: skip
    assert (done.code, "has no version 9" in done.err) == (2, True), done.err


def test_a_report_that_cannot_be_written_is_wrong_input(
    run: Run, own_registry: str, dist: Path, tmp_path: Path
) -> None:
    words = ("promote", "flowers/1", "--to", "live", "--registry", own_registry, "--dist", dist, "--dry-run")
    done = run(*words, "--junit", tmp_path)
    assert (done.code, "is a folder" in done.err) == (2, True)
    (tmp_path / "file").write_text("")
    assert run(*words, "--dotenv", tmp_path / "file" / "d.env").code == 2


def test_the_settings_name_the_reports(
    run: Run, own_registry: str, dist: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELREL_JUNIT", "named.xml")
    monkeypatch.setenv("MODELREL_DOTENV", "named.env")
    assert (
        run("promote", "flowers/1", "--to", "live", "--registry", own_registry, "--dist", dist, "--dry-run").code == 0
    )
    assert Path("named.xml").is_file()
    assert Path("named.env").is_file()


def test_a_refusal_by_the_policy_is_a_failure_for_each_rule() -> None:
    told = Told(command="release", model="flowers/1", stop=refusal(rules=2))
    report = JUnitXml.fromstring(xml(told))
    assert (report.tests, report.failures, report.errors) == (3, 3, 0)
    messages = [case.result[0].message for suite in report for case in suite]
    assert messages[1:] == ["9.5 ms, but wanted is p99 <= 1 ms"] * 2
    assert outputs.values(told)["verdict"] == "refused"
    assert "| ❌ | p99-0 | 9.5 ms | p99 &#60;= 1 ms | Make it faster. |" in markdown(told)


def test_what_could_not_be_done_is_an_error_not_a_failure() -> None:
    report = JUnitXml.fromstring(xml(Told(command="release", model="m", stop=Unavailable("no answer", ""))))
    assert (report.failures, report.errors) == (0, 1)


@hard
@given(st.dictionaries(NAMES, ANY))
def test_whatever_an_output_holds_github_reads_it_back(values: dict[str, str]) -> None:
    values = {name: re.sub(r"\r|\x0b|\x0c|[\x1c-\x1e\x85\u2028\u2029]", " ", text) for name, text in values.items()}
    assert read(github_text(values)) == values


def test_an_output_cannot_name_another() -> None:
    hostile = "x\nverdict=passed\nEOF\nverdict<<EOF"
    assert read(github_text({"error": hostile, "verdict": "refused"})) == {"error": hostile, "verdict": "refused"}


@hard
@given(st.dictionaries(NAMES, ANY | ANY.map(lambda text: text * 2000)))
def test_a_dotenv_report_is_one_that_gitlab_takes(values: dict[str, str]) -> None:
    text = dotenv_text(values)
    assert len(text.encode()) <= 5120
    assert [re.fullmatch(r"RELEASE_[A-Z0-9_]+=[^\n\r]*", line) is not None for line in text.split("\n")[:-1]] == [
        True
    ] * len(values)


JENKINS = {
    "testsuites": {"name", "tests", "failures", "errors", "time"},
    "testsuite": {"name", "tests", "failures", "errors", "time"},
    "testcase": {"name", "classname", "time"},
    "failure": {"message", "type"},
    "error": {"message", "type"},
    "system-out": set(),
}
"""Element -> the attributes that Jenkins' schema (junit-10.xsd) and GitLab's reader both know."""


@pytest.mark.parametrize("stop", [None, refusal(), Unavailable("no answer", "")], ids=["well", "refused", "silent"])
def test_the_report_has_elements_and_attributes_that_jenkins_takes(stop: Exception | None) -> None:
    for element in ET.fromstring(xml(Told(command="release", model="m", stop=stop))).iter():
        assert set(element.keys()) <= JENKINS[element.tag]
        assert re.fullmatch(r"\d+\.\d{3}", element.get("time", "0.000"))


@hard
@given(ANY)
def test_whatever_a_message_holds_the_xml_is_well_formed(text: str) -> None:
    told = Told(command="release", model=text, stop=refusal(text))
    assert ET.fromstring(xml(told)).get("failures") == "2"


@hard
@given(ANY)
def test_foreign_text_is_only_text_in_a_cell_of_a_summary(text: str) -> None:
    cell = escaped(text)
    tokens = (
        MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(f"| a | b |\n| - | - |\n| {cell} | x |\n")
    )
    inside = [token for token in tokens if token.type == "inline"]
    assert len(inside) == 4
    assert {child.type for child in inside[2].children or []} <= {"text", "text_special"}
    assert "".join(child.content for child in inside[2].children or []).replace("\u200b", "") == " ".join(
        text.split()
    ).replace("\u200b", "")


@pytest.mark.parametrize(
    "text", ["# a", "- a", "1. a", "<script>", "[a](b)", "![a](b)", "@ann", "$x$", "www.x.y", "a|b"]
)
def test_foreign_text_starts_nothing_on_a_line_of_its_own(text: str) -> None:
    tokens = MarkdownIt("commonmark").parse(f"> {escaped(text)}")
    assert [token.type for token in tokens] == [
        "blockquote_open", "paragraph_open", "inline", "paragraph_close", "blockquote_close",
    ]  # fmt: skip
    assert not re.search(r"[@$<\[|]|www\.", escaped(text).replace("&#", ""))


def test_a_summary_keeps_within_what_github_takes() -> None:
    told = Told(command="release", model="m", stop=refusal(rules=30_000))
    text = markdown(told)
    assert 1_000_000 < len(text.encode()) <= 1024 * 1024
    assert text.endswith("the release folder has all of it.*\n")
    assert markdown(told, 10) == ""


def test_an_annotation_is_one_line() -> None:
    line = annotation(Refused("50% of\r\nit: ::error::x", "Look."))
    assert line == "::error title=modelrel%3A refused::50%25 of%0D%0Ait: ::error::x%0ALook."
