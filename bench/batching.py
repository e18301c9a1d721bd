"""What computing requests together is worth: one network behind the server, with and without ``--max-batch``.

``python bench/batching.py`` serves a network of 512-2048-2048-10 (21 MB of weights, which a single row has to go
through as well as 64 rows do), asks it for one row at a time by wrk, and prints the requests per second of both servers
and their ratio, with many connections and with one. Both are up all the time, and measured by turns. Before that, both
give the same answer. Needed: wrk on PATH.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

HERE = Path(__file__).resolve().parent
SIZES = (512, 2048, 2048, 10)
PATH = "/v2/models/network/infer"


def network(folder: Path) -> Path:
    """Write the model folder of a network with random weights and ReLU."""
    chance = np.random.default_rng(0)
    nodes, weights, last = [], [], "x"
    for at, (wide, narrow) in enumerate(pairwise(SIZES)):
        weight = (chance.standard_normal((wide, narrow)) / np.sqrt(wide)).astype(np.float32)
        weights += [
            numpy_helper.from_array(weight, f"w{at}"),
            numpy_helper.from_array(np.zeros(narrow, np.float32), f"b{at}"),
        ]
        name = "y" if at == len(SIZES) - 2 else f"h{at}"
        nodes.append(helper.make_node("Gemm", [last, f"w{at}", f"b{at}"], [name if name == "y" else f"g{at}"]))
        if name != "y":
            nodes.append(helper.make_node("Relu", [f"g{at}"], [name]))
        last = name
    x, y = (
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None, size])
        for name, size in (("x", SIZES[0]), ("y", SIZES[-1]))
    )
    graph = helper.make_graph(nodes, "network", [x], [y], weights)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9), folder / "model.onnx"
    )
    manifest = {
        "schema": 1,
        "name": "network",
        "version": "1",
        "format": "onnx",
        "file": "model.onnx",
        "kind": "tensor",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, SIZES[0]]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, SIZES[-1]]}],
        "predict": "y",
    }
    (folder / "modelrel.json").write_text(json.dumps(manifest))
    return folder


def start(folder: Path, *options: str) -> tuple[subprocess.Popen[str], int]:
    """Start the server, wait until it is ready, and return its process and port."""
    command = [sys.executable, "-m", "modelrel.serving", str(folder), "--port", "0", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=HERE.parent)
    line = process.stderr.readline()
    if " on http://" not in line:
        raise SystemExit(f"the server did not start: {line}{process.stderr.read()}")
    return process, int(line.rpartition(":")[2])


def ask(port: int, body: bytes) -> list[float]:
    """Return what the server answers to one row."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", PATH, body, {"content-type": "application/json"})
    return json.loads(connection.getresponse().read())["outputs"][0]["data"]


def load(port: int, body: Path, connections: int, seconds: int) -> float:
    """Return the requests per second of wrk; every answer has to be 2xx."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", str(HERE / "post.lua")]
    printed = subprocess.run(
        [*command, f"http://127.0.0.1:{port}{PATH}"],
        env=os.environ | {"BODY": str(body)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    bad = re.search(r"Non-2xx.*|Socket errors.*", printed)
    if bad:
        raise SystemExit(f"{connections} connections: {bad[0]}")
    return float(re.search(r"Requests/sec:\s+([\d.]+)", printed)[1])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=4, help="of load for each measure (default: 4)")
    parser.add_argument("--rounds", type=int, default=3, help="of load; the median counts (default: 3)")
    parser.add_argument("--connections", type=int, nargs="*", default=[64, 1], help="at once (default: 64 1)")
    parser.add_argument("--max-batch", default="64")
    parser.add_argument("--max-wait-ms", default="2")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not on PATH; it makes the load (most systems have a package of that name)")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        network(folder)
        row = np.random.default_rng(1).standard_normal(SIZES[0]).round(4)
        body = {"inputs": [{"name": "x", "shape": [1, SIZES[0]], "datatype": "FP32", "data": row.tolist()}]}
        (folder / "body.json").write_text(json.dumps(body))
        plain, plain_port = start(folder)
        batched, batched_port = start(folder, "--max-batch", options.max_batch, "--max-wait-ms", options.max_wait_ms)
        try:
            sent = (folder / "body.json").read_bytes()
            np.testing.assert_allclose(ask(plain_port, sent), ask(batched_port, sent), rtol=1e-4, atol=1e-5)
            print(f"{'connections':>12}{'alone, req/s':>15}{'together':>12}{'ratio':>8}")
            for connections in options.connections:
                rates: dict[int, list[float]] = {plain_port: [], batched_port: []}
                for _ in range(options.rounds):
                    for port, found in rates.items():
                        found.append(load(port, folder / "body.json", connections, options.seconds))
                alone, together = (statistics.median(found) for found in rates.values())
                print(f"{connections:>12}{alone:>15.0f}{together:>12.0f}{together / alone:>8.2f}")
        finally:
            plain.terminate()
            batched.terminate()


if __name__ == "__main__":
    main()
