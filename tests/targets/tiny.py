"""A small verified model made by hand: a plan (text) and two numbers in, a label (text) and probabilities out."""

from __future__ import annotations

import atexit
import io
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import docker
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier

from modelrel import archive, extras, interpreters, tensors
from modelrel.delivered import Package
from modelrel.errors import Unavailable
from modelrel.measured import OutputParity, Tolerance
from modelrel.steps.convert import convert
from modelrel.steps.package import package
from modelrel.steps.verify import verify
from modelrel.targets import TARGETS, aws_lambda
from modelrel.targets.engine import Engine
from modelrel.values import (
    ConvertedModel,
    ConvertOptions,
    PackageOptions,
    ParityReport,
    Signature,
    SourceModel,
    TensorSpec,
    VerifyOptions,
)
from tests.models import logged
from tests.oci import made

BASE = os.environ.get("MODELREL_TEST_BASE_IMAGE", "")
REQUIRED = os.environ.get("MODELREL_TEST_REQUIRE", "").split(",")
DEPLOYED = f"registry.example/models/churn@sha256:{'5eed' * 16}"
"""The image that deploy files name where a test does not care which."""

INPUTS = (
    TensorSpec(name="plan", datatype="BYTES", shape=(-1, 1)),
    TensorSpec(name="calls", datatype="FP32", shape=(-1, 1)),
    TensorSpec(name="bill", datatype="FP64", shape=(-1, 1)),
)
OUTPUTS = (
    TensorSpec(name="label", datatype="BYTES", shape=(-1,)),
    TensorSpec(name="probabilities", datatype="FP32", shape=(-1, 2)),
)
ROWS = {
    "plan": np.array([["free"], ["pro"], ["free"], ["team"], ["größer"]], object),
    "calls": np.array([[0.0], [3.5], [np.nan], [12.0], [-1.0]], np.float32),
    "bill": np.array([[0.0], [19.99], [5.0], [250.5], [1e-3]]),
}


def _model() -> onnx.ModelProto:
    nodes = [
        helper.make_node("LabelEncoder", ["plan"], ["plan_number"], domain="ai.onnx.ml",
                         keys_strings=["free", "pro", "team"], values_floats=[0.0, 1.0, 2.0], default_float=-1.0),
        helper.make_node("Cast", ["bill"], ["bill_32"], to=TensorProto.FLOAT),
        helper.make_node("Concat", ["plan_number", "calls", "bill_32"], ["row"], axis=1),
        helper.make_node("IsNaN", ["row"], ["gaps"]),
        helper.make_node("Where", ["gaps", "zero", "row"], ["filled"]),
        helper.make_node("Gemm", ["filled", "weights", "bias"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
        helper.make_node("ArgMax", ["scores"], ["index"], axis=1, keepdims=0),
        helper.make_node("LabelEncoder", ["index"], ["label"], domain="ai.onnx.ml",
                         keys_int64s=[0, 1], values_strings=["stays", "leaves"]),
    ]  # fmt: skip
    constants = [
        helper.make_tensor("zero", TensorProto.FLOAT, [], [0.0]),
        helper.make_tensor("weights", TensorProto.FLOAT, [3, 2], [0.3, -0.2, -0.4, 0.5, 0.01, -0.02]),
        helper.make_tensor("bias", TensorProto.FLOAT, [2], [0.1, -0.1]),
    ]
    types = {"BYTES": TensorProto.STRING, "FP32": TensorProto.FLOAT, "FP64": TensorProto.DOUBLE}

    def ports(specs: tuple[TensorSpec, ...]) -> list[onnx.ValueInfoProto]:
        return [
            helper.make_tensor_value_info(
                spec.name, types[spec.datatype], ["N" if size < 0 else size for size in spec.shape]
            )
            for spec in specs
        ]

    graph = helper.make_graph(nodes, "churn", ports(INPUTS), ports(OUTPUTS), constants)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    onnx.checker.check_model(model)
    return model


def verified(folder: Path, *, name: str = "churn", version: str = "7", more: str = "") -> ParityReport:
    """Lay out a release folder as `verify` leaves it, and return the report; `more` stands in the MLmodel file, too."""
    onnx_dir, source_dir = folder / "onnx", folder / "source"
    onnx_dir.mkdir(parents=True)
    source_dir.mkdir()
    text = f"utc_time_created: '2026-05-04 03:02:01.123456'\nflavors: {{}}\nrun_id: {'ab12' * 8}\n{more}"
    (source_dir / "MLmodel").write_text(text)
    onnx.save(_model(), str(onnx_dir / "model.onnx"))
    session = onnxruntime.InferenceSession(str(onnx_dir / "model.onnx"), providers=["CPUExecutionProvider"])
    answers = dict(zip([spec.name for spec in OUTPUTS], session.run(None, ROWS), strict=True))
    golden = {
        "inputs": {key: tensors.plain(value) for key, value in ROWS.items()},
        "outputs": {key: tensors.plain(np.asarray(value)) for key, value in answers.items()},
    }
    (onnx_dir / "golden.json").write_text(json.dumps(golden))
    manifest = {
        "schema": 1, "name": name, "version": version or "1", "format": "onnx", "file": "model.onnx",
        "kind": "columns", "predict": "label", "classes": ["stays", "leaves"], "golden": "golden.json",
        "metadata": {}, "inputs": [_plain(spec) for spec in INPUTS], "outputs": [_plain(spec) for spec in OUTPUTS],
    }  # fmt: skip
    (onnx_dir / "modelrel.json").write_text(json.dumps(manifest))
    return _report(folder, name, version)


def _plain(spec: TensorSpec) -> dict[str, object]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape), "required": True}


def _report(folder: Path, name: str, version: str) -> ParityReport:
    def described(file: str) -> archive.File:
        return archive.describe(folder / file, folder)

    source = SourceModel(
        folder=folder, name=name, version=version, uri=f"models:/{name}/{version}", registry="sqlite",
        flavor="sklearn", flavors=("sklearn", "python_function"), run_id="ab12" * 8, git_commit="c0ffee" * 6 + "c0ff",
        signature=Signature(kind="columns", inputs=INPUTS), files=(described("source/MLmodel"),),
    )  # fmt: skip
    converted = ConvertedModel(
        source=source, format="onnx", file=described("onnx/model.onnx"), inputs=INPUTS, outputs=OUTPUTS,
        predict="label", classes=("stays", "leaves"),
    )  # fmt: skip
    output = OutputParity(
        name="probabilities", datatype="FP32", rows=1000, disagreements=0, max_abs_error=1.5e-7, max_rel_error=1e-6,
        worst_row=1, worst_source="generated", worst_input={}, worst_original=0.5, worst_copy=0.5,
    )  # fmt: skip
    return ParityReport(
        converted=converted, tolerance=Tolerance(), rows=1000, sources={"generated": 1000}, batch_sizes=(1, 2, 1000),
        outputs=(output,), batch_max_abs_error=0.0, original_us_per_row=100.0, copy_us_per_row=1.0,
        golden=described("onnx/golden.json"), manifest=described("onnx/modelrel.json"),
        tools=extras.versions("onnxruntime", "numpy"),
    )  # fmt: skip


def remember(parity: ParityReport, **changes: object) -> ParityReport:
    """Return the report with the digests of its files taken anew, after a test has changed them."""
    folder = parity.source.folder
    fresh = {name: archive.describe(folder / getattr(parity, name).path, folder) for name in ("golden", "manifest")}
    return replace(parity, **{**fresh, **changes})


@cache
def saved_base() -> Path:
    """Return the base image of the engine tests as `docker save` writes it."""
    path = place() / "saved.tar"
    with engine() as client, path.open("wb") as stream:
        for chunk in client.images.get(base_image()).save(named=True):
            stream.write(chunk)
    return path


def tool(name: str) -> str:
    """Return a program that tests ask for a judgement; without it the test is skipped, or fails in CI."""
    return shutil.which(name) or absent(name, f"{name} is not installed here")


def unpacked(image: Path, into: Path, platform: str = "linux/amd64") -> Path:
    """Unpack the layers of an image in a tar, one over the other, by Python's own tarfile; return the folder."""
    with tarfile.open(image) as tar:

        def content(name: str) -> bytes:
            found = tar.extractfile(name)
            assert found is not None
            return found.read()

        def blob(part: dict[str, Any]) -> bytes:
            return content(f"blobs/{part['digest'].replace(':', '/')}")

        listed = json.loads(content("index.json"))["manifests"]
        manifest = json.loads(blob(listed[0]))
        if "manifests" in manifest:
            chosen = platform.split("/")[1]
            manifest = json.loads(
                blob(next(one for one in manifest["manifests"] if one["platform"]["architecture"] == chosen))
            )
        for part in manifest["layers"]:
            with tarfile.open(fileobj=io.BytesIO(blob(part))) as layer:
                entries = [entry for entry in layer if entry.isreg() or entry.isdir()]
                layer.extractall(into, entries, filter="data")
    return into


@cache
def place() -> Path:
    """Return a folder for what many tests of this run share."""
    folder = Path(tempfile.mkdtemp(prefix="modelrel-test-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def delivered(target: str, *, image: bool = False, python: str = "") -> Package:
    """Return the small model, packaged (once per run); `image` asks for one built on the base image."""
    # the skip for a missing engine comes before anything is laid out
    options = image_options() if image else offered(target, render_only=True, python=python, image=DEPLOYED)
    folder = place() / f"{target}-{image}-{python}"
    return package(fitting(target, folder), target, options)


def offered(target: str, **wanted: Any) -> PackageOptions:
    """Return those of the options that a target takes; what writes an image builds on one that is at hand."""
    takes = TARGETS[target].OPTIONS
    if "base_image" in takes and not ("render_only" in takes and wanted.get("render_only")):
        wanted = {"base_image": str(made_base()), **wanted}
    return PackageOptions(**{name: value for name, value in wanted.items() if name in takes})


@cache
def made_base() -> Path:
    """Return the layout of a small base image for both processors, with nothing that runs in it."""
    return made.base(place() / "base")


def fitting(target: str, folder: Path) -> ParityReport:
    """Return a small verified model in the format that a target delivers, laid out in `folder`."""
    if TARGETS[target].FORMATS[0] == "onnx":
        return verified(folder)
    made = phone()
    shutil.copytree(made.source.folder, folder)
    source = replace(made.source, folder=folder)
    return replace(made, converted=replace(made.converted, source=source))


def plain(target: str) -> PackageOptions:
    """Return options that leave nothing to this machine."""
    return offered(target, render_only=True, platform="linux/amd64", python="3.13", image=DEPLOYED)


@cache
def phone() -> ParityReport:
    """Return a forest of three classes of text, converted to TFLite and verified by the steps themselves."""
    rows, kinds = load_iris(return_X_y=True)
    named = np.array(["setosa", "versicolor", "größte"])[kinds]
    model = RandomForestClassifier(5, random_state=0).fit(rows.astype(np.float32), named)
    source = logged(model, rows.astype(np.float32), place() / "phone")
    return verify(convert(source, "tflite", ConvertOptions()), VerifyOptions(rows=200, budget=60.0))


def image_options(**changes: object) -> PackageOptions:
    """Return options that build on the base image, for the Python it holds."""
    base = base_image()
    with engine() as client:
        stated = dict(line.split("=", 1) for line in client.images.get(base).attrs["Config"]["Env"])
    python = ".".join(stated["PYTHON_VERSION"].split(".")[:2])
    return replace(PackageOptions(base_image=base, python=python), **changes)


@contextmanager
def engine() -> Iterator[Any]:
    """Give the Docker SDK's client of the engine that answers."""
    client = docker.from_env()
    try:
        yield client
    finally:
        client.close()


def lambda_python() -> str:
    """Return the newest Python that both AWS Lambda and this machine have; without one the test is skipped."""
    found = [python for python in reversed(aws_lambda.PYTHONS) if interpreters.find(python)]
    return found[0] if found else absent("lambda", "this machine has none of the Pythons that AWS Lambda has")


@cache
def base_image() -> str:
    """Return the base image that the engine tests build on; without one the test is skipped, or fails in CI."""
    if not BASE:
        return absent("docker", "MODELREL_TEST_BASE_IMAGE names no base image (see .ci/docker.sh)")
    try:
        Engine.connect().__exit__(None, None, None)
    except Unavailable as error:
        return absent("docker", error.message)
    return BASE


def absent(what: str, reason: str) -> str:
    """Skip a test for what is not there; fail where MODELREL_TEST_REQUIRE says that it must be."""
    if what in REQUIRED:
        pytest.fail(f"{reason}, and MODELREL_TEST_REQUIRE asks for it")
    pytest.skip(reason)
