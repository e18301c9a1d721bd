"""Answers a line of JSON for each line: python ask.py FOLDER, with the model.onnx and the modelrel.json of a package.

It does what the Swift of the package does with the edges of the graph.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime

KINDS: Final = {
    "BOOL": "uint8", "UINT8": "uint8", "UINT16": "uint32", "UINT32": "uint32", "UINT64": "uint64", "INT8": "int8",
    "INT16": "int32", "INT32": "int32", "INT64": "int64", "FP16": "float32", "FP32": "float32",
}  # fmt: skip
BEYOND: Final = 4096

Array = np.ndarray[Any, np.dtype[Any]]


class Model:
    """The model of a package, by the names that a server shows."""

    def __init__(self, folder: Path) -> None:
        self.said = {spec["name"]: spec for spec in json.loads((folder / "modelrel.json").read_bytes())["inputs"]}
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        path = str(folder / "model.onnx")
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.edges = json.loads(self.session.get_modelmeta().custom_metadata_map["modelrel.edges"])

    def answer(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Return name -> nested lists for name -> nested lists."""
        if inputs.keys() != self.edges["inputs"].keys():
            raise ValueError(f"the model takes {sorted(self.edges['inputs'])}, and was given {sorted(inputs)}")
        feeds: dict[str, Array] = {}
        for name, (datatype, names) in self.edges["inputs"].items():
            feeds.update(zip(names, entered(inputs[name], datatype, self.said[name]), strict=True))
        wanted = [name for _, names in self.edges["outputs"].values() for name in names]
        found = dict(zip(wanted, self.session.run(wanted, feeds), strict=True))
        return {
            name: left([found[one] for one in names], datatype)
            for name, (datatype, names) in self.edges["outputs"].items()
        }


def entered(values: Any, datatype: str, spec: dict[str, Any]) -> list[Array]:
    """Return the one or two arrays by which values cross the edge."""
    text = datatype == "BYTES"
    array = np.array(values, object)
    wanted = spec["shape"]
    if array.ndim != len(wanted) or any(
        size not in (-1, found) for size, found in zip(wanted, array.shape, strict=True)
    ):
        raise ValueError(f"{spec['name']} has the shape {list(array.shape)}, and the model takes {wanted}")
    flat = array.ravel().tolist()
    gaps = datatype.startswith("FP")
    known: dict[str, set[type]] = {"BYTES": {str}, "BOOL": {bool}}
    fits = known.get(datatype, {int, float, type(None)} if gaps else {int})
    if not {type(one) for one in flat} <= fits:
        raise ValueError(f"{spec['name']} is {datatype}, and was given something else")
    if text:
        return [array]
    if datatype != "FP64":
        made = np.array([np.nan if one is None else one for one in flat], object)
        limits = np.iinfo(datatype.lower()) if "INT" in datatype else None
        if limits is not None and not all(limits.min <= one <= limits.max for one in flat):
            raise ValueError(f"{spec['name']} has a number beyond {datatype}")
        return [made.astype(KINDS[datatype]).reshape(array.shape)]
    doubles = np.array([np.nan if one is None else one for one in flat], float).reshape(array.shape)
    fraction, exponent = np.frexp(np.where(np.isfinite(doubles), doubles, 0.0))
    whole = (fraction * 2.0**53).astype(np.int64)
    exponent = exponent.astype(np.int64) - 53
    # a power of two that is too small to be one is made larger by the zeros at the end of the significand
    while (odd := (whole != 0) & (exponent < -1074)).any():
        whole = np.where(odd, whole >> 1, whole)
        exponent = np.where(odd, exponent + 1, exponent)
    whole = np.where(np.isinf(doubles), np.sign(doubles), whole).astype(np.int64)
    return [whole, np.where(np.isfinite(doubles), exponent, BEYOND).astype(np.int64)]


def left(arrays: list[Array], datatype: str) -> Any:
    """Return nested lists: numbers that are none are None."""
    if datatype == "BYTES":
        return arrays[0].tolist()
    if datatype == "BOOL":
        return (arrays[0] != 0).tolist()
    if datatype == "FP64":
        high, low = (array.astype(float) for array in arrays)
        doubles = np.where(np.isfinite(high), high + np.where(np.isfinite(low), low, 0.0), high)
        return _plain(doubles)
    return _plain(arrays[0]) if arrays[0].dtype.kind == "f" else arrays[0].tolist()


def _plain(array: Array) -> Any:
    plain = array.astype(object)
    plain[~np.isfinite(array)] = None
    return plain.tolist()


def main() -> None:
    """Answer until the input ends."""
    model = Model(Path(sys.argv[1]))
    for line in sys.stdin:
        try:
            said: dict[str, Any] = {"outputs": model.answer(json.loads(line)["inputs"])}
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            said = {"error": f"{type(error).__name__}: {error}"}
        sys.stdout.write(f"{json.dumps(said)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
