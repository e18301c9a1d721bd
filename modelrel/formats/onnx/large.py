"""Attributes of millions of numbers: kept beside the graph while it is made, and written once, straight into the file.

A graph is copied several times before it is done, and Protocol Buffers takes 8 bytes and a copy for each number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

from modelrel.errors import Refused

_LATER: Final = "modelrel_later"
_MOST: Final = 2**31 - 1
_BYTES: Final = 2  # the wire type of what has a length (protobuf.dev, Encoding)


@dataclass(frozen=True, slots=True)
class Large:
    """Long attributes of one node: whole numbers from 0 on (INTS), and arrays (TENSOR)."""

    ints: Mapping[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, Any] = field(default_factory=dict)


_KEPT: ContextVar[dict[str, Large] | None] = ContextVar("large", default=None)


@contextmanager
def later() -> Iterator[dict[str, Large]]:
    """Keep long attributes out of the nodes made in this block, for `write`."""
    kept: dict[str, Large] = {}
    token = _KEPT.set(kept)
    try:
        yield kept
    finally:
        _KEPT.reset(token)


@contextmanager
def at_once() -> Iterator[None]:
    """Write all attributes in this block when their node is made: others look at it."""
    token = _KEPT.set(None)
    try:
        yield
    finally:
        _KEPT.reset(token)


def put(node: NodeProto, large: Large) -> None:
    """Give a node its long attributes, now or when the file is written."""
    kept = _KEPT.get()
    if kept is None:
        node.MergeFromString(b"".join(_attributes(large)))
        return
    key = f"large_{len(kept)}"
    kept[key] = large
    node.attribute.add(name=_LATER, type=AttributeProto.STRING, s=key.encode())


def write(model: ModelProto, kept: Mapping[str, Large], path: Path) -> None:
    """Write a model with the attributes that were kept out of its nodes; the bytes depend on the model alone.

    Raises `Refused` for a model that no Protocol Buffers message can hold.
    """
    if not kept:
        path.write_bytes(model.SerializeToString(deterministic=True))
        return
    nodes = [_pieces(node, kept) for node in model.graph.node]
    del model.graph.node[:]
    rest = [model.graph.SerializeToString(deterministic=True)]
    body = [piece for node in nodes for piece in _field(GraphProto.NODE_FIELD_NUMBER, node)] + rest
    model.ClearField("graph")
    content = [model.SerializeToString(deterministic=True), *_field(ModelProto.GRAPH_FIELD_NUMBER, body)]
    if (size := sum(map(len, content))) > _MOST:
        raise Refused(
            f"the copy would have {size / 1e9:.1f} GB, and ONNX files have 2 at most",
            "Train fewer or shallower trees, or hand in a copy with --copy.",
        )
    with path.open("wb") as file:
        file.writelines(content)


def _pieces(node: NodeProto, kept: Mapping[str, Large]) -> list[bytes]:
    """Return the bytes of a node, its long attributes last."""
    for number, attribute in enumerate(node.attribute):
        if attribute.name == _LATER:
            large = kept[attribute.s.decode()]
            del node.attribute[number]
            return [node.SerializeToString(deterministic=True), *_attributes(large)]
    return [node.SerializeToString(deterministic=True)]


def _attributes(large: Large) -> list[bytes]:
    """Return long attributes as fields of a node."""
    found = []
    for name, array in large.ints.items():
        plain = AttributeProto(name=name, type=AttributeProto.INTS).SerializeToString(deterministic=True)
        ints = _field(AttributeProto.INTS_FIELD_NUMBER, [_varints(np.asarray(array))])
        found += _field(NodeProto.ATTRIBUTE_FIELD_NUMBER, [plain, *ints])
    for name, array in large.tensors.items():
        plain = AttributeProto(name=name, type=AttributeProto.TENSOR).SerializeToString(deterministic=True)
        kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        said = TensorProto(name=name, dims=array.shape, data_type=kind).SerializeToString(deterministic=True)
        content = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
        tensor = [said, *_field(TensorProto.RAW_DATA_FIELD_NUMBER, [content])]
        found += _field(NodeProto.ATTRIBUTE_FIELD_NUMBER, [plain, *_field(AttributeProto.T_FIELD_NUMBER, tensor)])
    return found


def _field(number: int, content: list[bytes]) -> list[bytes]:
    """Return a field of bytes in pieces: its tag and length, and what it holds."""
    return [_varints(np.array([number << 3 | _BYTES, sum(map(len, content))])), *content]


def _varints(values: Any) -> bytes:
    """Return whole numbers from 0 on as Protocol Buffers' base-128 varints (protobuf.dev, Encoding), all at once."""
    largest = int(values.max(initial=0))
    if largest < 128:
        return bytes(values.astype(np.uint8).tobytes())
    values = values.astype(np.uint32 if largest < 2**32 else np.uint64)
    most = -(-largest.bit_length() // 7)
    groups, kept = np.empty((len(values), most), np.uint8), np.empty((len(values), most), np.bool_)
    for place in range(most):
        kept[:, place] = values > 0 if place else True
        left = values >> 7
        groups[:, place] = (values & 127).astype(np.uint8) | ((left > 0) * np.uint8(128))
        values = left
    return bytes(groups[kept].tobytes())
