"""An ONNX file that somebody else wrote: looked through before a runtime sees it, and made one message without files.

Tensors may lie in other files (onnx.ai/onnx/repo-docs/ExternalData): these are read only where they lie inside the
folder of the model, and never by the libraries, which follow what the file says.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final

from modelrel.errors import Refused
from modelrel.values import Signature, TensorSpec

LARGEST: Final = 2**31 - 1
"""Bytes of a Protocol Buffers message at most."""

DOMAINS: Final = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
"""The domains of operators that onnxruntime brings."""

_OLDEST_IR: Final = 3  # the first with opset imports
_MOST_NODES: Final = 1_000_000
_NEWEST_OTHER: Final = 1000  # of a domain that onnx knows nothing of
_BITS: Final = {
    1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 14: 64, 15: 128, 16: 16,
    17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4, 24: 8, 25: 2, 26: 2,
}  # fmt: skip
"""TensorProto.DataType -> bits of an element in `raw_data` (onnx.proto; STRING, 8, has none)."""

_ELEMENTS: Final = {
    "FP32": 1, "UINT8": 2, "INT8": 3, "UINT16": 4, "INT16": 5, "INT32": 6, "INT64": 7, "BYTES": 8, "BOOL": 9,
    "FP16": 10, "FP64": 11, "UINT32": 12, "UINT64": 13,
}  # fmt: skip
"""Open Inference datatype -> TensorProto.DataType."""

_STRING: Final = 8
_PAIRS: Final = frozenset({14, 15})  # complex numbers are two values

_HINT: Final = "Export the model again, and log it with mlflow.onnx.log_model."


def read(path: Path, folder: Path) -> Any:
    """Return the model in the file at `path` (ModelProto), with all of its data and without local functions.

    Data beside it is taken in where it lies in `folder`. Raises `Refused` where the file is no valid model, claims
    what it does not hold, has operators that onnxruntime does not bring, or has data outside of `folder`.
    """
    if (size := path.stat().st_size) > LARGEST:
        raise Refused(f"{path.name} has {size:,} bytes, and an ONNX file can have {LARGEST:,}", _HINT)
    model = parsed(path.read_bytes(), path.name)
    _take_in(model, path, folder)
    return checked(model, path.name)


def parsed(content: bytes, name: str) -> Any:
    """Return the ModelProto that `content` is; its tensors may still lie elsewhere, and nothing else is checked.

    Raises `Refused` for other bytes, among them those that claim to be longer than they are or are nested too deep.
    """
    import onnx

    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:
        raise Refused(f"{name} is no ONNX model: {line(error)}", _HINT) from error
    if not model.HasField("graph"):
        raise Refused(f"{name} is no ONNX model: it holds no graph", _HINT)
    return model


def line(error: Exception) -> str:
    """Return what an error says, in one line of bounded length."""
    return " ".join(str(error).split())[:300]


def checked(model: Any, name: str) -> Any:
    """Return a model that has all of its data, valid by onnx's full check, its local functions put in place.

    Raises `Refused` as `read` does.
    """
    import onnx
    import onnx.inliner

    _versions(model, name)
    for tensor in tensors(model):
        _whole(tensor, name)
    if any(isinstance(one, onnx.SparseTensorProto) for one in messages(model)):
        raise Refused(f"{name} has sparse constants, which are not read", "Write them as dense tensors.")
    _known(model, name)
    try:
        onnx.checker.check_model(model, full_check=True)
        return onnx.inliner.inline_local_functions(model) if model.functions else model
    except Exception as error:
        raise Refused(f"{name} is not valid ONNX: {line(error)}", _HINT) from error


def refuse_outside(model: Any, name: str) -> None:
    """Raise `Refused` where a tensor lies in another file, naming the first."""
    outside = [tensor for tensor in tensors(model) if _external(tensor)]
    if outside:
        place = _located(outside[0])
        raise Refused(
            f"{name} keeps {len(outside)} tensors in other files ({outside[0].name or 'unnamed'} in {place!r})",
            "Hand in one ONNX file that holds everything: onnx.save(model, path, save_as_external_data=False).",
        )


def messages(top: Any) -> Iterator[Any]:
    """Yield a protobuf message and every message inside it."""
    left = [top]
    while left:
        message = left.pop()
        yield message
        for field, value in message.ListFields():
            if field.message_type is not None:
                left += [value] if hasattr(value, "ListFields") else list(value)


def tensors(model: Any) -> Iterator[Any]:
    """Yield every TensorProto of a model: constants, attributes, those of inner graphs."""
    import onnx

    return (message for message in messages(model) if isinstance(message, onnx.TensorProto))


def _versions(model: Any, name: str) -> None:
    import onnx

    if not _OLDEST_IR <= model.ir_version <= onnx.IR_VERSION:
        raise Refused(
            f"{name} has the IR version {model.ir_version}, and {_OLDEST_IR} to {onnx.IR_VERSION} are known here", _HINT
        )
    newest = {"": onnx.defs.onnx_opset_version(), "ai.onnx.ml": onnx.defs.onnx_ml_opset_version()}
    for entry in model.opset_import:
        domain = "" if entry.domain == "ai.onnx" else entry.domain
        most = newest.get(domain, _NEWEST_OTHER)
        if not 1 <= entry.version <= most:
            raise Refused(
                f"{name} is of opset {entry.version} of {domain or 'ai.onnx'}, and 1 to {most} are known here", _HINT
            )


def _known(model: Any, name: str) -> None:
    """Raise `Refused` for operators that onnxruntime does not bring, and for functions that grow beyond measure."""
    local = {(one.domain, one.name): one for one in model.functions}
    other: set[tuple[str, str]] = set()
    sizes: dict[Any, list[tuple[str, str]]] = {}
    for top in (*model.functions, model.graph):
        nodes = list(_nodes(top))
        calls = [(node.domain, node.op_type) for node in nodes]
        sizes[getattr(top, "domain", None), top.name] = calls
        other |= {call for call in calls if call not in local and call[0] not in DOMAINS}
    if other:
        named = ", ".join(sorted(f"{domain}.{op}" for domain, op in other))
        raise Refused(
            f"{name} needs {named}, which onnxruntime does not bring",
            "Export it without custom operators, or log it as a Python model that registers them.",
        )
    count = _grown(sizes, (None, model.graph.name), {}, ())
    if count > _MOST_NODES:
        raise Refused(f"{name} has {count:,} nodes when its functions are put in place, too many to run", _HINT)


def _grown(calls: Mapping[Any, list[Any]], of: Any, known: dict[Any, int], above: tuple[Any, ...]) -> int:
    """Return how many nodes a graph or function has when the functions that it calls stand in it."""
    if of in above or len(above) > 100:
        raise Refused(f"the function {of[1]} of the ONNX model calls itself, or is nested too deep", _HINT)
    if of not in known:
        inner = [_grown(calls, call, known, (*above, of)) if call in calls else 1 for call in calls[of]]
        known[of] = max(sum(inner), 1)
    return known[of]


def _nodes(top: Any) -> Iterator[Any]:
    import onnx

    return (message for message in messages(top) if isinstance(message, onnx.NodeProto))


def _whole(tensor: Any, name: str) -> None:
    """Raise `Refused` where a tensor's dimensions are not what it holds: nobody shall make room for what is not."""
    named = tensor.name or "unnamed"
    if any(size < 0 for size in tensor.dims):
        raise Refused(f"the tensor {named} of {name} has the shape {list(tensor.dims)}", _HINT)
    count = 1
    for size in tensor.dims:
        count *= size
    bits = _BITS.get(tensor.data_type, 0)
    if tensor.HasField("raw_data"):
        held, needed = len(tensor.raw_data), (count * bits + 7) // 8
    else:
        listed = (tensor.float_data, tensor.int32_data, tensor.string_data, tensor.int64_data, tensor.double_data,
                  tensor.uint64_data)  # fmt: skip
        held, needed = sum(map(len, listed)), count
        if bits < 8 and tensor.data_type != _STRING:
            needed = (count * bits + 7) // 8
        elif tensor.data_type in _PAIRS:
            needed = 2 * count
    if held != needed or (not bits and tensor.data_type != _STRING):
        raise Refused(
            f"the tensor {named} of {name} claims the shape {list(tensor.dims)}, and holds {held:,} "
            f"{'bytes' if tensor.HasField('raw_data') else 'values'}, not {needed:,}",
            _HINT,
        )


def _external(tensor: Any) -> bool:
    return bool(tensor.data_location == tensor.EXTERNAL or tensor.external_data)


def _located(tensor: Any) -> str:
    return next((entry.value for entry in tensor.external_data if entry.key == "location"), "")


def _take_in(model: Any, path: Path, folder: Path) -> None:
    """Put the data that lies in other files into the model; raises `Refused` before any of them is opened.

    Every one must be a plain file inside `folder`, no link on its way, and must have the bytes that are asked for.
    """
    outside = [tensor for tensor in tensors(model) if _external(tensor)]
    places = [_place(tensor, path, folder) for tensor in outside]
    total = sum(length for _, _, length in places)
    if total + path.stat().st_size > LARGEST:
        raise Refused(
            f"{path.name} and its data have {total + path.stat().st_size:,} bytes, and one ONNX file can have "
            f"{LARGEST:,}",
            "Export it with smaller weights (float16), or log it as a Python model, which can become python.",
        )
    for tensor, (file, offset, length) in zip(outside, places, strict=True):
        with file.open("rb") as stream:
            stream.seek(offset)
            tensor.raw_data = stream.read(length)
        del tensor.external_data[:]
        tensor.ClearField("data_location")


def _place(tensor: Any, path: Path, folder: Path) -> tuple[Path, int, int]:
    """Return file, offset and length (bytes) of a tensor's data."""
    named, where = tensor.name or "unnamed", _located(tensor)
    pure = PurePosixPath(where.replace("\\", "/"))
    leaves = pure.is_absolute() or ".." in pure.parts or ":" in where or any(ord(char) < 32 for char in where)
    file = path.parent.joinpath(*pure.parts) if pure.parts and not leaves else None
    if file is None or _through_link(file, folder):
        raise Refused(
            f"{path.name} keeps the tensor {named} in {where!r}, which is outside the model's folder",
            "Log the model again with its data beside it.",
        )
    try:
        kind = file.lstat()
    except (OSError, ValueError) as error:
        raise Refused(f"{path.name} keeps the tensor {named} in {where!r}, which is not there", _HINT) from error
    said = {entry.key: entry.value for entry in tensor.external_data}
    try:
        offset = int(said.get("offset", 0))
        length = int(said["length"]) if "length" in said else kind.st_size - offset
    except ValueError as error:
        raise Refused(f"{path.name} does not say which bytes of {where!r} the tensor {named} is", _HINT) from error
    if not stat.S_ISREG(kind.st_mode) or offset < 0 or length < 0 or offset + length > kind.st_size:
        raise Refused(
            f"the tensor {named} of {path.name} is {length:,} bytes from {offset:,} on of {where!r}, which has "
            f"{kind.st_size:,}",
            _HINT,
        )
    return file, offset, length


def _through_link(file: Path, folder: Path) -> bool:
    """Whether a path leaves `folder`, or has a link on its way from there."""
    between = [path for path in (file, *file.parents) if path.is_relative_to(folder) and path != folder]
    return not file.resolve().is_relative_to(folder.resolve()) or any(path.is_symlink() for path in between)


def matched(model: Any, signature: Signature) -> tuple[list[Any], bool]:
    """Return the graph's inputs (ValueInfoProto) in the signature's order, and whether one takes all columns.

    One input takes the one tensor, or all columns side by side, as MLflow gives them; several are told by their names.
    Raises `Refused` where that leaves a choice, or where an input cannot take what the signature has for it.
    """
    constants = {constant.name for constant in model.graph.initializer}
    found = [value for value in model.graph.input if value.name not in constants]
    specs = list(signature.inputs)
    for value in found:
        if value.type.WhichOneof("value") != "tensor_type":
            raise Refused(f"the input {value.name} of the ONNX model is no tensor", "Export it with tensors alone.")
    named = {value.name: value for value in found}
    merged = len(found) == 1 and signature.kind == "columns"
    if not merged and not (len(found) == len(specs) == 1):
        if set(named) != {spec.name for spec in specs}:
            raise Refused(
                f"the ONNX model takes {', '.join(named) or 'nothing'}, and the signature has "
                f"{', '.join(spec.name for spec in specs)}",
                "Log it with a signature of its own inputs, by their names.",
            )
        found = [named[spec.name] for spec in specs]
    for spec, value in zip(specs, found * len(specs) if merged else found, strict=False):
        _takes(value, spec, len(specs) if merged else 0)
    return found, merged


def sizes(value: Any) -> list[int] | None:
    """Return the dimensions that a ValueInfoProto declares, -1 where one is free; None where it says nothing."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return [dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim]


def zipmaps(model: Any) -> dict[str, tuple[str, list[Any]]]:
    """Return output of the graph -> the tensor (N, classes) that a ZipMap makes it of, and the classes of its columns.

    ZipMap (ai.onnx.ml 1) makes a list of N maps of it.
    """
    found = {}
    left = {value.name for value in model.graph.output}
    for node in model.graph.node:
        if (node.domain, node.op_type) == ("ai.onnx.ml", "ZipMap") and node.output[0] in left:
            said = {attribute.name: attribute for attribute in node.attribute}
            texts = said["classlabels_strings"].strings if "classlabels_strings" in said else ()
            whole = said["classlabels_int64s"].ints if "classlabels_int64s" in said else ()
            found[node.output[0]] = (node.input[0], [text.decode() for text in texts] or list(whole))
    return found


def _takes(value: Any, spec: TensorSpec, side_by_side: int) -> None:
    """Raise `Refused` where an input cannot take a tensor, or a column among so many."""
    element = value.type.tensor_type.elem_type
    allowed = {_ELEMENTS.get(spec.datatype, 0)} | ({1} if spec.datatype == "FP64" else set())  # MLflow narrows these
    if side_by_side > 1:  # ... and makes one kind of all
        allowed = {8} if spec.datatype == "BYTES" else set(_ELEMENTS.values()) - {8}
    known = sizes(value)
    if element not in allowed:
        raise Refused(
            f"the ONNX model takes {_element(element)} for {value.name}, and {spec.name} is {spec.datatype}",
            "Log it with the signature of what it takes.",
        )
    if known is None:
        return
    wanted = (-1, side_by_side) if side_by_side else spec.shape
    column = not side_by_side and len(spec.shape) == 2 and spec.shape[1] == 1
    alike = len(known) == len(wanted) and all(
        a < 1 or b < 0 or a == b for a, b in zip(known[1:], wanted[1:], strict=True)
    )
    if not known or not (alike or (column and len(known) == 1)):
        raise Refused(
            f"the ONNX model takes the shape {known} for {value.name}, and the signature has {list(wanted)}",
            "Log it with the signature of what it takes, rows first.",
        )
    if known[0] > 1:
        raise Refused(
            f"the ONNX model takes exactly {known[0]} rows at once (input {value.name})",
            "Export it with a free first dimension.",
        )


def _element(number: int) -> str:
    import onnx

    names = {int(value): str(key).lower() for key, value in onnx.TensorProto.DataType.items()}
    return names.get(number, f"element type {number}")
