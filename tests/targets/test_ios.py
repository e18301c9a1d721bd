"""The Swift package: what is in it, that its Swift parses, and that its model answers by the edges that Swift feeds."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import tree_sitter
import tree_sitter_swift

from modelrel import archive
from modelrel.delivered import Package
from modelrel.errors import Invalid, Refused
from modelrel.steps.package import checked, package
from modelrel.steps.smoke import smoke
from modelrel.targets import ios
from modelrel.targets.ios import edges, swift
from modelrel.targets.ios.ask import entered
from modelrel.values import Interface, PackageOptions, TensorSpec
from tests.targets import handmade, tiny

FILES = {
    "Package.swift", "README.md", "Sources/Model/Model.swift", "Sources/Model/Resources/model.onnx",
    "Sources/Model/Tensor.swift", "Tests/ModelTests/GoldenTests.swift", "Tests/ModelTests/Resources/golden.json",
    "modelrel.json", "sbom.cdx.json",
}  # fmt: skip


@pytest.fixture(scope="module")
def delivered() -> Package:
    return tiny.delivered("ios")


def home(made: Package) -> Path:
    top = (made.folder / made.artifact).parent
    (found,) = [path for path in top.iterdir() if path.is_dir()]
    return found


def nodes(top: tree_sitter.Node) -> Iterator[tree_sitter.Node]:
    yield top
    for child in top.children:
        yield from nodes(child)


def parsed(path: Path) -> list[tree_sitter.Node]:
    """Return every node of a Swift file, which must be whole."""
    parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_swift.language()))
    found = list(nodes(parser.parse(path.read_bytes()).root_node))
    broken = [node for node in found if node.type == "ERROR" or node.is_missing]
    assert not broken, (path, broken[0].start_point, broken[0].text)
    return found


def whole(made: Package) -> dict[str, list[tree_sitter.Node]]:
    """Return the nodes of every Swift file of a package."""
    return {path.name: parsed(path) for path in home(made).rglob("*.swift")}


def members(found: list[tree_sitter.Node], struct: str) -> list[str]:
    """Return the names of the properties of a struct."""
    (declared,) = [
        node
        for node in found
        if node.type == "class_declaration"
        and (name := node.child_by_field_name("name"))
        and name.text == struct.encode()
    ]
    body = declared.child_by_field_name("body")
    assert body is not None
    properties = [child for child in body.children if child.type == "property_declaration"]
    return [str(child.child_by_field_name("name").text.decode()) for child in properties]  # type: ignore[union-attr]


def test_the_zip_is_the_folder(delivered: Package) -> None:
    assert delivered.artifact == "onnx/ios/Churn-7.zip"
    with zipfile.ZipFile(delivered.folder / delivered.artifact) as opened:
        assert set(opened.namelist()) == {f"Churn/{name}" for name in FILES}
        for name in FILES:
            assert opened.read(f"Churn/{name}") == (home(delivered) / name).read_bytes()


def test_the_bytes_do_not_depend_on_folder_or_umask(delivered: Package, tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        again = package(tiny.verified(tmp_path / "elsewhere"), "ios", PackageOptions())
    finally:
        os.umask(before)
    assert again.files == delivered.files


def test_its_swift_parses_and_has_the_signature(delivered: Package) -> None:
    found = whole(delivered)
    assert members(found["Model.swift"], "Row") == ["plan", "calls", "bill"]
    assert members(found["Model.swift"], "Answer") == ["label", "probabilities"]
    text = (home(delivered) / "Sources/Model/Model.swift").read_text()
    assert 'case stays = "stays"' in text
    assert "public var bill: Double?" in text
    assert (home(delivered) / "Package.swift").read_text().startswith("// swift-tools-version: 5.9\n")


def test_smoke_runs_the_model_out_of_the_zip(delivered: Package) -> None:
    report = smoke(delivered)
    assert report.runner.endswith("without Swift")
    assert {"golden rows", "a batch", "the zip is the folder", "what the Swift code feeds"} <= {
        check.name for check in report.checks
    }


def test_every_datatype_crosses_the_edge_with_the_ends_of_its_range(tmp_path: Path) -> None:
    made = package(handmade.echo(tmp_path / "every", *handmade.columns(handmade.EVERY)), "ios", PackageOptions())
    assert smoke(made).max_abs_error < 1e-15
    whole(made)
    session = onnxruntime.InferenceSession(home(made) / ios.MODEL, providers=["CPUExecutionProvider"])
    crossing = {node.type for node in (*session.get_inputs(), *session.get_outputs())}
    assert not crossing & {"tensor(double)", "tensor(bool)", "tensor(int16)", "tensor(uint16)", "tensor(float16)"}


def test_names_that_trip_over_are_names_like_others(tmp_path: Path) -> None:
    rows = {name: ("FP64", [1.0, 2.0]) for name in (*handmade.HOSTILE, "\\(1)", "a  b", "rows", "self")}
    made = package(handmade.echo(tmp_path / "names", *handmade.columns(rows)), "ios", PackageOptions())
    names = members(whole(made)["Model.swift"], "Row")
    assert len(set(names)) == len(rows)
    assert not {"rows", "self", "class"} & set(names)
    assert smoke(made).rows
    text = (home(made) / "Sources/Model/Model.swift").read_text()
    assert r'"\u{2028}/significand"' in text
    assert r'"\\(1)/significand"' in text


def test_a_models_name_is_no_code(tmp_path: Path) -> None:
    name = '*/\nfatalError() "\\(x)" \u2028'
    made = package(tiny.verified(tmp_path / "name", name=name, version="7; rm"), "ios", PackageOptions())
    assert made.artifact == "onnx/ios/FatalErrorX-7-rm.zip"
    found = whole(made)
    assert not [node for node in found["Model.swift"] if node.type == "call_expression" and b"fatalError" in node.text]
    assert smoke(made).rows


@pytest.mark.parametrize(
    ("classes", "cases"),
    [
        ((0, 1, -1), {"class0": "0", "class1": "1", "classMinus1": "-1"}),
        (
            ("none", "a b", "größe", "a-b", 'x"\\(y)'),
            {"none2": '"none"', "aB": '"a b"', "grosse": '"größe"', "aB2": '"a-b"', "xY": r'"x\"\\(y)"'},
        ),
    ],
)
def test_classes_are_cases_of_an_enum(classes: tuple[Any, ...], cases: dict[str, str]) -> None:
    assert {case.identifier: case.literal for case in swift.cases(classes)} == cases


def test_tensors_and_a_renamed_output_go_through(tmp_path: Path) -> None:
    specs = (
        TensorSpec(name="a", datatype="FP32", shape=(2, 3)),
        TensorSpec(name="b", datatype="INT64", shape=(2,)),
    )
    rows = {"a": [[1, 2, 3], [4, 5, 6]], "b": [1, 2]}
    shown = Interface(outputs={"score": "b out"})
    made = package(
        handmade.echo(tmp_path / "two", specs, rows, kind="tensor", interface=shown), "ios", PackageOptions()
    )
    assert smoke(made).rows
    assert members(whole(made)["Model.swift"], "Outputs") == ["score"]
    assert "struct Row" not in (home(made) / "Sources/Model/Model.swift").read_text()


def test_a_model_whose_edges_fit_is_the_very_graph_that_was_verified(tmp_path: Path) -> None:
    specs = (TensorSpec(name="a", datatype="FP32", shape=(-1, 3)),)
    report = handmade.echo(tmp_path / "same", specs, {"a": [[1, 2, 3]]}, kind="tensor")
    made = package(report, "ios", PackageOptions())
    assert onnx.load(home(made) / ios.MODEL).graph == onnx.load(report.converted.path).graph
    assert "other edges" not in (home(made) / "README.md").read_text()


def test_a_double_goes_in_exactly() -> None:
    random = np.random.default_rng(0)
    bits = random.integers(0, 2**63, 4000, dtype=np.int64) | (random.integers(0, 2, 4000, dtype=np.int64) << 63)
    numbers = [*bits.view(np.float64).tolist(), 0.0, 5e-324, -5e-324, 2.2250738585072014e-308, 1.7976931348623157e308]
    numbers += [float("inf"), float("-inf"), float("nan"), 0.1, -3.5, 2.0**1023]
    spec = TensorSpec(name="x", datatype="FP64", shape=(-1,))
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["x"], ["y"])],
        "double",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.DOUBLE, ["N"])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.DOUBLE, ["N"])],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    crossing = edges.edges((spec,), edges.names(model), edges.IN)
    edges.wrapped(model, crossing, ())
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    parts = entered(numbers, "FP64", {"name": "x", "shape": [-1]})
    (found,) = session.run(None, dict(zip(crossing[0].names, parts, strict=True)))
    np.testing.assert_array_equal(found, numbers)


def test_a_name_of_the_graph_is_not_taken_twice() -> None:
    spec = TensorSpec(name="x", datatype="BOOL", shape=(-1,))
    (edge,) = edges.edges((spec,), frozenset({"x", "x/edge", "x/edge'"}), edges.IN)
    assert edge.names == ("x/edge''",)


def test_a_zip_that_was_changed_is_refused(delivered: Package, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(delivered.folder, tmp_path / "release"))
    text = (folder / "onnx/ios/Churn/Sources/Model/Model.swift").read_text()
    source = replace(delivered.parity.source, folder=folder)
    parity = replace(delivered.parity, converted=replace(delivered.converted, source=source))
    for name, changed, told in (
        ("Sources/Model/Model.swift", text.replace('"plan"', '"plans"'), "does not feed the input 'plan'"),
        ("Package.swift", "// no version\n", "does not start with"),
    ):
        kept = (home(delivered) / name).read_text()
        (folder / "onnx/ios/Churn" / name).write_text(changed)
        inside = [(f"Churn/{one}", folder / "onnx/ios/Churn" / one) for one in FILES]
        archive.write_zip(folder / delivered.artifact, inside)
        files = tuple(archive.describe(folder / file.path, folder) for file in delivered.files)
        with pytest.raises(Refused, match=told):
            smoke(replace(delivered, parity=parity, files=files))
        (folder / "onnx/ios/Churn" / name).write_text(kept)


def test_what_a_server_does_in_front_is_refused(tmp_path: Path) -> None:
    specs, rows = handmade.columns({"x": ("FP32", [1.0])})
    shown = Interface(pass_through=("id",))
    with pytest.raises(Refused, match="fields are passed through in front of this model"):
        package(handmade.echo(tmp_path / "through", specs, rows, interface=shown), "ios", PackageOptions())
    report = tiny.verified(tmp_path / "text")
    path = tmp_path / "text/onnx/adapter.json"
    path.write_text("{}")
    changed = replace(report, converted=replace(report.converted, adapter=archive.describe(path, tmp_path / "text")))
    with pytest.raises(Refused, match="an adapter in Python stands in front of this model"):
        package(changed, "ios", PackageOptions())


def test_a_module_and_a_version_can_be_chosen(tmp_path: Path) -> None:
    options = PackageOptions(values={"module": "Acme_Churn2", "onnxruntime": "1.24.2"})
    with pytest.raises(Invalid):
        checked("ios", options)
    options = PackageOptions(values={"module": "AcmeChurn", "onnxruntime": "1.24.2"})
    made = package(tiny.verified(tmp_path / "release"), "ios", options)
    assert made.artifact == "onnx/ios/AcmeChurn-7.zip"
    assert 'from: "1.24.2"' in (home(made) / "Package.swift").read_text()


@pytest.mark.parametrize(
    "values",
    [{"module": "my churn"}, {"module": "Foundation"}, {"module": "Model"}, {"onnxruntime": "latest"}, {"x": "y"}],
)
def test_a_setting_that_is_none_is_an_error_of_the_command(values: dict[str, str]) -> None:
    with pytest.raises(Invalid):
        checked("ios", PackageOptions(values=values))


@pytest.mark.parametrize(
    ("name", "module"),
    [("churn", "Churn"), ("größe (neu)", "GrosseNeu"), ("日本", "Value"), ("foundation", "Foundation2")],
)
def test_a_models_name_becomes_that_of_a_module(name: str, module: str) -> None:
    assert swift.module(name) == module


def test_the_golden_rows_are_in_the_test_target(delivered: Package) -> None:
    kept = json.loads((home(delivered) / ios.GOLDEN).read_bytes())
    assert kept == json.loads((delivered.folder / delivered.parity.golden.path).read_bytes())
