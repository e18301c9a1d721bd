"""A PyTorch module and its exported graph, asked the same before anything is released: what `verify` cannot see.

An exporter runs the module once, so a graph can be silently bound to what it saw: a number of rows, a length, one side
of a branch. Here both are asked single rows, batches and lengths, and each branch of the graph must be seen to go
both ways.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx

from modelrel import extras, modules, tensors
from modelrel.errors import Refused
from modelrel.formats.onnx import torch_branches
from modelrel.formats.order import Order
from modelrel.tensors import Array
from modelrel.values import Signature

Answer = dict[str, Array]

_SIZES: Final = (1, 2, 7, 31, 257)
_LENGTHS: Final = (1, 2, 3, 7, 19)
_SCALES: Final = (1.0, -1.0, 0.1, 3.0, 30.0)
_ROWS: Final = 8
"""Real rows that are varied."""
_SECONDS: Final = 30.0
"""What the trial of one kind of rows may take; the first of each are tried whatever the time."""
_RTOL: Final = 1e-3
_ATOL: Final = 1e-4
"""What is told apart here is another way through the module, not rounding: `verify` measures that."""


class Asked:
    """A module with the signature it is called by; `open` holds, for each input, the dimensions of any size.

    `varied`: whether made-up rows can be asked (a tokenizer's ids and masks go together).
    """

    def __init__(self, native: Any, signature: Signature, *, varied: bool = True) -> None:
        """Remember all; nothing runs."""
        self.native = native
        self.signature = signature
        self.varied = varied
        specs = signature.inputs if signature.kind == "tensor" else signature.inputs[:1]
        self.open = [
            (0, *(axis for axis, size in enumerate(spec.shape) if axis and size < 0 and signature.kind == "tensor"))
            for spec in specs
        ]

    def called(self, inner: Any, values: list[Any]) -> dict[str, Any]:
        """Return the named tensors that `inner`, which is the module or stands for it, answers."""
        return modules.outputs(modules.called(inner, values, self.signature))

    def answer(self, arrays: Sequence[Array]) -> Answer | str:
        """Return the named answers, or the sentence that the module raised."""
        try:
            return modules.answered(self.native, [np.ascontiguousarray(array) for array in arrays], self.signature)
        except (MemoryError, Refused):
            raise
        except Exception as error:  # noqa: BLE001 - a model may raise anything
            text = " ".join(str(error).split())[:300]
            return f"{type(error).__name__}: {text}"

    def placed(self, values: list[Any]) -> Any:
        """Return the values in the order of the module's parameters."""
        return tuple(modules.placed(self.native, values, self.signature))

    def example(self, rows: Sequence[Array]) -> list[Array]:
        """Return rows to export with: two or more in each open dimension, for one is taken as fixed by exporters."""
        taken = {size for array in rows for size in array.shape[1:]}
        count = next(size for size in range(2, 99) if size not in taken)
        found = []
        for array, axes in zip(rows, self.open, strict=True):
            sized = resized(array, 0, count)
            for axis in axes[1:]:
                sized = resized(sized, axis, max(array.shape[axis], 2))
            found.append(sized)
        return found

    def answers_at(self, example: Sequence[Any], axis: int, size: int) -> bool:
        """Return whether the module answers inputs whose dimension `axis` has that size."""
        arrays = [
            resized(np.asarray(value), axis, size) if axis in axes else np.asarray(value)
            for value, axes in zip(example, self.open, strict=True)
        ]
        return size > 0 and not isinstance(self.answer(arrays), str)


@dataclass(frozen=True, slots=True)
class Tried:
    """What the module answered: rows (arrays in its order), their answers one by one, and which are all finite."""

    rows: list[Array]
    answers: Answer
    plain: Array

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the outputs, in order."""
        return tuple(self.answers)

    @property
    def finite(self) -> list[Array]:
        """The rows that hold and give finite numbers alone; all, where there is none."""
        return _taken(self.rows, self.plain) if self.plain.any() else self.rows


def settled(asked: Asked, order: Order) -> Tried:
    """Ask the module single rows; returns those it answered.

    Raises `Refused` where it answers none, or the same row differently: in another batch, or each time.
    """
    table = modules.given(order.rows, order.signature)
    if asked.varied:
        table = _varied(table, order.signature)
    kept: list[int] = []
    found: list[Answer] = []
    raised = ""
    end = time.perf_counter() + _SECONDS
    for row in range(len(table[0])):
        answer = asked.answer([array[row : row + 1] for array in table])
        if isinstance(answer, str):
            raised = raised or answer
        elif not found or _alike(found[0], answer):
            kept.append(row)
            found.append(answer)
        if time.perf_counter() > end and len(found) >= _ROWS:
            break
    if not found:
        raise Refused(
            f"{order.answers.estimator} raises on every row that was tried: {raised}",
            "Check that the logged signature is the one of its forward(), dtypes included.",
        )
    rows = _taken(table, np.array(kept))
    tried = Tried(rows, tensors.stack(list(found)), _finite(rows, tensors.stack(list(found))))
    _steady(asked, tried, order.answers.estimator)
    return tried


def passed(asked: Asked, tried: Tried, model: onnx.ModelProto) -> tuple[dict[str, object], tuple[str, ...]]:
    """Hold the exported graph against what the module answered; returns hints (rows that take each branch), and notes.

    Raises `Refused` where an answer differs, or a branch of the graph went one way on all rows.
    """
    graph = _Graph(model, tried.outputs)
    branches = torch_branches.taken(model, tried.rows, _SECONDS)
    rows = tried.rows if branches else tried.finite
    known = (
        tried.answers if branches else tensors.take(tried.answers, tried.plain if tried.plain.any() else slice(None))
    )
    for row in range(len(rows[0])):
        _equal(tensors.take(known, slice(row, row + 1)), graph([array[row : row + 1] for array in rows]), "one row")
    notes: list[str] = []
    for arrays, what in _sized(asked, tried.finite):
        answer, found = asked.answer(arrays), graph(arrays)
        if not isinstance(answer, str):
            _equal(answer, found, what)
        elif not isinstance(found, str):
            notes.append(f"answers {what}, on which the original raises ({answer})")
    if not branches:
        return {}, tuple(notes)
    picked = np.array(sorted(set(branches)), np.int64)
    return {"rows": _named(asked.signature, _taken(tried.rows, picked))}, tuple(notes)


class _Graph:
    """The exported graph, run by onnxruntime."""

    def __init__(self, model: onnx.ModelProto, outputs: Sequence[str]) -> None:
        runtime = extras.load("onnxruntime")
        options = runtime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        try:
            self._session = runtime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise Refused(
                f"onnxruntime does not load what PyTorch exported: {' '.join(str(error).split())[:300]}",
                "Choose another --opset, or rewrite that part of the module.",
            ) from error
        self._names = [value.name for value in self._session.get_inputs()]
        self._outputs = outputs

    def __call__(self, arrays: Sequence[Array]) -> Answer | str:
        """Return the named answers, or the sentence that the runtime raised."""
        feeds = {name: np.ascontiguousarray(array) for name, array in zip(self._names, arrays, strict=True)}
        try:
            return dict(zip(self._outputs, self._session.run(None, feeds), strict=True))
        except Exception as error:  # noqa: BLE001 - the runtime has errors of its own
            return " ".join(str(error).split())[:300]


def _equal(original: Answer, copy: Answer | str, what: str) -> None:
    hint = "The exporter bound the graph to what it saw. Log torch.jit.script(module), or rewrite what it names."
    if isinstance(copy, str):
        raise Refused(f"the exported graph fails on {what}, which the module answers: {copy}", hint)
    for name, wanted in original.items():
        found = copy[name]
        if found.size != wanted.size:
            raise Refused(
                f"{name} has the shape {list(found.shape)} in the exported graph and {list(wanted.shape)} in the "
                f"module on {what}",
                hint,
            )
        wrong = tensors.differ(wanted, found.reshape(wanted.shape), rtol=_RTOL, atol=_ATOL)
        if wrong.any():
            by = ""
            if wanted.dtype.kind == "f":
                by = f" by {tensors.errors(wanted, found.reshape(wanted.shape))[0].max():.3g}"
            raise Refused(f"{name} of the exported graph differs from the module's{by} on {what}", hint)


def _steady(asked: Asked, tried: Tried, estimator: str) -> None:
    """Raise `Refused` where the same rows are answered differently again, or together."""
    count = len(tried.rows[0])
    again = asked.answer(_taken(tried.rows, slice(0, 1)))
    first = tensors.take(tried.answers, slice(0, 1))
    if isinstance(again, str) or (name := _other(first, again)[0]):
        raise Refused(
            f"{estimator} answers the same row differently each time ({'' if isinstance(again, str) else name})",
            "It draws random numbers, or was exported in training mode: call model.eval() before it is logged.",
        )
    together = asked.answer(tried.rows)
    if isinstance(together, str):
        raise Refused(
            f"{estimator} answers each of {count} rows alone, and not together: {together}",
            "Log it with an input example of several rows; pt2 fixes the number of rows where the example has one.",
        )
    name, row = _other(tried.answers, together)
    if name:
        alone, there = (np.ravel(answer[name][row])[:3].tolist() for answer in (tried.answers, together))
        raise Refused(
            f"{name} of a row depends on the other rows in its batch: {estimator} answers {alone} alone, and {there} "
            f"among {count}",
            "A released model answers rows that are sent together as it answers each of them. Choose for each row, "
            "with torch.where; call model.eval() before it is exported.",
        )


def _other(first: Answer, second: Answer) -> tuple[str, int]:
    """Return name and row of the first answer that differs; "" for none."""
    for name, wanted in first.items():
        found = second.get(name)
        if found is None or found.shape != wanted.shape:
            return name, 0
        wrong = tensors.differ(wanted, found, rtol=_RTOL, atol=_ATOL)
        if wrong.any():
            return name, int(np.argmax(wrong))
    return "", 0


def _sized(asked: Asked, rows: list[Array]) -> Iterator[tuple[list[Array], str]]:
    """Yield the rows in batches of several sizes, then in several lengths of their other open dimensions."""
    start = time.perf_counter()
    asked.answer(_taken(rows, slice(0, 1)))
    each = time.perf_counter() - start
    for size in _SIZES:
        if size * each < _SECONDS:
            yield [resized(array, 0, size) for array in rows], f"a batch of {size}"
    if not any(len(axes) > 1 for axes in asked.open):
        return
    few = _taken(rows, slice(0, 3))
    for length in _LENGTHS:
        sized = few
        for axis in {axis for axes in asked.open for axis in axes[1:]}:
            sized = [
                resized(array, axis, length) if axis in axes else array
                for array, axes in zip(sized, asked.open, strict=True)
            ]
        yield sized, f"rows of length {length}"


def resized(array: Array, axis: int, size: int) -> Array:
    """Return an array repeated, or cut, along one axis to that size."""
    return np.asarray(np.take(array, np.arange(size) % array.shape[axis], axis=axis))


def _varied(real: list[Array], signature: Signature) -> list[Array]:
    """Return real rows and variants of them: scaled, turned, mixed, with zeros, gaps and infinities; seeded."""
    random = np.random.default_rng(0)
    base = [resized(array, 0, min(_ROWS, max(len(array), 4))) for array in real]
    parts = [base]
    floats = any(array.dtype.kind == "f" for array in base)
    for scale in _SCALES if floats else ():
        noisy = [
            (array * scale + random.normal(0, abs(scale) * 0.3, array.shape)).astype(array.dtype)
            if array.dtype.kind == "f" else array for array in base
        ]  # fmt: skip
        parts.append(noisy)
    parts.append([_mixed(array, random) for array in base])
    if signature.kind == "columns" or all(array.dtype.kind != "f" for array in base):
        parts.append([_mixed(array, random) for array in base])
    parts.append([np.zeros_like(array[:1]) for array in base])
    if all(spec.datatype.startswith("FP") for spec in signature.inputs):
        parts += [_odd(base, odd, places) for odd in (np.nan, np.inf, -np.inf) for places in (slice(0, 1), slice(None))]
    varied = [np.concatenate([part[place] for part in parts]) for place in range(len(base))]
    if signature.kind == "columns":
        for place, spec in enumerate(signature.inputs):
            if not spec.datatype.startswith("FP"):
                whole = np.rint(varied[0][:, place])
                varied[0][:, place] = whole % 2 if spec.datatype == "BOOL" else whole
    return varied


def _odd(base: list[Array], value: float, places: slice) -> list[Array]:
    """Return the first row with `value` at some places."""
    found = [array[:1].copy() for array in base]
    for array in found:
        array.reshape(-1)[places] = value
    return found


def _mixed(array: Array, random: np.random.Generator) -> Array:
    flat = array.reshape(len(array), -1)
    return np.asarray(random.permuted(flat, axis=1).reshape(array.shape))


def _alike(first: Answer, second: Answer) -> bool:
    return first.keys() == second.keys() and all(first[name].shape == second[name].shape for name in first)


def _finite(rows: Sequence[Array], answers: Answer) -> Array:
    whole = np.ones(len(rows[0]), np.bool_)
    for array in (*rows, *answers.values()):
        if array.dtype.kind == "f":
            whole &= np.isfinite(array.reshape(len(array), -1)).all(axis=1)
    return whole


def _taken(arrays: Sequence[Array], index: Any) -> list[Array]:
    return [array[index] for array in arrays]


def _named(signature: Signature, arrays: Sequence[Array]) -> dict[str, object]:
    """Return rows under the names of the signature, as JSON."""
    if signature.kind == "columns":
        (table,) = arrays
        return {spec.name: tensors.plain(table[:, [place]]) for place, spec in enumerate(signature.inputs)}
    return {spec.name: tensors.plain(array) for spec, array in zip(signature.inputs, arrays, strict=True)}
