"""Where this server is meant to answer otherwise than MLflow's own: every line of the list in ``invocations``, and no
more. MLflow's answer stands beside ours, so that a difference that is gone is noticed."""

import io
import json
import logging
import re
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from onnx import helper

from modelrel.serving import VERSION, answer, invocations, load_model
from modelrel.serving.answers import Refused
from modelrel.serving.parquet_tables import MOST_TEXT, MOST_VALUES
from tests.serving.csv_bodies import CSV_DIFFERENCES, ROW, table
from tests.serving.parquet_bodies import PARQUET_DIFFERENCES, parquet
from tests.serving.scoring import as_bytes, columns_scorer, ours, scorer
from tests.serving.tables import DIFFERENCES, inputs
from tests.serving.tables import ROW as VALUES

mlflow = pytest.importorskip("mlflow")

CSV = "text/csv"
PARQUET = "application/vnd.apache.parquet"
REFUSED = (
    {name: (as_bytes(body), "application/json", reason) for name, (body, reason) in DIFFERENCES.items()}
    | {f"CSV, {name}": (body.encode(), CSV, reason) for name, (body, reason) in CSV_DIFFERENCES.items()}
    | {f"Parquet, {name}": (body, PARQUET, reason) for name, (body, reason) in PARQUET_DIFFERENCES.items()}
)


@pytest.fixture(scope="module", autouse=True)
def quiet():
    logging.getLogger("mlflow").setLevel(logging.ERROR)


@pytest.fixture(scope="module")
def mlflow_columns(tmp_path_factory, columns_dir):
    return columns_scorer(tmp_path_factory.mktemp("mlflow") / "columns", columns_dir)


@pytest.mark.parametrize("name", REFUSED)
def test_what_mlflow_takes_and_this_server_refuses(columns_model, mlflow_columns, name):
    body, content_type, reason = REFUSED[name]
    headers = {"content-type": content_type}
    assert ours(columns_model, body, **headers)[0] == 400
    # What MLflow hands on as it is may fail in the graph; MLflow itself had no objection.
    status, code = mlflow_columns(body, **headers)
    assert status == 200 or (reason in ("no text", "no truth", "no rows") and code == "BAD_REQUEST")


def deep(columns, theirs):
    body = b'{"inputs": ' + b"[" * 100_000
    assert ours(columns, body)[0] == 400
    assert theirs(body)[0] == 500


def untyped(columns, theirs):
    body = as_bytes(inputs(VALUES))
    assert answer(columns, "POST", "/invocations", {}, body).status == 415
    assert theirs.ask("POST", "/invocations", body, {}).status_code == 500


def refusals(columns, theirs):
    for method, path, content_type, status in (
        ("POST", "/invocations", "text/plain", 415),
        ("GET", "/invocations", "text/plain", 405),
        ("GET", "/nothing", "text/plain", 404),
        ("POST", "/invocations", "application/json", 400),
    ):
        headers = {"content-type": content_type}
        mine, other = answer(columns, method, path, headers, b"{"), theirs.ask(method, path, b"{", headers)
        assert (mine.status, other.status_code) == (status, status)
        said = json.loads(mine.body)
        assert set(said) == ({"error"} if status == 404 else {"error", "error_code", "message"})
        assert "Traceback" not in mine.body.decode()


def left_out(columns, theirs):
    optional = as_bytes(inputs([*VALUES[:4], None])).replace(b', "f": [null]', b"")
    assert ours(columns, optional) == theirs(optional) == (200, {"predictions": [[11202.0]]})  # NaN counts as 0.5 there


def too_large(columns, theirs):
    for rows, text in ((MOST_VALUES // 5 + 1, "x"), (MOST_TEXT // 2**16 + 1, "x" * 2**16)):
        written = io.BytesIO()
        values = {"d": 1.5, "l": 2, "s": text, "b": True, "f": pa.scalar(1, pa.float32())}
        pq.write_table(pa.table({name: pa.repeat(value, rows) for name, value in values.items()}), written)
        assert len(written.getvalue()) < 2**18
        assert ours(columns, written.getvalue(), **{"content-type": PARQUET})[0] == 413


def header(columns, theirs):
    body, headers = ROW.encode(), {"content-type": "text/csv; header=absent"}
    assert ours(columns, body, **headers) == ours(columns, table(ROW).encode(), **{"content-type": CSV})
    assert theirs(body, **headers)[0] == 415
    present = {"content-type": "text/csv; charset=utf-8; header=present"}
    assert ours(columns, table(ROW).encode(), **present)[0] == 200
    assert ours(columns, b"1.5,2,x,True\n", **headers)[0] == 400
    assert ours(columns, body, **{"content-type": "application/json; header=absent"})[0] == 415


def accept(columns, theirs):
    body, headers = table(ROW, "2,3,y,False,").encode(), {"content-type": CSV, "accept": "text/csv"}
    mine = answer(columns, "POST", "/invocations", headers, body)
    assert (mine.status, mine.body) == (200, b"11201.75\n302.5\n")
    assert theirs.ask("POST", "/invocations", body, headers).json() == {"predictions": [[11201.75], [302.5]]}
    for other in ("*/*", "text/csv, application/json", "text/csv;q=0.5, application/json", "application/json"):
        assert answer(columns, "POST", "/invocations", headers | {"accept": other}, body).body.startswith(b"{")


def version(columns, theirs):
    assert answer(columns, "GET", "/version", {}, b"").body.decode() == VERSION
    assert theirs.ask("GET", "/version", b"", {}).text == mlflow.__version__
    for path in ("/ping", "/health"):  # these are the same
        assert answer(columns, "GET", path, {}, b"").body == theirs.ask("GET", path, b"", {}).content == b"\n"


SHOWN = {
    "nested too deeply": deep,
    "no content type": untyped,
    "refusals": refusals,
    "left out": left_out,
    "too large": too_large,
    "header": header,
    "accept": accept,
    "version": version,
}


@pytest.mark.parametrize("name", SHOWN)
def test_what_this_server_answers_otherwise_than_mlflow(columns_model, mlflow_columns, name):
    SHOWN[name](columns_model, mlflow_columns)


@pytest.fixture(scope="module")
def mlflow_tensor(tmp_path_factory):
    """MLflow's scorer of what the model of one tensor in conftest.py does."""
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    class Twice(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input, params=None):
            return model_input + model_input

    signature = ModelSignature(Schema([TensorSpec(np.dtype("float32"), (-1, 3))]))
    return scorer(tmp_path_factory.mktemp("mlflow") / "tensor", python_model=Twice(), signature=signature)


def test_a_csv_is_a_tensor_here_and_nothing_to_mlflow(tensor_model, mlflow_tensor):
    expected = (200, {"predictions": [[2.0, 4.0, 6.0], [8.0, 10.0, 0.5]]})
    for body, header in ((b"a,b,c\n1,2,3\n4,5,.25\n", "present"), (b"1,2,3\n4,5,.25", "absent")):
        assert ours(tensor_model, body, **{"content-type": f"text/csv; header={header}"}) == expected
    assert ours(tensor_model, b"a,b\n1,2\n", **{"content-type": CSV}) == (400, "INVALID_PARAMETER_VALUE")
    assert mlflow_tensor(b"a,b,c\n1,2,3\n", **{"content-type": CSV})[0] == 400


def test_lists_in_parquet_are_tensors_to_mlflow_and_refused_here(tensor_model, mlflow_tensor):
    body = parquet(("a", list(np.ones((2, 3), "f4")), None))
    assert mlflow_tensor(body, **{"content-type": PARQUET})[0] == 200
    assert ours(tensor_model, body, **{"content-type": PARQUET})[0] == 400


def test_several_tensors_are_the_columns_of_a_csv_by_their_names(make_folder):
    add = helper.make_node("Add", ["p", "q"], ["y"])
    model = load_model(make_folder([add], [("p", "FP32", [-1]), ("q", "FP32", [-1])], [("y", "FP32", [-1])]))
    assert ours(model, b"q,other,p\n1,x,2\n3,,4\n", **{"content-type": CSV})[1] == {"predictions": [3.0, 7.0]}
    assert ours(model, b"1,2\n3,4\n", **{"content-type": "text/csv; header=absent"})[1] == {"predictions": [3.0, 7.0]}
    assert ours(model, b"q\n1\n", **{"content-type": CSV}) == (400, "INVALID_PARAMETER_VALUE")


def test_a_parquet_table_is_a_tensor_as_it_is_to_mlflow(tensor_model, mlflow_tensor):
    rows = np.array([[1, 2, 3], [4, 5, 6]])
    bodies = {
        dtype: parquet(*((name, values, dtype) for name, values in zip("abc", rows.T, strict=True)))
        for dtype in ("f4", "f8", "i4", "i8", "?")
    }
    bodies["short lists"] = parquet(("a", list(rows[:, :2].astype("f4")), None))
    bodies["ragged lists"] = parquet(("a", [[1.0], [1.0, 2.0]], None))
    bodies["numbers"] = parquet(("a", [1.0, 2.0], "f4"))
    bodies["two columns"] = parquet(("a", [1, 2], "f4"), ("b", [1, 2], "f4"))
    bodies["words"] = parquet(*((name, ["x", "y"], None) for name in "abc"))
    statuses = set()
    for name, body in bodies.items():
        mine = ours(tensor_model, body, **{"content-type": PARQUET})
        assert mine == mlflow_tensor(body, **{"content-type": PARQUET}), name
        statuses.add(mine[0])
    assert statuses == {200, 400}


def test_a_model_that_fails_is_the_client_s_fault_to_mlflow_and_not_here(make_folder, tmp_path):
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    class Tenth(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input, params=None):
            return np.arange(10)[model_input["at"].to_numpy()]

    theirs = scorer(
        tmp_path / "mlflow", python_model=Tenth(), signature=ModelSignature(Schema([ColSpec("long", "at")]))
    )
    ten = helper.make_node("Constant", [], ["ten"], value_ints=list(range(10)))
    gather = helper.make_node("Gather", ["ten", "at"], ["y"])
    column = ("at", "INT64", [-1, 1])
    model = load_model(make_folder([ten, gather], [column], [("y", *column[1:])], kind="columns"))
    right, wrong = (as_bytes({"inputs": {"at": [at]}}) for at in (7, 70))
    assert ours(model, right)[1] == {"predictions": [[7]]}
    assert theirs(right)[1] == {"predictions": [7]}
    assert ours(model, wrong) == (500, "INTERNAL_ERROR")
    assert theirs(wrong) == (400, "BAD_REQUEST")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 429, 499, 500, 501, 503, 504])
def test_a_status_is_called_what_mlflow_calls_it(status):
    said = json.loads(invocations.failure(Refused(status, "no")).body)
    assert said["error_code"] == mlflow.exceptions.HTTP_STATUS_TO_ERROR_CODE[status]


def test_an_optional_integer_that_is_left_out_is_nothing_a_tensor_can_hold(make_folder, tmp_path):
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    class Size(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input, params=None):
            return [model_input.shape[1]]

    signature = ModelSignature(Schema([ColSpec("double", "d"), ColSpec("long", "l", required=False)]))
    theirs = scorer(tmp_path / "mlflow", python_model=Size(), signature=signature)
    nodes = [helper.make_node("Cast", ["l"], ["as_d"], to=11), helper.make_node("Add", ["d", "as_d"], ["y"])]
    specs = [("d", "FP64", [-1, 1]), ("l", "INT64", [-1, 1])]
    model = load_model(make_folder(nodes, specs, [("y", "FP64", [-1, 1])], kind="columns", optional=("l",)))
    for body, content_type in ((b'{"inputs": {"d": [1.5]}}', "application/json"), (b"d\n1.5\n", CSV)):
        assert theirs(body, **{"content-type": content_type}) == (200, {"predictions": [1]})
        assert ours(model, body, **{"content-type": content_type})[0] == 400


def test_a_server_without_pyarrow_says_which_command_adds_it(columns_model, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    reply = answer(columns_model, "POST", "/invocations", {"content-type": PARQUET}, b"PAR1")
    assert reply.status == 415
    assert b"pip install pyarrow" in reply.body


def test_every_difference_is_listed_and_shown():
    listed = set(re.findall(r"^\* ([^:]+):", invocations.__doc__, re.MULTILINE))
    above = {"tables for tensors", "lists", "a model that fails", "no pyarrow"}
    assert listed == {reason for _, _, reason in REFUSED.values()} | SHOWN.keys() | above
