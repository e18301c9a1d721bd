"""What TF Serving says of models: the state of each version, and the signatures.

Source: ``apis/get_model_status.proto`` and ``apis/get_model_metadata.proto`` of tensorflow/serving, and TensorFlow's
``meta_graph.proto``, in protobuf's JSON form: 64-bit integers are texts, fields that are not set are there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ..answers import as_json
from ..calls import always

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..calls import Handler
    from ..manifest import TensorSpec
    from ..model import Model
    from ..models import Snapshot, State

TYPES: Final = {
    "BOOL": "bool", "UINT8": "uint8", "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64", "INT8": "int8",
    "INT16": "int16", "INT32": "int32", "INT64": "int64", "FP16": "half", "FP32": "float", "FP64": "double",
    "BYTES": "string",
}  # fmt: skip
"""Open Inference datatype -> TensorFlow's name of it (types.proto, without DT_ and in lower case)."""

_SHOWN: Final = 120
"""Characters of a client's own value that a sentence repeats."""

_STATES: Final = {"READY": "AVAILABLE", "LOADING": "LOADING", "UNLOADING": "UNLOADING", "UNAVAILABLE": "END"}
"""State in the repository index -> state of a servable (``ModelVersionStatus.State``)."""


def status(snapshot: Snapshot, name: str, version: str = "") -> Handler:
    """Return what answers for the state of a model, or of one of its versions."""
    found = [state for state in snapshot.states if state.name == name and version in ("", state.version)]
    return always(as_json({"model_version_status": [_status(state) for state in found]}))


def _status(state: State) -> dict[str, Any]:
    fine = state.state == "READY" or state.reason in ("", "unloaded")
    return {
        "version": state.version,
        "state": _STATES.get(state.state, "UNKNOWN"),
        # The reason may hold paths of this machine; the repository index says what may be said of it.
        "status": {
            "error_code": "OK" if fine else "UNKNOWN",
            "error_message": "" if fine else "the model could not be loaded",
        },
    }


def metadata(model: Model) -> Handler:
    """Return what answers with the signatures of a model."""
    signatures = {
        name: {
            "inputs": _tensors(one.inputs),
            "outputs": _tensors(one.outputs),
            "method_name": "tensorflow/serving/predict",
            "defaults": {},
        }
        for name, one in model.signatures.items()
    }
    said = {
        "model_spec": {"name": model.name, "signature_name": "", "version": model.version},
        "metadata": {"signature_def": {"signature_def": signatures}},
    }
    return always(as_json(said))


def _tensors(specs: Iterable[TensorSpec]) -> dict[str, Any]:
    return {
        spec.name: {
            "dtype": f"DT_{TYPES[spec.datatype].upper()}",
            "tensor_shape": {"dim": [{"size": str(size), "name": ""} for size in spec.shape], "unknown_rank": False},
            "name": f"{spec.name}:0",
        }
        for spec in specs
    }


def shortened(text: str) -> str:
    """Return the client's text, shortened, for a sentence: half a surrogate pair becomes a question mark."""
    cut = text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
    return cut.encode(errors="replace").decode()
