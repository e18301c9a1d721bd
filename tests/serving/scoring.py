"""MLflow's own scoring server in this process, and the comparison of its answers with this server's."""

import asyncio
import json
import math
import pickle
import subprocess
import sys

import httpx
import numpy as np

from modelrel.serving import answer


def scorer(path, **model):
    """Save a model with MLflow and return a function that sends bytes to its scoring server.

    Its ``ask`` sends any request, and returns the whole answer.
    """
    import mlflow
    from mlflow.pyfunc import scoring_server

    save = mlflow.sklearn.save_model if "sk_model" in model else mlflow.pyfunc.save_model
    save(path=str(path), pip_requirements=[], **model)
    app = scoring_server.init(mlflow.pyfunc.load_model(str(path)))

    async def send(method, path, body, headers):
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://mlflow") as client:
            return await client.request(method, path, content=body, headers=headers)

    def score(body, **headers):
        reply = score.ask("POST", "/invocations", body, {"content-type": "application/json"} | headers)
        said = reply.json() if reply.headers["content-type"] == "application/json" else {}
        return reply.status_code, said if reply.status_code == 200 else said.get("error_code")

    score.ask = lambda *request: asyncio.run(send(*request))
    return score


def columns_scorer(path, columns_dir):
    """Return MLflow's scorer of the model of five columns in conftest.py; it runs the same graph."""
    import mlflow
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
    return scorer(path, python_model=Scores(), artifacts={"folder": str(columns_dir)}, signature=ModelSignature(schema))


def as_bytes(body):
    return body if isinstance(body, bytes) else json.dumps(body).encode()


def ours(model, body, **headers):
    reply = answer(model, "POST", "/invocations", {"content-type": "application/json"} | headers, body)
    said = json.loads(reply.body)
    return reply.status, said if reply.status == 200 else said["error_code"]


def same(left, right):
    """Compare JSON values; unlike ==, NaN is NaN and 1 is not 1.0."""
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float) and isinstance(right, float) and math.isnan(left):
        return math.isnan(right)
    return type(left) is type(right) and left == right


def assert_same(mine, theirs):
    assert mine[0] == theirs[0], (mine, theirs)
    if mine[0] == 400:
        assert mine[1] == theirs[1], (mine, theirs)
    elif mine[0] == 200:
        assert same(mine[1]["predictions"], theirs[1]["predictions"]), (mine, theirs)


def written_by_skl2onnx(trained, path):
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
