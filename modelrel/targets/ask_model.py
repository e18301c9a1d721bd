"""A model folder, asked by the line: a program of its own, which imports nothing of modelrel.

    python ask_model.py FOLDER    # {"inputs": {name: nested lists}} a line in, {"outputs": ...} or {"error": ...} out

The folder holds `modelrel.json` and the file that it names; onnxruntime or LiteRT runs it, on one thread.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

KINDS = {
    "BOOL": "bool", "UINT8": "uint8", "INT8": "int8", "INT16": "int16", "INT32": "int32", "INT64": "int64",
    "FP32": "float32", "FP64": "float64", "BYTES": "object",
}  # fmt: skip

Run = Callable[[Mapping[str, Any]], Mapping[str, Any]]


def onnx(path: Path, outputs: list[str]) -> Run:
    """Return the model, loaded by onnxruntime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda given: dict(zip(outputs, session.run(outputs, dict(given)), strict=True))


def tflite(path: Path, outputs: list[str]) -> Run:
    """Return the model, loaded by LiteRT."""
    from ai_edge_litert.interpreter import Interpreter

    del outputs
    run = Interpreter(model_path=str(path), num_threads=1).get_signature_runner("serving_default")
    return lambda given: dict(run(**given))


def read(given: Mapping[str, object], inputs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return an array for each input; raises ValueError where one is missing, unknown, or does not fit."""
    if given.keys() != inputs.keys():
        raise ValueError(f"the model takes the inputs {sorted(inputs)}, and was given {sorted(given)}")
    return {name: entered(name, given[name], spec) for name, spec in inputs.items()}


def entered(name: str, values: object, spec: Mapping[str, Any]) -> Any:
    """Return an array of the datatype and shape that an input has; raises ValueError where the values do not fit."""
    text = spec["datatype"] == "BYTES"
    array = np.array(values, object if text else None)
    if array.dtype == object and not text:
        array = np.array(values, float)  # None is NaN
    if text and not all(isinstance(item, str) for item in array.ravel()):
        raise ValueError(f"{name} is text, and was given something else")
    if not text and array.dtype.kind not in "biuf":
        raise ValueError(f"{name} is numbers, and was given something else")
    shape = spec["shape"]
    fits = len(array.shape) == len(shape) and all(
        size in (-1, found) for size, found in zip(shape, array.shape, strict=True)
    )
    if not fits:
        raise ValueError(f"{name} has the shape {list(array.shape)}, and the model takes {shape}")
    file = spec.get("file")
    if file is None:
        return np.ascontiguousarray(array, KINDS[spec["datatype"]])
    limits = np.iinfo(KINDS[file["datatype"]])
    whole = np.rint(array.astype(np.float32).astype(float) / file["scale"]) + file["zero_point"]
    return np.clip(whole, limits.min, limits.max).astype(KINDS[file["datatype"]])


def left(array: Any, spec: Mapping[str, Any]) -> Any:
    """Return nested lists: text as text, NaN and infinities as None, real numbers for whole ones."""
    if "file" in spec:
        file = spec["file"]
        array = ((array.astype(float) - file["zero_point"]) * file["scale"]).astype(np.float32)
    if array.dtype == object:
        texts: Any = np.empty(array.shape, object)
        texts.ravel()[:] = [item.decode() if isinstance(item, bytes) else item for item in array.ravel()]
        return texts.tolist()
    if array.dtype.kind == "f":
        finite: Any = np.where(np.isfinite(array), array.astype(object), None)
        return finite.tolist()
    return array.tolist()


def main() -> None:
    """Answer each line."""
    folder = Path(sys.argv[1])
    said = json.loads((folder / "modelrel.json").read_text(encoding="utf-8"))
    inputs = {spec["name"]: spec for spec in said["inputs"]}
    outputs = {spec["name"]: spec for spec in said["outputs"]}
    run = {"onnx": onnx, "tflite": tflite}[said["format"]](folder / said["file"], list(outputs))
    for line in sys.stdin:
        try:
            found = run(read(json.loads(line)["inputs"], inputs))
            answer: dict[str, Any] = {"outputs": {name: left(found[name], spec) for name, spec in outputs.items()}}
        except Exception as error:  # noqa: BLE001  # whatever does not fit is the answer
            answer = {"error": f"{type(error).__name__}: {error}"}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
