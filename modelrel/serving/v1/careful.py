"""Requests read value by value, as TF Serving does it: the way that knows what is wrong, and the bare literals.

Source: ``tensorflow_serving/util/json_tensor.cc`` of tensorflow/serving; the sentences are its own where it has one for
the case. What is taken here beyond it: UINT16 and FP16; the largest FP32 as it prints; and plain values beside lists of
one for inputs of the shape [-1, 1], the columns of a table.
"""

from __future__ import annotations

import base64
import binascii
import json
from math import inf, isfinite, nan, prod
from typing import TYPE_CHECKING, Any, Final, NoReturn

import numpy as np

from ..answers import Refused
from ..tensors import DTYPES
from .metadata import TYPES, shortened

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ..manifest import TensorSpec
    from ..model import Model
    from ..tensors import Array

LARGEST_INTEGER: Final = {"FP16": 2**11 - 1, "FP32": 2**24 - 1, "FP64": 2**53 - 1}
"""The largest integer that a float takes; with more digits some are lost."""

# The first doubles that round to infinity. FP32's largest value prints as 3.4028235e38, which is below its own.
_END: Final = {"FP16": 65520.0, "FP32": float(np.finfo(np.float32).max) + 2.0**103, "FP64": inf}

_MANY: Final = 10_000
"""Values of a tensor: reading more than these takes milliseconds."""

_FLOATS: Final = {float}

_REASONS: Final = {
    "Expecting value": "Invalid value.",
    "Extra data": "The document root must not be followed by other values.",
    "Expecting property name enclosed in double quotes": "Missing a name for object member.",
    "Expecting ':' delimiter": "Missing a colon after a name of object member.",
    "Expecting ',' delimiter": "Missing a comma, or the end of the object or array.",
    "Unterminated string starting at": "Missing a closing quotation mark in string.",
    "Invalid \\escape": "Invalid escape character in string.",
    "Invalid \\uXXXX escape": "Incorrect hex digit after \\u escape in string.",
    "Invalid control character at": "Invalid encoding in string.",
}
"""Python's word for what is no JSON -> RapidJSON's, which TF Serving repeats."""


def shown(value: object) -> str:
    """Return a value as JSON, shortened, for a sentence."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (RecursionError, ValueError):
        text = "..."
    return shortened(text)


class _TooBig(ValueError):
    pass


def _float(text: str) -> float:
    value = float(text)
    if not isfinite(value):
        raise _TooBig
    return value


def _integer(text: str) -> int | float:
    """Read an integer; RapidJSON makes a double of what has more than 64 bits."""
    if len(text) < 20:
        return int(text)
    value = _float(text)
    exact = int(text) if len(text) < 40 else 1 << 64
    return exact if -(2**63) <= exact < 2**64 else value


def parse(body: bytes) -> dict[str, Any]:
    """Read a body: a JSON object in which NaN, Infinity and -Infinity are numbers too. Raises ``Refused`` (400)."""
    if not body.strip():
        raise Refused(400, "JSON Parse error: The document is empty")
    try:
        found = json.loads(body.decode("utf-8-sig"), parse_float=_float, parse_int=_integer)
    except UnicodeDecodeError as error:
        raise Refused(400, f"JSON Parse error: the body is not UTF-8 at offset: {error.start}") from error
    except json.JSONDecodeError as error:
        reason = _REASONS.get(error.msg, error.msg + ".")
        raise Refused(400, f"JSON Parse error: {reason} at offset: {error.pos}") from error
    except _TooBig as error:
        raise Refused(400, "JSON Parse error: Number too big to be stored in double.") from error
    except RecursionError as error:
        raise Refused(400, "JSON Parse error: the document is nested too deeply") from error
    if not isinstance(found, dict):
        raise Refused(400, f"JSON Value: {shown(found)} Is not object")
    return found


def signature_name(document: Mapping[str, object]) -> str:
    """Return the signature that a request asks for, "" for the default. Raises ``Refused`` (400)."""
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise Refused(
            400,
            f"JSON Value: {shown(document)} not formatted correctly. 'signature_name' key must be a string value.",
        )
    return name


def predict_form(document: Mapping[str, object]) -> tuple[str, object]:
    """Return ``instances`` or ``inputs``, whichever a request has, and its value. Raises ``Refused`` (400)."""
    if "instances" in document and "inputs" in document:
        reason = "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist"
        raise Refused(400, f"JSON Value: {shown(document)} {reason}")
    if "inputs" in document:
        return "inputs", document["inputs"]
    if "instances" not in document:
        raise Refused(400, "Missing 'inputs' or 'instances' key")
    instances = document["instances"]
    if not isinstance(instances, list):
        raise Refused(400, f"JSON Value: {shown(document)} Excepting 'instances' to be an list/array")
    if not instances:
        raise Refused(400, f"JSON Value: {shown(document)} No values in 'instances' array")
    return "instances", instances


def is_base64(value: object) -> bool:
    """Return whether a value is ``{"b64": text}``, which stands for bytes."""
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def element(value: object, datatype: str) -> object:
    """Return one JSON value as what goes into a tensor of a datatype; ``{"b64": text}`` is bytes.

    Raises ``Refused`` (400).
    """
    if isinstance(value, dict):
        if datatype != "BYTES":
            _mistyped(value, datatype)
        return _decoded(value)
    if datatype == "BYTES":
        return _text(value) if isinstance(value, str) else _mistyped(value, datatype)
    if isinstance(value, bool) or datatype == "BOOL":
        return value if isinstance(value, bool) and datatype == "BOOL" else _mistyped(value, datatype)
    if datatype in LARGEST_INTEGER:
        if not isinstance(value, int | float):
            _mistyped(value, datatype)
        limit = LARGEST_INTEGER[datatype]
        lossy = abs(value) > limit if isinstance(value, int) else isfinite(value) and abs(value) >= _END[datatype]
        if lossy:
            target = TYPES[datatype]
            raise Refused(400, f"Cannot convert JSON value: {shown(value)} to {target} without loss of precision.")
        return value
    limits = np.iinfo(DTYPES[datatype])
    if not isinstance(value, int) or not int(limits.min) <= value <= int(limits.max):
        _mistyped(value, datatype)
    return value


def _mistyped(value: object, datatype: str) -> NoReturn:
    kind = {str: "String", dict: "Object", list: "Array", bool: str(value), type(None): "Null"}
    raise Refused(
        400,
        f"JSON Value: {shown(value)} Type: {kind.get(type(value), 'Number')} "
        f"is not of expected type: {TYPES[datatype]}",
    )


def _text(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise Refused(400, "JSON Parse error: The surrogate pair in string is invalid.") from error
    return value


def _decoded(value: dict[str, object]) -> bytes:
    if not is_base64(value):
        raise Refused(400, f"JSON Value: {shown(value)} not formatted correctly for base64 data")
    sent = str(value["b64"]).encode(errors="replace")
    try:
        # as absl::Base64Unescape: the padding may be left out
        return base64.b64decode(sent + b"=" * (-len(sent) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refused(400, "Unable to base64 decode") from error


def dense(
    value: object, spec: TensorSpec, takes: Sequence[int], times: int = 1
) -> tuple[list[object], tuple[int, ...]]:
    """Return the values of nested lists, row-major, and their shape; a plain value has the shape ().

    The first element of each list says what the others must look like. ``takes`` is the shape that the model takes
    there: many values of another one (``times`` as many in all) are not looked at. Raises ``Refused`` (400).
    """
    shape: list[int] = []
    probe = value
    while isinstance(probe, list):
        shape.append(len(probe))
        probe = probe[0] if probe else None
    if prod(shape) * times > _MANY and spec.shape != (-1, 1) and not _fits(shape, takes):
        raise Refused(400, f"Tensor name: {spec.name} has {_said(shape)} where the model takes {_said(takes)}")
    flat: list[object] = []
    _fill(value, 0, shape, spec.datatype, flat)
    return flat, tuple(shape)


def _fits(have: Sequence[int], want: Sequence[int]) -> bool:
    return len(have) == len(want) and all(size in (-1, own) for own, size in zip(have, want, strict=True))


def _fill(value: object, level: int, shape: list[int], datatype: str, flat: list[object]) -> None:
    if not isinstance(value, list):
        if level != len(shape):
            place = f"found at incorrect level: {level + 1} in the JSON DOM. Expected at level: {len(shape)}"
            raise Refused(400, f"JSON Value: {shown(value)} {place}")
        flat.append(element(value, datatype))
        return
    if level >= len(shape):
        raise Refused(400, f"Encountered list at unexpected level: {level} expected < {len(shape)}")
    if len(value) != shape[level]:
        expected = f"expected size: {shape[level]}"
        raise Refused(400, f"Encountered list at unexpected size: {len(value)} at level: {level} {expected}")
    if level == len(shape) - 1 and datatype in _END and set(map(type, value)) == _FLOATS:
        end = _END[datatype]
        flat += [one if -end < one < end else element(one, datatype) for one in value]
        return
    for item in value:
        _fill(item, level + 1, shape, datatype, flat)


def rows(instances: list[object], model: Model) -> dict[str, Array]:
    """Read the value of ``instances``, which is not empty. Raises ``Refused`` (400)."""
    specs = {spec.name: spec for spec in model.inputs}
    named = isinstance(instances[0], dict) and not is_base64(instances[0])
    if not named and len(specs) > 1:
        raise Refused(
            400,
            "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
            "tensorinfo_map",
        )
    only = next(iter(specs))
    batch = _Batch(specs, len(instances))
    for at, item in enumerate(instances):
        of_names = isinstance(item, dict) and not is_base64(item)
        if of_names is not named:
            expected = "object but got list" if named else "value/list but got object"
            raise Refused(400, f"Expecting {expected} at item {at} of input list")
        sent = item if isinstance(item, dict) and named else {only: item}
        for name, value in sent.items():
            try:
                batch.add(name, value, specs.get(name))
            except Refused as error:
                key = f" key: {shortened(name)}" if named else ""
                reason = f"of 'instances' list. Error: INVALID_ARGUMENT: {error}"
                raise Refused(error.status, f"Failed to process element: {at}{key} {reason}") from error
        if len(sent) != len(specs):
            batch.complete(at, sent, model)
    return {
        name: _array(batch.parts[name], (len(instances), *batch.shapes[name]), spec, model)
        for name, spec in specs.items()
    }


class _Batch:
    """The values of each input, row after row, and the shape that its first row had."""

    def __init__(self, names: Iterable[str], count: int) -> None:
        self.parts: dict[str, list[object]] = {name: [] for name in names}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._count = count

    def add(self, name: str, value: object, spec: TensorSpec | None) -> None:
        """Add what one instance has for one input. Raises ``Refused`` (400)."""
        if spec is None:
            raise Refused(400, f"JSON object: does not have named input: {shortened(name)}")
        flat, shape = dense(value, spec, spec.shape[1:], self._count)
        if spec.shape == (-1, 1) and shape == ():
            shape = (1,)
        before = self.shapes.setdefault(name, shape)
        if prod(before) != len(flat):
            raise Refused(400, f"Expecting tensor size: {prod(before)} but got: {len(flat)}")
        if before != shape:
            raise Refused(400, f"Expecting shape {_said(before)} but got: {_said(shape)}")
        self.parts[name] += flat

    def complete(self, at: int, sent: Mapping[str, object], model: Model) -> None:
        """Put NaN where an instance leaves out an optional column. Raises ``Refused`` (400) for any other input."""
        for spec in model.inputs:
            if spec.name in sent:
                continue
            if not may_lack(spec, model):
                raise Refused(
                    400,
                    f"Failed to process element: {at} of 'instances' list. JSON object: {shown(sent)} must only have "
                    f"keys: {','.join(sorted(one.name for one in model.inputs))}",
                )
            self.shapes[spec.name] = (1,)
            self.parts[spec.name].append(nan)


def may_lack(spec: TensorSpec, model: Model) -> bool:
    """Return whether a column may be left out: it is optional, and has a value for what is missing."""
    return model.kind == "columns" and not spec.required and spec.datatype[:2] == "FP"


def columns(inputs: object, model: Model) -> dict[str, Array]:
    """Read the value of ``inputs``. Raises ``Refused`` (400)."""
    specs = {spec.name: spec for spec in model.inputs}
    if not isinstance(inputs, dict) or is_base64(inputs):
        if len(specs) > 1:
            raise Refused(
                400,
                "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
                "tensorinfo_map",
            )
        inputs = {next(iter(specs)): inputs}
    feeds: dict[str, Array] = {}
    for name, spec in specs.items():
        if name in inputs:
            flat, shape = dense(inputs[name], spec, spec.shape)
            if spec.shape == (-1, 1):
                shape = {0: (1, 1), 1: (*shape, 1)}.get(len(shape), shape)
            feeds[name] = _array(flat, shape, spec, model)
        elif not may_lack(spec, model):
            raise Refused(400, f"Missing named input: {name} in 'inputs' object.")
    if model.kind == "columns":
        _level(feeds, model.inputs)
    return feeds


def _level(feeds: dict[str, Array], specs: Sequence[TensorSpec]) -> None:
    """Put NaN where a column was left out, and see that all have the same number of rows."""
    if not feeds:
        raise Refused(400, f"Missing named input: {specs[0].name} in 'inputs' object.")
    first = next(iter(feeds))
    for spec in specs:
        if spec.name not in feeds:
            feeds[spec.name] = np.full((len(feeds[first]), 1), nan, DTYPES[spec.datatype])
        elif len(feeds[spec.name]) != len(feeds[first]):
            size, expected = len(feeds[spec.name]), len(feeds[first])
            raise Refused(400, f"Tensor name: {spec.name} has inconsistent batch size: {size} expecting: {expected}")


def _array(flat: list[object], shape: tuple[int, ...], spec: TensorSpec, model: Model) -> Array:
    """Make the tensor of an input. Raises ``Refused`` (400) where it is not of the shape that the model takes."""
    if 0 in shape or not _fits(shape, spec.shape):
        raise Refused(400, f"Tensor name: {spec.name} has shape {_said(shape)}, the model takes {_said(spec.shape)}")
    array = np.empty(len(flat), DTYPES[spec.datatype])
    array[:] = [_written(value, spec, model) for value in flat] if spec.datatype == "BYTES" else flat
    return array.reshape(shape)


def _written(value: object, spec: TensorSpec, model: Model) -> object:
    """Return bytes as the text that a tensor holds: an encoded image as base64, any other as what it spells."""
    if not isinstance(value, bytes):
        return value
    if spec.name in model.images:
        return base64.b64encode(value).decode()
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise Refused(400, f"Tensor name: {spec.name} holds text, and the bytes sent for it are not UTF-8") from error


def _said(shape: Sequence[int]) -> str:
    return f"[{','.join(map(str, shape))}]"
