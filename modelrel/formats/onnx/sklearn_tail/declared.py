"""How an own converter of one estimator is registered: what it is given, and what skl2onnx is told of its results."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from onnx import TensorProto

from modelrel.errors import Refused
from modelrel.formats.onnx import from_trees, links, sklearn_options
from modelrel.formats.onnx.graph import DOMAIN_ML, Nodes, inlined
from modelrel.formats.onnx.opsets import ML

DOMAIN_TEXT: Final = "modelrel.text"
"""Of operators that stand for what the adapter in front of the graph does, until they are cut out."""

CODES: Final = "modelrel_codes_"
"""Attribute of an encoder (in the converter's copy): its feature -> the number of the adapter's part that codes it."""

STEP: Final = "modelrel_step_"
"""Attribute of an estimator (in the converter's copy) that transforms here, though it could predict as well."""


@dataclass(frozen=True)
class Part:
    """One estimator to be written: `x` holds its rows, float64 (N, features)."""

    native: Any
    nodes: Nodes
    x: str
    opset: int
    columns: tuple[tuple[str, int, bool], ...] = ()
    """Each feature's tensor, its place there, and whether it is text (which `x` cannot hold)."""
    single: bool = False
    """Whether every number comes in float32, where scikit-learn computes some things in float32 too."""

    def row(self, values: Any) -> str:
        """Return a float64 constant."""
        return self.nodes.constant(np.asarray(values, np.float64))

    def shifted(self, values: Any) -> str:
        """Return the rows minus a vector."""
        return self.nodes.add("Sub", self.x, self.row(values))

    def label(self, index: str) -> str:
        """Return the class of each class number."""
        return self.labelled(index, self.native.classes_)

    def labelled(self, index: str, classes: Any) -> str:
        """Return `classes` at each number."""
        known = classes if classes.dtype.kind in "OUS" else classes.astype(np.int64)
        return links.labels(self.nodes, index, known.tolist())

    def column(self, tensor: str) -> str:
        """Return a tensor of N numbers as (N, 1)."""
        return self.nodes.add("Reshape", tensor, self.nodes.constant([-1, 1], np.int64))

    def inner(self, estimator: Any, x: str, *, scores: bool = False) -> list[str]:
        """Write an estimator inside this one, which reads `x`; return its outputs, a label first where it has one."""
        from skl2onnx import convert_sklearn
        from skl2onnx.common.data_types import DoubleTensorType

        width = getattr(estimator, "n_features_in_", None)
        model = convert_sklearn(
            estimator,
            name="inner",
            initial_types=[("X", DoubleTensorType([None, width]))],
            options=sklearn_options.chosen(estimator, scores=scores),
            target_opset={"": self.opset, DOMAIN_ML: ML},
        )
        renamed = inlined(model, {"X": x}, self.nodes)
        return [renamed[value.name] for value in model.graph.output]

    def rounded(self, tensor: str) -> str:
        """Return numbers as the original keeps them here: rounded to float32 where its inputs are."""
        return (
            self.nodes.cast(self.nodes.cast(tensor, TensorProto.FLOAT), TensorProto.DOUBLE) if self.single else tensor
        )

    def refused(self, why: str, hint: str) -> Refused:
        """Return the error for this estimator: `why` follows its name."""
        return Refused(f"{type(self.native).__name__} {why}", hint)


_SINGLE: Final = [False]
"""Whether the model at hand gets all its numbers in float32; skl2onnx hands a converter nothing of ours."""

Writer = Callable[[Part], "str | tuple[str, ...]"]
"""Adds an estimator's nodes and returns its results: label and numbers, or one tensor of numbers."""


def declare(kind: type[Any] | None, write: Writer, *, columns: bool = False) -> None:
    """Make skl2onnx convert `kind` with `write` (in this process); with `columns` it may get text, and no `x`.

    None, which an older scikit-learn has for an estimator that came later, is passed over.
    """
    if kind is None:
        return
    from skl2onnx import update_registered_converter
    from sklearn.base import ClassifierMixin

    options = {"zipmap": [True, False, "columns"], "nocl": [True, False], "output_class_labels": [False, True]}
    options["raw_scores"] = [False, True]
    selects = hasattr(kind, "get_support")  # RFE counts as a classifier around one
    classifies = issubclass(kind, ClassifierMixin) and not selects
    update_registered_converter(
        kind,
        f"Modelrel{kind.__name__}",
        _shapes,
        _converter(write, columns=columns),
        overwrite=True,
        parser=None if classifies else _parsed,
        options=options if classifies or selects else None,
    )


def single(value: bool) -> None:
    """Say whether every number comes in float32, for the conversion that follows."""
    _SINGLE[0] = value


def one(kind: type[Any]) -> bool:
    """Whether an estimator has one result, not a label and numbers."""
    from sklearn.base import ClassifierMixin, OutlierMixin

    labels = issubclass(kind, ClassifierMixin | OutlierMixin) or hasattr(kind, "fit_predict")
    return not (labels and hasattr(kind, "predict")) or hasattr(kind, "get_support")


def _parsed(scope: Any, model: Any, inputs: Any, custom_parsers: Any = None) -> Any:  # noqa: ARG001 - skl2onnx's call
    """Declare what a model gives: one tensor for what transforms or regresses, a label and numbers for the others."""
    from skl2onnx._supported_operators import sklearn_operator_name_map
    from skl2onnx.common.data_types import DoubleTensorType, Int64TensorType

    operator = scope.declare_local_operator(sklearn_operator_name_map[type(model)], model)
    operator.inputs = inputs
    if getattr(model, STEP, False) or one(type(model)):
        operator.outputs.append(scope.declare_local_variable("variable", DoubleTensorType()))
    else:
        operator.outputs.append(scope.declare_local_variable("label", Int64TensorType()))
        operator.outputs.append(scope.declare_local_variable("scores", DoubleTensorType()))
    return operator.outputs


def _shapes(operator: Any) -> None:
    from skl2onnx.common.data_types import DoubleTensorType, Int64TensorType, StringTensorType

    classes = getattr(operator.raw_operator, "classes_", None)
    operator.outputs[-1].type = DoubleTensorType([None, None])
    if len(operator.outputs) > 1:
        text = isinstance(classes, np.ndarray) and classes.dtype.kind in "OUS"
        operator.outputs[0].type = StringTensorType([None]) if text else Int64TensorType([None])


def _converter(write: Writer, *, columns: bool) -> Callable[[Any, Any, Any], None]:
    def convert(scope: Any, operator: Any, container: Any) -> None:
        nodes = Nodes(scope.get_unique_operator_name("modelrel"))
        if columns:
            x, listed = "", tuple(_columns(operator, nodes))
        else:
            joined = [nodes.cast(variable.full_name, TensorProto.DOUBLE) for variable in operator.inputs]
            x, listed = nodes.add("Concat", *joined, axis=1) if len(joined) > 1 else joined[0], ()
        part = Part(operator.raw_operator, nodes, x, container.target_opset, listed, single=_SINGLE[0])
        results = write(part)
        from_trees.finish(nodes, container, operator, (results,) if isinstance(results, str) else results)

    return convert


def _columns(operator: Any, nodes: Nodes) -> Iterator[tuple[str, int, bool]]:
    """Yield each feature of all inputs."""
    from skl2onnx.common.data_types import StringTensorType

    for variable in operator.inputs:
        text = isinstance(variable.type, StringTensorType)
        name = variable.full_name if text else nodes.cast(variable.full_name, TensorProto.DOUBLE)
        width = variable.type.shape[1] if len(variable.type.shape) > 1 else 1
        count = width or getattr(operator.raw_operator, "n_features_in_", 1)
        yield from ((name, place, text) for place in range(count))
