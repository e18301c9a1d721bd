"""A copy that was converted elsewhere: fitted and proven, or refused with what was found and what is needed."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import TensorProto, helper, numpy_helper
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from modelrel import records
from modelrel.errors import Invalid, Refused
from modelrel.steps.convert import LARGEST_COPY, convert
from modelrel.steps.verify import verify
from modelrel.values import ConvertedModel, ConvertOptions, SourceModel, VerifyOptions
from tests.conftest import Run
from tests.formats import outside
from tests.models import logged

RANDOM = np.random.default_rng(0)
ROWS = RANDOM.normal(size=(120, 3))
FRAME = pd.DataFrame(ROWS, columns=["a", "b c", "d"])
KINDS = (ROWS[:, 0] > 0).astype(int) + (ROWS[:, 1] > 0)
MIXED = FRAME.assign(plan=RANDOM.choice(["basic", "pro"], len(FRAME)))
WORDS = ColumnTransformer([("words", OneHotEncoder(), ["plan"])], remainder="passthrough")
MERGED = [("X", "float", 3)]
EACH = [("a", "float", 1), ("b c", "float", 1), ("d", "float", 1), ("plan", "text", 1)]


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    return {
        "kinds": LogisticRegression().fit(ROWS, KINDS),
        "frame": LogisticRegression().fit(FRAME, KINDS),
        "mixed": make_pipeline(WORDS, LogisticRegression()).fit(MIXED, KINDS),
        "number": LinearRegression().fit(ROWS, ROWS @ [1, 2, 3]),
    }


@pytest.fixture(scope="module")
def copies(models: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    asked = {
        "kinds": {"model": models["kinds"], "inputs": MERGED},
        "zipmap": {"model": models["kinds"], "inputs": MERGED, "options": {"zipmap": True}},
        "wide": {"model": models["number"], "inputs": [("X", "double", 3)]},
        "mixed": {"model": models["mixed"], "inputs": EACH},
        "shuffled": {"model": models["mixed"], "inputs": [EACH[index] for index in (3, 1, 0, 2)]},
    }
    folder = tmp_path_factory.mktemp("outside")
    return outside.converted({name: {"tool": "skl2onnx", **said} for name, said in asked.items()}, folder)


@pytest.fixture(scope="module")
def sources(models: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, SourceModel]:
    data = {"kinds": ROWS, "frame": FRAME, "mixed": MIXED, "number": ROWS}
    return {name: logged(model, data[name], tmp_path_factory.mktemp(name)) for name, model in models.items()}


def taken(source: SourceModel, copy: Path) -> ConvertedModel:
    return convert(source, "onnx", ConvertOptions(copy=copy))


@pytest.mark.parametrize(
    ("source", "copy"),
    [
        ("kinds", "kinds"),
        ("kinds", "zipmap"),
        ("frame", "kinds"),
        ("number", "wide"),
        ("mixed", "mixed"),
        ("mixed", "shuffled"),
    ],
)
def test_a_right_copy_is_proven(
    source: str, copy: str, sources: dict[str, SourceModel], copies: dict[str, Path]
) -> None:
    converted = taken(sources[source], copies[copy])
    report = verify(converted, VerifyOptions())
    assert sources[source].signature is not None
    assert converted.inputs == sources[source].signature.inputs
    assert report.rows >= 1000
    assert [parity.disagreements for parity in report.outputs] == [0] * len(report.outputs)


def test_the_record_says_that_the_copy_was_handed_in_and_which(
    sources: dict[str, SourceModel], copies: dict[str, Path], tmp_path: Path
) -> None:
    converted = taken(sources["kinds"], copies["kinds"])
    given = hashlib.sha256(copies["kinds"].read_bytes()).hexdigest()
    assert converted.handed_in == given
    assert any("handed in, written by skl2onnx" in note and given in note for note in converted.notes)
    records.write(converted, tmp_path / "r.json", "key")
    assert records.read(ConvertedModel, tmp_path / "r.json", "key", source=converted.source) == converted


def test_the_opset_of_the_file_is_kept(sources: dict[str, SourceModel], copies: dict[str, Path]) -> None:
    given = {entry.domain or "ai.onnx": entry.version for entry in onnx.load(copies["wide"]).opset_import}
    assert taken(sources["number"], copies["wide"]).opsets == given


def test_a_copy_of_another_model_is_refused_by_verify_with_the_worst_row(
    sources: dict[str, SourceModel], copies: dict[str, Path], tmp_path: Path
) -> None:
    model = onnx.load(copies["wide"])
    constants = {entry.name: entry for entry in model.graph.initializer}
    weights = next(name for name, entry in constants.items() if "coef" in name)
    constants[weights].CopyFrom(numpy_helper.from_array(numpy_helper.to_array(constants[weights]) * 1.01, weights))
    other = tmp_path / "other.onnx"
    onnx.save(model, other)
    with pytest.raises(Refused, match=r"prediction differs on .* worst row") as stop:
        verify(taken(sources["number"], other), VerifyOptions())
    assert "stands until modelrel convert --force" in stop.value.hint


def test_zipmap_of_other_classes_is_refused_with_the_way_out(
    sources: dict[str, SourceModel], copies: dict[str, Path], tmp_path: Path
) -> None:
    model = onnx.load(copies["zipmap"])
    (zipped,) = (node for node in model.graph.node if node.op_type == "ZipMap")
    zipped.attribute[0].ints[:] = [2, 1, 0]
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(Refused, match=r"maps \[2, 1, 0\], and LogisticRegression knows \[0, 1, 2\]") as stop:
        taken(sources["kinds"], tmp_path / "other.onnx")
    assert "zipmap=False" in stop.value.hint


def made(path: Path, inputs: dict[str, list[Any]], outputs: dict[str, tuple[int, str]]) -> Path:
    """Write a graph whose outputs are casts of its inputs: name -> (element, the input)."""
    nodes = [helper.make_node("Cast", [given], [name], to=element) for name, (element, given) in outputs.items()]
    graph = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, element, inputs[given]) for name, (element, given) in outputs.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return path


F, D, WHOLE = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64
BAD: dict[str, tuple[dict[str, list[Any]], str]] = {
    "two of three inputs": ({"x": ["N", 1], "y": ["N", 2]}, "takes 2 inputs; it has x: float, y: float"),
    "another width": ({"x": ["N", 4]}, r"takes the shape \[-1, 4\] for x, where it gets \[-1, 3\]"),
    "one row only": ({"x": [1, 3]}, r"takes exactly 1 rows at once \(input x\)"),
    "too many": ({"x": ["N", 3]}, r"has no output .* prediction \(FP64\[-1\]\); it has p: FP64\[-1, 3\]"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_does_not_fit_is_refused_with_what_was_found_and_needed(
    name: str, sources: dict[str, SourceModel], tmp_path: Path
) -> None:
    inputs, said = BAD[name]
    with pytest.raises(Refused, match=said):
        taken(sources["number"], made(tmp_path / "bad.onnx", inputs, {"p": (D, "x")}))


def test_outputs_that_could_both_be_meant_are_refused(sources: dict[str, SourceModel], tmp_path: Path) -> None:
    copy = made(tmp_path / "two.onnx", {"x": ["N", 3]}, {"l": (WHOLE, "x"), "p": (D, "x"), "q": (F, "x")})
    with pytest.raises(Refused, match="has no output that could be the original's label"):
        taken(sources["kinds"], copy)
    model = onnx.load(copy)
    del model.graph.node[0], model.graph.output[0]
    model.graph.node.append(helper.make_node("ArgMax", ["x"], ["l"], axis=1, keepdims=0))
    model.graph.output.append(helper.make_tensor_value_info("l", WHOLE, ["N"]))
    onnx.save(model, copy)
    with pytest.raises(Refused, match=r"has 2 outputs that could be the original's probabilities .* p: FP64.*q: FP32"):
        taken(sources["kinds"], copy)


def test_columns_named_in_part_are_refused(sources: dict[str, SourceModel], tmp_path: Path) -> None:
    inputs: dict[str, list[Any]] = {name: ["N", 1] for name in ("a", "x", "y")}
    with pytest.raises(Refused, match=r"names some inputs as the columns \(a\) and others not"):
        taken(sources["frame"], made(tmp_path / "part.onnx", inputs, {"l": (WHOLE, "a")}))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no model", b"\x08\x08"], ids=["empty", "zip", "no graph"])
def test_what_is_no_model_is_refused(content: bytes, sources: dict[str, SourceModel], tmp_path: Path) -> None:
    copy = tmp_path / "no.onnx"
    copy.write_bytes(content)
    with pytest.raises(Refused, match="the file handed in is n"):
        taken(sources["kinds"], copy)


def test_external_data_is_refused(sources: dict[str, SourceModel], copies: dict[str, Path], tmp_path: Path) -> None:
    model = onnx.load(copies["wide"])
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(1024))
    tensor = model.graph.initializer[0]
    for kind in ("raw_data", "double_data", "float_data"):
        tensor.ClearField(kind)  # type: ignore[arg-type]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=str(secret))
    copy = tmp_path / "external.onnx"
    copy.write_bytes(model.SerializeToString())
    with pytest.raises(Refused, match=r"keeps 1 tensors in other files"):
        taken(sources["number"], copy)


def test_a_file_that_does_not_exist_and_an_opset_beside_a_copy_are_invalid(
    sources: dict[str, SourceModel], copies: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(Invalid, match="does not exist"):
        taken(sources["number"], tmp_path / "nowhere.onnx")
    with pytest.raises(Invalid, match="has its opset already"):
        convert(sources["number"], "onnx", ConvertOptions(copy=copies["wide"], opset=17))


def test_a_copy_larger_than_any_protobuf_message_is_invalid_before_it_is_read(
    sources: dict[str, SourceModel], tmp_path: Path
) -> None:
    copy = tmp_path / "large.onnx"
    with copy.open("wb") as stream:
        stream.truncate(LARGEST_COPY + 1)  # a hole: it takes no room
    with pytest.raises(Invalid, match="has 2,147,483,648 bytes, and a copy can have 2,147,483,647"):
        taken(sources["number"], copy)
    with copy.open("wb") as stream:
        stream.truncate(1)
    with pytest.raises(Refused, match="no ONNX model"):
        taken(sources["number"], copy)


def test_a_copy_that_was_handed_in_stands_until_force(
    run: Run, sources: dict[str, SourceModel], copies: dict[str, Path]
) -> None:
    folder = sources["number"].model_dir
    first = run("convert", folder, "--copy", copies["wide"], "--json")
    assert first.code == 0, first.err
    again, verified = run("convert", folder, "--json"), run("verify", folder, "--rows", 50, "--json")
    own = run("convert", folder, "--force", "--json")
    assert [done.code for done in (again, verified, own)] == [0, 0, 0]
    handed_in = hashlib.sha256(copies["wide"].read_bytes()).hexdigest()
    assert again.json["converted"]["handed_in"] == first.json["converted"]["handed_in"] == handed_in
    assert own.json["converted"]["handed_in"] == ""
    assert [stage["outcome"] for stage in again.json["stages"]] == ["up to date"] * 3


def test_an_untrusted_file_is_read_in_the_worker_not_here(
    sources: dict[str, SourceModel], copies: dict[str, Path]
) -> None:
    limited = dataclasses.replace(ConvertOptions(copy=copies["wide"]), memory_bytes=1)
    with pytest.raises(Refused, match="memory"):
        convert(sources["number"], "onnx", limited)
