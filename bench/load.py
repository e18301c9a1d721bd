"""Load on the reference server and its peers, in one run: requests per second and the slowest of a hundred.

``python bench/load.py`` puts a linear model, a forest of 100 trees and a small convolutional net (ONNX and TFLite)
under wrk at 1, 16 and 64 connections, as JSON and as binary tensors, 1 and 100 rows, and one image of 224 x 224 x 3;
beside a bare ASGI handler that checks nothing (bench/bare.py), MLServer, ``mlflow models serve`` and BentoML. It prints
a table and writes it to bench/results/. Needed: wrk on PATH; the peers are installed once, by uv, into bench/.venvs/.

Each server runs as its own process, answers rightly before it is measured, and is stopped before the next model's are
started; all servers of one model are up while one of them is under load. A load counts only if every answer was 2xx.
"""

from __future__ import annotations

import argparse
import datetime as dt
import http.client
import json
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Callable
from math import nan
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import peers
import served
from peers import Body, Load, Server

CONNECTIONS = (1, 16, 64)
MLSERVER = ("mlserver==1.7.1", "mlserver-sklearn==1.7.1", "uvloop<0.22")
PEERS = ("mlserver", "mlflow", "bentoml")
JSON = {"Content-Type": "application/json"}


def right(trained: served.Trained, rows: int, read: Callable[[Any], Any]) -> Callable[[bytes, Any], bool]:
    """Return what compares the numbers of a JSON answer with those of the model."""

    def compared(content: bytes, _headers: http.client.HTTPMessage) -> bool:
        found = np.asarray(read(json.loads(content)), np.float64).reshape(trained.expected[:rows].shape)
        return bool(np.allclose(found, trained.expected[:rows], atol=1e-4))

    return compared


def listed(rows: Any) -> Any:
    """Return rows as nested lists of the shortest numbers that are the same FP32."""
    return [listed(row) for row in rows] if rows.ndim > 1 else [float(str(value)) for value in rows]


def v2_json(trained: served.Trained, name: str, rows: int) -> Body:
    sent = trained.rows[:rows]
    tensor = {"name": name, "shape": list(sent.shape), "datatype": "FP32", "data": listed(sent)}
    content = json.dumps({"inputs": [tensor]}).encode()
    return Body(content, JSON, right(trained, rows, lambda answer: answer["outputs"][0]["data"]))


def v2_binary(trained: served.Trained, name: str, rows: int) -> Body:
    sent = np.ascontiguousarray(trained.rows[:rows])
    tensor = {
        "name": name,
        "shape": list(sent.shape),
        "datatype": "FP32",
        "parameters": {"binary_data_size": sent.nbytes},
    }
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    expected = trained.expected[:rows]

    def compared(content: bytes, headers: http.client.HTTPMessage) -> bool:
        length = int(headers["Inference-Header-Content-Length"])
        first = json.loads(content[:length])["outputs"][0]
        kind = {"INT64": np.int64, "FP32": np.float32}[first["datatype"]]
        found = np.frombuffer(content, kind, first["parameters"]["binary_data_size"] // kind().itemsize, length)
        return bool(np.allclose(found.reshape(expected.shape), expected, atol=1e-4))

    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
    return Body(head + sent.tobytes(), headers, compared)


def mlflow_json(trained: served.Trained, rows: int) -> Body:
    sent: dict[str, Any] = {"inputs": listed(trained.rows[:rows])}
    if trained.name != "convnet":
        sent = {"dataframe_split": {"columns": served.columns(trained), "data": listed(trained.rows[:rows])}}
    content = json.dumps(sent).encode()
    return Body(content, JSON, right(trained, rows, lambda answer: answer["predictions"]))


def bento_json(trained: served.Trained, rows: int) -> Body:
    content = json.dumps({"x": listed(trained.rows[:rows])}).encode()
    return Body(content, JSON, right(trained, rows, lambda answer: answer))


class Peer(NamedTuple):
    """A server of one model, and what it is sent: (form, rows)."""

    label: str
    server: Server
    forms: list[tuple[str, int]]


def servers(trained: served.Trained, work: Path, names: set[str]) -> list[Peer]:
    """Write every folder; say how each server is started and what it is sent."""
    image = trained.name == "convnet"
    sizes = (1,) if image else (1, 100)
    onnx = served.write(trained, "onnx", work / "onnx")
    infer = f"/v2/models/{trained.name}/infer"
    v2 = [(form, rows) for form in ("json", "binary") for rows in sizes]
    found = _pair("", onnx, infer, v2)
    mlflow = [("mlflow", rows) for rows in sizes]
    if image:
        tflite = served.write(trained, "tflite", work / "tflite")
        found.append(_pair(" tflite", tflite, infer, v2)[0])
        found.append(_pair("", onnx, "/invocations", mlflow)[0])
    else:
        columns = served.write(trained, "onnx", work / "columns", "columns")
        found += _pair("", columns, "/invocations", mlflow)
    if "mlserver" in names and not image:
        found.append(_mlserver(trained, work / "mlserver", infer, [("json", rows) for rows in sizes]))
    if "mlflow" in names:
        port, folder = peers.free_port(), served.write_mlflow(trained, work / "mlflow")
        command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(folder), "--env-manager", "local"]
        command += ["-h", "127.0.0.1", "-p", str(port)]
        found.append(Peer("mlflow", Server("mlflow", command, port, "/invocations"), mlflow))
    if "bentoml" in names:
        found.append(_bentoml(trained, work / "bentoml", onnx, [("json", rows) for rows in sizes]))
    return found


def _pair(what: str, folder: Path, path: str, forms: list[tuple[str, int]]) -> list[Peer]:
    """Return the reference server and the bare handler on a folder."""
    ours, bare = peers.free_port(), peers.free_port()
    served_by_us = [sys.executable, "-m", "modelrel.serving", str(folder), "--port", str(ours)]
    served_barely = [sys.executable, str(peers.HERE / "bare.py"), str(folder), str(bare)]
    return [
        Peer(f"modelrel{what}", Server("modelrel", served_by_us, ours, path), forms),
        Peer(f"bare{what}", Server("bare", served_barely, bare, path), forms),
    ]


def _mlserver(trained: served.Trained, folder: Path, path: str, forms: list[tuple[str, int]]) -> Peer:
    import sklearn

    name = f"mlserver-sklearn-{sklearn.__version__}"
    python = peers.environment(name, *MLSERVER, f"scikit-learn=={sklearn.__version__}")
    port = peers.free_port()
    served.write_mlserver(trained, folder, port)
    command = [str(python.with_name("mlserver")), "start", str(folder)]
    return Peer("mlserver", Server("mlserver", command, port, path), forms)


def _bentoml(trained: served.Trained, folder: Path, onnx: Path, forms: list[tuple[str, int]]) -> Peer:
    import sklearn

    python = peers.environment("bentoml", "bentoml>=1.4", f"scikit-learn=={sklearn.__version__}", "onnxruntime")
    port = peers.free_port()
    served.write_bentoml(trained, folder, onnx)
    command = [str(python.with_name("bentoml")), "serve", "service:Served", "--host", "127.0.0.1", "--port", str(port)]
    return Peer("bentoml", Server("bentoml", command, port, "/predict", folder), forms)


def body(trained: served.Trained, peer: Peer, form: str, rows: int) -> Body:
    """Return the request of a form that the server understands."""
    if form == "mlflow":
        return mlflow_json(trained, rows)
    if peer.label == "bentoml":
        return bento_json(trained, rows)
    name = input_name(peer)
    return (v2_json if form == "json" else v2_binary)(trained, name, rows)


def input_name(peer: Peer) -> str:
    """Return what the copy calls its input."""
    folder = next((Path(word) for word in peer.server.command if Path(word, "modelrel.json").is_file()), None)
    return str(json.loads((folder / "modelrel.json").read_text())["inputs"][0]["name"]) if folder else "x"


Figures = dict[tuple[str, str, str, int, int], list[Load]]


def measure(trained: served.Trained, options: argparse.Namespace, figures: Figures) -> None:
    """Measure all servers of a model: in rounds, so that no one has the quiet minute."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        found = servers(trained, work, set(PEERS) - set(options.without))
        running = []
        try:
            for peer in found:
                form, rows = peer.forms[0]
                process, _ = peers.start(peer.server, body(trained, peer, form, rows))
                running.append(process)
            for _ in range(options.rounds):
                for connections in options.connections:
                    for peer in found:
                        for form, rows in [one for one in peer.forms if one[0] in options.forms]:
                            sent = body(trained, peer, form, rows)
                            if not peers.asked(peer.server, sent):
                                raise SystemExit(f"{peer.label} does not answer {rows} rows as {form} rightly")
                            seen = peers.load(peer.server, sent, connections, options.seconds, work)
                            figures.setdefault((trained.name, form, peer.label, rows, connections), []).append(seen)
        finally:
            for process in running:
                peers.stop(process)


def middle(found: list[Load]) -> Load:
    """Return the median of each figure."""
    return Load(statistics.median(one.requests_per_s for one in found), statistics.median(one.p99_ms for one in found))


def show(figures: Figures, connections: list[int]) -> list[dict[str, Any]]:
    """Print the table; return its rows."""
    lines = []
    told = "".join(f"{f'req/s {count}':>12}{'p99 ms':>9}{'of bare':>9}" for count in connections)
    print(f"\n{'model':<9}{'form':<8}{'rows':>5}  {'server':<17}{told}")
    for model, form, name, rows in dict.fromkeys(key[:4] for key in figures):
        row = f"{model:<9}{form:<8}{rows:>5}  {name:<17}"
        for count in connections:
            seen = middle(figures[model, form, name, rows, count])
            limit = figures.get((model, form, "bare", rows, count))
            ratio = seen.requests_per_s / middle(limit).requests_per_s if limit else nan
            row += f"{seen.requests_per_s:>12.0f}{seen.p99_ms:>9.1f}{ratio:>9.3g}"
            line = {"model": model, "form": form, "rows": rows, "server": name, "connections": count}
            lines.append({**line, **seen._asdict(), "of_bare": ratio})
        print(row)
    return lines


def main() -> None:
    """Run everything and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3, help="of load for each measure (default: 3)")
    parser.add_argument("--rounds", type=int, default=2, help="of load; the median counts (default: 2)")
    parser.add_argument("--models", nargs="*", default=["linear", "forest", "convnet"])
    parser.add_argument("--connections", nargs="*", type=int, default=list(CONNECTIONS))
    parser.add_argument("--forms", nargs="*", default=["json", "binary", "mlflow"])
    parser.add_argument("--without", nargs="*", default=[], choices=PEERS, help="peers to leave out")
    options = parser.parse_args()
    peers.wrk_or_exit()
    figures: Figures = {}
    for name in options.models:
        measure(getattr(served, name)(), options, figures)
    lines = show(figures, options.connections)
    now = dt.datetime.now(dt.UTC)
    machine = {"python": platform.python_version(), "cores": os.cpu_count(), "seconds": options.seconds}
    target = peers.HERE / "results" / f"load-{now:%Y%m%d-%H%M%S}.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps({"when": now.isoformat(timespec="seconds"), **machine, "figures": lines}, indent=1))
    print(f"written to {target.relative_to(peers.HERE.parent)}")


if __name__ == "__main__":
    main()
