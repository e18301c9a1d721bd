"""Small real models, trained, logged with MLflow, and laid out as `pull` leaves them."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any, Literal

from modelrel import archive
from modelrel.values import Signature, SourceModel, TensorSpec

_TYPES = {
    "boolean": "BOOL",
    "integer": "INT32",
    "long": "INT64",
    "float": "FP32",
    "double": "FP64",
    "string": "BYTES",
}
_DTYPES = {
    "float32": "FP32",
    "float64": "FP64",
    "int64": "INT64",
    "int32": "INT32",
    "bool": "BOOL",
    "object": "BYTES",
    "str": "BYTES",
}


def logged(
    model: Any,
    data: Any,
    folder: Path,
    *,
    flavor: Literal["sklearn", "xgboost", "lightgbm"] = "sklearn",
    **options: Any,
) -> SourceModel:
    """Log `model` with its flavor below `folder`, with the signature and the first rows of `data`."""
    import mlflow
    from mlflow.models import infer_signature

    options.setdefault("input_example", data[:5])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if flavor == "sklearn":
            options.setdefault("serialization_format", "cloudpickle")
        getattr(mlflow, flavor).save_model(
            model,
            folder / "source",
            signature=infer_signature(data),
            pip_requirements=["scikit-learn==1.9.1", "xgboost==3.2.0", "lightgbm==4.7.0"],
            **options,
        )
    return pulled(folder, flavor)


def pulled(folder: Path, flavor: str, name: str = "churn", version: str = "7") -> SourceModel:
    """Return the value that `pull` makes of the MLflow model in `folder / "source"`."""
    import yaml

    top = folder / "source"
    said = yaml.safe_load((top / "MLmodel").read_text())
    example = (said.get("saved_input_example_info") or {}).get("artifact_path", "")
    return SourceModel(
        folder=folder,
        name=name,
        version=version,
        uri=f"models:/{name}/{version}",
        registry="sqlite:///mlflow.db",
        flavor=flavor,
        flavors=tuple(said["flavors"]),
        signature=_signature(said.get("signature")),
        run_id="0123456789abcdef0123456789abcdef",
        input_example=example,
        files=archive.describe_tree(top, folder),
    )


def _signature(said: dict[str, Any] | None) -> Signature | None:
    if said is None:
        return None
    entries = json.loads(said["inputs"])
    if entries[0]["type"] != "tensor":
        return Signature(
            kind="columns",
            inputs=tuple(
                TensorSpec(
                    name=entry["name"],
                    datatype=_TYPES[entry["type"]],
                    shape=(-1, 1),
                    required=entry.get("required", True),
                )
                for entry in entries
            ),
        )
    tensor = entries[0]["tensor-spec"]
    spec = TensorSpec(
        name=entries[0].get("name", "input"), datatype=_DTYPES[tensor["dtype"]], shape=tuple(tensor["shape"])
    )
    return Signature(kind="tensor", inputs=(spec,))
