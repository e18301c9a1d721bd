"""Silent errors of the usual converters: still there, refused when handed in, and absent from our own copies."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from modelrel.errors import ModelrelError, Refused
from modelrel.steps.convert import convert
from modelrel.steps.verify import verify
from modelrel.values import ConvertedModel, ConvertOptions, VerifyOptions
from tests.conftest import Run
from tests.formats import outside, silent
from tests.formats.silent import CASES, Case
from tests.models import compared, logged

EVERY = pytest.mark.parametrize("name", CASES)
RUNTIME = ("boosting_zero", "xgboost_positive")


@pytest.fixture(scope="session")
def cases() -> dict[str, Case]:
    return silent.cases()


@pytest.fixture(scope="session")
def copies(cases: dict[str, Case], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What the plain tools write, all in one process."""
    return outside.converted({name: case.asked() for name, case in cases.items()}, tmp_path_factory.mktemp("outside"))


@pytest.fixture(scope="session")
def handed_in(
    cases: dict[str, Case], copies: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[ConvertedModel, ModelrelError | None]]:
    """What modelrel makes of each, two at a time: the record of the copy, and how verify ended."""
    sources = {
        name: logged(case.model, case.rows, tmp_path_factory.mktemp(name), flavor=case.flavor)
        for name, case in cases.items()
    }

    def proven(name: str) -> tuple[ConvertedModel, ModelrelError | None]:
        converted = convert(sources[name], "onnx", ConvertOptions(copy=copies[name]))
        try:
            verify(converted, VerifyOptions(rows=300))
        except ModelrelError as error:
            return converted, error
        return converted, None

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(cases, pool.map(proven, cases), strict=True))


@EVERY
def test_the_usual_tool_converts_it_without_an_error_and_wrongly(
    name: str, cases: dict[str, Case], copies: dict[str, Path]
) -> None:
    assert copies[name].suffix == ".onnx", copies[name].read_text()
    assert silent.wrong(cases[name], copies[name]) >= cases[name].least


@EVERY
def test_the_wrong_copy_is_refused_with_the_worst_row(
    name: str, handed_in: dict[str, tuple[ConvertedModel, ModelrelError | None]]
) -> None:
    _, stop = handed_in[name]
    assert isinstance(stop, Refused)
    assert stop.exit_code == 4
    assert "worst row" in stop.message


def test_the_refusal_says_who_is_wrong_the_reader_the_writer_or_the_runtime(
    handed_in: dict[str, tuple[ConvertedModel, ModelrelError | None]],
) -> None:
    said = {name: str(stop) for name, (_, stop) in handed_in.items()}
    assert "the conversion is wrong on label: an independent runtime" in said["lightgbm_rf"]
    assert "the copy is written wrongly: the trees as they are read answer like the original" in said["lightgbm_rf"]
    assert not [name for name, text in said.items() if "read wrongly" in text]
    assert {name for name, text in said.items() if "the runtime is wrong on label" in text} == set(RUNTIME)


@EVERY
def test_our_own_copy_is_equal(name: str, cases: dict[str, Case], tmp_path: Path) -> None:
    case = cases[name]
    found = compared(case.model, case.rows, tmp_path, case.flavor)
    assert found.labels == 0
    assert found.numbers < 1e-5


def test_the_record_of_a_copy_by_catboost_names_its_known_fault(
    handed_in: dict[str, tuple[ConvertedModel, ModelrelError | None]],
) -> None:
    for name in ("catboost_poisson", "catboost_tweedie", "catboost_ova", "catboost_threshold"):
        notes = handed_in[name][0].notes
        assert [note for note in notes if note.startswith("known fault of catboost <=1.2.10")], name
        assert [note for note in notes if note.startswith("handed in, written by CatBoost 1.")], name


def test_the_command_ends_with_4(
    run: Run, copies: dict[str, Path], handed_in: dict[str, tuple[ConvertedModel, ModelrelError | None]]
) -> None:
    folder = handed_in["xgboost_positive"][0].source.model_dir
    done = run("convert", folder, "--copy", copies["xgboost_positive"])
    assert done.code == 4
    assert "label differs on" in done.err
    assert "worst row" in done.err
