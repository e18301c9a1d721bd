"""The inputs and outputs of a TFLite file: the signature's names, in datatypes that phones have."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from modelrel import extras
from modelrel.errors import Refused
from modelrel.formats.order import Order
from modelrel.formats.tflite.smaller import EXACT, Smaller
from modelrel.tensors import NUMPY
from modelrel.values import TensorSpec

KINDS: Final = {
    "FP64": "FP32", "FP32": "FP32", "FP16": "FP32", "BOOL": "BOOL", "INT64": "INT64", "INT32": "INT32",
    "INT16": "INT16", "INT8": "INT8", "UINT8": "UINT8", "UINT16": "INT32", "UINT32": "INT64",
}  # fmt: skip
"""The signature's datatype -> that of the file."""

KEY: Final = "serving_default"


@dataclass(frozen=True, slots=True)
class Function:
    """What to convert: a `tf.Module`, its concrete function, and what its inputs and outputs are called in the end.

    `others` are concrete functions that the file keeps beside it, under these names and as they are.
    """

    module: Any
    concrete: Any
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    others: Mapping[str, Any] = field(default_factory=dict)


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
        concrete = module.answer.get_concrete_function()
        # TensorFlow saves the variables that hang on the module. A Keras model hung there comes out full of NaN.
        module.read = list(concrete.graph.variables)
        return Function(module, concrete, names, left)

    return make


def _shaped(tf: Any, tensor: Any, spec: TensorSpec) -> Any:
    if all(size >= 0 for size in spec.shape[1:]):
        tensor = tf.reshape(tensor, [-1, *spec.shape[1:]])
    return tensor if spec.datatype == "BYTES" else tf.cast(tensor, NUMPY[spec.datatype])


def entered(order: Order, *, behind: bool = False) -> tuple[tuple[TensorSpec, ...], tuple[str, ...]]:
    """Return the file's inputs, and what a person should know about them; `behind` an adapter, they may be text.

    Raises `Refused` for text, which the operators do not read.
    """
    specs = []
    for spec in order.signature.inputs:
        if behind and spec.datatype == "BYTES":
            specs.append(spec)
            continue
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


def adapted(said: Mapping[str, Any], inputs: Sequence[TensorSpec]) -> dict[str, Any]:
    """Return what `adapter.json` holds, with the datatypes of the file's inputs."""
    gives = [{"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)} for spec in inputs]
    steps = [
        step | {"parts": [part | ({"cell": "FP32"} if "cell" in part else {}) for part in step["parts"]]}
        for step in said["steps"]
    ]
    return {**said, "steps": steps, "gives": gives}


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


def written(make: Make, metadata: Mapping[str, str], smaller: Smaller = EXACT) -> bytes:
    """Return the file of what `make` builds with TensorFlow; raises `Refused` for an operator that is not TFLite's."""
    tf = tensorflow()
    function = make(tf)
    if function.others and smaller.mode:
        raise Refused(
            f"nothing in the TFLite copy can be made smaller by {smaller.mode}: its signatures "
            f"{', '.join(sorted(function.others))} change the weights, which are numbers of 32 bits for that",
            "Leave out --quantize, or save the model with the signature that answers alone.",
        )
    if function.others:
        return _named(_with_others(tf, function), function, metadata)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.concrete], function.module)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    smaller.ask(tf, converter, list(function.inputs.values()))
    return _named(_converted(converter), function, metadata)


def _with_others(tf: Any, function: Function) -> bytes:
    """Return a file of several signatures that share their variables, which calls can change.

    Gradients, Save and Restore are no operators of TFLite's: such signatures need TensorFlow's own in the app.
    """
    with tempfile.TemporaryDirectory(prefix="modelrel-signatures-") as folder:
        tf.saved_model.save(function.module, folder, signatures={**function.others, KEY: function.concrete})
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=[*function.others, KEY])
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS]
        converter.experimental_enable_resource_variables = True
        return _converted(converter)


def _converted(converter: Any) -> bytes:
    from tensorflow.lite.python.convert_phase import ConverterError

    try:
        return bytes(converter.convert())
    except ConverterError as error:
        raise _unknown(str(error)) from error


def kept(content: bytes) -> tuple[str, ...]:
    """Return a sentence about the signatures that a file has beside the served one, or nothing."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))
    codes = [bytes(code.customCode or b"").decode() for code in model.operatorCodes]
    said = []
    for one in model.signatureDefs:
        name = one.signatureKey.decode()
        used = {codes[node.opcodeIndex] for node in model.subgraphs[one.subgraphIndex].operators}
        flex = sorted(code.removeprefix("Flex") for code in used if code.startswith("Flex"))
        if name != KEY:
            said.append(
                f"{name} (needs TensorFlow's {', '.join(flex)} in the app: its Flex delegate)" if flex else name
            )
    return (f"keeps the signatures {', '.join(said)}, which are not compared",) if said else ()


def _unknown(said: str) -> Refused:
    """Return what TensorFlow's converter says in pages of C++ as one sentence."""
    names = sorted(set(re.findall(r"'tf\.(\w+)' op is neither a custom op nor a flex op", said)))
    if not names:
        names = sorted(set(re.findall(r"failed to legalize operation 'tf\.(\w+)'", said)))
    if names:
        why = f"it needs TensorFlow's {', '.join(names)}, for which TFLite has no operator of these types and shapes"
    else:
        first = re.search(r"error: ([^\n]{1,300})", said)
        why = first.group(1) if first else " ".join(said.split())[:300]
    return Refused(
        f"TensorFlow does not convert the model to TFLite: {why}",
        "Convert it to onnx, or take that layer out of the model.",
    )


def _named(content: bytes, function: Function, metadata: Mapping[str, str]) -> bytes:
    """Give inputs and outputs their names, which TensorFlow would take no spaces in, and add the metadata."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))
    (said,) = [one for one in model.signatureDefs if not function.others or one.signatureKey == KEY.encode()]
    said.signatureKey = KEY.encode()
    for maps, names in ((said.inputs, function.inputs), (said.outputs, function.outputs)):
        for one in maps:
            one.name = names[one.name.decode()].encode()
    for name, text in sorted(metadata.items()):
        buffer, entry = schema.BufferT(), schema.MetadataT()
        buffer.data = list(text.encode())
        entry.name, entry.buffer = name.encode(), len(model.buffers)
        model.buffers.append(buffer)
        model.metadata.append(entry)
    _settled(model)
    builder = flatbuffers.Builder(len(content) + 4096)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _settled(model: Any) -> None:
    """Sort what operators of TensorFlow's own carry, a map whose order is chance: a vector of name and NodeDef."""
    codes = [bytes(code.customCode or b"") for code in model.operatorCodes]
    for node in (node for one in model.subgraphs for node in one.operators if codes[node.opcodeIndex][:4] == b"Flex"):
        from flatbuffers import flexbuffers
        from tensorflow.core.framework.node_def_pb2 import NodeDef

        options = bytes(node.customOptions)
        said = bytes(flexbuffers.GetRoot(bytearray(options)).AsVector[1].AsStringBytes)
        node.customOptions = list(options.replace(said, NodeDef.FromString(said).SerializeToString(deterministic=True)))
