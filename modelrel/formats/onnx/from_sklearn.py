"""scikit-learn -> ONNX, by skl2onnx in double precision, with what it gets wrong refused or repaired."""

from __future__ import annotations

import copy
from typing import Any, Final

import onnx

from modelrel.errors import Refused
from modelrel.formats.onnx.graph import Core
from modelrel.formats.onnx.opsets import ML, NEWEST
from modelrel.formats.onnx.repair import repaired
from modelrel.formats.order import Order

_FLOAT_NOTE: Final = "computes in float32, because its operators have no float64 form"


def write(native: Any, order: Order) -> Core:
    """Return the converted core; raises `Refused` for an estimator that has no exact converter."""
    merged = order.signature.kind == "tensor" or not _reads_columns(native, order)
    failures: list[Exception] = []
    for double in (True, False):
        try:
            model = _converted(copy.deepcopy(native), order, merged, double)
            model = repaired(model) if double else model
            _try(model)
        except Refused:
            raise
        except Exception as error:  # noqa: BLE001 - converters raise anything; the next rung tries
            failures.append(error)
            continue
        outputs = _outputs(model, order)
        return Core(model=model, outputs=outputs, merged=merged, notes=() if double else (_FLOAT_NOTE,))
    raise failures[0]


def _converted(native: Any, order: Order, merged: bool, double: bool) -> onnx.ModelProto:
    from skl2onnx import convert_sklearn

    final = native
    while hasattr(final, "steps"):
        final = final.steps[-1][1]
    options = {id(final): {"zipmap": False}} if "probabilities" in order.answers.outputs else None
    model: onnx.ModelProto = convert_sklearn(
        native,
        name="core",
        initial_types=_types(order, merged, double),
        options=options,
        target_opset={"": order.opset or NEWEST, "ai.onnx.ml": ML},
    )
    return model


def _types(order: Order, merged: bool, double: bool) -> list[tuple[str, Any]]:
    from skl2onnx.common import data_types

    number = data_types.DoubleTensorType if double else data_types.FloatTensorType
    specs = order.signature.inputs

    def kind(datatype: str) -> Any:
        return data_types.StringTensorType if datatype == "BYTES" else number

    if not merged:
        return [(spec.name, kind(spec.datatype)([None, 1])) for spec in specs]
    if order.signature.kind == "tensor":
        width = specs[0].shape[1] if len(specs[0].shape) > 1 else 1
        return [("X", kind(specs[0].datatype)([None, width if width >= 0 else None]))]
    return [("X", kind(specs[0].datatype)([None, len(specs)]))]


def _reads_columns(native: Any, order: Order) -> bool:
    """Whether a step picks columns by name, or the columns are of different kinds."""
    text = {spec.datatype == "BYTES" for spec in order.signature.inputs}
    return len(text) > 1 or _has_column_transformer(native)


def _has_column_transformer(native: Any) -> bool:
    if type(native).__name__ == "ColumnTransformer":
        return True
    return any(_has_column_transformer(step) for _, step in getattr(native, "steps", ()))


def _outputs(model: onnx.ModelProto, order: Order) -> dict[str, str]:
    """Return released name -> the core's name: skl2onnx has its own names, and a fixed order."""
    names = [value.name for value in model.graph.output]
    return dict(zip(order.answers.outputs, names, strict=False))


def _try(model: onnx.ModelProto) -> None:
    """Load the core in onnxruntime, which is where a type error shows."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
