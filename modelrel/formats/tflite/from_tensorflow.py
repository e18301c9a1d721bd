"""TensorFlow functions -> TFLite by TensorFlow's own converter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from modelrel import networks
from modelrel.errors import Refused
from modelrel.formats.order import Order
from modelrel.formats.tflite import interface
from modelrel.networks import Function, Network
from modelrel.tensors import NUMPY
from modelrel.values import TensorSpec


def function(
    network: Network, order: Order, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> tuple[interface.Make, tuple[str, ...]]:
    """Return what builds the function that is served, with the inputs and outputs of the release, and its notes.

    Raises `Refused` for what TFLite's own operators do not compute, by name.
    """
    served, name = network.function, order.answers.estimator
    _possible(served, name)
    signature = replace(order.signature, inputs=tuple(inputs))
    by_row = any(operator.startswith("TensorList") for operator in served.operators)
    if by_row and served.anew is None:
        raise Refused(
            f"{name} has a loop over time steps and was saved without its layers: TFLite's operators keep lists of "
            "one size only, and this loop's have the size of the batch",
            "Log the Keras model itself, save it with unroll=True, or convert it to onnx.",
        )

    def body(tf: Any, given: Mapping[str, Any]) -> dict[str, Any]:
        entered = networks.entered(tf, served, signature, given)
        found = _by_row(tf, served, entered) if by_row else served.call(entered)
        return {spec.name: one for spec, one in zip(served.outputs, found, strict=True)}

    notes = ("computes one row after the other: its loops over time keep lists, which TFLite has for one size only",)
    make = _with_others(interface.built(body, inputs, outputs), network)
    return make, notes if by_row else ()


def _with_others(make: interface.Make, network: Network) -> interface.Make:
    """Keep all signatures of a model that one of them trains, for the device to call; else the served one alone."""
    changing = {name for name, one in network.functions.items() if any("Assign" in op for op in one.operators)}
    if not changing:
        return make

    def together(tf: Any) -> interface.Function:
        made = make(tf)
        made.module.kept = network.owner
        others = {name: network.owner.signatures[name] for name in network.functions if name != interface.KEY}
        return replace(made, others=others)

    return together


def _possible(served: Function, name: str) -> None:
    tables = sorted(operator for operator in served.operators if operator.startswith("LookupTable"))
    if tables:
        raise Refused(
            f"{name} looks values up in a table ({', '.join(tables)}), which TFLite's own operators do not",
            "Convert it to onnx, or take StringLookup and IntegerLookup out of the model, and encode before it.",
        )
    double = [spec.name for spec in (*served.inputs, *served.outputs) if spec.datatype == "FP64"]
    if double:
        raise Refused(
            f"{name} computes {double[0]} in float64, and TFLite's operators compute in float32",
            "Convert it to onnx, or build the model in float32.",
        )


def _by_row(tf: Any, served: Function, given: Sequence[Any]) -> Sequence[Any]:
    """Return the outputs of the layers traced again for one row, over all rows.

    With a batch of one every list inside a loop over time has elements of a known size, which is what TFLite's
    operators ask for; the outer loop keeps a list of whole rows, whose size is known too.
    """
    assert served.anew is not None
    layers = served.anew
    kinds = [
        tf.TensorSpec([None if size < 0 else size for size in spec.shape[1:]], NUMPY[spec.datatype])
        for spec in served.outputs
    ]

    def one(row: Sequence[Any]) -> list[Any]:
        answered = layers([tensor[None] for tensor in row])
        return [tf.ensure_shape(tensor[0], kind.shape) for tensor, kind in zip(answered, kinds, strict=True)]

    return list(tf.map_fn(one, list(given), fn_output_signature=kinds))
