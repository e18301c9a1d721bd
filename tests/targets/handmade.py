"""A verified model of any inputs, made by hand: it gives back what it takes, under other names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from modelrel import archive, served, tensors
from modelrel.values import Interface, ParityReport, Scalar, Signature, TensorSpec
from tests.targets import tiny

_TYPES = {
    "BOOL": TensorProto.BOOL, "UINT8": TensorProto.UINT8, "UINT16": TensorProto.UINT16, "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64, "INT8": TensorProto.INT8, "INT16": TensorProto.INT16, "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64, "FP16": TensorProto.FLOAT16, "FP32": TensorProto.FLOAT, "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}  # fmt: skip


def out(name: str) -> str:
    """Return what the model calls the output that gives back an input."""
    return f"{name} out"


def echo(
    folder: Path,
    inputs: tuple[TensorSpec, ...],
    rows: Mapping[str, Any],
    *,
    kind: Literal["columns", "tensor"] = "columns",
    classes: tuple[Scalar, ...] = (),
    interface: Interface | None = None,
) -> ParityReport:
    """Lay out a release folder as `verify` leaves it; the first output is what `predict` returns."""
    report = tiny.verified(folder)
    outputs = tuple(replace(spec, name=out(spec.name), required=True) for spec in inputs)
    onnx.save(_graph(inputs, outputs), str(folder / "onnx/model.onnx"))
    given = {spec.name: np.array(rows[spec.name], tensors.NUMPY[spec.datatype]) for spec in inputs}
    session = onnxruntime.InferenceSession(str(folder / "onnx/model.onnx"), providers=["CPUExecutionProvider"])
    found = session.run(None, given)
    answers = dict(zip([spec.name for spec in outputs], map(np.asarray, found), strict=True))
    shown = interface or Interface()
    source = replace(report.source, signature=Signature(kind=kind, inputs=inputs))
    converted = replace(
        report.converted, source=source, inputs=inputs, outputs=outputs, predict=outputs[0].name, classes=classes,
        interface=shown, file=archive.describe(folder / "onnx/model.onnx", folder),
    )  # fmt: skip
    sent = served.rows(converted, given) if interface else given
    told = served.dressed(converted, lambda _: answers)(sent) if interface else answers
    golden = {
        "inputs": {name: tensors.plain(array) for name, array in sent.items()},
        "outputs": {name: tensors.plain(array) for name, array in told.items()},
    }
    (folder / "onnx/golden.json").write_text(json.dumps(golden))
    manifest = json.loads((folder / "onnx/modelrel.json").read_text())
    manifest |= {
        "kind": kind, "predict": served.predict(converted), "classes": list(classes) or None,
        "inputs": [tiny._plain(spec) | {"required": spec.required} for spec in served.inputs(converted)],
        "outputs": [tiny._plain(spec) for spec in served.outputs(converted)], **served.manifest(converted),
    }  # fmt: skip
    (folder / "onnx/modelrel.json").write_text(json.dumps(manifest))
    return tiny.remember(report, converted=converted)


def columns(rows: Mapping[str, tuple[str, list[Any]]], *optional: str) -> tuple[tuple[TensorSpec, ...], dict[str, Any]]:
    """Return specs and rows of name -> datatype and values."""
    specs = tuple(
        TensorSpec(name=name, datatype=datatype, shape=(-1, 1), required=name not in optional)
        for name, (datatype, _) in rows.items()
    )
    return specs, {name: [[value] for value in values] for name, (_, values) in rows.items()}


def _graph(inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> onnx.ModelProto:
    def ports(specs: tuple[TensorSpec, ...]) -> list[onnx.ValueInfoProto]:
        return [
            helper.make_tensor_value_info(
                spec.name, _TYPES[spec.datatype], ["N" if size < 0 else size for size in spec.shape]
            )
            for spec in specs
        ]

    nodes = [helper.make_node("Identity", [one.name], [other.name]) for one, other in zip(inputs, outputs, strict=True)]
    graph = helper.make_graph(nodes, "echo", ports(inputs), ports(outputs))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


EVERY = {
    "flag": ("BOOL", [True, False, True]),
    "u8": ("UINT8", [0, 255, 7]),
    "u16": ("UINT16", [0, 65535, 7]),
    "u32": ("UINT32", [0, 2**32 - 1, 7]),
    "u64": ("UINT64", [0, 2**64 - 1, 7]),
    "i8": ("INT8", [-128, 127, 7]),
    "i16": ("INT16", [-(2**15), 2**15 - 1, 7]),
    "i32": ("INT32", [-(2**31), 2**31 - 1, 7]),
    "i64": ("INT64", [-(2**63), 2**63 - 1, 7]),
    "f32": ("FP32", [0.1, np.nan, -3.5]),
    "f64": ("FP64", [0.1, np.nan, 1e-310]),
    "text": ("BYTES", ["größe", "", "a\nb 🙂"]),
}
"""A column of each datatype, with the ends of its range."""

HOSTILE = (
    "class",
    "a b",
    'x"y',
    "größe",
    "🙂",
    "two\nlines",
    "__proto__",
    "*/",
    "constructor",
    "${x}`",
    "\u2028",
    "\\",
)
"""Names that some language or file format could trip over."""
