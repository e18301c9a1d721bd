"""Each kind of model to each format, through worker, converter and verification: verified, or refused as said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelrel.errors import Refused
from modelrel.formats import FORMATS
from modelrel.steps.convert import convert
from modelrel.steps.verify import verify
from modelrel.values import ConvertOptions, SourceModel, VerifyOptions
from tests import matrix
from tests.formats.pmml import java

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


@pytest.mark.parametrize(("name", "form"), CELLS)
def test_it_is_verified_or_refused_with_the_reason(name: str, form: str, made: Any) -> None:
    source, no = made(name), matrix.CASES[name].no
    if form in no:
        with pytest.raises(Refused) as stop:
            convert(source, form, ConvertOptions())
        assert no[form] in stop.value.message
        assert "python" in stop.value.hint or "onnx" in stop.value.hint  # what is possible instead
        return
    proof = verify(convert(source, form, ConvertOptions()), VerifyOptions(rows=200, budget=1.0))
    assert proof.rows > 100
    assert not any(output.disagreements for output in proof.outputs)


def test_another_signature_is_chosen_by_name(made: Any) -> None:
    converted = convert(made("signatures"), "onnx", ConvertOptions(signature="shares"))
    assert [spec.name for spec in converted.outputs] == ["shares"]
    assert not any(output.disagreements for output in verify(converted, VerifyOptions(rows=100, budget=1.0)).outputs)


def test_the_matrix_has_every_format() -> None:
    assert set(matrix.FORMATS) == set(FORMATS)


def test_readme_has_the_table() -> None:
    assert matrix.table() in README
