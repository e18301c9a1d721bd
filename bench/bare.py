"""The limit: a bare ASGI handler around onnxruntime that checks nothing and can do one thing.

Started as ``python bench/bare.py DIR PORT``. It answers ``POST /invocations`` (dataframe_split) for a model of columns
and ``POST /v2/models/.../infer`` for a model of one tensor, and 200 to everything else.
"""

import os
import sys
from pathlib import Path

import msgspec
import numpy as np
import uvicorn

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # as modelrel does; otherwise the limit would not be one
import onnxruntime

folder, port = Path(sys.argv[1]), int(sys.argv[2])
manifest = msgspec.json.decode((folder / "modelrel.json").read_bytes())
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
names = [spec["name"] for spec in manifest["inputs"]]
encode = msgspec.json.Encoder().encode


class Split(msgspec.Struct):
    """The part of a data frame that matters."""

    data: list[list[float]]


class Invocation(msgspec.Struct):
    """A request to /invocations."""

    dataframe_split: Split


class Tensor(msgspec.Struct):
    """One input."""

    name: str
    shape: list[int]
    datatype: str
    data: list[list[float]]


class Inference(msgspec.Struct):
    """A request to /v2."""

    inputs: list[Tensor]


invocation = msgspec.json.Decoder(Invocation).decode
inference = msgspec.json.Decoder(Inference).decode


def invoke(body: bytes) -> bytes:
    columns = np.ascontiguousarray(np.array(invocation(body).dataframe_split.data).T)[:, :, None]
    return encode({"predictions": session.run(["label"], dict(zip(names, columns, strict=True)))[0].tolist()})


def infer(body: bytes) -> bytes:
    tensor = np.array(inference(body).inputs[0].data, np.float32)
    label, probabilities = session.run(["label", "probabilities"], {"x": tensor})
    return encode(
        {
            "model_name": "forest",
            "model_version": "1",
            "outputs": [
                {"name": "label", "shape": label.shape, "datatype": "INT64", "data": label.tolist()},
                {
                    "name": "probabilities",
                    "shape": probabilities.shape,
                    "datatype": "FP32",
                    "data": probabilities.ravel().tolist(),
                },
            ],
        }
    )


async def app(scope, receive, send):
    body = b""
    if scope["method"] == "POST":
        while True:
            message = await receive()
            body += message["body"]
            if not message.get("more_body"):
                break
        body = (invoke if scope["path"] == "/invocations" else infer)(body)
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())],
        }
    )
    await send({"type": "http.response.body", "body": body})


uvicorn.run(app, host="127.0.0.1", port=port, lifespan="off", access_log=False, log_level="warning")
