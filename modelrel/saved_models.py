"""The saved_model.pb of a TensorFlow SavedModel, read without TensorFlow: its signatures, assets and operators.

Format: TensorFlow's saved_model.proto, meta_graph.proto, graph.proto and function.proto, in protobuf's wire format
(protobuf.dev/programming-guides/encoding). Only lengths are followed: what a length claims and the file does not
have is an error before anything is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Union

from modelrel.errors import Invalid, Refused
from modelrel.values import Signature, TensorSpec

FILE: Final = "saved_model.pb"
DEFAULT: Final = "serving_default"
"""What is served unless another one is asked for (TensorFlow's DEFAULT_SERVING_SIGNATURE_DEF_KEY)."""

_LARGEST: Final = 2**31 - 1  # bytes of a protobuf message
_KINDS: Final = {
    1: "FP32", 2: "FP64", 3: "INT32", 4: "UINT8", 5: "INT16", 6: "INT8", 7: "BYTES", 9: "INT64", 10: "BOOL",
    17: "UINT16", 19: "FP16", 22: "UINT32", 23: "UINT64",
}  # fmt: skip
"""types.proto DataType -> Open Inference datatype."""

_INIT: Final = "__saved_model_init_op"
_REACHING: Final = frozenset({
    "ReadFile", "WriteFile", "MatchingFiles", "WholeFileReaderV2", "TextLineReaderV2", "FixedLengthRecordReaderV2",
    "TFRecordReaderV2", "TextLineDataset", "TFRecordDataset", "TFRecordDatasetV2", "FixedLengthRecordDatasetV2",
    "PyFunc", "PyFuncStateless", "EagerPyFunc",
})  # fmt: skip
"""Operators that read or write files by a name of their own, or run Python."""

_Field = Union[int, memoryview]  # noqa: UP007 - `|` is no operator of types in Python 3.9


class _Damaged(Exception):
    """The bytes are no protobuf message of this kind."""


@dataclass(frozen=True)
class Contents:
    """What a saved_model.pb says: signatures by name (None: one of tensors that no target takes), assets, operators."""

    signatures: Mapping[str, Signature | None]
    assets: tuple[str, ...]
    operators: frozenset[str]


def read(folder: Path) -> Contents:
    """Return what the SavedModel in `folder` says of its first graph; raises `Invalid` where it is damaged."""
    path = folder / FILE
    try:
        return _graph(_first_graph(path))
    except (OSError, ValueError, _Damaged) as error:
        raise Invalid(
            f"{folder.name}/{FILE} is no SavedModel: {error}", "It is damaged; fetch it again with --force."
        ) from error


def check(folder: Path) -> Contents:
    """Return what a SavedModel says; raises `Refused` where it reaches for files outside its folder."""
    found = read(folder)
    top = (folder / "assets").resolve()
    for name in found.assets:
        if not (top / name).resolve().is_relative_to(top):
            raise Refused(
                f"the SavedModel names the asset {name!r}, which is outside its folder",
                "Do not load it: save the model again, with its assets beside it.",
            )
    if reaching := sorted(found.operators & _REACHING):
        raise Refused(
            f"the SavedModel reads files or runs Python by itself ({', '.join(reaching)})",
            "Take that out of the model: a copy has neither.",
        )
    return found


def default(names: Iterable[str], said: str = "") -> str:
    """Return which of several signatures is served: the one `said`, the default, the only one; else ""."""
    known = list(names)
    return said or (DEFAULT if DEFAULT in known else known[0] if len(known) == 1 else "")


def _first_graph(path: Path) -> memoryview:
    size = path.stat().st_size
    if size > _LARGEST:
        raise _Damaged(f"it has {size:,} bytes, and a SavedModel at most {_LARGEST:,}")
    graphs = [field for number, field in _fields(memoryview(path.read_bytes())) if number == 2]
    if not graphs:
        raise _Damaged("it holds no graph")
    return _part(graphs[0])


def _graph(data: memoryview) -> Contents:
    signatures: dict[str, Signature | None] = {}
    assets: list[str] = []
    operators: set[str] = set()
    for number, field in _fields(data):
        if number == 5:
            name, said = _entry(field)
            if name != _INIT:
                signatures[name] = _signature(name, said)
        elif number == 6:
            assets += [_text(value) for key, value in _fields(_part(field)) if key == 2]
        elif number == 2:
            operators |= _operators(_part(field))
    return Contents(dict(sorted(signatures.items())), tuple(assets), frozenset(operators))


def _operators(graph: memoryview) -> set[str]:
    """Return the operators of a graph and of the functions in its library."""
    found: set[str] = set()
    for number, field in _fields(graph):
        if number == 1:
            found.add(_operator(_part(field)))
        elif number == 2:
            functions = [_part(value) for key, value in _fields(_part(field)) if key == 1]
            nodes = (value for one in functions for key, value in _fields(one) if key == 3)
            found |= {_operator(_part(node)) for node in nodes}
    return found


def _operator(node: memoryview) -> str:
    return next((_text(value) for key, value in _fields(node) if key == 2), "")


def _signature(name: str, said: memoryview) -> Signature | None:
    sides: dict[int, list[TensorSpec]] = {1: [], 2: []}
    for number, field in _fields(said):
        if number in sides:
            tensor, info = _entry(field)
            spec = _spec(tensor, info)
            if spec is None:
                return None
            sides[number].append(spec)
    inputs, outputs = (tuple(sorted(side, key=lambda spec: spec.name)) for side in sides.values())
    return Signature(kind="tensor", inputs=inputs, outputs=outputs, name=name)


def _spec(name: str, info: memoryview) -> TensorSpec | None:
    kind, sizes = 0, [-1]
    for number, field in _fields(info):
        if number == 2:
            kind = _number(field)
        elif number == 3:
            dims = [_part(value) for key, value in _fields(_part(field)) if key == 2]
            unknown = any(key == 3 and value for key, value in _fields(_part(field)))
            sizes = [-1] if unknown else [_size(dim) for dim in dims]
    return TensorSpec(name=name, datatype=_KINDS[kind], shape=tuple(sizes)) if kind in _KINDS else None


def _size(dim: memoryview) -> int:
    found = next((_number(value) for key, value in _fields(dim) if key == 1), 0)
    return -1 if found >= 2**63 else found


def _entry(field: _Field) -> tuple[str, memoryview]:
    """Return key and value of one entry of a map."""
    name, value = "", memoryview(b"")
    for number, part in _fields(_part(field)):
        if number == 1:
            name = _text(part)
        elif number == 2:
            value = _part(part)
    return name, value


def _part(field: _Field) -> memoryview:
    if not isinstance(field, memoryview):
        raise _Damaged("a number where a message belongs")
    return field


def _number(field: _Field) -> int:
    if isinstance(field, memoryview):
        raise _Damaged("a message where a number belongs")
    return field


def _text(field: _Field) -> str:
    return bytes(_part(field)).decode()


def _fields(data: memoryview) -> Iterator[tuple[int, _Field]]:
    """Yield number and value of each field of a message: a whole number, or the bytes of it."""
    at, end = 0, len(data)
    while at < end:
        key, at = _varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        size, at = _varint(data, at) if kind == 2 else ({1: 8, 5: 4}.get(kind, -1), at)
        if size < 0 or size > end - at:
            raise _Damaged(f"it claims {size:,} bytes where {end - at:,} are left" if size > 0 else "a field is odd")
        yield key >> 3, data[at : at + size]
        at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise _Damaged("it ends in the middle of a field")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise _Damaged("a number has more than 64 bits")
