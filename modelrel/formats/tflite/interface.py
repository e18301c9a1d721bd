"""The inputs and outputs of a TFLite file: the signature's names, in datatypes that phones have."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from modelrel import extras
from modelrel.errors import Refused
from modelrel.formats.order import Order
from modelrel.tensors import NUMPY
from modelrel.values import TensorSpec

KINDS: Final = {
    "FP64": "FP32", "FP32": "FP32", "FP16": "FP32", "BOOL": "BOOL", "INT64": "INT64", "INT32": "INT32",
    "INT16": "INT16", "INT8": "INT8", "UINT8": "UINT8", "UINT16": "INT32", "UINT32": "INT64",
}  # fmt: skip
"""The signature's datatype -> that of the file."""

_KEY: Final = "serving_default"


@dataclass(frozen=True, slots=True)
class Function:
    """What to convert: a `tf.Module`, its concrete function, and what its inputs and outputs are called in the end."""

    module: Any
    concrete: Any
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


Make = Callable[[Any], Function]
"""Builds a function with TensorFlow, which it is given."""

Body = Callable[[Any, Mapping[str, Any]], Mapping[str, Any]]
"""TensorFlow and the inputs by name -> the outputs by name (and what else there is)."""


def built(body: Body, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> Make:
    """Return what makes a function of `body` with these inputs and outputs, for any number of rows."""

    def make(tf: Any) -> Function:
        # TensorFlow takes no spaces in names, so they get their own at the end.
        names = {f"input_{number}": spec.name for number, spec in enumerate(inputs)}
        left = {f"output_{number}": spec.name for number, spec in enumerate(outputs)}
        signature = [
            tf.TensorSpec([None, *(size if size >= 0 else None for size in spec.shape[1:])], NUMPY[spec.datatype], name)
            for name, spec in zip(names, inputs, strict=True)
        ]

        class Model(tf.Module):  # type: ignore[misc]  # TensorFlow says nothing of its types
            @tf.function(input_signature=signature, autograph=False)  # type: ignore[untyped-decorator]
            def answer(self, *given: Any) -> dict[str, Any]:
                found = body(tf, dict(zip(names.values(), given, strict=True)))
                return {name: _shaped(tf, found[spec.name], spec) for name, spec in zip(left, outputs, strict=True)}

        module = Model()
        return Function(module, module.answer.get_concrete_function(), names, left)

    return make


def _shaped(tf: Any, tensor: Any, spec: TensorSpec) -> Any:
    tensor = tf.reshape(tensor, [-1, *spec.shape[1:]])
    return tensor if spec.datatype == "BYTES" else tf.cast(tensor, NUMPY[spec.datatype])


def entered(order: Order) -> tuple[tuple[TensorSpec, ...], tuple[str, ...]]:
    """Return the file's inputs, and what a person should know about them.

    Raises `Refused` for text, which the operators do not read.
    """
    specs = []
    for spec in order.signature.inputs:
        if spec.datatype not in KINDS:
            raise Refused(
                f"the input {spec.name} is {'text' if spec.datatype == 'BYTES' else spec.datatype}, "
                "which TFLite's operators do not read",
                "Convert it to onnx, or encode that column as numbers before the model.",
            )
        specs.append(replace(spec, datatype=KINDS[spec.datatype]))
    rounded = [spec.name for spec in order.signature.inputs if spec.datatype == "FP64"]
    notes = ["takes float32: numbers of 64 bits are rounded before they go in"] if rounded else []
    return tuple(specs), tuple(notes)


def left(order: Order) -> tuple[TensorSpec, ...]:
    """Return the file's outputs: numbers in float32, labels as the original's."""
    found = []
    for name in order.answers.outputs:
        wide = len(order.answers.classes)
        guessed = TensorSpec(name=name, datatype="FP64", shape=(-1, wide) if name == "probabilities" else (-1,))
        spec = order.shapes.get(name) or guessed
        if name == "label":
            kind = "BYTES" if any(isinstance(known, str) for known in order.answers.classes) else "INT64"
            spec = replace(spec, datatype=spec.datatype if spec.datatype in ("BYTES", "BOOL") else kind)
        elif spec.datatype.startswith("FP"):
            spec = replace(spec, datatype="FP32")
        found.append(spec)
    return tuple(found)


def tensorflow() -> Any:
    """Import TensorFlow, quietly and without a GPU: what it writes must not depend on the machine.

    Raises `Unavailable` where it is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    return extras.load("tensorflow")


def written(make: Make, metadata: Mapping[str, str]) -> bytes:
    """Return the file of what `make` builds with TensorFlow; raises `Refused` for an operator that is not TFLite's."""
    tf = tensorflow()
    function = make(tf)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.concrete], function.module)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    return _named(bytes(converter.convert()), function, metadata)


def _named(content: bytes, function: Function, metadata: Mapping[str, str]) -> bytes:
    """Give inputs and outputs their names, which TensorFlow would take no spaces in, and add the metadata."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))
    (said,) = model.signatureDefs
    said.signatureKey = _KEY.encode()
    for maps, names in ((said.inputs, function.inputs), (said.outputs, function.outputs)):
        for one in maps:
            one.name = names[one.name.decode()].encode()
    for name, text in sorted(metadata.items()):
        buffer, entry = schema.BufferT(), schema.MetadataT()
        buffer.data = list(text.encode())
        entry.name, entry.buffer = name.encode(), len(model.buffers)
        model.buffers.append(buffer)
        model.metadata.append(entry)
    builder = flatbuffers.Builder(len(content) + 4096)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
