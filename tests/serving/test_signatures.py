"""Several signatures of one model: folders of one name and version, each answered by its own name."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
from onnx import TensorProto, helper

from modelrel.serving import answer, load_model
from modelrel.serving.answers import MODEL_HEADER
from modelrel.serving.manifest import BrokenModel
from modelrel.serving.models import Models
from modelrel.serving.routing import Router
from tests.networks import saved, three
from tests.serving.conftest import write_folder
from tests.serving.test_traffic import engine_of, recorded

if TYPE_CHECKING:
    from collections.abc import Callable

    from modelrel.serving.engine import Engine
    from tests.conftest import Run
    from tests.serving.conftest import Running

PATH = "/v1/models/churn"


def times(folder: Path, factor: float, signature: str | None, name: str = "", **changes: Any) -> Path:
    """Write one signature: an input, named after the factor, and an output that is so many times it."""
    value = helper.make_tensor("", TensorProto.FLOAT, [], [factor])
    name = name or f"x{factor:g}"
    nodes = [
        helper.make_node("Constant", [], ["k"], value=value),
        helper.make_node("Mul", [name, "k"], [f"{name}_out"]),
    ]
    outputs = [(f"{name}_out", "FP32", [-1])]
    return write_folder(folder, nodes, [(name, "FP32", [-1])], outputs, signature=signature, **changes)


def post(router: Router, body: Any, path: str = PATH, verb: str = ":predict") -> tuple[int, Any]:
    reply = answer(router, "POST", f"{path}{verb}", {}, json.dumps(body).encode())
    return reply.status, json.loads(reply.body)


@pytest.fixture
def served(tmp_path: Path) -> Models:
    times(tmp_path / "a", 2, "double")
    times(tmp_path / "b", 1, None)
    times(tmp_path / "c", 3, "triple")
    times(tmp_path / "d", 4, "double", version="8")
    models = Models([tmp_path])
    models.load_all()
    return models


def test_a_signature_is_picked_by_name(served: Models) -> None:
    router = Router(served)
    for name, expected in (("double", 4.0), ("triple", 6.0), ("serving_default", 2.0)):
        body = {"signature_name": name, "instances": [2]}
        assert post(router, body, f"{PATH}/versions/7") == (200, {"predictions": [expected]})
    assert post(router, {"instances": [2]}, f"{PATH}/versions/7") == (200, {"predictions": [2.0]})
    assert post(router, {"signature_name": "", "inputs": [2]}, f"{PATH}/versions/7") == (200, {"outputs": [2.0]})


def test_each_signature_has_inputs_of_its_own(served: Models) -> None:
    router = Router(served)
    body = {"signature_name": "triple", "inputs": {"x3": [1, 2]}}
    assert post(router, body, f"{PATH}/versions/7") == (200, {"outputs": [3.0, 6.0]})
    status, said = post(router, body | {"signature_name": "double"}, f"{PATH}/versions/7")
    assert (status, said) == (400, {"error": "Missing named input: x2 in 'inputs' object."})


def test_an_unknown_signature_is_refused_in_every_version(served: Models) -> None:
    router = Router(served)
    expected = (400, {"error": 'Serving signature name: "triple" not found in signature def'})
    assert post(router, {"signature_name": "triple", "instances": [2]}) == expected
    assert post(router, {"signature_name": "triple", "examples": [{"x4": 2}]}, verb=":regress") == expected


def test_the_first_signature_answers_where_none_is_the_default(served: Models) -> None:
    router = Router(served)
    assert post(router, {"instances": [2]}) == (200, {"predictions": [8.0]})
    assert post(router, {"signature_name": "double", "instances": [2]}) == (200, {"predictions": [8.0]})


def test_examples_go_to_the_signature_that_they_name(served: Models) -> None:
    body = {"signature_name": "triple", "examples": [{"x3": 2.0}]}
    assert post(Router(served), body, f"{PATH}/versions/7", ":regress") == (200, {"results": [6.0]})


def test_the_metadata_lists_every_signature(served: Models) -> None:
    said = json.loads(answer(Router(served), "GET", f"{PATH}/versions/7/metadata", {}, b"").body)
    listed = said["metadata"]["signature_def"]["signature_def"]
    assert {name: list(one["inputs"]) for name, one in listed.items()} == {
        "double": ["x2"],
        "serving_default": ["x1"],
        "triple": ["x3"],
    }


def test_they_are_one_model_in_every_other_protocol(served: Models) -> None:
    router = Router(served)
    assert [state[:3] for state in served.snapshot.states] == [("churn", "7", "READY"), ("churn", "8", "READY")]
    sent = {"inputs": [{"name": "x1", "shape": [1], "datatype": "FP32", "data": [5]}]}
    status, said = post(router, sent, "/v2/models/churn/versions/7", "/infer")
    assert (status, said["outputs"][0]["data"]) == (200, [5.0])


def test_they_are_loaded_and_given_back_together(served: Models, tmp_path: Path) -> None:
    closed = []
    model = served.snapshot.endpoints["churn"].versions["7"]
    for name, one in model.signatures.items():
        one._loaded.close = lambda name=name: closed.append(name)  # type: ignore[method-assign]
    times(tmp_path / "e", 5, "fivefold")
    model.enter()
    served.load("churn")
    body = {"signature_name": "fivefold", "instances": [2]}
    assert post(Router(served), body, f"{PATH}/versions/7") == (200, {"predictions": [10.0]})
    assert closed == []
    model.leave()
    assert sorted(closed) == ["double", "serving_default", "triple"]


@pytest.fixture
def versions(tmp_path: Path) -> Path:
    """Versions 7 and 8 with the signature ``more``, and version 9 without: factors 1 and 2, 10 and 20, 100."""
    for at, (version, factor, signature) in enumerate(
        [("7", 1, None), ("7", 2, "more"), ("8", 10, None), ("8", 20, "more"), ("9", 100, None)]
    ):
        times(tmp_path / str(at), factor, signature, "x", version=version)
    return tmp_path


def asked(engine: Engine, signature: str, **headers: str) -> tuple[str, float]:
    """Return which version answered a request that names none, and its answer for 1."""
    body = json.dumps({"signature_name": signature, "instances": [1]}).encode()
    reply = asyncio.run(engine.answer("POST", f"{PATH}:predict", headers, body))
    return reply.headers[MODEL_HEADER].partition("/")[2], json.loads(reply.body)["predictions"][0]


def test_versions_share_the_requests_of_each_signature(versions: Path) -> None:
    engine = engine_of(versions, "--weight", "churn/7=1", "--weight", "churn/8=1", "--sticky", "header:user")
    found = {asked(engine, "more", user=str(user)) for user in range(40)}
    assert found == {("7", 2.0), ("8", 20.0)}
    for user in range(20):
        assert asked(engine, "more", user=str(user))[0] == asked(engine, "", user=str(user))[0]
    engine.close()


def test_a_version_without_the_signature_has_no_share_of_its_requests(versions: Path) -> None:
    engine = engine_of(versions, "--weight", "churn/8=1", "--weight", "churn/9=9", "--label", "churn/old=7")
    assert {asked(engine, "") for _ in range(40)} == {("8", 10.0), ("9", 100.0)}
    body = json.dumps({"signature_name": "more", "instances": [1]}).encode()
    for path, expected in (("", None), ("/versions/8", [20.0]), ("/labels/old", [2.0])):
        reply = asyncio.run(engine.answer("POST", f"{PATH}{path}:predict", {}, body))
        assert reply.status == (400 if expected is None else 200)
        assert json.loads(reply.body).get("predictions") == expected
    engine.close()


def test_a_shadow_computes_the_signature_that_was_asked(versions: Path) -> None:
    engine = engine_of(versions, "--weight", "churn/7=1", "--shadow", "churn/8", "--shadow", "churn/9")
    found, more = recorded(engine, "shadow")
    assert asked(engine, "more") == ("7", 2.0)
    assert more.acquire(timeout=30)
    assert asked(engine, "") == ("7", 1.0)
    for _ in range(2):
        assert more.acquire(timeout=30)
    assert [(call.model.version, results[0].tolist()) for call, results, _ in found] == [
        ("8", [20.0]),  # version 9 has no such signature
        ("8", [10.0]),
        ("9", [100.0]),
    ]
    engine.close()


def test_signatures_are_batched_and_kept_apart(versions: Path) -> None:
    engine = engine_of(versions, "--max-batch", "8", "--cache", "16")

    async def all_at_once() -> list[Any]:
        bodies = [{"signature_name": name, "instances": [1, 2]} for name in ("more", "serving_default", "more") * 4]
        path = f"{PATH}/versions/8:predict"
        return [
            json.loads(reply.body)["predictions"]
            for reply in await asyncio.gather(
                *(engine.answer("POST", path, {}, json.dumps(body).encode()) for body in bodies)
            )
        ]

    for _ in range(2):
        assert asyncio.run(all_at_once()) == [[20.0, 40.0], [10.0, 20.0], [20.0, 40.0]] * 4
    engine.close()


def test_a_signature_without_a_name_is_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(BrokenModel, match="is not a model manifest"):
        load_model(times(tmp_path, 1, ""))


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SavedModel of three signatures."""
    pytest.importorskip("tensorflow")
    module, signatures = three()
    return saved(module, tmp_path_factory.mktemp("network") / "made", signatures)


def test_signatures_of_a_saved_model_are_released_one_by_one_and_answer_as_tensorflow_does(
    network: Path, run: Run, start_server: Callable[..., Running]
) -> None:
    import tensorflow as tf

    folders = []
    for name in ("shares", "nearness"):
        done = run("convert", network, "--signature", name, "--dist", f"dist-{name}", "--json")
        assert done.code == 0, done.err
        folders.append(next(Path(f"dist-{name}").absolute().glob("*/onnx")))
    assert [json.loads((one / "modelrel.json").read_text())["signature"] for one in folders] == ["shares", "nearness"]
    running = start_server(folders[0], str(folders[1]))
    model = running.ready_line.split()[2].partition("/")[0]
    base = f"{running.url}/v1/models/{model}"

    random = np.random.default_rng(5)
    a, b = (random.normal(size=(3, 4)).astype(np.float32) for _ in range(2))
    own = tf.saved_model.load(str(network / "tf2model")).signatures
    shares = {name: array.numpy() for name, array in own["shares"](x=tf.constant(a)).items()}
    nearness = own["nearness"](a=tf.constant(a), b=tf.constant(b))["nearness"].numpy()

    body = {"signature_name": "shares", "instances": a.tolist()}
    rows = httpx.post(f"{base}:predict", json=body).raise_for_status().json()["predictions"]
    assert [row["best"] for row in rows] == shares["best"].tolist()
    np.testing.assert_allclose([row["shares"] for row in rows], shares["shares"], rtol=1e-5)

    body = {"signature_name": "nearness", "inputs": {"a": a.tolist(), "b": b.tolist()}}
    outputs = httpx.post(f"{base}:predict", json=body).raise_for_status().json()["outputs"]
    np.testing.assert_allclose(outputs, nearness, rtol=1e-5)

    unknown = httpx.post(f"{base}:predict", json=body | {"signature_name": "scores"})
    assert unknown.status_code == 400
    check_metadata(httpx.get(f"{base}/metadata").json(), own)


def check_metadata(said: Any, own: Any) -> None:
    """Compare the metadata with TensorFlow's own signatures, read by TensorFlow's own message."""
    from google.protobuf import json_format
    from tensorflow.core.protobuf import meta_graph_pb2

    listed = said["metadata"]["signature_def"]["signature_def"]
    assert sorted(listed) == ["nearness", "shares"]
    for name, definition in listed.items():
        read = json_format.ParseDict(definition, meta_graph_pb2.SignatureDef())
        for found, expected in (
            (read.inputs, own[name].structured_input_signature[1]),
            (read.outputs, own[name].structured_outputs),
        ):
            assert {
                one: (list(found[one].tensor_shape.dim), found[one].dtype) for one in found
            }.keys() == expected.keys()
            for one, spec in expected.items():
                assert found[one].dtype == spec.dtype.as_datatype_enum
                assert [dim.size for dim in found[one].tensor_shape.dim] == [size or -1 for size in spec.shape]
