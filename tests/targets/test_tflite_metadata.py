"""TFLite metadata, read back by MediaPipe's own reader, and C source, linked by compilers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from onnx import TensorProto, helper, numpy_helper

from modelrel import archive, served
from modelrel.delivered import Package
from modelrel.errors import Refused
from modelrel.steps.convert import convert
from modelrel.steps.package import package
from modelrel.steps.smoke import smoke
from modelrel.steps.verify import verify
from modelrel.targets.tflite import metadata, micro, packed
from modelrel.targets.tflite.metadata import Image, Said, Tensor
from modelrel.values import ConvertOptions, Interface, PackageOptions, ParityReport, TensorSpec, VerifyOptions
from tests.models import logged
from tests.serving.clients import _made, run_client
from tests.targets import tiny

# the packages' own __init__ load cameras and renderers; only the metadata's modules are wanted
READER = """
import importlib.util, json, os, sys, types
top = os.path.dirname(importlib.util.find_spec("mediapipe").origin)
for name in ("", ".tasks", ".tasks.python", ".tasks.python.metadata", ".tasks.cc"):
    module = types.ModuleType("mediapipe" + name)
    module.__path__ = [top + name.replace(".", os.sep)]
    sys.modules["mediapipe" + name] = module
from mediapipe.tasks.cc.metadata.python import _pywrap_metadata_version as versions
from mediapipe.tasks.python.metadata import metadata
found = metadata.MetadataDisplayer.with_model_file(sys.argv[1])
print(json.dumps({
    "said": json.loads(found.get_metadata_json()),
    "files": {one: found.get_associated_file_buffer(one).decode() for one in found.get_packed_associated_file_list()},
    "least": versions.GetMinimumMetadataParserVersion(found.get_metadata_buffer()),
}))
"""

FEATURES = {"content_properties_type": "FeatureProperties", "content_properties": {}}


@pytest.fixture(scope="session")
def read() -> Callable[[Path], Any]:
    """Return what MediaPipe reads in a file; its library is installed apart, without what it draws with."""
    python = _made("--no-deps", "mediapipe==0.10.21", "absl-py==2.3.1", "flatbuffers==25.2.10", "numpy==1.26.4")
    return lambda path: run_client(python, READER, path)


@pytest.fixture(scope="module")
def delivered() -> Package:
    return tiny.delivered("tflite")


def release(folder: Path, **changes: Any) -> ParityReport:
    """Return a copy of the verified forest, whose source says something else."""
    report = tiny.phone()
    shutil.copytree(report.source.folder, folder, dirs_exist_ok=True)
    source = replace(report.source, folder=folder, **changes)
    return replace(report, converted=replace(report.converted, source=source))


def test_another_reader_finds_all_that_was_written(delivered: Package, read: Callable[[Path], Any]) -> None:
    found = read(delivered.folder / delivered.artifact)
    golden = json.loads((delivered.folder / delivered.parity.golden.path).read_text())
    rows = np.array(golden["inputs"]["input"], np.float32)
    labels = {"name": "labels.txt", "description": "the classes, one a line", "type": "TENSOR_AXIS_LABELS"}
    (graph,) = found["said"].pop("subgraph_metadata")
    count = f"{delivered.parity.rows:,}"
    assert found["said"] == {
        "name": "churn",
        "description": f"RandomForestClassifier churn/7, released by modelrel, verified on {count} rows",
        "version": "7",
        "min_parser_version": found["least"],
    }
    (entered,) = graph.pop("input_tensor_metadata")
    stats = entered.pop("stats")
    assert (np.float32(stats["min"][0]), np.float32(stats["max"][0])) == (rows.min(), rows.max())
    said = "tensor of FP32; the range is that of the golden rows"
    assert entered == {"name": "input", "description": said, "content": FEATURES}
    left = {one["name"]: one for one in graph.pop("output_tensor_metadata")}
    assert left == {
        "label": {"name": "label", "description": "the predicted class", "content": FEATURES},
        "probabilities": {
            "name": "probabilities", "description": "probability of each of 3 classes", "content": FEATURES,
            "stats": {"min": [0.0], "max": [1.0]}, "associated_files": [labels],
        },
    }  # fmt: skip
    assert graph == {}
    assert found["files"] == {"labels.txt": "größte\nsetosa\nversicolor\n"}


def test_tags_say_who_made_it_and_how_it_may_be_used(read: Callable[[Path], Any], tmp_path: Path) -> None:
    tags = {"mlflow.note.content": " Says\0 who\nleaves 🙂\ud800 ", "mlflow.user": "nora", "license": "Apache-2.0"}
    made = package(release(tmp_path / "r", name='größe "2"\n', tags=tags), "tflite", PackageOptions())
    found = read(made.folder / made.artifact)["said"]
    assert {name: found[name] for name in ("name", "description", "author", "license")} == {
        "name": 'größe "2"\n', "description": "Says  who\nleaves 🙂?", "author": "nora", "license": "Apache-2.0",
    }  # fmt: skip


def test_how_pixels_become_numbers_is_read_by_another_reader(delivered: Package, read: Callable[[Path], Any]) -> None:
    image = Image(width=32, height=24, color="RGB", mean=(0.0, 127.5, 1.0), std=(255.0, 127.5, 2.0))
    said = Said(
        name="n", description="d", version="1",
        inputs={"input": Tensor(name="input", description="i", low=-1.0, high=127.0, image=image)},
        outputs={name: Tensor(name=name, description="o") for name in ("label", "probabilities")},
    )  # fmt: skip
    path = delivered.folder / "image.tflite"
    path.write_bytes(packed.packed(delivered.converted.path.read_bytes(), said, {}))
    found = read(path)
    (entered,) = found["said"]["subgraph_metadata"][0]["input_tensor_metadata"]
    assert entered["content"] == {
        "content_properties_type": "ImageProperties",
        "content_properties": {"color_space": "RGB", "default_size": {"width": 32, "height": 24}},
    }
    assert entered["process_units"] == [
        {"options_type": "NormalizationOptions", "options": {"mean": [0.0, 127.5, 1.0], "std": [255.0, 127.5, 2.0]}}
    ]
    assert found["files"] == {}


def pictured(folder: Path, shape: tuple[int, ...], scale: str, offset: str) -> ParityReport:
    """Return the report as if the forest took images."""
    made = release(folder)
    spec = TensorSpec(name="input", datatype="FP32", shape=shape)
    interface = Interface(image="input", scale=scale, offset=offset)
    (made.converted.path.parent / "adapter.json").write_text(json.dumps(served.adapter(interface, (spec,))))
    file = archive.describe(made.converted.path.parent / "adapter.json", folder)
    return replace(made, converted=replace(made.converted, inputs=(spec,), interface=interface, adapter=file))


@pytest.mark.parametrize(
    ("scale", "offset", "mean", "std"),
    [("1/255", "0", 0.0, 255.0), ("1/127.5", "-1", 127.5, 127.5), ("1", "0", 0.0, 1.0), ("-2", "6", 3.0, -0.5)],
)
def test_scale_and_offset_are_mean_and_std(tmp_path: Path, scale: str, offset: str, mean: float, std: float) -> None:
    image = metadata.said(pictured(tmp_path, (-1, 24, 32, 3), scale, offset)).inputs["input"].image
    assert image is not None
    assert (image.width, image.height, image.color) == (32, 24, "RGB")
    np.testing.assert_allclose(image.mean, [mean] * 3, rtol=1e-6)
    np.testing.assert_allclose(image.std, [std] * 3, rtol=1e-6)


@pytest.mark.parametrize(("shape", "scale", "offset"), [((-1, 3, 24, 32), "1", "0"), ((-1, 24, 32, 3), "0", "1")])
def test_images_that_the_format_has_no_words_for_are_refused(
    tmp_path: Path, shape: tuple[int, ...], scale: str, offset: str
) -> None:
    with pytest.raises(Refused, match="which TFLite metadata cannot say"):
        package(pictured(tmp_path, shape, scale, offset), "tflite", PackageOptions())


def test_a_model_of_images_is_delivered_with_how_they_become_tensors(
    read: Callable[[Path], Any], tmp_path: Path
) -> None:
    weights = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["x"], ["m"], axes=[1, 2], keepdims=0),
            helper.make_node("MatMul", ["m", "w"], ["y"]),
        ],
        "colours",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 8, 6, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    rows = np.random.default_rng(0).random((5, 8, 6, 3)).astype(np.float32)
    source = logged(model, rows, tmp_path, flavor="onnx", pip_requirements=["onnx"])
    interface = Interface(image="input", scale="1/127.5", offset="-1")
    report = verify(convert(source, "tflite", ConvertOptions(interface=interface)), VerifyOptions(rows=50))
    made = package(report, "tflite", PackageOptions())
    assert "golden rows" in {check.name for check in smoke(made).checks}
    (entered,) = read(made.folder / made.artifact)["said"]["subgraph_metadata"][0]["input_tensor_metadata"]
    assert entered["content"]["content_properties"]["default_size"] == {"width": 6, "height": 8}
    assert entered["process_units"][0]["options"] == {"mean": [127.5] * 3, "std": [127.5] * 3}
    assert entered["stats"] == {"min": [-1.0], "max": [1.0]}


def test_answers_are_unchanged_and_weights_are_aligned(delivered: Package) -> None:
    rows = np.random.default_rng(0).normal(3, 2, (500, 4)).astype(np.float32)
    paths = (delivered.converted.path, delivered.folder / delivered.artifact)
    before, after = (Interpreter(str(path)).get_signature_runner("serving_default")(input=rows) for path in paths)
    assert (before["label"] == after["label"]).all()
    assert before["probabilities"].tobytes() == after["probabilities"].tobytes()
    content = paths[1].read_bytes()
    model = schema.Model.GetRootAsModel(content, 0)
    start = np.frombuffer(content, np.uint8).ctypes.data
    places = [model.Buffers(at).DataAsNumpy() for at in range(model.BuffersLength()) if model.Buffers(at).DataLength()]
    assert len(places) > 5
    assert {(place.ctypes.data - start) % packed.ALIGNMENT for place in places} == {0}


def test_the_labels_are_in_a_zip_without_a_date(delivered: Package) -> None:
    with zipfile.ZipFile(delivered.folder / delivered.artifact) as found:
        (entry,) = found.infolist()
    assert (entry.filename, entry.date_time, entry.compress_type) == ("labels.txt", (1980, 1, 1, 0, 0, 0), 0)


def test_packaging_again_gives_the_same_bytes(delivered: Package, tmp_path: Path) -> None:
    again = package(release(tmp_path), "tflite", PackageOptions())
    assert {one.path: one.sha256 for one in again.files} == {one.path: one.sha256 for one in delivered.files}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Package:
    report = release(tmp_path_factory.mktemp("micro"), name='2 größe "*/ #')
    return package(report, "tflite", PackageOptions(micro=True))


@pytest.mark.parametrize(
    "words", [("gcc", "-std=c99"), ("gcc", "-std=c11"), ("g++", "-std=c++11"), ("g++", "-std=c++20")]
)
def test_the_c_source_links_and_holds_the_model(words: tuple[str, str], small: Package, tmp_path: Path) -> None:
    compiler = shutil.which(words[0])
    if compiler is None:
        tiny.absent("gcc", f"there is no {words[0]} here")
    folder = (small.folder / small.artifact).parent
    name = micro.symbol(small.parity.source.name)
    assert name == "value_2_grosse_model"
    main = tmp_path / f"main.{'c' if words[0] == 'gcc' else 'cc'}"
    main.write_text(f"""
        #include <stdio.h>
        #include "model_data.h"
        #include "model_data.h"
        int main(void) {{ return fwrite({name}, 1, {name}_size, stdout) == {name}_size ? 0 : 1; }}
    """)
    source = shutil.copy(folder / "model_data.c", tmp_path / f"data{main.suffix}")
    strict = ("-Wall", "-Wextra", "-Wpedantic", "-Werror", "-I", folder)
    done = subprocess.run(
        [compiler, words[1], *strict, "-o", tmp_path / "main", main, source],
        capture_output=True, text=True, check=False, env={"PATH": os.defpath},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    held = subprocess.run([tmp_path / "main"], capture_output=True, check=True).stdout
    assert held == packed.slim(small.converted.path.read_bytes())
    assert len(held) < (folder / "model.tflite").stat().st_size
    signature = Interpreter(model_content=held).get_signature_list()["serving_default"]
    assert signature == {"inputs": ["input"], "outputs": ["probabilities"]}


def test_smoke_runs_what_the_c_source_holds(small: Package) -> None:
    checks = {check.name: check.detail for check in smoke(small).checks}
    assert checks["C array"].startswith("8 golden rows")
    if shutil.which("gcc"):
        assert "aligned to 16" in checks["C source"]


def test_smoke_refuses_c_source_of_another_model(small: Package, tmp_path: Path) -> None:
    top = Path(shutil.copytree(small.folder, tmp_path / "copy"))
    model = packed.read(small.converted.path.read_bytes())
    for tensor in model.subgraphs[0].tensors:
        held = model.buffers[tensor.buffer]
        if tensor.type == schema.TensorType.FLOAT32 and held.data is not None:
            held.data = (held.data.view(np.float32) / 2).view(np.uint8)
    micro.write(packed._finished(model), small.parity.source.name, "another", (top / small.artifact).parent)
    source = replace(small.parity.source, folder=top)
    parity = replace(small.parity, converted=replace(small.converted, source=source))
    files = tuple(archive.describe(top / file.path, top) for file in small.files)
    with pytest.raises(Refused, match="output 'probabilities' of row"):
        smoke(replace(small, parity=parity, files=files))


def test_a_model_too_large_for_flash_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(micro, "MOST_BYTES", 1000)
    with pytest.raises(Refused, match="C source for microcontrollers is written up to 1,000"):
        package(release(tmp_path), "tflite", PackageOptions(micro=True))
