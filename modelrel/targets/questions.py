"""What a smoke test asks, and what it takes for an answer: golden rows in the two protocols, and broken requests.

Sources: Open Inference Protocol V2 REST, `inference_rest.md`; MLflow, scoring server (`/invocations`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import numpy as np

from modelrel import archive, served, tensors
from modelrel.errors import Refused
from modelrel.measured import Tolerance
from modelrel.targets.delivery import Response
from modelrel.tensors import Array
from modelrel.values import ParityReport, TensorSpec

JSON: Final = {"content-type": "application/json"}


class Request(NamedTuple):
    """An HTTP request, as `delivery.Send` takes it."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """The rows that verify recorded, with the copy's answers: arrays by name."""

    name: str
    columns: bool
    predict: str
    specs: tuple[TensorSpec, ...]
    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]
    tolerance: Tolerance

    @classmethod
    def of(cls, parity: ParityReport) -> Golden:
        """Read `golden.json` of a verified model."""
        converted, folder = parity.converted, parity.source.folder
        content = json.loads(archive.within(folder, parity.golden.path).read_bytes())
        said = json.loads(archive.within(folder, parity.manifest.path).read_bytes())
        inputs, outputs = served.inputs(converted), served.outputs(converted)
        return cls(
            name=said["name"],
            columns=said["kind"] == "columns",
            predict=served.predict(converted),
            specs=inputs,
            inputs={spec.name: _array(content["inputs"][spec.name], spec) for spec in inputs},
            outputs={spec.name: _array(content["outputs"][spec.name], spec) for spec in outputs},
            tolerance=parity.tolerance,
        )

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return tensors.rows(self.inputs)

    @property
    def any_size(self) -> bool:
        """Whether the model takes any number of rows at once."""
        return all(spec.shape[:1] == (-1,) for spec in self.specs)

    def take(self, index: Any) -> Golden:
        """Return the rows that an index array selects, with their answers."""
        return Golden(
            name=self.name,
            columns=self.columns,
            predict=self.predict,
            specs=self.specs,
            inputs=tensors.take(self.inputs, index),
            outputs=tensors.take(self.outputs, index),
            tolerance=self.tolerance,
        )

    def infer(self) -> Request:
        """Return the rows as a V2 inference request."""
        inputs = [
            {"name": spec.name, "datatype": spec.datatype, "shape": list(array.shape), "data": tensors.plain(array)}
            for spec, array in ((spec, self.inputs[spec.name]) for spec in self.specs)
        ]
        return Request("POST", self.path, JSON, _dumps({"inputs": inputs}))

    def invocation(self) -> Request:
        """Return the rows as MLflow takes them: a data frame of columns, or named tensors."""
        plain = self.plain()
        if self.columns:
            cells = [[value[0] for value in column] for column in plain.values()]
            frame = {"columns": list(plain), "data": [list(row) for row in zip(*cells, strict=True)]}
            return Request("POST", "/invocations", JSON, _dumps({"dataframe_split": frame}))
        return Request("POST", "/invocations", JSON, _dumps({"inputs": plain}))

    def instances(self, path: str) -> Request:
        """Return the rows as Vertex AI sends them to its prediction route: an object for each."""
        rows = [dict(zip(self.inputs, row, strict=True)) for row in zip(*self.plain().values(), strict=True)]
        if self.columns:
            rows = [{name: value[0] for name, value in row.items()} for row in rows]
        return Request("POST", path, JSON, _dumps({"instances": rows}))

    def plain(self) -> dict[str, Any]:
        """Return the rows as name -> nested lists."""
        return {name: tensors.plain(array) for name, array in self.inputs.items()}

    def judge(self, said: Mapping[str, Any]) -> float:
        """Return the largest absolute error of `{"outputs": {name: nested lists}}`; raises `Refused` where wrong."""
        outputs = said.get("outputs")
        if not isinstance(outputs, Mapping):
            raise Refused(f"golden rows were answered with {_short(dict(said))}", "The package does not run them.")
        worst = 0.0
        for name, expected in self.outputs.items():
            if name not in outputs:
                raise Refused(f"the answer lacks the output {name!r}", "The package is not of this model.")
            worst = max(worst, self._judge(name, expected, outputs[name]))
        return worst

    def unfit(self) -> dict[str, dict[str, Any]]:
        """Return inputs that must be refused, by what is wrong with them."""
        good = self.take(slice(0, 1)).plain()
        first = self.specs[0].name
        # an optional column of floats may be left out: it is NaN
        needed = [spec.name for spec in self.specs if spec.required or not spec.datatype.startswith("FP")]
        lacking: dict[str, dict[str, Any]] = {}
        if needed:
            lacking["an input that is missing"] = {name: good[name] for name in good if name != needed[0]}
        other: object = {} if self.specs[0].datatype == "BYTES" else "not a number"
        wrong: dict[str, dict[str, Any]] = {
            "an unknown input": {**good, f"no {first}": good[first]},
            "values of another type": {**good, first: [[other]]},
            "a shape that does not fit": {**good, first: [[[good[first]]]]},
        }
        return lacking | wrong

    @property
    def path(self) -> str:
        """Where V2 inference of this model is."""
        return f"/v2/models/{quote(self.name, safe='')}/infer"

    def judge_infer(self, response: Response) -> float:
        """Return the largest absolute error of a V2 answer; raises `Refused` where it is not what was recorded."""
        content = _accepted(response, "V2 infer")
        given = {one.get("name"): one for one in content.get("outputs") or () if isinstance(one, dict)}
        worst = 0.0
        for name, expected in self.outputs.items():
            if name not in given:
                raise Refused(f"the answer lacks the output {name!r}", "The package is not of this model.")
            shape = tuple(given[name].get("shape") or ())
            if shape != expected.shape:
                raise Refused(f"output {name!r} has the shape {list(shape)}, recorded was {list(expected.shape)}")
            worst = max(worst, self._judge(name, expected, given[name].get("data")))
        return worst

    def judge_invocation(self, response: Response, path: str = "/invocations") -> float:
        """Return the largest absolute error of MLflow's form of answer; raises `Refused` where it is wrong."""
        content = _accepted(response, path)
        return self._judge(self.predict, self.outputs[self.predict], content.get("predictions"))

    def _judge(self, name: str, expected: Array, data: object) -> float:
        flat = _flat(data)
        if len(flat) != expected.size:
            raise Refused(f"output {name!r} has {len(flat)} values, recorded were {expected.size}")
        if expected.dtype.kind != "f":
            wrong = [
                row for row, pair in enumerate(zip(_flat(expected.tolist()), flat, strict=True)) if not _same(*pair)
            ]
            if wrong:
                each = expected.size // len(expected)
                self._refuse(name, wrong[0] // each, expected, np.array(flat, object).reshape(expected.shape))
            return 0.0
        try:
            got = np.array([np.nan if one is None else one for one in flat], np.float64).reshape(expected.shape)
        except (TypeError, ValueError) as error:
            raise Refused(f"output {name!r} holds something that is no number") from error
        over = tensors.excess(expected, got, rtol=self.tolerance.rtol, atol=self.tolerance.atol)
        if (over > 0).any():
            self._refuse(name, int(over.argmax()), expected, got)
        return float(tensors.errors(expected, got)[0].max(initial=0.0))

    def _refuse(self, name: str, row: int, expected: Array, got: Array) -> None:
        # a slice, because one element of an object array is the bare str
        answered, recorded = (_short(array[row : row + 1].tolist()[0]) for array in (got, expected))
        raise Refused(
            f"output {name!r} of row {row} is {answered}, verify recorded {recorded}",
            "What was built does not answer as what was verified: compare requirements.lock with the versions in "
            "ParityReport.json, or package with the Python that verified.",
        )

    def broken(self) -> dict[str, Request]:
        """Return requests that must be refused with a 4xx, by what is wrong with them."""
        good = json.loads(self.take(slice(0, 1)).infer().body)
        path = self.path
        first = self.specs[0]
        other: object = {} if first.datatype == "BYTES" else "not a number"

        def changed(**fields: object) -> bytes:
            return _dumps({"inputs": [{**good["inputs"][0], **fields}, *good["inputs"][1:]]})

        shape = [good["inputs"][0]["shape"][0] + 1, *good["inputs"][0]["shape"][1:]]
        return {
            "JSON that stops short": Request("POST", path, JSON, changed()[:-7]),
            "an empty body": Request("POST", path, JSON, b""),
            "an unknown input": Request("POST", path, JSON, changed(name=f"no {first.name}")),
            "a shape that does not fit": Request("POST", path, JSON, changed(shape=shape)),
            "values of another type": Request("POST", path, JSON, changed(data=[other])),
            "an unknown datatype": Request("POST", path, JSON, changed(datatype="FP7")),
            "an unknown model": Request("POST", f"{path[:-6]}-none/infer", JSON, changed()),
            "an empty invocation": Request("POST", "/invocations", JSON, b"{}"),
        }


def judge_broken(response: Response) -> str:
    """Return how a broken request was refused; raises `Refused` unless it was with a 4xx and a JSON `error`."""
    content = _content(response)
    told = content.get("error") if isinstance(content, dict) else None
    if not 400 <= response.status < 500 or not isinstance(told, str) or not told:
        raise Refused(
            f"a broken request was answered with {response.status} {_start(response)}",
            'It must be a 4xx with {"error": "..."}; see the serving folder or the handler template.',
        )
    return f"{response.status} {told}"


def _array(values: object, spec: TensorSpec) -> Array:
    dtype = tensors.NUMPY[spec.datatype]
    # null is NaN, which only a float64 array makes of it
    return np.array(values, np.float64 if dtype.kind == "f" else dtype).astype(dtype)


def _accepted(response: Response, what: str) -> dict[str, Any]:
    content = _content(response)
    if response.status != 200 or not isinstance(content, dict):
        raise Refused(
            f"golden rows by {what} were answered with {response.status} {_start(response)}",
            "What was built does not take what was verified.",
        )
    return content


def _content(response: Response) -> Any:
    def refuse(word: str) -> None:
        raise Refused(f"an answer holds {word}, which is not JSON", "NaN and infinities must be null.")

    try:
        return json.loads(response.body, parse_constant=refuse)
    except ValueError:
        return None


def _start(response: Response) -> str:
    return response.body[:200].decode(errors="replace") or "and no body"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


def _flat(values: object) -> list[object]:
    if isinstance(values, dict):
        return [item for value in values.values() for item in _flat(value)]
    if not isinstance(values, list):
        return [values]
    return [item for value in values for item in _flat(value)]


def _same(expected: object, got: object) -> bool:
    # 1, 1.0 and true are one value to Python and three to a client
    return expected == got and isinstance(expected, bool) == isinstance(got, bool)


def _dumps(content: object) -> bytes:
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()
