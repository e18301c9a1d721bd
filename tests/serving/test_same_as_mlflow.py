"""The same bytes to MLflow's own scoring server and to this one: the same status, and the same predictions.

MLflow is ``mlflow.pyfunc.scoring_server.init`` around a pyfunc model, in this process. For the casts, its model hands
what schema enforcement made of the request to the very ONNX graph that is served here, whose one number tells every
value it got; for the real thing, it is the scikit-learn forest that the served graph was converted from.

Where the two are meant to differ, the reason stands beside the request, in ``DIFFERENCES``.
"""

import asyncio
import json
import logging
import math
import pickle
import random
import subprocess
import sys

import httpx
import numpy as np
import pytest

from modelrel.serving import answer, load_model
from tests.serving.tables import COLUMNS, DIFFERENCES, ROW, TENSORS, inputs, instances, records, rows_of_inputs, split

mlflow = pytest.importorskip("mlflow")


def scorer(path, **model):
    """Save a model with MLflow and return a function that sends bytes to its scoring server."""
    from mlflow.pyfunc import scoring_server

    save = mlflow.sklearn.save_model if "sk_model" in model else mlflow.pyfunc.save_model
    save(path=str(path), pip_requirements=[], **model)
    app = scoring_server.init(mlflow.pyfunc.load_model(str(path)))

    async def post(body, headers):
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://mlflow") as client:
            return await client.post("/invocations", content=body, headers=headers)

    def score(body, **headers):
        reply = asyncio.run(post(body, {"content-type": "application/json"} | headers))
        return reply.status_code, reply.json() if reply.status_code == 200 else None

    return score


@pytest.fixture(scope="module", autouse=True)
def quiet():
    logging.getLogger("mlflow").setLevel(logging.ERROR)


@pytest.fixture(scope="module")
def mlflow_columns(tmp_path_factory, columns_dir):
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    class Scores(mlflow.pyfunc.PythonModel):
        def load_context(self, context):
            from modelrel.serving import load_model

            self.model = load_model(context.artifacts["folder"])

        def predict(self, context, model_input, params=None):
            frame = model_input if "f" in model_input else model_input.assign(f=np.float32(np.nan))
            feeds = {name: frame[name].to_numpy(object if name == "s" else None).reshape(-1, 1) for name in "dlsbf"}
            return self.model.run(["score"], feeds)[0]

    kinds = {"d": "double", "l": "long", "s": "string", "b": "boolean", "f": "float"}
    schema = Schema([ColSpec(kind, name, required=name != "f") for name, kind in kinds.items()])
    path = tmp_path_factory.mktemp("mlflow") / "columns"
    return scorer(path, python_model=Scores(), artifacts={"folder": str(columns_dir)}, signature=ModelSignature(schema))


def as_bytes(body):
    return body if isinstance(body, bytes) else json.dumps(body).encode()


def ours(model, body, **headers):
    reply = answer(model, "POST", "/invocations", {"content-type": "application/json"} | headers, body)
    return reply.status, json.loads(reply.body) if reply.status == 200 else None


def same(left, right):
    """Compare JSON values; unlike ==, NaN is NaN and 1 is not 1.0."""
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float) and isinstance(right, float) and math.isnan(left):
        return math.isnan(right)
    return type(left) is type(right) and left == right


def assert_same(mine, theirs):
    assert mine[0] == theirs[0]
    if mine[0] == 200:
        assert same(mine[1]["predictions"], theirs[1]["predictions"]), (mine, theirs)


@pytest.mark.parametrize("name", COLUMNS)
def test_a_request_to_a_model_of_columns_is_answered_as_mlflow_answers_it(columns_model, mlflow_columns, name):
    body = as_bytes(COLUMNS[name])
    assert_same(ours(columns_model, body), mlflow_columns(body))


@pytest.mark.parametrize("name", DIFFERENCES)
def test_what_mlflow_takes_and_this_server_refuses_is_listed_with_its_reason(columns_model, mlflow_columns, name):
    body = as_bytes(DIFFERENCES[name][0])
    assert ours(columns_model, body)[0] == 400
    # Some of these MLflow passes on to the model, and the graph then fails on them; MLflow itself had no objection.
    assert mlflow_columns(body)[0] == 200 or "hands the model" in DIFFERENCES[name][1]


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "application/json; charset=utf-8",
        "application/json;charset=UTF-8",
        "application/json; charset=latin1",
        "application/json; foo=1",
        "application/json;",
        "Application/JSON",
        "text/plain",
        "application/octet-stream",
    ],
)
def test_a_content_type_is_judged_as_mlflow_judges_it(columns_model, mlflow_columns, content_type):
    body = as_bytes(inputs(ROW))
    headers = {"content-type": content_type}
    assert ours(columns_model, body, **headers) == mlflow_columns(body, **headers)


NAN = float("nan")
VALUES = [None, True, False, 0, 1, -3, 2.5, -2.5, 1e6, "x", "", "7", "2.5", "nan", [1], {"a": 1}, NAN]


def random_body(random):
    """Make a frame of odd values; text columns of frames get text, for which the differences are listed above."""
    form = random.choice([split, records, instances, inputs, rows_of_inputs])
    in_frame = form in (split, records)
    plain = [value for value in VALUES if not isinstance(value, list | dict)]
    number = plain if form is rows_of_inputs else VALUES
    rows = []
    for _ in range(random.randint(1, 3)):
        row = [random.choice([1.5, random.choice(number)]), random.choice([2, random.choice(number)])]
        row.append(random.choice([value for value in plain if isinstance(value, str) or not in_frame]))
        row.append(random.choice([True, random.choice([v for v in plain if v is not None and v is not NAN])]))
        rows.append([*row, random.choice([0.25, random.choice(number)])])
    return form(*rows)


def test_random_tables_are_answered_as_mlflow_answers_them(columns_model, mlflow_columns):
    statuses = set()
    for seed in range(1000):
        body = as_bytes(random_body(random.Random(seed)))
        mine, theirs = ours(columns_model, body), mlflow_columns(body)
        assert mine[0] == theirs[0], body
        assert_same(mine, theirs)
        statuses.add(mine[0])
    assert statuses == {200, 400}


def _written_by_skl2onnx(trained, path):
    """Convert in a process of its own: the project's converters replace skl2onnx's for good where they are used."""
    given = path.with_suffix(".pkl")
    given.write_bytes(pickle.dumps(trained))
    code = (
        "import pickle, sys; import numpy as np; from skl2onnx import to_onnx;"
        "trained = pickle.load(open(sys.argv[1], 'rb')); row = np.zeros((1, 4), np.float32);"
        "content = to_onnx(trained, row, options={'zipmap': False}).SerializeToString();"
        "open(sys.argv[2], 'wb').write(content)"
    )
    subprocess.run([sys.executable, "-c", code, given, path], check=True)


@pytest.fixture(scope="module")
def forest(tmp_path_factory):
    """A forest on the iris data, kept by MLflow with a tensor signature, and converted for this server."""
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec
    from sklearn.datasets import load_iris
    from sklearn.ensemble import RandomForestClassifier

    features, classes = load_iris(return_X_y=True)
    features = features.astype(np.float32)
    trained = RandomForestClassifier(20, random_state=0).fit(features, classes)
    folder = tmp_path_factory.mktemp("forest")
    signature = ModelSignature(Schema([TensorSpec(np.dtype("float32"), (-1, 4))]))
    theirs = scorer(folder / "mlflow", sk_model=trained, signature=signature, serialization_format="cloudpickle")
    served = folder / "served"
    served.mkdir()
    _written_by_skl2onnx(trained, served / "model.onnx")
    manifest = {
        "schema": 1,
        "name": "iris",
        "version": "1",
        "format": "onnx",
        "file": "model.onnx",
        "kind": "tensor",
        "inputs": [{"name": "X", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [{"name": "label", "datatype": "INT64", "shape": [-1]}],
        "predict": "label",
        "classes": [0, 1, 2],
    }
    (served / "modelrel.json").write_text(json.dumps(manifest))
    return load_model(served), theirs, features


@pytest.mark.parametrize("name", TENSORS)
def test_a_request_to_a_converted_forest_is_answered_as_mlflow_answers_the_original(forest, name):
    model, theirs, _ = forest
    body = as_bytes(TENSORS[name])
    assert_same(ours(model, body), theirs(body))


def test_a_converted_forest_predicts_what_the_original_predicts_for_every_flower(forest):
    model, theirs, features = forest
    body = as_bytes({"inputs": features.tolist()})
    assert ours(model, body) == theirs(body)
