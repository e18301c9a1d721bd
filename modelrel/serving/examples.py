"""Requests that the model is known to answer: the first golden row, in the words of each protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .manifest import BrokenModel

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .manifest import TensorSpec
    from .model import Model

Values = dict[str, Any]


class Row(NamedTuple):
    """One golden row: values by tensor name, nested as the tensors are, with a first dimension of 1."""

    inputs: Values
    outputs: Values


def first_row(model: Model) -> Row | None:
    """Return the first golden row; None where the folder has none, or one that does not fit the signature."""
    try:
        golden = model.golden()
    except BrokenModel:
        return None
    if golden is None or any(spec.name not in golden.inputs for spec in model.inputs):
        return None
    return Row(_first(model.inputs, golden.inputs), _first(model.outputs, golden.outputs))


def open_inference(model: Model, row: Row) -> Values | None:
    """Return the V2 request of a row; None where JSON has no form for it (FP16)."""
    if any(spec.datatype == "FP16" for spec in model.inputs):
        return None
    sayable = [spec.name for spec in model.outputs if spec.datatype != "FP16"]
    if not sayable:
        return None
    sent: Values = {
        "inputs": [
            {
                "name": spec.name,
                "shape": _shape(row.inputs[spec.name], len(spec.shape)),
                "datatype": spec.datatype,
                "data": list(_flat(row.inputs[spec.name])),
            }
            for spec in model.inputs
        ]
    }
    if len(sayable) < len(model.outputs):
        sent["outputs"] = [{"name": name} for name in sayable]
    return sent


def mlflow(model: Model, row: Row) -> Values | None:
    """Return the request for MLflow's scoring route."""
    if model.kind == "columns":
        names = [spec.name for spec in model.inputs]
        return {"dataframe_split": {"columns": names, "data": [[_single(row.inputs[name]) for name in names]]}}
    if len(model.inputs) == 1:
        return {"inputs": row.inputs[model.inputs[0].name]}
    return {"inputs": row.inputs}


def tensorflow_serving(model: Model, row: Row) -> Values | None:
    """Return the request for TensorFlow Serving's predict, in row form where every input has rows."""
    if any(spec.shape[:1] != (-1,) for spec in model.inputs):
        return {"inputs": row.inputs if len(model.inputs) > 1 else row.inputs[model.inputs[0].name]}
    instance = {name: value[0] for name, value in row.inputs.items()}
    return {"instances": [instance if len(model.inputs) > 1 else instance[model.inputs[0].name]]}


class Protocol(NamedTuple):
    """What a person calls a protocol, and what makes its request of a row."""

    title: str
    request: Callable[[Model, Row], Values | None]


PROTOCOLS: Final[Mapping[str, Protocol]] = {
    "v2": Protocol("Open Inference V2", open_inference),
    "mlflow": Protocol("MLflow", mlflow),
    "tfserving": Protocol("TensorFlow Serving", tensorflow_serving),
}
"""The protocols that a request can be written in, by the names that they have in paths."""


def _first(specs: Sequence[TensorSpec], values: Mapping[str, object]) -> Values:
    found: Values = {}
    for spec in specs:
        value = values.get(spec.name)
        found[spec.name] = value[:1] if spec.shape[:1] == (-1,) and isinstance(value, list) else value
    return found


def _shape(value: object, rank: int) -> list[int]:
    shape: list[int] = []
    while len(shape) < rank and isinstance(value, list):
        shape.append(len(value))
        value = value[0] if value else None
    return shape


def _flat(value: object) -> list[object]:
    if not isinstance(value, list):
        return [value]
    return [item for part in value for item in _flat(part)]


def _single(value: object) -> object:
    return next(iter(_flat(value)), None)
