"""diff, notes and report by the command line, on real models of a real registry."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modelrel.commands import main
from tests.conftest import Run


@pytest.fixture(scope="module")
def converted(sqlite_registry: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Return the options that name a registry and a folder where two of its versions are verified."""
    dist = tmp_path_factory.mktemp("compared") / "dist"
    options = ("--registry", sqlite_registry, "--dist", str(dist))
    for version in (1, 2):
        assert main(["convert", f"flowers/{version}", *options, "--quiet"]) == 0
    return options


def lines(found: dict, name: str) -> dict[str, tuple]:
    part = next(part for part in found["parts"] if part["name"] == name)
    return {line["what"]: (line["before"], line["after"]) for line in part["lines"]}


def test_diff_tells_what_changed_and_asks_both(run: Run, converted: tuple[str, ...]) -> None:
    done = run("diff", "flowers/1", "flowers@candidate", *converted, "--json")
    assert done.code == 0, done.out + done.err
    found = done.json
    assert (found["before"], found["after"]) == ("flowers/1", "flowers/2")
    assert lines(found, "metrics")["accuracy"] == (0.94, pytest.approx(0.97333, abs=1e-4))
    assert lines(found, "parameters") == {"C": ("0.1", "1.0")}
    assert lines(found, "signature") == {}
    assert found["breaks"] == []
    assert found["answers"]["rows"] == 24
    assert found["answers"]["differ"] == 24
    assert len(found["answers"]["worst"]) == 5


def test_diff_for_people_names_what_is_the_same_too(run: Run, converted: tuple[str, ...]) -> None:
    done = run("diff", "flowers/1", "flowers/2", *converted)
    assert done.code == 0
    assert "+0.0333333, better" in done.out
    assert "the same: signature, data, requirements" in done.out
    assert "answers to the same 24 rows" in done.out


def test_a_version_that_is_not_pulled_is_compared_by_its_registry_and_stays_unpulled(
    run: Run, converted: tuple[str, ...]
) -> None:
    done = run("diff", "flowers/2", "flowers/3", *converted, "--json")
    found = done.json
    assert lines(found, "metrics")["accuracy"][1] == pytest.approx(0.98)
    assert lines(found, "signature") == lines(found, "requirements") == {}
    assert all(not part["unknown"] for part in found["parts"] if part["name"] in ("signature", "requirements"))
    assert found["answers"]["why"] == "no verified copy of flowers/3 is at hand (run: modelrel convert flowers/3)"
    assert "flowers/3: not pulled: what its registry says is all that is known of it" in found["problems"]
    assert not (Path(converted[3]) / "flowers-3").exists()


def test_versions_behind_a_server_are_compared_alike(run: Run, http_registry: str) -> None:
    done = run("diff", "flowers/2", "flowers/3", "--registry", http_registry, "--json")
    assert done.code == 0, done.out + done.err
    assert lines(done.json, "metrics")["accuracy"][1] == pytest.approx(0.98)
    assert lines(done.json, "parameters") == {"C": ("1.0", "10.0")}


def test_rows_of_the_user_are_asked_as_well(run: Run, converted: tuple[str, ...], tmp_path: Path) -> None:
    row = {
        "sepal_length": 6.1,
        "sepal_width": 2.8,
        "petal_length": 4.7,
        "petal_width": 1.2,
        "shape": "long",
        "number": 61,
    }
    (tmp_path / "rows.json").write_text(json.dumps([row, row]))
    done = run("diff", "flowers/1", "flowers/2", "--data", "rows.json", *converted, "--json")
    assert done.json["answers"]["sources"]["rows.json"] == 2
    refused = run("diff", "flowers/1", "flowers/2", "--data", "none.csv", *converted)
    assert refused.code == 2


def test_a_copy_that_was_changed_is_not_asked(run: Run, converted: tuple[str, ...], tmp_path: Path) -> None:
    import shutil

    dist = shutil.copytree(converted[3], tmp_path / "dist")
    model = dist / "flowers-2" / "onnx" / "model.onnx"
    model.write_bytes(model.read_bytes() + b"\0")
    done = run("diff", "flowers/1", "flowers/2", *converted[:3], dist, "--json")
    assert done.json["answers"]["why"].startswith("no verified copy of flowers/2")
    assert any("ConvertedModel.json was left out" in said for said in done.json["problems"])


def test_notes_are_markdown_on_stdout_in_whole_lines(run: Run, converted: tuple[str, ...]) -> None:
    done = run("notes", "flowers/1..2", *converted)
    assert done.code == 0, done.err
    assert done.out.startswith("# flowers/2\n")
    assert "| `accuracy` | 0.94 | 0.973333 | +0.0333333 (better) |" in done.out.splitlines()
    assert all(line.endswith("|") for line in done.out.splitlines() if line.startswith("|"))


def test_notes_go_to_a_file(run: Run, converted: tuple[str, ...]) -> None:
    done = run("notes", "flowers/2", "--out", "NOTES.md", *converted, "--json")
    assert done.json["from"] == "flowers/1"
    assert Path("NOTES.md").read_text() == done.json["markdown"]


def test_the_report_is_written_beside_the_release_or_where_it_is_wanted(run: Run, converted: tuple[str, ...]) -> None:
    done = run("report", "flowers/2", *converted, "--json")
    assert done.code == 0, done.err
    path = Path(converted[3]) / "flowers-2" / "report.html"
    assert done.json == {"model": "flowers/2", "report": str(path), "size": path.stat().st_size}
    page = path.read_text()
    assert "LogisticRegression" in page
    assert page.count('<svg class="plot"') == 2
    assert run("report", "flowers/2", "--out", "own.html", *converted).code == 0
    assert Path("own.html").read_text() == page


def test_a_version_that_is_not_there_is_told(run: Run, converted: tuple[str, ...]) -> None:
    for command in (("diff", "flowers/1"), ("notes",), ("report",)):
        assert run(*command, "flowers/77", *converted).code == 2
