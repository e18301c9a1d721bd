"""The MLmodel file: flavors, signature and requirements of a model that MLflow wrote (nothing is imported).

Format: MLflow's `Model` storage format (MLmodel YAML), signature types of `mlflow.types.DataType`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import yaml

from modelrel import saved_models
from modelrel.errors import Invalid
from modelrel.values import Signature, TensorSpec

KNOWN: Final = (
    "sklearn",
    "xgboost",
    "lightgbm",
    "catboost",
    "tensorflow",
    "keras",
    "pytorch",
    "transformers",
    "onnx",
)
"""Flavors that name a library, in the order in which they are preferred to the generic python_function."""

_COLUMN: Final = {
    "boolean": "BOOL",
    "integer": "INT32",
    "long": "INT64",
    "float": "FP32",
    "double": "FP64",
    "string": "BYTES",
}
_TENSOR: Final = {
    "bool": "BOOL",
    **{f"{sign}int{bits}": f"{sign.upper()}INT{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    "object": "BYTES",
    "str": "BYTES",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MLmodel:
    """What an MLmodel file says. `problem` tells why the signature could not be used ("" when it could)."""

    flavors: tuple[str, ...]
    flavor: str
    signature: Signature | None
    signatures: dict[str, Signature]
    problem: str
    run_id: str
    model_id: str
    mlflow_version: str
    python_version: str
    input_example: str
    requirements: tuple[str, ...]


def read(folder: Path) -> MLmodel:
    """Read `folder/MLmodel` and `folder/requirements.txt`.

    Raises `Invalid` where the file is missing, is not YAML, or lacks its flavors.
    """
    path = folder / "MLmodel"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise Invalid(f"{folder} has no MLmodel file", "Name a folder that MLflow wrote.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        line = f" at line {where.line + 1}" if where else ""
        raise Invalid(f"the MLmodel file is not valid YAML{line}", "Log the model again.") from error
    flavors = content.get("flavors") if isinstance(content, dict) else None
    if not isinstance(flavors, dict) or not flavors:
        raise Invalid("the MLmodel file lists no flavors", "Log the model again with MLflow.")
    names = tuple(sorted(str(name) for name in flavors))
    example = content.get("saved_input_example_info") or {}
    pyfunc = flavors.get("python_function") or {}
    signature, problem = _signature(content.get("signature"))
    signatures, served = _signatures(folder, flavors)
    if signature is None and served in signatures:
        signature, problem = replace(signatures[served], name=""), ""
    return MLmodel(
        flavors=names,
        flavor=next((name for name in KNOWN if name in names), _other(names)),
        signature=signature,
        signatures=signatures,
        problem=problem,
        run_id=str(content.get("run_id") or ""),
        model_id=str(content.get("model_id") or ""),
        mlflow_version=str(content.get("mlflow_version") or ""),
        python_version=str(pyfunc.get("python_version") or "") if isinstance(pyfunc, dict) else "",
        input_example=str(example.get("artifact_path") or "") if isinstance(example, dict) else "",
        requirements=_requirements(folder / "requirements.txt"),
    )


def _signatures(folder: Path, flavors: dict[str, Any]) -> tuple[dict[str, Signature], str]:
    """Return the signatures of the SavedModel that MLmodel names, by name, and the one that is served by default."""
    said: dict[str, Any] = next(
        (flavors[name] for name in ("tensorflow", "keras") if isinstance(flavors.get(name), dict)), {}
    )
    for name in (str(said.get("saved_model_dir") or ""), f"{said.get('data') or 'data'}/model"):
        path = (folder / name).resolve()
        if said and name and path.is_relative_to(folder.resolve()) and (path / saved_models.FILE).is_file():
            found = {key: one for key, one in saved_models.read(path).signatures.items() if one is not None}
            return found, saved_models.default(found, str(said.get("signature_def_key") or ""))
    return {}, ""


def _other(names: tuple[str, ...]) -> str:
    """Return pyfunc for what MLflow can run, whatever else it is called, else the first name."""
    return "pyfunc" if "python_function" in names else names[0]


def _requirements(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        return ()
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return tuple(line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#"))


def _signature(content: Any) -> tuple[Signature | None, str]:
    if not content:
        return None, "the model was logged without a signature"
    try:
        inputs = json.loads(content["inputs"])
        outputs = json.loads(content["outputs"]) if content.get("outputs") else []
        kind: Literal["columns", "tensor"] = "tensor" if inputs[0]["type"] == "tensor" else "columns"
        known = tuple(_spec(entry, index) for index, entry in enumerate(inputs))
        # what the outputs are is found out from the model itself: an odd entry here is no reason to stop
        given = tuple(_spec(entry, index) for index, entry in enumerate(outputs) if _readable(entry))
    except (ValueError, KeyError, TypeError, IndexError) as error:
        return None, f"its signature cannot be used: {error}"
    return Signature(kind=kind, inputs=known, outputs=given), ""


def _readable(entry: Any) -> bool:
    try:
        _spec(entry, 0)
    except (ValueError, KeyError, TypeError):
        return False
    return True


def _spec(entry: dict[str, Any], index: int) -> TensorSpec:
    name = str(entry.get("name") or (f"input_{index}" if index else "input"))
    if entry["type"] == "tensor":
        spec = entry["tensor-spec"]
        dtype = str(spec["dtype"])
        if dtype not in _TENSOR:
            raise ValueError(f"the tensor {name} has the dtype {dtype}, which no target takes")
        shape = tuple(int(size) for size in spec["shape"])
        return TensorSpec(name=name, datatype=_TENSOR[dtype], shape=shape)
    if entry["type"] not in _COLUMN:
        raise ValueError(f"the column {name} has the type {entry['type']}, which no target takes")
    required = bool(entry.get("required", not entry.get("optional", False)))
    return TensorSpec(name=name, datatype=_COLUMN[entry["type"]], shape=(-1, 1), required=required)
