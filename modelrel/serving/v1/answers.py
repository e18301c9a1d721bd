"""Tensors as TF Serving prints them: row by row or output by output, floats as floats, NaN as it is called.

Source: ``tensorflow_serving/util/json_tensor.cc``. Numbers are those of TF Serving, not their spelling: whole floats
have their ``.0``, digits are as few as tell an FP32 from its neighbours (TF Serving prints 6 where they do, else 9),
and 9000000 is 9000000.0 and not 9e+06. NaN and infinities are bare literals: no JSON, but the protocol's.
"""

from __future__ import annotations

import base64
from math import isfinite
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ..answers import JSON_HEADERS, Answer, Refused, encode
from .decimals import lists
from .passing import beside

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..calls import Call
    from ..tensors import Array
    from .passing import Fields

_LITERALS: Final = {"nan": msgspec.Raw(b"NaN"), "inf": msgspec.Raw(b"Infinity"), "-inf": msgspec.Raw(b"-Infinity")}


def rows(call: Call, results: list[Array], fields: Sequence[Fields] | None = None) -> Answer:
    """Answer ``instances``: a prediction for each; an object where there are several outputs, or fields beside them."""
    names = call.outputs
    count = len(results[0]) if results[0].ndim else 0
    for name, array in zip(names, results, strict=True):
        _check(name, array, count)
    if len(names) == 1:
        predictions = plain(names[0], results[0])
        if fields is not None:
            predictions = beside(predictions, names[0], fields)
    else:
        each = [plain(name, array) for name, array in zip(names, results, strict=True)]
        predictions = [dict(zip(names, row, strict=True)) for row in zip(*each, strict=True)]
        if fields is not None:
            predictions = beside(predictions, None, fields)
    return said({"predictions": predictions})


def columns(call: Call, results: list[Array], fields: Fields | None = None) -> Answer:
    """Answer ``inputs``: the output, or an object of them where there are several, or fields beside them."""
    names = call.outputs
    if len(names) == 1 and fields is None:
        return said({"outputs": plain(names[0], results[0])})
    named = {name: plain(name, array) for name, array in zip(names, results, strict=True)}
    return said({"outputs": named if fields is None else named | fields})


def classes(labels: Sequence[str], scores: Array) -> Answer:
    """Answer classify: pairs of label and score for each example; ``scores`` are (rows, labels)."""
    return said({"results": [list(zip(labels, row, strict=True)) for row in lists(scores)]})


def numbers(values: Array) -> Answer:
    """Answer regress: a decimal for each example; ``values`` are (rows,) or (rows, 1)."""
    flat = values.ravel()
    return said({"results": lists(flat if flat.dtype.kind == "f" else flat.astype(float))})


def _check(name: str, array: Array, count: int) -> None:
    if not array.ndim:
        raise Refused(400, f"Tensor name: {name} has no shape information ")
    if not len(array):
        raise Refused(400, f"Tensor name: {name} has invalid batch size: 0")
    if len(array) != count:
        raise Refused(400, f"Tensor name: {name} has inconsistent batch size: {len(array)} expecting: {count}")


def plain(name: str, array: Array) -> Any:
    """Return an output as lists of what JSON has; texts of outputs called ``..._bytes`` as ``{"b64": text}``."""
    if array.dtype.kind == "f":
        return lists(array)
    values = array.tolist()
    return _packed(values) if array.dtype.kind in "OSU" and name.endswith("_bytes") else values


def _packed(value: Any) -> Any:
    if isinstance(value, list):
        return [_packed(one) for one in value]
    content = value if isinstance(value, bytes) else str(value).encode()
    return {"b64": base64.b64encode(content).decode()}


def said(body: Any) -> Answer:
    """Return the answer that says a value; numbers that JSON has no word for are bare literals."""
    encoded = encode(body)
    # The encoder writes null for a float that is no number. Texts may hold the word as well: then it is just slower.
    return Answer(200, JSON_HEADERS, encode(_literal(body)) if b"null" in encoded else encoded)


def _literal(value: Any) -> Any:
    if isinstance(value, float):
        return value if isfinite(value) else _LITERALS[str(value)]
    if isinstance(value, dict):
        return {name: _literal(one) for name, one in value.items()}
    return [_literal(one) for one in value] if isinstance(value, list | tuple) else value
