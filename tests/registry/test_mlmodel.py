"""Reading MLmodel files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from modelrel.errors import Invalid
from modelrel.registry import mlmodel
from modelrel.values import TensorSpec


def write(folder: Path, **changes: Any) -> Path:
    content = {
        "flavors": {"sklearn": {}, "python_function": {"python_version": "3.11.7"}},
        "signature": {
            "inputs": json.dumps(
                [{"type": "long", "name": "age"}, {"type": "string", "name": "city", "required": False}]
            ),
            "outputs": json.dumps([{"type": "tensor", "tensor-spec": {"dtype": "int64", "shape": [-1]}}]),
        },
        "run_id": "r1",
        **changes,
    }
    (folder / "MLmodel").write_text(yaml.safe_dump(content))
    return folder


def test_columns_become_specs_of_one_column_each(tmp_path: Path) -> None:
    found = mlmodel.read(write(tmp_path)).signature
    assert found is not None
    assert found.kind == "columns"
    assert found.inputs == (
        TensorSpec(name="age", datatype="INT64", shape=(-1, 1)),
        TensorSpec(name="city", datatype="BYTES", shape=(-1, 1), required=False),
    )


def test_a_tensor_keeps_its_shape_and_dtype(tmp_path: Path) -> None:
    inputs = [{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 64]}}]
    found = mlmodel.read(write(tmp_path, signature={"inputs": json.dumps(inputs)})).signature
    assert found is not None
    assert found.inputs == (TensorSpec(name="input", datatype="FP32", shape=(-1, 64)),)


@pytest.mark.parametrize(
    ("signature", "words"),
    [
        (None, "without a signature"),
        ({"inputs": "["}, "cannot be used"),
        ({"inputs": json.dumps([{"type": "datetime", "name": "t"}])}, "the column t has the type datetime"),
        ({"inputs": json.dumps([])}, "cannot be used"),
    ],
)
def test_a_signature_that_no_copy_can_keep_is_named(tmp_path: Path, signature: Any, words: str) -> None:
    found = mlmodel.read(write(tmp_path, signature=signature))
    assert found.signature is None
    assert words in found.problem


@pytest.mark.parametrize("text", ["flavors: [", "- 1", "a: b", "\x00", "flavors: {}"])
def test_a_corrupt_mlmodel_is_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "MLmodel").write_text(text)
    with pytest.raises(Invalid) as caught:
        mlmodel.read(tmp_path)
    assert "\n" not in caught.value.message
    assert caught.value.hint


def test_yaml_that_would_run_code_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_text("flavors: !!python/object/apply:os.mkdir [ran]\n")
    with pytest.raises(Invalid):
        mlmodel.read(tmp_path)
    assert not Path("ran").exists()


def test_a_library_flavor_is_preferred_to_the_generic_one(tmp_path: Path) -> None:
    assert mlmodel.read(write(tmp_path)).flavor == "sklearn"
    assert mlmodel.read(write(tmp_path, flavors={"python_function": {}})).flavor == "pyfunc"
    assert mlmodel.read(write(tmp_path, flavors={"python_function": {}, "prophet": {}})).flavor == "pyfunc"
    assert mlmodel.read(write(tmp_path, flavors={"mleap": {}})).flavor == "mleap"
