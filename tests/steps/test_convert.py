"""Convert: what stands in the release folder afterwards, and every way it can stop."""

from __future__ import annotations

import dataclasses
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from modelrel.errors import Invalid, ModelrelError, Refused
from modelrel.steps.convert import convert, tools
from modelrel.values import ConvertedModel, ConvertOptions, SourceModel
from tests.conftest import Run
from tests.models import hostile, logged, people, prepared

OPTIONS = ConvertOptions()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> SourceModel:
    frame, classes, _ = people()
    model = make_pipeline(prepared(), LogisticRegression(max_iter=500)).fit(frame, classes)
    return logged(model, frame, tmp_path_factory.mktemp("release"))


@pytest.fixture(scope="module")
def converted(source: SourceModel) -> ConvertedModel:
    return convert(source, "onnx", OPTIONS)


def test_the_interface_is_the_logged_signature(converted: ConvertedModel, source: SourceModel) -> None:
    assert source.signature is not None
    model = onnx.load(converted.path)
    assert converted.inputs == source.signature.inputs
    assert [value.name for value in model.graph.input] == [spec.name for spec in source.signature.inputs]
    kinds = [value.type.tensor_type.elem_type for value in model.graph.input]
    proto = onnx.TensorProto
    assert kinds == [proto.INT64, proto.DOUBLE, proto.STRING, proto.BOOL, proto.FLOAT]
    assert [value.type.tensor_type.shape.dim[1].dim_value for value in model.graph.input] == [1] * 5


def test_a_classifier_gives_label_and_probabilities(converted: ConvertedModel) -> None:
    found = [(spec.name, spec.datatype, spec.shape) for spec in converted.outputs]
    assert found == [("label", "BYTES", (-1,)), ("probabilities", "FP64", (-1, 2))]
    assert (converted.predict, converted.classes) == ("label", ("churns", "stays"))


def test_the_graph_says_where_it_comes_from(converted: ConvertedModel, source: SourceModel) -> None:
    model = onnx.load(converted.path)
    said = {entry.key: entry.value for entry in model.metadata_props}
    assert said["modelrel.model"] == "churn"
    assert said["modelrel.source_digest"] == source.digest
    assert json.loads(said["modelrel.tools"]) == dict(converted.tools)
    assert model.producer_name == "modelrel"


def test_the_hints_name_categories_and_ranges(converted: ConvertedModel) -> None:
    assert converted.hints is not None
    features = json.loads((converted.folder / converted.hints.path).read_text())["features"]
    assert features[2]["categories"] == ["basic", "pro", "é c"]
    assert features[0]["low"] < 40 < features[0]["high"]


def test_converting_again_gives_the_same_bytes(converted: ConvertedModel, source: SourceModel) -> None:
    assert convert(source, "onnx", OPTIONS).file == converted.file


def test_the_opset_can_be_chosen(source: SourceModel, converted: ConvertedModel, tmp_path: Path) -> None:
    elsewhere = tmp_path / "release"
    elsewhere.mkdir()
    (elsewhere / "source").symlink_to(source.model_dir, target_is_directory=True)
    old = convert(dataclasses.replace(source, folder=elsewhere), "onnx", ConvertOptions(opset=17))
    assert (old.opsets["ai.onnx"], converted.opsets["ai.onnx"]) == (17, 22)


@pytest.mark.parametrize("opset", [5, 99])
def test_an_opset_out_of_range_is_invalid(opset: int, source: SourceModel) -> None:
    with pytest.raises(Invalid, match=f"opset {opset}"):
        convert(source, "onnx", ConvertOptions(opset=opset))


def test_the_host_does_not_import_what_the_model_needs(source: SourceModel) -> None:
    code = (
        "import sys, pickle; from modelrel.steps.convert import convert; from modelrel.values import *; "
        "convert(pickle.load(sys.stdin.buffer), 'onnx', ConvertOptions()); "
        "print([name for name in ('sklearn', 'skl2onnx', 'mlflow', 'xgboost') if name in sys.modules])"
    )
    top = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, input=pickle.dumps(source), cwd=top, capture_output=True, check=False)
    assert done.stdout.decode().strip() == "[]", done.stderr.decode()[-2000:]


def test_a_model_without_signature_is_refused_with_the_way_out(source: SourceModel, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "MLmodel").write_text("flavors: {sklearn: {}}")
    with pytest.raises(Refused, match="without a signature") as stop:
        convert(dataclasses.replace(source, signature=None, folder=tmp_path), "onnx", OPTIONS)
    assert "infer_signature" in stop.value.hint


def test_a_flavor_that_no_format_takes_is_refused_and_told_what_is_possible(source: SourceModel) -> None:
    with pytest.raises(Refused, match="flavor prophet") as stop:
        convert(dataclasses.replace(source, flavor="prophet"), "onnx", OPTIONS)
    assert "sklearn" in stop.value.hint


def test_an_unknown_format_is_invalid(source: SourceModel) -> None:
    with pytest.raises(Invalid, match="no format 'onyx'"):
        convert(source, "onyx", OPTIONS)


@pytest.mark.parametrize(
    ("code", "said"),
    [("import os; os._exit(1)", "ended its process"), ("while True: pass", "longer than 2 seconds")],
    ids=["dies", "hangs"],
)
def test_a_hostile_model_leaves_nothing_in_the_release_folder(code: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ModelrelError, match=said):
        convert(hostile(tmp_path, code), "onnx", ConvertOptions(seconds=2, allow_pickle=("builtins.exec",)))
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_without_an_input_example_the_copy_is_the_same(tmp_path: Path) -> None:
    data, target = load_iris(return_X_y=True)
    model = LogisticRegression(max_iter=500).fit(data, target)
    options: list[dict[str, Any]] = [{}, {"input_example": None}]
    first, second = (
        convert(logged(model, data, tmp_path / str(number), **option), "onnx", OPTIONS)
        for number, option in enumerate(options)
    )
    assert first.outputs == second.outputs


def test_an_input_example_that_does_not_fit_is_noted_and_not_used(tmp_path: Path) -> None:
    data, target = load_iris(return_X_y=True)
    source = logged(LogisticRegression(max_iter=500).fit(data, target), data, tmp_path)
    (source.model_dir / source.input_example).write_text('[["a", "b"]]')
    notes: list[str] = []
    convert(source, "onnx", OPTIONS, notes.append)
    assert any("input example is not used" in sentence for sentence in notes)


def test_the_tools_are_those_that_decide_the_bytes() -> None:
    assert {"onnx", "onnxruntime", "skl2onnx"} <= set(tools("onnx"))


@pytest.mark.parametrize("opset", [5, 22])
def test_a_conversion_leaves_no_process_and_no_folder_behind(
    run: Run, sqlite_registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opset: int
) -> None:
    """What loads ahead for the comparison is ended, too, where the conversion is refused."""
    psutil = pytest.importorskip("psutil")
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    done = run("convert", "flowers/2", "--registry", sqlite_registry, "--opset", opset)
    assert done.code == (0 if opset == 22 else 2), done.err
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= before
    assert not list((tmp_path / "scratch").iterdir())
