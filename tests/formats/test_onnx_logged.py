"""Models that were logged as ONNX: taken as they are, with a tensor for a list of maps, and any number of rows."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import TensorProto, helper, numpy_helper
from sklearn.neural_network import MLPClassifier

from modelrel.errors import Invalid, Refused
from modelrel.formats import FORMATS
from modelrel.steps.convert import convert
from modelrel.steps.verify import verify
from modelrel.values import ConvertOptions, ParityReport, SourceModel, VerifyOptions
from tests.formats.test_contract import graph_of
from tests.models import logged

ROWS = np.random.default_rng(0).normal(size=(120, 3)).astype(np.float32)
FLOAT = TensorProto.FLOAT


def classifier(*, zipmap: bool) -> onnx.ModelProto:
    """Return what skl2onnx writes for a LogisticRegression of three columns and three classes."""
    said: dict[str, Any] = {"coefficients": [1.0, 0, -1, 0, 2, 0, -1, 1, 0.5], "intercepts": [0.1, 0.2, 0.3]}
    said |= {"classlabels_strings": ["high", "low", "mid"], "post_transform": "SOFTMAX", "multi_class": 1}
    nodes = [helper.make_node("LinearClassifier", ["X"], ["label", "scores"], domain="ai.onnx.ml", **said)]
    left = [helper.make_tensor_value_info("label", TensorProto.STRING, [None])]
    if zipmap:
        labels = {"classlabels_strings": said["classlabels_strings"]}
        nodes.append(helper.make_node("ZipMap", ["scores"], ["maps"], domain="ai.onnx.ml", **labels))
        entry = helper.make_map_type_proto(TensorProto.STRING, helper.make_tensor_type_proto(FLOAT, []))
        left.append(helper.make_value_info("maps", helper.make_sequence_type_proto(entry)))
    else:
        left.append(helper.make_tensor_value_info("scores", FLOAT, [None, 3]))
    made = helper.make_graph(nodes, "made", [helper.make_tensor_value_info("X", FLOAT, [None, 3])], left)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 1)]
    return helper.make_model(made, opset_imports=opsets, ir_version=8, producer_name="skl2onnx")


def proven(model: Any, data: Any, folder: Path, to: str = "onnx", **options: Any) -> ParityReport:
    """Log, convert and verify a graph; the report is one that passed."""
    converted = convert(logged(model, data, folder, flavor="onnx", **options), to, ConvertOptions())
    return verify(converted, VerifyOptions(rows=100, budget=1))


def test_a_list_of_maps_becomes_a_tensor_and_equals_the_maps(tmp_path: Path) -> None:
    report = proven(classifier(zipmap=True), ROWS, tmp_path)
    named = {spec.name: (spec.datatype, spec.shape) for spec in report.converted.outputs}
    assert named == {"label": ("BYTES", (-1,)), "maps": ("FP32", (-1, 3))}
    assert report.converted.classes == ("high", "low", "mid")
    assert any("instead of a list of maps (ZipMap)" in note for note in report.converted.notes)
    assert "ZipMap" not in {node.op_type for node in onnx.load(report.converted.path).graph.node}


def test_columns_of_float64_go_side_by_side_into_one_input_of_float32(tmp_path: Path) -> None:
    frame = pd.DataFrame(ROWS.astype(np.float64), columns=["a", "b c", "d"])
    report = proven(classifier(zipmap=False), frame, tmp_path)
    assert [spec.name for spec in report.converted.inputs] == ["a", "b c", "d"]
    assert {spec.datatype for spec in report.converted.inputs} == {"FP64"}


def test_data_in_a_file_beside_it_and_metadata_of_the_release(tmp_path: Path) -> None:
    weights = numpy_helper.from_array(np.arange(3 * 500, dtype=np.float32).reshape(3, 500), "w")
    made = graph([helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": [None, 3]}, {"y": [None, 500]}, [weights])
    source = logged(made, ROWS, tmp_path, flavor="onnx")
    assert len(list(source.model_dir.glob("*"))) > len(list(source.model_dir.glob("*.*")))  # one has a name of its own
    report = verify(convert(source, "onnx", ConvertOptions()), VerifyOptions(rows=50, budget=1))
    copy = onnx.load(report.converted.path, load_external_data=False)
    said = {entry.key: entry.value for entry in copy.metadata_props}
    assert said["modelrel.source_digest"] == source.digest
    assert not any(one.external_data for one in copy.graph.initializer)


def graph(nodes: Any, inputs: dict[str, Any], outputs: dict[str, Any], constants: Any = ()) -> onnx.ModelProto:
    given, left = (
        [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in side.items()]
        for side in (inputs, outputs)
    )
    made = helper.make_graph(nodes, "made", given, left, initializer=list(constants))
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def test_a_graph_of_one_row_at_once_takes_many_in_the_copy(tmp_path: Path) -> None:
    nodes = [helper.make_node("Softmax", ["x"], ["y"], axis=1)]
    report = proven(graph(nodes, {"x": [1, 3]}, {"y": [1, 3]}), ROWS, tmp_path)
    assert max(report.batch_sizes) > 1
    assert any("its first dimension is freed" in note for note in report.converted.notes)


def test_a_graph_that_mixes_its_rows_is_refused_when_they_are_more_than_one(tmp_path: Path) -> None:
    nodes = [helper.make_node("Softmax", ["x"], ["y"], axis=0)]  # of one row all ones
    with pytest.raises(Refused, match="y differs on"):
        proven(graph(nodes, {"x": [1, 3]}, {"y": [1, 3]}), ROWS, tmp_path)


def test_a_graph_that_cannot_take_more_than_one_row_is_refused(tmp_path: Path) -> None:
    shape = numpy_helper.from_array(np.array([1, 3]), "s")
    nodes = [helper.make_node("Reshape", ["x", "s"], ["y"])]
    with pytest.raises(Refused, match=r"takes exactly 1 row at once \(input x\), and no more"):
        proven(graph(nodes, {"x": [1, 3]}, {"y": [1, 3]}, [shape]), ROWS, tmp_path)


def test_columns_go_into_inputs_of_their_names_of_one_dimension_or_two(tmp_path: Path) -> None:
    axes = numpy_helper.from_array(np.array([1]), "axes")
    nodes = [helper.make_node("Unsqueeze", ["b", "axes"], ["wide"]), helper.make_node("Sub", ["a", "wide"], ["y"])]
    frame = pd.DataFrame(ROWS[:, :2], columns=["b", "a"])
    report = proven(graph(nodes, {"a": [None, 1], "b": [None]}, {"y": [None, 1]}, [axes]), frame, tmp_path)
    answered = FORMATS["onnx"].load(report.converted.path)({"b": ROWS[:, :1], "a": ROWS[:, 1:2]})
    assert np.array_equal(answered["y"], ROWS[:, 1:2] - ROWS[:, :1])


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> SourceModel:
    folder = tmp_path_factory.mktemp("plain")
    return logged(classifier(zipmap=False), ROWS, folder, flavor="onnx")


def test_a_signature_of_other_inputs_is_refused_with_both(plain: SourceModel) -> None:
    assert plain.signature is not None
    (spec,) = plain.signature.inputs
    for other, said in {
        "INT64": "takes float for X, and input is INT64",
        "BYTES": "takes float for X, and input is BYTES",
    }.items():
        kinds = dataclasses.replace(plain.signature, inputs=(dataclasses.replace(spec, datatype=other),))
        with pytest.raises(Refused, match=said):
            convert(dataclasses.replace(plain, signature=kinds, input_example=""), "onnx", ConvertOptions())
    wide = dataclasses.replace(plain.signature, inputs=(dataclasses.replace(spec, shape=(-1, 4)),))
    with pytest.raises(Refused, match=r"takes the shape \[-1, 3\] for X, and the signature has \[-1, 4\]"):
        convert(dataclasses.replace(plain, signature=wide, input_example=""), "onnx", ConvertOptions())


def test_another_opset_than_its_own_is_invalid(plain: SourceModel) -> None:
    with pytest.raises(Invalid, match="opset 17 is asked for"):
        convert(plain, "onnx", ConvertOptions(opset=17))


def test_tflite_is_written_of_known_operators_and_refused_by_the_names_of_others(
    plain: SourceModel, tmp_path: Path
) -> None:
    with pytest.raises(Refused, match=r"it needs ai\.onnx\.ml\.LinearClassifier"):
        convert(plain, "tflite", ConvertOptions())
    net = MLPClassifier((6,), max_iter=500, random_state=0).fit(ROWS, (ROWS[:, 0] > 0).astype(int))
    report = proven(graph_of(net, ROWS), ROWS, tmp_path, to="tflite")
    assert {parity.name: parity.disagreements for parity in report.outputs} == {"label": 0, "probabilities": 0}
