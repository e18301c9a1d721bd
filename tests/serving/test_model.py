"""Model folders, whole and broken, through ``load_model``."""

import json
import subprocess
import sys

import numpy as np
import pytest

from modelrel.serving import BrokenModel, load_model
from modelrel.serving.model import InferenceFailed


def change(folder, **fields):
    """Change fields of the manifest; ... takes one out."""
    path = folder / "modelrel.json"
    manifest = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({name: value for name, value in manifest.items() if value is not ...}))
    return folder


def test_a_model_predicts_named_arrays_from_named_arrays(tensor_model):
    outputs = tensor_model.predict({"x": np.array([[1, 2, 3]], np.float32)})
    assert outputs["y"].tolist() == [[2.0, 4.0, 6.0]]
    assert outputs["z"].dtype == np.float32


def test_a_model_knows_what_its_manifest_says(tensor_model):
    assert (tensor_model.name, tensor_model.version, tensor_model.kind) == ("churn", "7", "tensor")
    assert tensor_model.metadata == {"run_id": "abc"}


def test_an_array_the_runtime_refuses_is_a_failed_inference(tensor_model):
    with pytest.raises(InferenceFailed, match="churn/7"):
        tensor_model.predict({"x": np.array([[1, 2, 3]], np.int64)})


def test_warming_up_with_the_golden_example_is_part_of_loading(make_tensor_folder):
    folder = change(make_tensor_folder(), golden="golden.json")
    (folder / "golden.json").write_text('{"inputs": {"x": [[1, 2, 3], [4, null, 6]]}, "outputs": {"y": [[2, 4, 6]]}}')
    assert load_model(folder).row_ms > 0


@pytest.mark.parametrize(
    "golden",
    [
        '{"inputs": {}}',
        '{"inputs": {"x": [[1, 2]]}}',
        '{"inputs": {"x": "a"}}',
        "[]",
        "{",
        '{"inputs": {"x": [[1], [2, 3]]}}',
    ],
)
def test_a_golden_example_that_does_not_fit_is_a_broken_folder(make_tensor_folder, golden):
    folder = change(make_tensor_folder(), golden="golden.json")
    (folder / "golden.json").write_text(golden)
    with pytest.raises(BrokenModel, match=r"golden\.json"):
        load_model(folder)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"schema": 2}, r"\$\.schema"),
        ({"schema": ...}, "schema"),
        ({"name": ""}, r"\$\.name"),
        ({"format": "caffe"}, "format 'caffe'"),
        ({"kind": "frame"}, r"\$\.kind"),
        ({"inputs": []}, r"\$\.inputs"),
        ({"inputs": [{"name": "x", "datatype": "FLOAT", "shape": [-1, 3]}]}, "datatype"),
        ({"inputs": [{"name": "x", "datatype": "FP32", "shape": [-2, 3]}]}, "shape"),
        ({"inputs": [{"name": "x", "datatype": "FP64", "shape": [-1, 3]}]}, "FP32.*FP64"),
        ({"inputs": [{"name": "q", "datatype": "FP32", "shape": [-1, 3]}]}, "no input 'q'"),
        ({"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]}, "first inference"),
        ({"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}] * 2}, "twice"),
        ({"outputs": [{"name": "q", "datatype": "FP32", "shape": [-1, 3]}], "predict": "q"}, "no output 'q'"),
        ({"predict": "q"}, "'q'"),
        ({"kind": "columns"}, r"\[-1, 1\]"),
        ({"file": "other.onnx"}, "no such file"),
        ({"golden": "golden.json"}, "no such file"),
    ],
)
def test_a_manifest_that_is_wrong_is_refused_with_the_field_that_is(make_tensor_folder, fields, message):
    with pytest.raises(BrokenModel, match=message):
        load_model(change(make_tensor_folder(), **fields))


@pytest.mark.parametrize("field", ["file", "golden"])
@pytest.mark.parametrize("kind", ["relative", "absolute", "link"])
def test_a_manifest_may_not_name_a_path_outside_its_folder(make_tensor_folder, field, kind):
    folder = make_tensor_folder()
    outside = folder.parent / "outside.onnx"
    (folder / "model.onnx").rename(outside)
    (folder / "link").symlink_to(outside)
    names = {"relative": "../outside.onnx", "absolute": str(outside), "link": "link"}
    (folder / "model.onnx").write_bytes(outside.read_bytes())
    with pytest.raises(BrokenModel, match="outside the model folder"):
        load_model(change(folder, **{field: names[kind]}))


def test_a_link_inside_the_folder_is_fine_as_mounted_volumes_use_them(make_tensor_folder):
    folder = make_tensor_folder()
    (folder / "..data").mkdir()
    (folder / "model.onnx").rename(folder / "..data" / "model.onnx")
    (folder / "model.onnx").symlink_to("..data/model.onnx")
    assert load_model(folder).name == "churn"


def test_an_input_of_the_file_that_the_manifest_does_not_name_is_refused(columns_dir, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    for path in columns_dir.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    inputs = json.loads((folder / "modelrel.json").read_text())["inputs"]
    with pytest.raises(BrokenModel, match="needs the input 'f'"):
        load_model(change(folder, inputs=inputs[:-1]))


@pytest.mark.parametrize("content", [b"", b"not a model"])
def test_a_file_that_is_no_model_is_refused(make_tensor_folder, content):
    folder = make_tensor_folder()
    (folder / "model.onnx").write_bytes(content)
    with pytest.raises(BrokenModel, match=r"model\.onnx"):
        load_model(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 100_000])
def test_a_manifest_that_is_no_json_object_is_refused(make_tensor_folder, content):
    folder = make_tensor_folder()
    (folder / "modelrel.json").write_bytes(content)
    with pytest.raises(BrokenModel, match=r"modelrel\.json"):
        load_model(folder)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(BrokenModel, match="not a folder"):
        load_model(tmp_path / "nothing")


def test_importing_the_package_imports_neither_numpy_nor_the_runtime():
    heavy = "{'numpy', 'onnxruntime', 'uvicorn', 'msgspec'}"
    code = f"import sys, modelrel.serving; print(sorted({heavy} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_every_name_the_package_promises_is_there():
    import modelrel.serving

    assert [name for name in modelrel.serving.__all__ if not hasattr(modelrel.serving, name)] == []
    assert not hasattr(modelrel.serving, "nothing")
