"""The known-bad table: each entry's fault is seen by the case of its name (test_silent_errors), and told to people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
from packaging.specifiers import SpecifierSet
from packaging.version import Version
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

from modelrel.errors import Refused
from modelrel.formats.onnx import handed_in, known_bad, suspicions
from modelrel.formats.onnx.known_bad import TABLE
from modelrel.steps.convert import convert
from modelrel.values import ConvertOptions
from tests.conftest import Run
from tests.formats import outside, silent
from tests.formats.silent import CASES, LOUD
from tests.models import compared, logged

OLD = {"double_trees"}
"""Faults of versions that modelrel does not run with: their condition is tested, the wrong answers are not."""

SEEN = [fault for fault in TABLE if fault.name not in OLD and fault.name not in LOUD]


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, Path]]:
    cases = {fault.name: CASES[fault.name]() for fault in SEEN}
    folder = tmp_path_factory.mktemp("outside")
    written = outside.converted({name: case.asked() for name, case in cases.items()}, folder)
    return {name: (case, written[name]) for name, case in cases.items()}


@pytest.mark.parametrize("fault", SEEN, ids=lambda fault: fault.name)
def test_the_fault_is_still_there_and_its_copy_is_warned_of(fault: Any, copies: dict[str, tuple[Any, Path]]) -> None:
    case, path = copies[fault.name]
    assert silent.wrong(case, path) >= case.least
    model = onnx.load(path)
    if fault.over == "model":
        name, version = handed_in.written_by(model)
        assert fault.sentence in known_bad.warnings("model", case.model, {name.lower(): version}, name)
    else:
        assert fault.sentence in suspicions(path)


def test_our_own_copy_of_a_forest_is_warned_of_nothing(tmp_path: Path) -> None:
    rows, kinds = load_iris(return_X_y=True)
    model = RandomForestClassifier(3, random_state=0).fit(rows, kinds)
    compared(model, rows, tmp_path)
    assert known_bad.warnings("model", model, {"modelrel": "1.0"}, "modelrel") == ()
    assert suspicions(tmp_path / "model.onnx") == ()


def test_float64_trees_are_refused_on_an_old_onnxruntime(tmp_path: Path) -> None:
    rows, kinds = load_iris(return_X_y=True)
    compared(RandomForestRegressor(3, random_state=0).fit(rows, kinds), rows, tmp_path)
    graph = onnx.load(tmp_path / "model.onnx").graph
    with pytest.raises(Refused, match=r"onnxruntime <1\.27: TreeEnsemble with float64 thresholds"):
        known_bad.warnings("graph", graph, {"onnxruntime": "1.23.2"})


def test_a_copy_that_does_not_load_is_refused_and_listed(tmp_path: Path) -> None:
    case = LOUD["catboost_outputs"]()
    written = outside.converted({"catboost_outputs": case.asked()}, tmp_path)["catboost_outputs"]
    source = logged(case.model, case.rows, tmp_path / "release", flavor="catboost")
    with pytest.raises(Refused, match="onnxruntime does not run the file handed in"):
        convert(source, "onnx", ConvertOptions(copy=written))
    fault = next(one for one in TABLE if one.name == "catboost_outputs")
    assert fault.sentence in known_bad.warnings("model", case.model, {"catboost": "1.2.10"}, "CatBoost")
    assert compared(case.model, case.rows, tmp_path, "catboost").numbers < 1e-9


def test_catboosts_page_of_version_text_becomes_its_version() -> None:
    page = "Git info:\n    Commit: b1bd2a6d77\n    Branch: tags/v1.2.10\n    Last Changed Rev: 9293085"
    assert handed_in.written_by(onnx.ModelProto(producer_name="CatBoost", producer_version=page)) == (
        "CatBoost", "1.2.10",
    )  # fmt: skip


def test_a_fixed_version_is_not_warned_of(copies: dict[str, tuple[Any, Path]]) -> None:
    case, _ = copies["hist_float32"]
    assert known_bad.warnings("model", case.model, {"skl2onnx": "1.21.0"}, "skl2onnx") == ()


@pytest.mark.parametrize("fault", TABLE, ids=lambda fault: fault.name)
def test_an_entry_is_whole(fault: Any) -> None:
    assert SpecifierSet(fault.versions, prereleases=True)
    assert fault.source == "measured" or fault.source.startswith("https://github.com/")
    assert Version("0.0.1") in SpecifierSet(fault.versions) or fault.versions.startswith(">=")
    assert fault.name in CASES or fault.name in OLD or fault.name in LOUD


def test_the_command_lists_the_table(run: Run) -> None:
    done = run("formats", "--known-bad", "--json")
    assert done.code == 0
    assert [line["what goes wrong"] for line in done.json] == [fault.wrong for fault in TABLE]
    assert "27533" in run("formats", "--known-bad").out
