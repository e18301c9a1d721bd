"""The same bytes to MLflow's own scoring server and to this one: the same status, and the same predictions.

MLflow is ``mlflow.pyfunc.scoring_server.init`` around a pyfunc model, in this process. For the casts, its model hands
what schema enforcement made of the request to the very ONNX graph that is served here, whose one number tells every
value it got; for the real thing, it is the scikit-learn forest that the served graph was converted from.

Where the two are meant to differ, test_mlflow_differences.py shows both.
"""

import json
import logging
import random

import numpy as np
import pandas as pd
import pytest

from modelrel.serving import VERSION, load_model
from tests.serving.scoring import as_bytes, assert_same, columns_scorer, ours, scorer, written_by_skl2onnx
from tests.serving.tables import COLUMNS, ROW, TENSORS, inputs, instances, records, rows_of_inputs, split

pytest.importorskip("mlflow")


@pytest.fixture(scope="module", autouse=True)
def quiet():
    logging.getLogger("mlflow").setLevel(logging.ERROR)


@pytest.fixture(scope="module")
def mlflow_columns(tmp_path_factory, columns_dir):
    return columns_scorer(tmp_path_factory.mktemp("mlflow") / "columns", columns_dir)


@pytest.mark.parametrize("name", COLUMNS)
def test_a_request_to_a_model_of_columns_is_answered_as_mlflow_answers_it(columns_model, mlflow_columns, name):
    body = as_bytes(COLUMNS[name])
    assert_same(ours(columns_model, body), mlflow_columns(body))


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
    assert_same(ours(columns_model, body, **headers), mlflow_columns(body, **headers))


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
    written_by_skl2onnx(trained, served / "model.onnx")
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


def test_mlflow_s_own_client_is_answered_by_a_server_as_it_comes(columns_dir, start_server):
    from mlflow.pyfunc.scoring_server.client import ScoringServerClient

    running = start_server(columns_dir)
    client = ScoringServerClient("127.0.0.1", running.port)
    client.wait_server_ready(scoring_server_proc=running.process)
    assert client.get_version() == VERSION
    table = pd.DataFrame([ROW, [2.5, 3, "y", False, None]], columns=list("dlsbf"), index=[7, 8])
    assert client.invoke(table).get_predictions().to_numpy().tolist() == [[11201.75], [303.0]]
    with pytest.raises(Exception, match=r"error code 400.*'l'"):
        client.invoke(table.drop(columns="l"))


def test_mlflow_s_own_client_may_send_a_tensor(tensor_server):
    from mlflow.pyfunc.scoring_server.client import ScoringServerClient

    reply = ScoringServerClient("127.0.0.1", tensor_server.port).invoke(np.array([[1, 2, 3]], np.float32))
    assert reply.get_predictions().to_numpy().tolist() == [[2, 4, 6]]
