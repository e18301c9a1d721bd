"""How a PyTorch module is asked: arrays in the signature's order go in, named tensors come out."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from modelrel import extras
from modelrel.errors import Refused
from modelrel.tensors import NUMPY, Array, Tensors
from modelrel.values import Signature

PREDICTION: Final = "prediction"


def answered(native: Any, arrays: Sequence[Array], signature: Signature) -> dict[str, Array]:
    """Return every output for N rows: `prediction` for a tensor, keys of a dict, `output_0`, ... of a tuple.

    Raises what the module raises, and `Refused` where an answer is not one row for each that went in.
    """
    torch = extras.load("torch")
    rows = len(arrays[0])
    with torch.no_grad():
        found = called(native, [torch.from_numpy(array) for array in arrays], signature)
    return {name: _row_by_row(name, tensor, rows) for name, tensor in outputs(found).items()}


def given(tensors: Tensors, signature: Signature) -> list[Array]:
    """Return what goes into the module, in the signature's order; one float32 array (N, columns) of columns."""
    if signature.kind == "columns":
        columns = [np.asarray(tensors[spec.name], np.float32).reshape(-1, 1) for spec in signature.inputs]
        return [np.ascontiguousarray(np.concatenate(columns, axis=1))]
    for spec in signature.inputs:
        if spec.datatype == "BYTES":
            raise Refused(
                f"the input {spec.name} is text, which PyTorch has no tensors of", "Log what makes ids of it."
            )
    return [np.ascontiguousarray(tensors[spec.name], NUMPY[spec.datatype]) for spec in signature.inputs]


def called(native: Any, values: list[Any], signature: Signature) -> Any:
    """Call the module: several tensors by the names of its parameters, where they have these, else in order."""
    names = _by_name(native, signature)
    return native(**{name: values[place] for place, name in enumerate(names)}) if names else native(*values)


def placed(native: Any, values: list[Any], signature: Signature) -> list[Any]:
    """Return the values in the order in which the module takes them; raises `Refused` where one has no place."""
    names = _by_name(native, signature)
    if not names:
        return values
    order = [name for name in _parameters(native) if name in names]
    if _parameters(native)[: len(order)] != order:
        raise Refused(
            f"the module has parameters between {', '.join(order)} that the signature does not name",
            "Log a signature that names the first parameters of its forward().",
        )
    return [values[names.index(name)] for name in order]


def _by_name(native: Any, signature: Signature) -> list[str]:
    """Return the signature's names where there are several and the module has parameters of these names."""
    names = [spec.name for spec in signature.inputs] if signature.kind == "tensor" else []
    return names if len(names) > 1 and set(names) <= set(_parameters(native)) else []


def outputs(found: Any) -> dict[str, Any]:
    """Return a module's answer as named tensors; raises `Refused` for anything but tensors in one dict or tuple."""
    torch = extras.load("torch")
    if isinstance(found, torch.Tensor):
        return {PREDICTION: found}
    if isinstance(found, Mapping):
        named = {str(name): value for name, value in found.items() if value is not None}
    elif isinstance(found, (tuple, list)):
        fields = getattr(found, "_fields", ())
        named = {fields[place] if fields else f"output_{place}": value for place, value in enumerate(found)}
    else:
        named = {}
    if not named or not all(isinstance(value, torch.Tensor) for value in named.values()):
        raise Refused(
            f"the module answers a {type(found).__name__} that is not made of tensors alone",
            "Log a module that returns a tensor, a tuple of tensors, or a dict of them.",
        )
    return named


def named(native: Any) -> str:
    """Return the class of the module as people know it, through scripting and exporting."""
    return str(getattr(native, "original_name", "") or type(native).__name__)


def _parameters(native: Any) -> list[str]:
    schema = getattr(getattr(native, "forward", None), "schema", None)  # of a scripted method
    if schema is not None:
        return [argument.name for argument in schema.arguments if argument.name != "self"]
    return list(inspect.signature(native.forward).parameters)


def _row_by_row(name: str, tensor: Any, rows: int) -> Array:
    torch = extras.load("torch")
    tensor = tensor.detach()
    array = np.asarray((tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy())
    if array.shape[:1] == (rows,):
        return array
    if rows == 1:
        return array[None]  # squeeze() takes the dimension of the one row too
    raise Refused(
        f"{name} has the shape {list(array.shape)} for {rows} rows",
        "Log a module whose answers have a first dimension of one entry per row.",
    )
