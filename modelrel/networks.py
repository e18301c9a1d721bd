"""A TensorFlow model as the house sees it: functions of named tensors, one of which is served.

Nothing here imports TensorFlow: it is handed in by who has loaded it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from modelrel.errors import Invalid, Refused, did_you_mean
from modelrel.values import Signature, TensorSpec

KINDS: Final = {
    "bool": "BOOL", "string": "BYTES", "float16": "FP16", "float32": "FP32", "float64": "FP64",
    **{f"{sign}int{bits}": f"{sign.upper()}INT{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}  # fmt: skip
"""TensorFlow's name of a datatype -> Open Inference's."""


@dataclass(frozen=True)
class Function:
    """One function: its inputs, its outputs (their shapes as far as known), and how it is called.

    `call` takes and returns TensorFlow tensors in these orders, in a graph or at once. `anew` does the same from its
    layers, for shapes of its own; a SavedModel has none. `operators` are TensorFlow's, those of loops included.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    call: Callable[[Sequence[Any]], Sequence[Any]]
    anew: Callable[[Sequence[Any]], Sequence[Any]] | None = None
    operators: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Network:
    """A loaded model: its functions by name, the one that is served, and the object whose variables they read.

    `served` is "" where several are there and none is the default, until one is `chosen`.
    """

    functions: Mapping[str, Function]
    served: str
    estimator: str
    owner: Any

    @property
    def function(self) -> Function:
        """The function that is served."""
        return self.functions[self.served]


def shapes(native: object, found: Mapping[str, TensorSpec]) -> dict[str, TensorSpec]:
    """Return what each output is on real rows, with the dimensions open that a network leaves open."""
    known = {spec.name: spec for spec in native.function.outputs} if isinstance(native, Network) else {}
    kept = {name: spec for name, spec in known.items() if name in found and len(spec.shape) == len(found[name].shape)}
    return {**found, **kept}


def described(function: Function) -> str:
    """Return what goes into a function: `x FP32[-1, 4]`, for people."""
    return ", ".join(f"{spec.name} {spec.datatype}{list(spec.shape)}" for spec in function.inputs)


def chosen(native: object, name: str) -> Network:
    """Return the model with another function served; raises `Invalid` where it has none of this name."""
    if not isinstance(native, Network):
        raise Invalid(f"{type(native).__name__} has no signatures to choose from", "Leave out --signature.")
    if name not in native.functions:
        known = ", ".join(native.functions)
        raise Invalid(f"there is no signature {name!r}", f"{did_you_mean(name, native.functions)}It has {known}.")
    return replace(native, served=name)


def matched(function: Function, signature: Signature) -> tuple[tuple[TensorSpec, ...], ...]:
    """Return, for each input of a function, what of the signature goes into it: all its columns, or one tensor.

    Raises `Refused` where that would be a guess.
    """
    specs, inputs = signature.inputs, function.inputs
    if len(inputs) == 1 and signature.kind == "columns" and (len(specs) > 1 or len(inputs[0].shape) == 2):
        width = inputs[0].shape[1] if len(inputs[0].shape) == 2 else 1
        if width in (-1, len(specs)) and len(inputs[0].shape) == 2:
            return (specs,)
    elif len(inputs) == len(specs) == 1:
        return (specs,)
    named = {spec.name: spec for spec in specs}
    if len(inputs) == len(named) and all(spec.name in named for spec in inputs):
        return tuple((named[spec.name],) for spec in inputs)
    said = ", ".join(f"{spec.name} {spec.datatype}{list(spec.shape)}" for spec in specs[:8])
    raise Refused(
        f"the model takes {described(function)}, and the signature says {said}",
        "Log it again with a signature whose inputs are those of the model, by name.",
    )


def entered(tf: Any, function: Function, signature: Signature, given: Mapping[str, Any]) -> list[Any]:
    """Return the tensors of the signature, by name, as the function takes them: cast, joined, in its order."""
    return [
        _fitted(tf, wanted, specs, [given[spec.name] for spec in specs])
        for wanted, specs in zip(function.inputs, matched(function, signature), strict=True)
    ]


def _fitted(tf: Any, wanted: TensorSpec, specs: Sequence[TensorSpec], given: Sequence[Any]) -> Any:
    text = [spec.name for spec in specs if (spec.datatype == "BYTES") != (wanted.datatype == "BYTES")]
    if text:
        raise Refused(
            f"{text[0]} is {specs[0].datatype} in the signature, and {wanted.name} of the model {wanted.datatype}",
            "Log it again with the signature of the model's own inputs.",
        )
    kind = getattr(tf, next(name for name, known in KINDS.items() if known == wanted.datatype))
    cast = [tensor if tensor.dtype == kind else tf.cast(tensor, kind) for tensor in given]
    joined = tf.concat(cast, axis=1) if len(cast) > 1 else cast[0]
    shape = (-1, len(specs)) if len(specs) > 1 else specs[0].shape
    if len(shape) == 1 and len(wanted.shape) == 2 and wanted.shape[1] in (-1, 1):
        return tf.reshape(joined, [-1, 1])
    if len(shape) == 2 and shape[1] == 1 and len(wanted.shape) == 1:
        return tf.reshape(joined, [-1])
    pairs = list(zip(shape[1:], wanted.shape[1:], strict=False))
    if len(shape) != len(wanted.shape) or any(-1 not in pair and pair[0] != pair[1] for pair in pairs):
        raise Refused(
            f"the signature says {list(shape)} for {wanted.name}, and the model takes {list(wanted.shape)}",
            "Log it again with the signature of rows that the model takes.",
        )
    return joined
