"""Each kind of model to each format, through worker, converter and verification: verified, or refused as said."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from modelrel.errors import Refused
from modelrel.formats import FORMATS
from modelrel.steps.convert import convert
from modelrel.steps.package import package
from modelrel.steps.smoke import smoke
from modelrel.steps.verify import verify
from modelrel.values import ConvertOptions, PackageOptions, ParityReport, SourceModel, VerifyOptions
from tests import matrix
from tests.formats.pmml import java
from tests.serving import browser
from tests.targets import javascript

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
CELLS = [
    pytest.param(name, form, marks=[java] if form == "pmml" else [], id=f"{name}-{form}")
    for name in matrix.CASES
    for form in matrix.FORMATS
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], SourceModel]:
    """Log each model once."""
    known: dict[str, SourceModel] = {}

    def make(name: str) -> SourceModel:
        if name not in known:
            known[name] = matrix.CASES[name].make(tmp_path_factory.mktemp(name))
        return known[name]

    return make


@pytest.fixture(scope="module")
def proven(made: Callable[[str], SourceModel]) -> Callable[[str, str], ParityReport]:
    """Convert and verify each model once in each format."""
    known: dict[tuple[str, str], ParityReport] = {}

    def prove(name: str, form: str) -> ParityReport:
        if (name, form) not in known:
            converted = convert(made(name), form, ConvertOptions())
            known[name, form] = verify(converted, VerifyOptions(rows=200, budget=1.0))
        return known[name, form]

    return prove


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with browser.browser(tmp_path_factory.mktemp("chromium")) as address:
        yield address


@pytest.mark.parametrize(("name", "form"), CELLS)
def test_it_is_verified_or_refused_with_the_reason(name: str, form: str, made: Any, proven: Any) -> None:
    no = matrix.CASES[name].no
    if form in no:
        with pytest.raises(Refused) as stop:
            convert(made(name), form, ConvertOptions())
        assert no[form] in stop.value.message
        assert "python" in stop.value.hint or "onnx" in stop.value.hint  # what is possible instead
        return
    proof = proven(name, form)
    assert proof.rows > 100
    assert not any(output.disagreements for output in proof.outputs)


@pytest.mark.parametrize("name", [name for name, case in matrix.CASES.items() if "onnx" not in case.no])
def test_its_npm_package_gives_the_golden_rows_in_node_and_in_a_browser(
    name: str, proven: Any, chromium: str, tmp_path: Path
) -> None:
    proof = proven(name, "onnx")
    if proof.converted.adapter:
        with pytest.raises(Refused, match="an adapter in Python cuts texts"):
            package(proof, "npm", PackageOptions())
        return
    javascript.node()
    delivered = package(proof, "npm", PackageOptions())
    assert smoke(delivered).rows
    home = javascript.unpacked(delivered, tmp_path / "app")
    with javascript.served(tmp_path / "app") as address, browser.tab(chromium) as page:
        page.open(f"{address}/{home.relative_to(tmp_path / 'app').as_posix()}/example/")
        assert " golden rows: right" in page.run(javascript.GOLDEN)


def test_another_signature_is_chosen_by_name(made: Any) -> None:
    converted = convert(made("signatures"), "onnx", ConvertOptions(signature="shares"))
    assert [spec.name for spec in converted.outputs] == ["shares"]
    assert not any(output.disagreements for output in verify(converted, VerifyOptions(rows=100, budget=1.0)).outputs)


def test_the_matrix_has_every_format() -> None:
    assert set(matrix.FORMATS) == set(FORMATS)


def test_readme_has_the_table() -> None:
    assert matrix.table() in README
