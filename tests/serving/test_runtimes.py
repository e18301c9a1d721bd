"""Every format that is served answers as it was verified, whoever asks at the same time; and a broken file is said."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import psutil
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.neural_network import MLPRegressor

from modelrel import tensors
from modelrel.serving import BrokenModel, Model, load_model
from modelrel.serving.answers import Refused
from modelrel.serving.runtimes import FORMATS
from modelrel.serving.tensors import DTYPES
from modelrel.steps.convert import convert
from modelrel.steps.verify import verify
from modelrel.values import ConvertOptions, VerifyOptions
from tests.models import logged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from modelrel.values import SourceModel

OPTIONS = VerifyOptions(rows=40, budget=0.5)
RANDOM = np.random.default_rng(0)
FRAME = pd.DataFrame(RANDOM.normal(size=(200, 4)).astype(np.float32), columns=["a", "b", "c", "d e"])
SAID = np.where(FRAME["a"] + FRAME["b"] * FRAME["c"] > 0, "yes", "no")

Feeds = dict[str, np.ndarray[Any, Any]]


@pytest.fixture(scope="module")
def forest(tmp_path_factory: pytest.TempPathFactory) -> SourceModel:
    return logged(RandomForestClassifier(5, max_depth=4).fit(FRAME, SAID), FRAME, tmp_path_factory.mktemp("forest"))


@pytest.fixture(scope="module")
def released(forest: SourceModel) -> Callable[[str], Path]:
    """Return the folder that convert and verify leave of a forest, made when it is first asked for."""

    def folder(form: str) -> Path:
        found = forest.folder / form
        if not (found / "modelrel.json").exists():
            verify(convert(forest, form, ConvertOptions()), OPTIONS)
        return found

    return folder


@pytest.fixture(scope="module")
def served(released: Callable[[str], Path]) -> Iterator[Callable[[str], Model]]:
    models: dict[str, Model] = {}

    def model(form: str) -> Model:
        if form not in models:
            models[form] = load_model(released(form))
        return models[form]

    yield model
    for one in models.values():
        one.retire()


def golden(model: Model) -> tuple[Feeds, Feeds]:
    """Return the golden rows and answers of a model as arrays."""
    said = model.golden()
    assert said is not None
    return (
        {one.name: np.array(said.inputs[one.name], DTYPES[one.datatype]).reshape(one.shape) for one in model.inputs},
        {one.name: np.array(said.outputs[one.name], DTYPES[one.datatype]) for one in model.outputs},
    )


def wrong(first: Feeds, second: Feeds) -> dict[str, int]:
    """Return how many rows differ by more than verify allows, of each output."""
    tolerance = OPTIONS.tolerance
    return {
        name: int(tensors.differ(array, second[name], rtol=tolerance.rtol, atol=tolerance.atol).sum())
        for name, array in first.items()
    }


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_answers_its_golden_rows_and_those_of_onnx(
    form: str, served: Callable[[str], Model], ask: Callable[..., Any]
) -> None:
    model = served(form)
    for rows, expected in (golden(model), golden(served("onnx"))):
        body = {
            "inputs": [
                {"name": one.name, "shape": [8, 1], "datatype": one.datatype, "data": rows[one.name].tolist()}
                for one in model.inputs
            ]
        }
        reply = ask(model, "POST", "/v2/models/churn/infer", body)
        assert reply.status == 200
        found = {
            one["name"]: np.array(one["data"], DTYPES[one["datatype"]]).reshape(one["shape"])
            for one in reply.json["outputs"]
        }
        assert wrong(expected, found) == {"label": 0, "probabilities": 0}


@pytest.mark.parametrize("form", FORMATS)
def test_one_output_can_be_asked_for_alone(form: str, served: Callable[[str], Model]) -> None:
    model = served(form)
    rows, expected = golden(model)
    (found,) = model.run(["probabilities"], rows)
    assert wrong({"probabilities": expected["probabilities"]}, {"probabilities": found}) == {"probabilities": 0}


@pytest.mark.parametrize("form", FORMATS)
def test_sixteen_threads_with_other_rows_and_batches_are_all_answered_rightly(
    form: str, served: Callable[[str], Model]
) -> None:
    model = served(form)
    rows, expected = golden(model)

    def asked(number: int) -> dict[str, int]:
        picked = np.random.default_rng(number).integers(0, 8, size=1 + number % 7)
        found = model.predict(tensors.take(rows, picked))
        return wrong(tensors.take(expected, picked), found)

    with ThreadPoolExecutor(16) as threads:
        found = list(threads.map(asked, range(160)))
    assert found == [{"label": 0, "probabilities": 0}] * 160


def test_more_rows_than_tflite_takes_at_once_are_answered_in_their_order(served: Callable[[str], Model]) -> None:
    model = served("tflite")
    rows, expected = golden(model)
    picked = np.arange(10_000) % 8
    assert wrong(tensors.take(expected, picked), model.predict(tensors.take(rows, picked))) == {
        "label": 0,
        "probabilities": 0,
    }


def test_a_tflite_file_in_whole_numbers_takes_and_gives_real_ones(tmp_path: Path) -> None:
    rows = RANDOM.normal(size=(300, 6)).astype(np.float32)
    network = MLPRegressor(hidden_layer_sizes=(64, 64), max_iter=60, random_state=0).fit(
        rows, rows[:, 0] * 2 + rows[:, 1]
    )
    copy = convert(logged(network, rows, tmp_path, input_example=rows), "tflite", ConvertOptions(quantize="int8"))
    verify(copy, VerifyOptions(rows=40, budget=0.5, loss={"max_error": 10.0, "mean_error": 10.0}))
    model = load_model(tmp_path / "tflite")
    said = json.loads((tmp_path / "tflite/modelrel.json").read_text())
    assert said["inputs"][0]["file"]["datatype"] == "INT8"
    assert [one.datatype for one in (*model.inputs, *model.outputs)] == ["FP32", "FP32"]
    inputs, outputs = golden(model)
    assert wrong(outputs, model.predict(inputs)) == {"prediction": 0}


_LOAD = """
import pathlib, sys
from modelrel.serving import BrokenModel, load_model
folder = pathlib.Path(sys.argv[1])
whole = (folder / "model.tflite").read_bytes()
for part in range(40):
    (folder / "model.tflite").write_bytes(whole[: len(whole) * part // 40])
    try:
        load_model(folder)
    except BrokenModel as error:
        print("broken" if len(str(error).splitlines()) == 1 else "lines")
"""


def test_a_tflite_file_that_is_cut_is_one_sentence_and_the_server_lives(
    released: Callable[[str], Path], tmp_path: Path
) -> None:
    shutil.copytree(released("tflite"), tmp_path / "cut")
    done = subprocess.run([sys.executable, "-c", _LOAD, tmp_path / "cut"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["broken"] * 40


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("<PMML", '<!DOCTYPE PMML [<!ENTITY a "b">]>\n<PMML', "a document type"),
        ('<Header description="written by modelrel">', "<Header><Anything/>", "the element Anything"),
        ("</PMML>", "", "is not PMML"),
    ],
)
def test_a_pmml_file_that_is_none_of_ours_does_not_reach_java(
    before: str, after: str, said: str, released: Callable[[str], Path], tmp_path: Path
) -> None:
    shutil.copytree(released("pmml"), tmp_path / "odd")
    path = tmp_path / "odd/model.pmml"
    path.write_text(path.read_text().replace(before, after))
    with pytest.raises(BrokenModel, match=said):
        load_model(tmp_path / "odd")
    assert not [one for one in psutil.Process().children(recursive=True) if one.cmdline()[2:] and "odd" in one.cwd()]


def test_a_java_process_that_ends_is_started_again(served: Callable[[str], Model]) -> None:
    model = served("pmml")
    rows, expected = golden(model)
    below = [one for pid in model._loaded.pids for one in psutil.Process(pid).children(recursive=True)]
    ours = [one for one in below if one.name() == "java"]
    assert ours
    for one in ours:
        one.kill()
    with pytest.raises(Refused) as stop:
        model.predict(rows)
    assert stop.value.status == 503
    assert wrong(expected, model.predict(rows)) == {"label": 0, "probabilities": 0}
    assert model.ready


def test_a_server_without_java_says_so(released: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = released("pmml")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BrokenModel, match="needs Java, and there is no java on the PATH"):
        load_model(folder)


@pytest.mark.parametrize(("form", "library"), [("tflite", "ai-edge-litert"), ("pmml", "pypmml")])
def test_a_missing_library_is_named_with_the_command(form: str, library: str, released: Callable[[str], Path]) -> None:
    code = (
        "import sys; from modelrel.serving import load_model\n"
        "sys.modules['ai_edge_litert'] = sys.modules['pypmml'] = None\n"
        f"load_model({str(released(form))!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f"which is not installed here: pip install {library}" in done.stderr.splitlines()[-1]


def test_a_server_of_several_formats_serves_each_by_its_name(
    released: Callable[[str], Path], tmp_path: Path, start_server: Callable[..., Any]
) -> None:
    import httpx

    for form in ("onnx", "tflite", "pmml"):
        shutil.copytree(released(form), tmp_path / "models" / form)
        path = tmp_path / "models" / form / "modelrel.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"name": form}))
    url = start_server(tmp_path / "models").url
    rows = {name: array[:1].tolist() for name, array in golden(load_model(released("onnx")))[0].items()}
    body = {"inputs": [{"name": n, "shape": [1, 1], "datatype": "FP32", "data": v} for n, v in rows.items()]}
    answers = {}
    for form in ("onnx", "tflite", "pmml"):
        answers[form] = httpx.post(f"{url}/v2/models/{form}/infer", json=body, timeout=60).json()["outputs"][0]["data"]
        platform = httpx.get(f"{url}/v2/models/{form}").json()["platform"]
        assert platform.endswith(form)
    assert answers["onnx"] == answers["tflite"] == answers["pmml"]
