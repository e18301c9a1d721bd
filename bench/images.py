"""Images side by side: how long they take, cold and after the model alone has changed, their size, their first answer.

    . .ci/docker.sh && python bench/images.py

Five ways to the same answers on one base image (that of MODELREL_TEST_BASE_IMAGE, with pip added): modelrel
through the engine, modelrel itself, a Dockerfile by hand in the order people write (`COPY . .`, `pip install`), one
in the order that lets the engine's cache work, both installing the very requirements that ours locks, and the one of
`mlflow models generate-dockerfile`. Cold is without any cache (packages are fetched anew); changed is a second version
of the model, converted and verified before. Every answer is compared with the model's own.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from peers import free_port

HERE = Path(__file__).resolve().parent
WORK = HERE / "results" / "images"
BASE = "modelrel-bench-base"
NAME = "digits"
TREES = {1: 50, 2: 60}

BY_HAND = {
    "as written": ["COPY . /app/", "RUN pip install --no-cache-dir -r requirements.lock"],
    "in order": [
        "COPY requirements.lock /app/",
        "RUN pip install --no-cache-dir -r requirements.lock",
        "COPY . /app/",
    ],
}
"""The two orders of a Dockerfile written by hand."""


class Built(NamedTuple):
    """An image: its tag, the seconds it took, its bytes, its layers' digests."""

    tag: str
    seconds: float
    size: int
    layers: tuple[str, ...]


def run(*words: str | Path, **options: Any) -> str:
    """Return the standard output of a command that must succeed."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False, **options)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, words))}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout


def base() -> str:
    """Return the base image: what the tests build on, with pip, package sources and this machine's certificates."""
    given = os.environ.get("MODELREL_TEST_BASE_IMAGE") or sys.exit("name a base image: . .ci/docker.sh")
    folder = WORK / "base"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "apt").mkdir(parents=True)
    run(sys.executable, "-m", "pip", "install", "-q", "--target", folder / "pip", "pip", "setuptools", "wheel")
    for path in [Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*")]:
        if path.is_file():
            shutil.copy(path, folder / "apt" / (path.name if path.name != "sources.list" else "machine.list"))
    certificates = Path(os.environ.get("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt"))
    shutil.copy(certificates, folder / "ca-certificates.crt")
    lines = [
        f"FROM {given}",
        "COPY pip /usr/local/lib/python3.11/dist-packages/",
        "COPY apt /etc/apt/sources.list.d/",
        "COPY ca-certificates.crt /etc/ssl/certs/ca-certificates.crt",
        "ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt PIP_CERT=/etc/ssl/certs/ca-certificates.crt",
        "ENV PIP_BREAK_SYSTEM_PACKAGES=1",  # the official images have no mark against pip
        "COPY program /usr/bin/pip",
        "RUN ln -sf python3 /usr/bin/python",
    ]
    (folder / "program").write_text('#!/bin/sh\nexec python3 -m pip "$@"\n')
    (folder / "program").chmod(0o755)
    (folder / "Dockerfile").write_text("\n".join(lines) + "\n")
    run("docker", "build", "-q", "--network", "host", "-t", BASE, folder)
    return BASE


def registered(folder: Path) -> tuple[np.ndarray[Any, Any], dict[int, list[int]]]:
    """Register two versions of a model; return rows, and what each version answers."""
    import mlflow
    import xgboost
    from sklearn.datasets import load_digits

    uri = f"sqlite:///{folder / 'mlflow.db'}"
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    mlflow.create_experiment("bench", artifact_location=(folder / "artifacts").as_uri())
    mlflow.set_experiment("bench")
    rows, kinds = load_digits(return_X_y=True)
    rows = rows.astype(np.float32)
    answers = {}
    for version, trees in TREES.items():
        model = xgboost.XGBClassifier(n_estimators=trees, max_depth=4).fit(rows, kinds)
        mlflow.xgboost.log_model(model, name="model", registered_model_name=NAME, input_example=rows[:3])
        answers[version] = [int(one) for one in model.predict(rows[:5])]
    return rows[:5], answers


class Bench:
    """One run: where things are, and what was measured."""

    def __init__(self) -> None:
        shutil.rmtree(WORK, ignore_errors=True)
        WORK.mkdir(parents=True)
        self.base = base()
        print(f"base image {self.base}, {self.size(self.base) / 1e6:.0f} MB", flush=True)
        self.rows, self.answers = registered(WORK)
        self.cache = WORK / "cache"
        self.context = Path()
        for version in TREES:
            self.modelrel("convert", f"{NAME}/{version}", "--to", "onnx")
        run("docker", "save", self.base, "-o", WORK / "base.tar")

    def modelrel(self, *words: str) -> dict[str, Any]:
        """Run a command of modelrel, and return what it says."""
        shared = ["--registry", f"sqlite:///{WORK / 'mlflow.db'}", "--dist", str(WORK / "dist"), "--json", "-q"]
        environment = {**os.environ, "XDG_CACHE_HOME": str(self.cache)}
        found: dict[str, Any] = json.loads(run(sys.executable, "-m", "modelrel", *words, *shared, env=environment))
        return found

    def size(self, tag: str) -> int:
        """Return the bytes of an image, unpacked."""
        return int(run("docker", "image", "inspect", "--format", "{{.Size}}", tag))

    def seen(self, tag: str, seconds: float) -> Built:
        """Return what the engine knows of an image."""
        layers = json.loads(run("docker", "image", "inspect", "--format", "{{json .RootFS.Layers}}", tag))
        return Built(tag, seconds, self.size(tag), tuple(layers))

    def ours(self, target: str, version: int) -> Built:
        """Package with modelrel: the whole command, its start included; loading into an engine is not."""
        tag = f"modelrel-bench-{target}:{version}"
        base = self.base if target == "docker" else str(WORK / "base.tar")
        words = ["package", f"{NAME}/{version}", "--target", target, "--base-image", base, "--tag", tag]
        begun = time.perf_counter()
        said = self.modelrel(*words, *(["--builder", "engine"] if target == "docker" else []))
        seconds = time.perf_counter() - begun
        one = said["packages"][0]
        if target == "docker":
            self.context = WORK / "dist" / f"{NAME}-{version}" / one["artifact"]
        else:
            run("docker", "load", "-i", WORK / "dist" / f"{NAME}-{version}" / one["image"]["at"])
        return self.seen(tag, seconds)

    def by_hand(self, order: str, version: int, *, cold: bool) -> Built:
        """Build the Dockerfile that people write: the same server, model and requirements."""
        folder = WORK / "hand" / order.replace(" ", "-")
        shutil.rmtree(folder, ignore_errors=True)
        source = WORK / "dist" / f"{NAME}-{version}" / "onnx" / "docker" / "context"
        for name in ("serving", "model"):
            shutil.copytree(source / name, folder / name)
        shutil.copy(source / "requirements.lock", folder)
        end = ['ENTRYPOINT ["python3", "-m", "serving", "model", "--host", "0.0.0.0"]']
        (folder / "Dockerfile").write_text(
            "\n".join([f"FROM {self.base}", "WORKDIR /app", *BY_HAND[order], *end]) + "\n"
        )
        return self.built(folder, f"modelrel-bench-hand-{order.replace(' ', '-')}:{version}", cold=cold)

    def mlflow(self, version: int, *, cold: bool) -> Built:
        """Build what MLflow generates, on our base."""
        folder = WORK / "mlflow" / str(version)
        environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{WORK / 'mlflow.db'}"}
        program = Path(sys.executable).with_name("mlflow")
        words = ["models", "generate-dockerfile", "-m", f"models:/{NAME}/{version}", "--env-manager", "local"]
        run(program, *words, "-d", folder, env=environment)
        path = folder / "Dockerfile"
        lines = [f"FROM {self.base}" if line.startswith("FROM ") else line for line in path.read_text().splitlines()]
        path.write_text("\n".join(lines) + "\n")
        return self.built(folder, f"modelrel-bench-mlflow:{version}", cold=cold)

    def built(self, folder: Path, tag: str, *, cold: bool) -> Built:
        """Build a folder with the engine; cold is without its cache."""
        begun = time.perf_counter()
        run("docker", "build", "-q", "--network", "host", *(["--no-cache"] if cold else []), "-t", tag, folder)
        return self.seen(tag, time.perf_counter() - begun)

    def first_answer(self, image: Built, version: int) -> float:
        """Return the seconds from `docker run` to the first right answer by /invocations."""
        port = free_port()
        body = json.dumps({"inputs": self.rows.tolist()})
        begun = time.perf_counter()
        container = run("docker", "run", "-d", "-p", f"127.0.0.1:{port}:8080", image.tag).strip()
        try:
            while time.perf_counter() - begun < 180:
                with suppress(OSError, http.client.HTTPException, ValueError, KeyError):
                    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
                    connection.request("POST", "/invocations", body, {"content-type": "application/json"})
                    said = json.loads(connection.getresponse().read())["predictions"]
                    seconds = time.perf_counter() - begun
                    if [int(one) for one in said] != self.answers[version]:
                        sys.exit(f"{image.tag} answers {said}, not {self.answers[version]}")
                    return seconds
                time.sleep(0.02)
            sys.exit(f"{image.tag} does not answer:\n{run('docker', 'logs', container)}")
        finally:
            run("docker", "rm", "-f", container)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="ways whose name holds this text")
    only = parser.parse_args().only
    bench = Bench()
    empty = bench.size(bench.base)
    ways: dict[str, Callable[[int, bool], Built]] = {
        "modelrel docker": lambda version, _: bench.ours("docker", version),
        "modelrel oci": lambda version, _: bench.ours("oci", version),
        "by hand, as written": lambda version, cold: bench.by_hand("as written", version, cold=cold),
        "by hand, in order": lambda version, cold: bench.by_hand("in order", version, cold=cold),
        "mlflow generate-dockerfile": lambda version, cold: bench.mlflow(version, cold=cold),
    }
    lines = []
    for name, build in ways.items():
        if only not in name and name != "modelrel docker":  # whose context the others copy from
            continue
        if name.startswith("modelrel"):
            shutil.rmtree(bench.cache, ignore_errors=True)
        cold, changed = build(1, True), build(2, False)
        new = len(set(changed.layers) - set(cold.layers))
        first = [bench.first_answer(changed, 2) for _ in range(3)]
        lines.append((name, cold.seconds, changed.seconds, changed.size - empty, new, len(changed.layers), min(first)))
        added = (changed.size - empty) / 1e6
        print(
            f"{name:28} cold {cold.seconds:6.1f} s, model changed {changed.seconds:6.2f} s, adds {added:6.1f} MB,"
            f" {new} of {len(changed.layers)} layers new, first right answer after {min(first):5.2f} s",
            flush=True,
        )
    if only:
        return
    found = {line[0]: line for line in lines}
    oci, mlflow = found["modelrel oci"], found["mlflow generate-dockerfile"]
    for name in ("by hand, as written", "by hand, in order", "mlflow generate-dockerfile"):
        print(f"after a model change modelrel oci is {found[name][2] / oci[2]:.1f} times as fast as {name}")
    print(f"it adds {oci[3] / mlflow[3]:.2f} of what MLflow's adds")


if __name__ == "__main__":
    main()
