"""The limit: a bare ASGI handler around onnxruntime that checks nothing and can do one thing.

Started as ``python bench/bare.py DIR PORT``. It answers ``POST /invocations`` (dataframe_split) for a model of columns
and ``POST /v2/models/.../infer`` for a model of one tensor, as JSON or as a binary tensor of FP32, and 200 to all else.
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
options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
names = [spec["name"] for spec in manifest["inputs"]]
shape = manifest["inputs"][0]["shape"]
outputs = [spec["name"] for spec in manifest["outputs"]]
datatypes = [spec["datatype"] for spec in manifest["outputs"]]
start = {"model_name": manifest["name"], "model_version": "1"}
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
    data: list


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
    found = session.run(outputs, {names[0]: tensor})
    return encode(
        start
        | {
            "outputs": [
                {"name": name, "shape": array.shape, "datatype": datatype, "data": array.ravel().tolist()}
                for name, datatype, array in zip(outputs, datatypes, found, strict=True)
            ]
        }
    )


def infer_binary(body: bytes, length: int) -> tuple[bytes, int]:
    tensor = np.frombuffer(body, np.float32, offset=length).reshape(shape)
    found = session.run(outputs, {names[0]: tensor})
    head = encode(
        start
        | {
            "outputs": [
                {
                    "name": name,
                    "shape": array.shape,
                    "datatype": datatype,
                    "parameters": {"binary_data_size": array.nbytes},
                }
                for name, datatype, array in zip(outputs, datatypes, found, strict=True)
            ]
        }
    )
    return b"".join([head, *[array.tobytes() for array in found]]), len(head)


async def app(scope, receive, send):
    body = b""
    kind = [(b"content-type", b"application/json")]
    if scope["method"] == "POST":
        chunks = []
        while True:
            message = await receive()
            chunks.append(message["body"])
            if not message.get("more_body"):
                break
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        length = next((value for name, value in scope["headers"] if name == b"inference-header-content-length"), None)
        if length is not None:
            body, head = infer_binary(body, int(length))
            kind = [
                (b"content-type", b"application/octet-stream"),
                (b"inference-header-content-length", b"%d" % head),
            ]
        else:
            body = (invoke if scope["path"] == "/invocations" else infer)(body)
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [*kind, (b"content-length", str(len(body)).encode())],
        }
    )
    await send({"type": "http.response.body", "body": body})


uvicorn.run(app, host="127.0.0.1", port=port, lifespan="off", access_log=False, log_level="warning")
