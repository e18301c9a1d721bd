"""TypeScript types of a signature: what `index.d.ts` says of each input and output."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from modelrel import served
from modelrel.values import ConvertedModel, Scalar, TensorSpec

_ARRAYS: Final = {
    "UINT8": "Uint8Array",
    "UINT16": "Uint16Array",
    "UINT32": "Uint32Array",
    "UINT64": "BigUint64Array",
    "INT8": "Int8Array",
    "INT16": "Int16Array",
    "INT32": "Int32Array",
    "INT64": "BigInt64Array",
    "FP32": "Float32Array",
    "FP64": "Float64Array",
}
"""Datatype -> the typed array that holds it; truth and text have none."""

DATATYPES: Final = frozenset({*_ARRAYS, "BOOL", "BYTES"})
"""What JavaScript's runtime and arrays have; half precision is in neither of every Node and browser."""

_SAFE: Final = 2**53 - 1  # Number.MAX_SAFE_INTEGER


@dataclass(frozen=True, slots=True, kw_only=True)
class Typed:
    """An input or output as the templates write it: `key` is its name as a literal, the others are types."""

    key: str
    plain_name: str
    told: str
    datatype: str
    shape: tuple[int, ...]
    optional: bool
    type: str
    array: str
    nested: str


def literal(value: Scalar) -> str:
    """Return a value as a literal of JavaScript; what cannot be seen in a text is escaped."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=not value.isprintable())
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > _SAFE:
        return f"{value}n"
    return json.dumps(value)


def union(values: tuple[Scalar, ...]) -> str:
    """Return the type that has these values alone."""
    return " | ".join(literal(value) for value in values)


def of_input(spec: TensorSpec) -> Typed:
    """Return the types of what goes in."""
    value = {"BYTES": "string", "BOOL": "boolean", "INT64": "number | bigint", "UINT64": "number | bigint"}.get(
        spec.datatype, "number"
    )
    gaps = spec.datatype.startswith("FP")
    value = f"{value} | null" if gaps else value
    other = f" | {_ARRAYS[spec.datatype]}" if spec.datatype in _ARRAYS else ""
    array = f"{_list(value, 'readonly ')}{other}"
    # an optional column of another kind has no value that stands for "missing"
    return _typed(spec, value, array, optional=gaps and not spec.required, fixed="readonly ")


def of_output(spec: TensorSpec, labels: tuple[Scalar, ...]) -> Typed:
    """Return the types of what comes out; `labels` are its only values, where they are known."""
    value = {"BYTES": "string", "BOOL": "boolean", "INT64": "bigint", "UINT64": "bigint"}.get(spec.datatype, "number")
    raw = "Uint8Array" if spec.datatype == "BOOL" else _ARRAYS.get(spec.datatype, "string[]")
    return _typed(spec, "Label" if labels else value, raw, optional=False)


def _typed(spec: TensorSpec, value: str, array: str, *, optional: bool, fixed: str = "") -> Typed:
    nested = value
    for _ in spec.shape:
        nested = _list(nested, fixed)
    return Typed(
        key=literal(spec.name),
        plain_name=_seen(spec.name),
        told=f"{spec.datatype} {list(spec.shape)}",
        datatype=spec.datatype,
        shape=spec.shape,
        optional=optional,
        type=value,
        array=array,
        nested=nested,
    )


def _list(item: str, fixed: str) -> str:
    return f"{fixed}({item})[]" if " " in item else f"{fixed}{item}[]"


def _seen(name: str) -> str:
    """Return a name for a table of Markdown."""
    text = name if name.isprintable() else json.dumps(name)[1:-1]
    return text.replace("`", "'").replace("|", "\\|")


def labels(converted: ConvertedModel, name: str) -> tuple[Scalar, ...]:
    """Return the values that a served output can have: the classes, where it is the label in their own type."""
    chosen = converted.interface.outputs or {spec.name: spec.name for spec in converted.outputs}
    spec = next((one for one in served.outputs(converted) if one.name == name), None)
    if spec is None or chosen.get(name) != converted.predict or not converted.classes:
        return ()
    kinds = {type(one) for one in converted.classes}
    fits: dict[str, set[type]] = {"BYTES": {str}, "BOOL": {bool}, "FP32": {int, float}, "FP64": {int, float}}
    large = any(isinstance(one, int) and abs(one) > _SAFE for one in converted.classes)
    return converted.classes if kinds <= fits.get(spec.datatype, {int}) and not large else ()
