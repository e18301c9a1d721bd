"""A TFLite file with metadata: the entry inside the flatbuffer, and the files that it names in a zip at the end."""

from __future__ import annotations

import io
import stat
import zipfile
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from modelrel import extras
from modelrel.errors import Refused
from modelrel.targets.tflite import metadata
from modelrel.targets.tflite.metadata import Said

ALIGNMENT: Final = 16
"""Bytes that a buffer of weights is aligned to, as schema.fbs demands: some small machines cannot read others."""

_KEY: Final = b"serving_default"
_LABEL: Final = b"label"
_RUNTIME: Final = b"min_runtime_version"
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)  # the earliest date that a zip entry can carry


def packed(content: bytes, said: Said, files: Mapping[str, bytes]) -> bytes:
    """Return the model with `said` in it and `files` behind it; its graph is left as it is.

    Raises `Refused` where `obstacle` names one, `Unavailable` without LiteRT.
    """
    model = read(content)
    problem, inputs, outputs = _names(model)
    if problem:
        raise Refused(problem, "Make the model smaller, or save it with the signature that answers alone.")
    entry, buffer = _schema().MetadataT(), _schema().BufferT()
    entry.name, entry.buffer = metadata.ENTRY.encode(), len(model.buffers)
    buffer.data = np.frombuffer(metadata.written(said, inputs, outputs), np.uint8)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or []), entry]
    stream = io.BytesIO(_finished(model))
    if files:
        with zipfile.ZipFile(stream, "a", zipfile.ZIP_STORED) as archive:
            for name, text in sorted(files.items()):
                info = zipfile.ZipInfo(name, _EPOCH)
                info.create_system = 3  # Unix, so that the mode below is honoured
                info.external_attr = (stat.S_IFREG | 0o644) << 16
                archive.writestr(info, text)
    return stream.getvalue()


def obstacle(content: bytes) -> str:
    """Return why a model cannot have metadata, or "" where it can."""
    return _names(read(content))[0]


def bare(content: bytes) -> bytes:
    """Return a model without the metadata of `packed`: two files of one model have the same."""
    return _without(content, lambda name: name == metadata.ENTRY.encode())


def slim(content: bytes) -> bytes:
    """Return a model without anything that no runtime reads, and without labels where it has other outputs.

    TensorFlow Lite Micro has no text, and its GATHER takes no places of 64 bits, which is how labels are looked up.
    """
    return _unlabelled(_without(content, lambda name: name != _RUNTIME))


def outputs(content: bytes) -> tuple[str, ...]:
    """Return the names of what a model gives."""
    served = next(one for one in read(content).signatureDefs if one.signatureKey == _KEY)
    return tuple(one.name.decode() for one in served.outputs)


def _unlabelled(content: bytes) -> bytes:
    model = read(content)
    served = next(one for one in model.signatureDefs if one.signatureKey == _KEY)
    kept = [one for one in served.outputs if one.name != _LABEL]
    if not kept or len(kept) == len(served.outputs) or len(model.signatureDefs) > 1 or len(model.subgraphs) > 1:
        return content
    served.outputs, graph = kept, model.subgraphs[0]
    left = {int(one.tensorIndex) for one in kept}
    graph.outputs = [index for index in graph.outputs if int(index) in left]
    needed, nodes = set(left), []
    for node in reversed(graph.operators):
        if needed & set(map(int, node.outputs)):
            nodes.append(node)
            needed |= {int(index) for index in node.inputs} | {int(index) for index in node.outputs}
    graph.operators = nodes[::-1]
    needed |= {int(index) for index in graph.inputs}
    _renumbered(model, sorted(needed - {-1}))
    return _finished(model)


def _renumbered(model: Any, kept: list[int]) -> None:
    """Leave out all other tensors of the one graph, and their weights where nothing else holds them."""
    graph = model.subgraphs[0]
    place = {-1: -1} | {old: new for new, old in enumerate(kept)}
    graph.tensors = [graph.tensors[old] for old in kept]
    used = {one.buffer for one in [*graph.tensors, *(model.metadata or [])]} | {0}
    model.buffers = [one if at in used else _schema().BufferT() for at, one in enumerate(model.buffers)]
    for node in graph.operators:
        node.inputs, node.outputs = ([place[int(at)] for at in side] for side in (node.inputs, node.outputs))
        if node.intermediates is not None:
            node.intermediates = [place.get(int(at), -1) for at in node.intermediates]
    graph.inputs, graph.outputs = ([place[int(at)] for at in side] for side in (graph.inputs, graph.outputs))
    for one in [*model.signatureDefs[0].inputs, *model.signatureDefs[0].outputs]:
        one.tensorIndex = place[int(one.tensorIndex)]


def _without(content: bytes, goes: Callable[[bytes], bool]) -> bytes:
    model = read(content)
    entries = model.metadata or []
    gone = {one.buffer for one in entries if goes(bytes(one.name or b""))}
    model.metadata = [one for one in entries if one.buffer not in gone]
    # nothing is renumbered: what stands before others is emptied, what stands at the end is left out
    for number in sorted(gone, reverse=True):
        if number == len(model.buffers) - 1:
            model.buffers.pop()
        else:
            model.buffers[number] = _schema().BufferT()
    return _finished(model)


def _finished(model: Any) -> bytes:
    import flatbuffers

    model.buffers = [_Aligned(one) for one in model.buffers]
    builder = flatbuffers.Builder(4096)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def read(content: bytes) -> Any:
    """Return the model as LiteRT's own schema reads it."""
    schema = _schema()
    return schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))


def _schema() -> Any:
    extras.load("ai_edge_litert")
    from ai_edge_litert import schema_py_generated

    return schema_py_generated


def _names(model: Any) -> tuple[str, list[str], list[str]]:
    """Return why there can be no metadata, and the signature's names in the order of the main subgraph."""
    if any(one.offset > 1 for one in model.buffers):
        return "its weights stand behind the flatbuffer, where labels would be", [], []
    served = next(one for one in model.signatureDefs if one.signatureKey == _KEY)
    if served.subgraphIndex != 0:
        return f"it serves its subgraph {served.subgraphIndex}, and metadata is about the main one", [], []
    graph = model.subgraphs[0]
    found = []
    for maps, order in ((served.inputs, graph.inputs), (served.outputs, graph.outputs)):
        known: dict[int, list[str]] = {}
        for one in maps:
            known.setdefault(int(one.tensorIndex), []).append(one.name.decode())
        if any(len(known.get(int(index), ())) != list(order).count(index) for index in order):
            return "its signature and its main subgraph have other tensors", [], []
        # a tensor may go out under two names
        found.append([known[int(index)].pop(0) for index in order])
    return "", found[0], found[1]


class _Aligned:
    """A buffer whose bytes are aligned; the schema's own code would align them to 4."""

    def __init__(self, buffer: Any) -> None:
        self.buffer = buffer

    def Pack(self, builder: Any) -> int:  # noqa: N802  # the name is the schema's
        """Write the buffer and return where it is."""
        schema, data = _schema(), self.buffer.data
        at = 0
        if data is not None:
            plain = np.asarray(data, np.uint8).tobytes()
            builder.StartVector(1, len(plain), ALIGNMENT)
            builder.head -= len(plain)
            builder.Bytes[builder.head : builder.head + len(plain)] = plain
            at = builder.EndVector()
        schema.BufferStart(builder)
        if at:
            schema.BufferAddData(builder, at)
        schema.BufferAddOffset(builder, self.buffer.offset)
        schema.BufferAddSize(builder, self.buffer.size)
        return int(schema.BufferEnd(builder))
