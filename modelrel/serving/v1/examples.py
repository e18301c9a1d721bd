"""classify and regress: ``tf.Example``s as JSON in, label and score pairs or one number each out.

Source: ``tensorflow_serving/util/json_tensor.cc`` (``MakeExampleFromJsonObject``) and ``servables/tensorflow/
classifier.cc``, ``regressor.cc``. As there, a feature is a value or a flat list, what is in ``context`` stands for each
example that has no such feature itself, and features that the model does not know do nothing. Unlike there, a whole
number does for a float.

A model answers classify if it has classes and an output with a score for each; labels are texts, of classes that are
none their JSON. It answers regress if it has no classes and its prediction is one number a row.
"""

from __future__ import annotations

import json
from math import nan, prod
from typing import TYPE_CHECKING, Any, Final, NoReturn

from ..answers import Refused
from ..tensors import DTYPES
from . import careful
from .metadata import TYPES, shortened

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..manifest import TensorSpec
    from ..model import Model
    from ..tensors import Array

_METHOD: Final = "tensorflow/serving/"


def scores_output(model: Model) -> str:
    """Return the output that has a score for each class, "" where the model is no such classifier."""
    count = len(model.classes or ())
    able = [
        spec.name for spec in model.outputs
        if count and spec.datatype[:2] == "FP" and len(spec.shape) == 2 and spec.shape[1] == count
    ]  # fmt: skip
    return next((name for name in able if "prob" in name.lower()), able[0] if able else "")


def number_output(model: Model) -> str:
    """Return the output that is one number a row, "" where the model is no regression."""
    spec = next(spec for spec in model.outputs if spec.name == model.predict_output)
    of_rows = len(spec.shape) == 1 or (len(spec.shape) == 2 and spec.shape[1] == 1)
    return spec.name if of_rows and not model.classes and DTYPES[spec.datatype].kind in "fiu" else ""


def output_for(method: str, model: Model) -> str:
    """Return the output that ``classify`` or ``regress`` needs. Raises ``Refused`` (400) where the model has none."""
    kinds = {"classify": scores_output(model), "regress": number_output(model)}
    if not kinds[method]:
        other = next((name for name, output in kinds.items() if output), "predict")
        word = {"classify": "classification", "regress": "regression"}[method]
        raise Refused(400, f"Expected {word} signature method_name to be {_METHOD}{method}. Was: {_METHOD}{other}")
    return kinds[method]


def labels(model: Model) -> list[str]:
    """Return the classes as texts."""
    return [one if isinstance(one, str) else json.dumps(one) for one in model.classes or ()]


def read(document: Mapping[str, Any], model: Model) -> dict[str, Array]:
    """Return an array per input of the model. Raises ``Refused`` (400)."""
    context = _example(document["context"]) if "context" in document else {}
    if "examples" not in document:
        raise Refused(
            400,
            f"JSON Value: {careful.shown(document)} When method is classify, key 'examples' is expected and was not "
            "found",
        )
    sent = document["examples"]
    if not isinstance(sent, list):
        raise Refused(400, f"JSON Value: {careful.shown(document)} Expecting 'examples' value to be an list/array")
    if not sent:
        raise Refused(400, f"JSON Value: {careful.shown(document)} 'examples' value is an empty array")
    rows = [{**context, **_example(one)} for one in sent]
    return careful.rows([_instance(row, at, model) for at, row in enumerate(rows)], model)


def _example(value: object) -> Mapping[str, Any]:
    """Check one example, or the context."""
    if not isinstance(value, dict):
        kind = {str: "String", list: "Array", bool: str(value), type(None): "Null"}.get(type(value), "Number")
        raise Refused(400, f"Example must be JSON object but got JSON {kind}")
    for name, content in value.items():
        for one in content if isinstance(content, list) else [content]:
            if one is None or isinstance(one, list) or (isinstance(one, dict) and not careful.is_base64(one)):
                _odd(name, {type(None): "Null", list: "Array"}.get(type(one), "Object"))
    return value


def _odd(name: str, kind: str) -> NoReturn:
    raise Refused(400, f"Feature: {shortened(name)} has element with unexpected JSON type: {kind}")


def _instance(example: Mapping[str, Any], at: int, model: Model) -> dict[str, Any]:
    """Return the row that an example is, its flat lists laid out as the model takes them."""
    row = {}
    for spec in model.inputs:
        if spec.name in example:
            row[spec.name] = _laid(example[spec.name], spec)
        elif careful.may_lack(spec, model):
            row[spec.name] = nan
        else:
            kind = TYPES[spec.datatype]
            needed = f"Feature: {spec.name} (data type: {kind}) is required but could not be found."
            raise Refused(400, f"Name: <unknown>, {needed} Example: {at}")
    return row


def _laid(content: Any, spec: TensorSpec) -> Any:
    values = content if isinstance(content, list) else [content]
    if spec.datatype == "BOOL":
        values = [bool(one) if isinstance(one, int) and one in (0, 1) else one for one in values]
    elif DTYPES[spec.datatype].kind in "fiu":
        values = [int(one) if isinstance(one, bool) else one for one in values]
    inner = spec.shape[1:]
    if len(inner) > 1 and min(inner) > 0 and len(values) == prod(inner):
        return _nested(values, inner)
    return values if inner else values[0] if len(values) == 1 else values


def _nested(values: Sequence[Any], shape: Sequence[int]) -> list[Any]:
    if len(shape) == 1:
        return list(values)
    step = len(values) // shape[0]
    return [_nested(values[at : at + step], shape[1:]) for at in range(0, len(values), step)]
