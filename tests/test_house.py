"""The house's own rules that no linter knows."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parent.parent
SOURCES = sorted((TOP / "modelrel").rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(TOP).as_posix())
def test_a_file_stays_below_400_lines_and_a_function_below_50(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 50, node.name


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(TOP).as_posix())
def test_a_file_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


def test_no_file_has_a_name_that_says_nothing() -> None:
    assert {path.stem for path in SOURCES} & {"utils", "helpers", "common", "base", "core", "manager"} == set()


def test_the_top_level_holds_what_it_should() -> None:
    allowed = {"pyproject.toml", "modelrel", "templates", "tests", "Makefile", "README.md", "bench"}
    made = {"build", "dist", "mlflow.db", "mlruns", "modelrel.egg-info"}
    assert {path.name for path in TOP.iterdir() if not path.name.startswith(".")} <= allowed | made


def test_only_the_command_line_the_demo_and_the_server_print() -> None:
    rooms = ("commands", "serving", "demo.py", "__main__.py", "worker.py")
    wrong = [
        path.name
        for path in SOURCES
        if not any(room in path.relative_to(TOP).as_posix() for room in rooms)
        and re.search(r"^\s*print\(", path.read_text(), re.MULTILINE)
    ]
    assert wrong == []


def test_the_server_reports_the_version_of_the_project() -> None:
    from modelrel import __version__, serving

    assert __version__ == serving.VERSION
