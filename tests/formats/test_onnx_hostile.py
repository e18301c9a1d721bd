"""ONNX files that lie, reach out, or never end: one sentence, the right exit code, and nothing outside is touched."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from modelrel import onnx_file
from modelrel.errors import Invalid, ModelrelError, Refused
from modelrel.formats import FORMATS
from modelrel.steps.convert import convert
from modelrel.steps.verify import verify
from modelrel.values import ConvertOptions, SourceModel, VerifyOptions
from tests.conftest import Run
from tests.formats.graphs import ONE, added, doubling, elsewhere, graph, held, nested, varint

GIB = 2**30
SMALL = ConvertOptions(seconds=20, memory_bytes=GIB)
Given = Callable[[bytes, Path], object]


def as_flavor(content: bytes, folder: Path) -> object:
    return convert(held(folder / "release", content), "onnx", SMALL)


def as_copy(content: bytes, folder: Path) -> object:
    """Hand the file in as the copy of a model that is all right."""
    (folder / "given.onnx").write_bytes(content)
    source = held(folder / "release", graph().SerializeToString())
    options = ConvertOptions(seconds=20, memory_bytes=GIB, copy=folder / "given.onnx")
    return convert(source, "onnx", options)


def as_file(content: bytes, folder: Path) -> object:
    """Look the file through as both of them do, in this process."""
    (folder / "given.onnx").write_bytes(content)
    return onnx_file.read(folder / "given.onnx", folder)


WAYS = pytest.mark.parametrize("given", [as_flavor, as_copy])


def refused(given: Given, content: bytes, folder: Path) -> str:
    """Return the sentence; nothing may have been written but what was there."""
    folder.mkdir(exist_ok=True)
    with pytest.raises(Refused) as stop:
        given(content, folder)
    assert "\n" not in stop.value.message
    assert stop.value.hint
    assert not (folder / "release" / "onnx").exists()
    return stop.value.message


def test_the_graph_that_the_others_are_made_of_is_released(tmp_path: Path) -> None:
    report = verify(convert(held(tmp_path, graph().SerializeToString()), "onnx", SMALL), VerifyOptions(rows=50))
    assert [parity.disagreements for parity in report.outputs] == [0]


@WAYS
@pytest.mark.parametrize("location", ["../../../../../../etc/passwd", "/etc/passwd"])
def test_data_outside_of_the_folder_is_refused_by_name(given: Given, location: str, tmp_path: Path) -> None:
    said = refused(given, elsewhere(location), tmp_path)
    assert "outside the model's folder" in said or "in other files" in said
    assert repr(location) in said


@pytest.mark.parametrize("location", ["a/../../passwd", "..\\passwd", "C:passwd", "", "a\nb"])
def test_no_other_way_leads_outside(location: str, tmp_path: Path) -> None:
    assert repr(location) in refused(as_file, elsewhere(location), tmp_path)


@WAYS
def test_data_outside_is_not_even_opened(given: Given, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # whoever opens it waits for ever
    start = time.monotonic()
    refused(given, elsewhere("../../pipe"), tmp_path)
    assert time.monotonic() - start < 15


@pytest.mark.parametrize("onto", ["file", "folder"])
def test_a_link_to_data_outside_is_refused(onto: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(12))
    source = held(tmp_path / "release", elsewhere("link" if onto == "file" else "link/secret"))
    (source.model_dir / "link").symlink_to(tmp_path / "secret" if onto == "file" else tmp_path)
    with pytest.raises(Refused, match="outside the model's folder"):
        convert(source, "onnx", SMALL)


@pytest.mark.parametrize(("length", "offset"), [(12, 5), (13, 0), (-1, 0), (12, -1), (2**62, 0)])
def test_data_that_is_not_all_there_is_refused(length: int, offset: int, tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(bytes(12))
    assert "the tensor k of given.onnx is" in refused(as_file, elsewhere("weights", length, offset), tmp_path)


def test_data_inside_of_the_folder_is_taken_in(tmp_path: Path) -> None:
    source = held(tmp_path, elsewhere("w/weights", 12, 4))
    (source.model_dir / "w").mkdir()
    (source.model_dir / "w/weights").write_bytes(bytes(4) + np.array([1, 2, 3], np.float32).tobytes())
    converted = convert(source, "onnx", SMALL)
    answered = FORMATS["onnx"].load(converted.path)({"x": np.zeros((2, 3), np.float32)})
    assert answered["y"].tolist() == [[1, 2, 3]] * 2
    assert verify(converted, VerifyOptions(rows=50)).rows >= 50


GRAPH, INITIALIZER, RAW = b"\x3a", b"\x2a", b"\x4a"  # tags of ModelProto.graph, GraphProto.initializer, raw_data


@pytest.mark.parametrize(
    "content",
    [
        GRAPH + varint(2**31 - 1) + b"\x0a\x00",
        GRAPH + varint(20) + INITIALIZER + varint(2**31 - 1) + bytes(12),
        GRAPH + varint(14) + INITIALIZER + varint(8) + RAW + varint(2**31 - 1) + bytes(2),
        GRAPH + varint(2**63) + b"\x00",
        b"\x08" + b"\xff" * 40,
    ],
    ids=["graph", "tensor", "raw data", "beyond 64 bits", "endless number"],
)
def test_a_message_that_claims_two_gigabytes_is_no_model(content: bytes, tmp_path: Path) -> None:
    assert "no ONNX model" in refused(as_file, content, tmp_path)


@pytest.mark.parametrize(
    "dims", [[2**29], [2**31 - 1], [2**32, 2**32], [2**62, 4], [-1], [3, -3]], ids=lambda dims: "x".join(map(str, dims))
)
@pytest.mark.parametrize("raw", [True, False])
def test_a_tensor_that_claims_more_than_it_holds_is_refused(dims: list[int], raw: bool, tmp_path: Path) -> None:
    constant = TensorProto(name="k", dims=dims, data_type=ONE)
    if raw:
        constant.raw_data = bytes(12)
    else:
        constant.float_data.extend([1, 2, 3])
    assert str(dims) in refused(as_file, added(constant).SerializeToString(), tmp_path)


@pytest.mark.parametrize(("ir", "opset"), [(2**62, 18), (99, 18), (-1, 18), (0, 18), (8, 2**62), (8, 999), (8, -7)])
def test_an_absurd_version_is_refused_with_the_number(ir: int, opset: int, tmp_path: Path) -> None:
    model = graph()
    model.ir_version, model.opset_import[0].version = ir, opset
    assert str(opset if ir == 8 else ir) in refused(as_file, model.SerializeToString(), tmp_path)


@WAYS
def test_bodies_nested_deeper_than_any_reader_goes_are_refused(given: Given, tmp_path: Path) -> None:
    assert "no ONNX model" in refused(given, nested(60), tmp_path)


def test_bodies_nested_as_deep_as_readers_go_are_released(tmp_path: Path) -> None:
    report = verify(convert(held(tmp_path, nested(20)), "onnx", SMALL), VerifyOptions(rows=50))
    assert [parity.disagreements for parity in report.outputs] == [0]


def test_functions_that_grow_beyond_measure_are_refused_before_they_are_put_in_place(tmp_path: Path) -> None:
    assert "1,073,741,824 nodes" in refused(as_file, doubling(31).SerializeToString(), tmp_path)


def test_a_function_that_calls_itself_is_refused(tmp_path: Path) -> None:
    model = doubling(2)
    model.functions[0].node[0].op_type, model.functions[0].node[0].domain = "f1", "mine"
    assert "calls itself" in refused(as_file, model.SerializeToString(), tmp_path)


def test_functions_are_put_in_place(tmp_path: Path) -> None:
    converted = convert(held(tmp_path, doubling(4).SerializeToString()), "onnx", SMALL)
    assert {node.op_type for node in onnx.load(converted.path).graph.node} <= {"Abs", "Identity", "Reshape"}
    assert verify(converted, VerifyOptions(rows=50)).rows >= 50


def test_operators_that_onnxruntime_does_not_bring_are_refused_by_name(tmp_path: Path) -> None:
    model = graph(helper.make_node("Secret", ["x"], ["y"], domain="org.evil"), domains=["org.evil"])
    assert "org.evil.Secret" in refused(as_file, model.SerializeToString(), tmp_path)


def huge(count: int) -> bytes:
    """A graph that makes a tensor of so many numbers when it runs."""
    shape = numpy_helper.from_array(np.array([count], np.int64), "s")
    nodes = [
        helper.make_node("ConstantOfShape", ["s"], ["ones"]),
        helper.make_node("ReduceSum", ["ones"], ["sum"], keepdims=0),
        helper.make_node("Add", ["x", "sum"], ["y"]),
    ]
    return graph(*nodes, constants=[shape]).SerializeToString()


@pytest.mark.parametrize("count", [2**33, 2**61])
def test_a_graph_that_asks_for_more_memory_than_the_limit_is_refused(count: int, tmp_path: Path) -> None:
    with pytest.raises(ModelrelError) as stop:
        convert(held(tmp_path, huge(count)), "onnx", SMALL)
    assert stop.value.exit_code == 4
    assert not (tmp_path / "onnx").exists()


def endless() -> ModelProto:
    """A loop of 2^62 turns."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Abs", ["v"], ["w"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", ONE, ["N", 3]),
        ],
        [helper.make_tensor_value_info("on", TensorProto.BOOL, []), helper.make_tensor_value_info("w", ONE, ["N", 3])],
    )
    constants = [numpy_helper.from_array(np.array(2**62), "turns"), numpy_helper.from_array(np.array(True), "yes")]
    return graph(helper.make_node("Loop", ["turns", "yes", "x"], ["y"], body=body), constants=constants)


def test_a_loop_that_never_ends_is_stopped(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="took longer than 3 seconds"):
        convert(held(tmp_path, endless().SerializeToString()), "onnx", ConvertOptions(seconds=3))


def test_the_command_line_says_it_in_one_sentence_and_exits_with_4(run: Run, tmp_path: Path) -> None:
    source = held(tmp_path / "model", elsewhere("../../../etc/passwd"))
    done = run("convert", source.model_dir, "--json")
    assert done.code == 4, done.out + done.err
    assert "outside the model's folder" in done.json["error"]["message"]
    assert "Traceback" not in done.err + done.out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dist", "model"]


def test_a_copy_whose_data_lies_elsewhere_is_refused_before_anything_follows_it(tmp_path: Path) -> None:
    """What the worker wrote is not believed either: model code ran in it."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "model.onnx").write_bytes(elsewhere("pipe"))
    with pytest.raises(Refused, match="in other files"):
        FORMATS["onnx"].check(tmp_path / "model.onnx")


def test_an_mlmodel_that_names_a_file_outside_is_invalid(tmp_path: Path) -> None:
    source: SourceModel = held(tmp_path, graph().SerializeToString())
    (tmp_path / "outside.onnx").write_bytes(graph().SerializeToString())
    text = (source.model_dir / "MLmodel").read_text()
    (source.model_dir / "MLmodel").write_text(text.replace("data: model.onnx", "data: ../outside.onnx"))
    with pytest.raises(Invalid, match="not among the model's files"):
        convert(source, "onnx", SMALL)
