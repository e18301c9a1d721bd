"""Model folders to serve, requests to send and servers to send them to."""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from modelrel.serving import Answer, Model, answer, load_model
from tests.serving.clients import kserve_python, ovms_python  # noqa: F401 (fixtures)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ONNX_TYPE = {
    "BOOL": TensorProto.BOOL,
    **{f"{sign}INT{bits}": getattr(TensorProto, f"{sign}INT{bits}") for sign in ("", "U") for bits in (8, 16, 32, 64)},
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}

Specs = list[tuple[str, str, list[int]]]


def write_folder(folder: Path, nodes: list[onnx.NodeProto], inputs: Specs, outputs: Specs, **changes: Any) -> Path:
    """Write a model folder around a graph. ``changes`` go into the manifest; None takes a field out."""

    def infos(specs: Specs) -> list[onnx.ValueInfoProto]:
        return [
            helper.make_tensor_value_info(name, ONNX_TYPE[kind], [None if n < 0 else n for n in shape])
            for name, kind, shape in specs
        ]

    graph = helper.make_graph(nodes, "test", infos(inputs), infos(outputs))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, folder / "model.onnx")
    optional = changes.pop("optional", ())
    manifest = {
        "schema": 1,
        "name": "churn",
        "version": "7",
        "format": "onnx",
        "file": "model.onnx",
        "kind": "tensor",
        "inputs": [{"name": n, "datatype": d, "shape": s, "required": n not in optional} for n, d, s in inputs],
        "outputs": [{"name": n, "datatype": d, "shape": s} for n, d, s in outputs],
        "predict": outputs[0][0],
        "metadata": {"run_id": "abc"},
    } | changes
    (folder / "modelrel.json").write_text(json.dumps({k: v for k, v in manifest.items() if v is not None}))
    return folder


COLUMNS: Specs = [
    ("d", "FP64", [-1, 1]),
    ("l", "INT64", [-1, 1]),
    ("s", "BYTES", [-1, 1]),
    ("b", "BOOL", [-1, 1]),
    ("f", "FP32", [-1, 1]),
]


def columns_folder(folder: Path) -> Path:
    """Write a model of five columns whose one number tells every value it got: d + 100 l + 1000 b + 10000 (s = x) + f.

    ``f`` is optional and counts as 0.5 where it is NaN. The other outputs are the columns as they came.
    """
    f64 = TensorProto.DOUBLE
    nodes = [
        helper.make_node("Constant", [], ["x"], value=helper.make_tensor("", TensorProto.STRING, [1], [b"x"])),
        helper.make_node("Equal", ["s", "x"], ["is_x"]),
        helper.make_node("IsNaN", ["f"], ["no_f"]),
        helper.make_node("Constant", [], ["half"], value=helper.make_tensor("", TensorProto.FLOAT, [1], [0.5])),
        helper.make_node("Where", ["no_f", "half", "f"], ["some_f"]),
    ]
    terms = ["d"]
    for source, factor in (("l", 100.0), ("b", 1000.0), ("is_x", 10000.0), ("some_f", 1.0)):
        nodes += [
            helper.make_node("Cast", [source], [f"{source}_64"], to=f64),
            helper.make_node("Constant", [], [f"{source}_k"], value=helper.make_tensor("", f64, [1], [factor])),
            helper.make_node("Mul", [f"{source}_64", f"{source}_k"], [f"{source}_term"]),
        ]
        terms.append(f"{source}_term")
    nodes.append(helper.make_node("Sum", terms, ["score"]))
    outputs: Specs = [("score", "FP64", [-1, 1])]
    for name, datatype, shape in COLUMNS:
        nodes.append(helper.make_node("Identity", [name], [f"{name}_out"]))
        outputs.append((f"{name}_out", datatype, shape))
    return write_folder(folder, nodes, COLUMNS, outputs, kind="columns", optional=("f",))


def tensor_folder(folder: Path, datatype: str = "FP32", **changes: Any) -> Path:
    """Write a model of one [-1, 3] tensor x with the outputs y = x + x and z = x."""
    double = "Identity" if datatype in {"BYTES", "BOOL", "UINT8"} else "Add"
    nodes = [
        helper.make_node(double, ["x"] if double == "Identity" else ["x", "x"], ["y"]),
        helper.make_node("Identity", ["x"], ["z"]),
    ]
    outputs: Specs = [("y", datatype, [-1, 3]), ("z", datatype, [-1, 3])]
    return write_folder(folder, nodes, [("x", datatype, [-1, 3])], outputs, **changes)


@pytest.fixture(autouse=True)
def _heard() -> Iterator[None]:
    """Let warnings through, which the command line, tried by other tests of the same process, holds back."""
    before = logging.root.manager.disable
    logging.disable(logging.NOTSET)
    yield
    logging.disable(before)


@pytest.fixture(scope="session")
def columns_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return columns_folder(tmp_path_factory.mktemp("columns") / "model")


@pytest.fixture(scope="session")
def tensor_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tensor_folder(tmp_path_factory.mktemp("tensor") / "model")


@pytest.fixture(scope="session")
def columns_model(columns_dir: Path) -> Model:
    return load_model(columns_dir)


@pytest.fixture(scope="session")
def tensor_model(tensor_dir: Path) -> Model:
    return load_model(tensor_dir)


@pytest.fixture
def make_tensor_folder(tmp_path: Path) -> Callable[..., Path]:
    def make(datatype: str = "FP32", **changes: Any) -> Path:
        return tensor_folder(tmp_path / "model", datatype, **changes)

    return make


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    def make(nodes: list[onnx.NodeProto], inputs: Specs, outputs: Specs, **changes: Any) -> Path:
        return write_folder(tmp_path / "model", nodes, inputs, outputs, **changes)

    return make


class Reply(NamedTuple):
    status: int
    json: Any
    answer: Answer


@pytest.fixture(scope="session")
def ask() -> Callable[..., Reply]:
    """Send a request straight to ``answer``. A body that is not bytes is sent as JSON."""

    def ask(model: Model, method: str, path: str, body: Any = b"", **headers: str) -> Reply:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        reply = answer(model, method, path, {"content-type": "application/json"} | names, raw)
        try:
            return Reply(reply.status, json.loads(reply.body), reply)
        except ValueError:
            return Reply(reply.status, None, reply)

    return ask


@pytest.fixture(scope="session")
def infer(ask: Callable[..., Reply]) -> Callable[..., Reply]:
    """Post a tensor ``x`` to the V2 route of the model."""

    def infer(model: Model, data: Any, shape: list[int] | None = None, datatype: str = "FP32", **more: Any) -> Reply:
        shape = list(np.shape(data)) if shape is None else shape
        body = {"inputs": [{"name": "x", "shape": shape, "datatype": datatype, "data": data}]} | more
        return ask(model, "POST", f"/v2/models/{model.name}/infer", body)

    return infer


class Running(NamedTuple):
    process: subprocess.Popen[str]
    url: str
    ready_line: str

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)


def start(folder: Path, *options: str, **kwargs: Any) -> Running:
    """Start the server on a free port as its own process and wait until it says that it is ready."""
    command = [sys.executable, "-m", "modelrel.serving", str(folder), "--port", "0", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **kwargs)
    assert process.stderr is not None
    readable, _, _ = select.select([process.stderr], [], [], 120)
    line = process.stderr.readline() if readable else ""
    if " on http" not in line:
        process.kill()
        raise AssertionError(f"the server did not start: {line}{process.stderr.read()}")
    return Running(process, line.split()[-1], line)


@pytest.fixture
def start_server() -> Iterator[Callable[..., Running]]:
    """Start servers that are stopped when the test ends."""
    started: list[Running] = []

    def start_one(folder: Path, *options: str, **kwargs: Any) -> Running:
        started.append(start(folder, *options, **kwargs))
        return started[-1]

    yield start_one
    for running in started:
        running.process.kill()
        running.process.communicate()


@pytest.fixture(scope="session")
def tensor_server(tensor_dir: Path) -> Iterator[Running]:
    running = start(tensor_dir, "--max-body", "100000")
    yield running
    running.process.kill()
    running.process.communicate()


@pytest.fixture(scope="session")
def columns_server(columns_dir: Path) -> Iterator[Running]:
    running = start(columns_dir)
    yield running
    running.process.kill()
    running.process.communicate()


@pytest.fixture(scope="session")
def client(tensor_server: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=tensor_server.url, timeout=10) as client:
        yield client


@pytest.fixture
def bare_environment() -> dict[str, str]:
    """The environment of a container that sets nothing: no HOME, no port, no model folder."""
    gone = {"HOME", "PORT", "AIP_HTTP_PORT", "MODELREL_MODEL_DIR"}
    return {name: value for name, value in os.environ.items() if name not in gone}
