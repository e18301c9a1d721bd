"""Runs a model for the stand-ins of Java's runtimes: tensors come in and go out (see stand/Bridge.java)."""

from __future__ import annotations

import sys
from base64 import b64decode, b64encode
from math import prod
from typing import Any

import numpy as np


def read(line: str) -> tuple[str, Any]:
    name, kind, sizes, data = line.rstrip("\n").split(" ")
    shape = [int(size) for size in sizes.split(",") if size]
    if kind == "text":
        texts = np.empty(prod(shape), object)
        texts[:] = [b64decode(one[1:]).decode() for one in data.split(",") if one]
        return b64decode(name).decode(), texts.reshape(shape)
    return b64decode(name).decode(), np.frombuffer(b64decode(data), kind).reshape(shape)


def written(name: str, array: Any) -> str:
    text = array.dtype.kind in "OSU"
    if text:
        items = [one if isinstance(one, bytes) else str(one).encode() for one in array.ravel()]
        data = ",".join("=" + b64encode(one).decode() for one in items)
    else:
        data = b64encode(np.ascontiguousarray(array).tobytes()).decode()
    kind = "text" if text else array.dtype.name
    return " ".join([b64encode(name.encode()).decode(), kind, ",".join(map(str, array.shape)), data])


def main() -> None:
    form, path = sys.argv[1:]
    if form == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        names = [one.name for one in session.get_outputs()]

        def run(given: dict[str, Any]) -> dict[str, Any]:
            return dict(zip(names, session.run(names, given), strict=True))
    else:
        from ai_edge_litert.interpreter import Interpreter

        runner = Interpreter(model_path=path).get_signature_runner("serving_default")

        def run(given: dict[str, Any]) -> dict[str, Any]:
            return dict(runner(**given))

    for line in sys.stdin:
        found = run(dict(read(sys.stdin.readline()) for _ in range(int(line))))
        print(len(found), *(written(name, array) for name, array in found.items()), sep="\n", flush=True)


main()
