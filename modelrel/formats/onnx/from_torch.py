"""PyTorch modules -> ONNX: torch.export and its ONNX exporter; TorchScript, whose branches are real, by the older one.

The older exporter runs a module once and writes what it saw, so it is given TorchScript alone, which holds both sides
of each branch. Either graph is tried against the module before anything is made of it (`torch_trial`).
"""

from __future__ import annotations

import io
import re
import traceback
import warnings
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any, Final

import onnx

from modelrel import extras
from modelrel.errors import Refused
from modelrel.formats.onnx import settled, torch_trial
from modelrel.formats.onnx.graph import Core
from modelrel.formats.onnx.opsets import NEWEST
from modelrel.formats.onnx.torch_trial import Asked
from modelrel.formats.order import Order
from modelrel.tensors import Array

_NEWEST_SCRIPT: Final = 20  # torch.onnx's older exporter knows no opset beyond
_LARGEST: Final = 2**31 - 2**20
"""Bytes of weights: no protobuf message can be larger than 2 GB."""

_BRANCH: Final = (
    "Choose for each row with torch.where, or keep the branch with torch.cond, or log torch.jit.script(module) "
    "(serialization_format='pickle')."
)
_OPEN: Final = "Log it again without that limit, or with a signature whose dimension has one size."


class _Fixed(Refused):
    """torch.export gave a dimension one size."""


def write(native: Any, order: Order) -> Core:
    """Return a module as an ONNX graph for any number of rows, which answered as the module does on all it was asked.

    Raises `Refused` for a branch that the exporter cannot keep, a size that it fixed, or an answer that differs.
    """
    return exported(Asked(native, order.signature), order)


def exported(asked: Asked, order: Order) -> Core:
    """Return what `asked` calls as an ONNX graph; see `write`."""
    torch = extras.load("torch")
    extras.load("onnxscript")
    native = asked.native
    size = sum(weight.numel() * weight.element_size() for weight in native.state_dict().values())
    if size > _LARGEST:
        raise Refused(
            f"{order.answers.estimator} has {size:,} bytes of weights, and an ONNX file can have 2 GB",
            "Log it in half precision (module.half()), or release it as it is.",
        )
    tried = torch_trial.settled(asked, order)
    if not order.answers.outputs:
        raise Refused(
            f"{order.answers.estimator} raises on the rows of the input example, and on other rows it does not",
            "Log it with an input example that it answers.",
        )
    scripted = isinstance(native, torch.jit.ScriptModule)
    if scripted:
        model = _from_script(native, asked, tried.finite, order)
    else:
        try:
            model = _from_program(asked, tried.finite, order)
        except _Fixed as fixed:
            model = _scripted(asked, tried.finite, order, fixed)
    if len(model.graph.output) != len(tried.outputs):
        raise Refused(
            f"the exporter made {len(model.graph.output)} outputs of {len(tried.outputs)}",
            "Log a module whose answers are different tensors.",
        )
    hints, notes = torch_trial.passed(asked, tried, model)
    _bare(model.graph)
    return Core(
        model=model,
        outputs=dict(zip(tried.outputs, [value.name for value in model.graph.output], strict=True)),
        merged=order.signature.kind == "columns",
        hints=hints,
        notes=notes,
        opsets={entry.domain: entry.version for entry in model.opset_import},
        open=_free(model, tried.outputs) if any(len(axes) > 1 for axes in asked.open) else {},
    )


def _free(model: onnx.ModelProto, outputs: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Return the dimensions of each output, beside the first, to which the exporter gave no number."""
    found = {}
    for name, value in zip(outputs, model.graph.output, strict=True):
        sizes = value.type.tensor_type.shape.dim
        found[name] = tuple(axis for axis, size in enumerate(sizes) if axis and not size.HasField("dim_value"))
    return found


def _from_program(asked: Asked, rows: Sequence[Array], order: Order) -> onnx.ModelProto:
    torch: Any = extras.load("torch")

    class Named(torch.nn.Module):  # type: ignore[misc]  # torch's types are not looked at
        """The module with its answers in the order of their names."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = asked.native

        def forward(self, *values: Any) -> Any:
            return tuple(asked.called(self.inner, list(values)).values())

    example = tuple(torch.from_numpy(array) for array in asked.example(rows))
    spread = tuple(dict.fromkeys(asked.open[place], torch.export.Dim.DYNAMIC) for place in range(len(example)))
    opset = order.opset or NEWEST
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.export.export(Named(), example, dynamic_shapes={"values": spread}, strict=False)
            _limits(program, asked, example)
            made = torch.onnx.export(
                program, dynamo=True, opset_version=opset, verbose=False, external_data=False,
                custom_translation_table={torch.ops.aten.embedding.default: _embedding()},
            )  # fmt: skip
    except (Refused, MemoryError):
        raise
    except Exception as error:
        traceback.print_exc()
        raise _told(error, order.answers.estimator) from error
    model: onnx.ModelProto = made.model_proto
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    written = next(entry.version for entry in model.opset_import if not entry.domain)
    if written != opset:
        raise Refused(
            f"the exporter of PyTorch writes {order.answers.estimator} in opset {written}, not in {opset}",
            f"Choose --opset {written}, or leave it out.",
        )
    return model


def _embedding() -> Any:
    """Return how a look-up is written: PyTorch refuses ids below zero, which Gather would count from the end."""
    from onnxscript import opset18 as op

    def embedding(weight: Any, indices: Any, *_unused: Any, **_kwargs: Any) -> Any:
        count = op.Cast(op.Gather(op.Shape(weight), op.Constant(value_int=0)), to=onnx.TensorProto.INT64)
        wide = op.Cast(indices, to=onnx.TensorProto.INT64)
        return op.Gather(weight, op.Where(op.Less(wide, op.Constant(value_int=0)), count, wide))

    return embedding


def _scripted(asked: Asked, rows: Sequence[Array], order: Order, fixed: _Fixed) -> onnx.ModelProto:
    """Write a module of which torch.export fixes a size (recurrent layers' length) by way of TorchScript."""
    torch = extras.load("torch")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            native = torch.jit.script(asked.native)
    except Exception:  # noqa: BLE001 - what cannot be scripted raises anything
        traceback.print_exc()
        raise Refused(fixed.message, fixed.hint) from fixed
    return _from_script(native, asked, rows, order)


def _from_script(native: Any, asked: Asked, rows: Sequence[Array], order: Order) -> onnx.ModelProto:
    torch = extras.load("torch")
    opset = order.opset or min(NEWEST, _NEWEST_SCRIPT)
    if opset > _NEWEST_SCRIPT:
        raise Refused(
            f"TorchScript modules are written in opset {_NEWEST_SCRIPT} at most, not in {opset}",
            f"Choose --opset {_NEWEST_SCRIPT}, or leave it out.",
        )
    example = tuple(torch.from_numpy(array) for array in asked.example(rows))
    names = [f"value_{place}" for place in range(len(example))]
    axes = {name: {axis: f"{name}_{axis}" for axis in asked.open[place]} for place, name in enumerate(names)}
    content = io.BytesIO()
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                native, asked.placed(list(example)), content, dynamo=False, opset_version=opset,
                input_names=names, dynamic_axes=axes, do_constant_folding=True,
            )  # fmt: skip
    except Exception as error:
        traceback.print_exc()
        raise _told(error, order.answers.estimator) from error
    return onnx.load_from_string(content.getvalue())


def _limits(program: Any, asked: Asked, example: Sequence[Any]) -> None:
    """Raise `Refused` where a dimension that should be open has an end beyond which the module answers all the same.

    There it took another way, which the graph does not have: the exporter only notes the range of sizes.
    """
    given = [node for node in program.graph.nodes if node.op == "placeholder"][-len(example) :]
    for place, node in enumerate(given):
        for axis in asked.open[place]:
            size = node.meta["val"].shape[axis]
            found = program.range_constraints.get(size.node.expr) if hasattr(size, "node") else None
            if found is None:
                continue
            low, high = int(found.lower), str(found.upper)
            # 2 is where every range begins: one row is asked by the trial
            beyond = [low - 1] * (low > 2) + [int(number) + 1 for number in [high] if number.isdigit()]
            for other in beyond:
                if asked.answers_at(example, axis, other):
                    raise Refused(
                        f"the module takes another way where dimension {axis} of its input has the size {other:,}: "
                        f"the exported graph holds for {low:,} to {high} alone",
                        _OPEN,
                    )


def _told(error: BaseException, estimator: str) -> Refused:
    """Return why the exporter stopped, with the line of the module that it stopped at."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    kinds = {type(one).__name__ for one in chain}
    said = next((str(one) for one in reversed(chain) if "The following call raised" in str(one)), str(chain[-1]))
    where = _line(said)
    if fixed := re.search(r"specialized it to be a constant \((\d+)\)", said):
        return _Fixed(
            f"the exporter of PyTorch fixes a dimension of {estimator} to {fixed.group(1)} that the signature leaves "
            "open",
            "Log torch.jit.script(module) (serialization_format='pickle'), or a signature with that size.",
        )
    if "GuardOnDataDependentSymNode" in kinds or "data-dependent" in said:
        return Refused(f"{estimator} branches on its data{where}, which the exporter cannot keep", _BRANCH)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", str(chain[-1])).strip() or type(error).__name__
    first = " ".join(plain.splitlines()[0].split())[:300]
    return Refused(
        f"the exporter of PyTorch cannot write {estimator}{where}: {type(chain[-1]).__name__}: {first}",
        "Look with -v at its traceback; rewrite that part of the module, or log torch.jit.script(module).",
    )


def _line(said: str) -> str:
    found = re.findall(r'File "([^"]+)", line (\d+), in (\w+)\n\s*([^\n]*)', said)
    if not found:
        return ""
    file, number, _function, code = found[-1]
    shown = f": {code.strip()}" if code.strip() else ""
    return f" ({PurePath(file).name}, line {number}{shown})"


def _bare(graph: onnx.GraphProto) -> None:
    """Take out what names the machine that exported: stack traces, scopes, documentation."""
    graph.ClearField("doc_string")
    for part in (graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    del graph.value_info[:]
    for node in graph.node:
        node.ClearField("name")
        for body in settled.bodies(node):
            _bare(body)
