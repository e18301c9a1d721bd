"""Answers that are kept: for exactly the same, of the same loaded model, and no more than fit."""

import asyncio
import gc
import json
import weakref

import numpy as np
import pytest
from onnx import helper

from modelrel.serving import load_model
from modelrel.serving.caching import Cache, key_of
from modelrel.serving.calls import Call
from modelrel.serving.engine import Engine, Stats
from modelrel.serving.models import Models
from modelrel.serving.options import defaults

from .conftest import tensor_folder, write_folder

INFER = "/v2/models/churn/infer"


def call(model, x, outputs=("y",), params=None):
    return Call(model, list(outputs), {"x": np.asarray(x)}, None, params=params)


def engine_of(model, entries=100):
    return Engine(Models.of(model), defaults(cache=entries))


def ask(engine, data, path=INFER, **more):
    rows = [data] if np.ndim(data) == 1 else data
    body = {"inputs": [{"name": "x", "shape": list(np.shape(rows)), "datatype": "FP32", "data": rows}]} | more
    answer = asyncio.run(engine.answer("POST", path, {}, json.dumps(body).encode()))
    return answer.status, json.loads(answer.body)


def counted(engine):
    return engine.stats.cache_hits, engine.stats.cache_misses


def test_the_same_request_is_computed_once_and_answered_as_often_as_it_comes(tensor_model):
    engine = engine_of(tensor_model)
    first = ask(engine, [1, 2, 3])
    assert first[0] == 200
    assert [ask(engine, [1, 2, 3]) for _ in range(3)] == [first] * 3
    assert counted(engine) == (3, 1)


def test_the_name_of_a_request_is_not_kept(tensor_model):
    engine = engine_of(tensor_model)
    assert [ask(engine, [1, 2, 3], id=name)[1]["id"] for name in ("a", "b")] == ["a", "b"]
    assert counted(engine) == (1, 1)


def test_the_same_by_another_protocol_is_the_same(tensor_model):
    engine = engine_of(tensor_model)
    ask(engine, [1, 2, 3], outputs=[{"name": "y"}])
    headers = {"content-type": "application/json"}
    answer = asyncio.run(engine.answer("POST", "/invocations", headers, b'{"inputs": [[1, 2, 3]]}'))
    assert json.loads(answer.body) == {"predictions": [[2.0, 4.0, 6.0]]}
    assert counted(engine) == (1, 1)


ONE = np.ones((1, 3), np.float32)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (ONE, ONE * 2),
        (ONE, np.ones((3, 1), np.float32)),
        (ONE, np.ones((1, 3), np.int32)),
        (ONE.view(np.int32), ONE),
        (ONE * 0, ONE * -0.0),
        (np.array(["a", "b"], object), np.array(["ab", ""], object)),
        (np.array(["a"], object), np.array([b"a"], object)),
        (np.zeros((1, 999)), np.zeros((1, 999)) + np.eye(1, 999)),
        (np.array(["a" * 999], object), np.array(["a" * 998 + "b"], object)),
    ],
)
def test_what_is_not_exactly_the_same_is_something_else(tensor_model, one, other):
    assert key_of(call(tensor_model, one)) != key_of(call(tensor_model, other))
    assert key_of(call(tensor_model, one)) == key_of(call(tensor_model, one.copy(order="F")))


def test_other_outputs_and_params_are_something_else(tensor_model):
    asked = [((), None), (("y",), None), (("z",), None), (("y", "z"), None), (("z", "y"), None)]
    asked += [(("y",), params) for params in ({"a": 1}, {"a": True}, {"a": 1.0}, {"a": "1"}, {"a": [1]}, {"b": 1})]
    assert len({key_of(call(tensor_model, ONE, *one)) for one in asked}) == len(asked)
    same = [{"a": 1, "b": 2}, {"b": 2, "a": 1}]
    assert len({key_of(call(tensor_model, ONE, params=params)) for params in same}) == 1


def test_what_cannot_be_compared_is_not_kept(tensor_model):
    cache = Cache(10, Stats())
    for odd in (call(tensor_model, ONE, params={"a": ...}), call(tensor_model, np.array(["\ud800"], object))):
        key, found = cache.look(odd)
        assert (key, found) == (None, None)
        cache.keep(key, [ONE])
    assert len(cache) == 0


def test_versions_never_share_an_answer(tmp_path):
    models = [load_model(tensor_folder(tmp_path / version, version=version)) for version in ("7", "8")]
    engine = Engine(Models.of(*models), defaults(cache=10))
    said = [ask(engine, [1, 2, 3], f"/v2/models/churn/versions/{version}/infer")[1] for version in ("7", "8")]
    assert [one["model_version"] for one in said] == ["7", "8"]
    assert counted(engine) == (0, 2)


def test_what_is_loaded_again_starts_from_nothing(tmp_path):
    folder = tensor_folder(tmp_path / "m")
    models = Models([folder])
    models.load_all()
    engine = Engine(models, defaults(cache=10))
    assert ask(engine, [1, 2, 3])[1]["outputs"][0]["data"] == [2, 4, 6]
    triple = helper.make_node("Sum", ["x", "x", "x"], ["y"])
    write_folder(folder, [triple], [("x", "FP32", [-1, 3])], [("y", "FP32", [-1, 3])])
    models.load("churn")
    assert ask(engine, [1, 2, 3])[1]["outputs"][0]["data"] == [3, 6, 9]
    assert counted(engine) == (0, 2)


def test_a_model_that_is_gone_is_not_held_by_its_answers(tmp_path):
    model = load_model(tensor_folder(tmp_path / "m"))
    cache = Cache(10, Stats())
    cache.keep(cache.look(call(model, ONE))[0], [ONE])
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None
    assert len(cache) == 1


def test_the_answer_that_was_not_asked_for_longest_goes_first(tensor_model):
    engine = engine_of(tensor_model, 2)
    for number in (1, 2, 1, 3):  # 2 makes way for 3
        ask(engine, [number] * 3)
    assert counted(engine) == (1, 3)
    ask(engine, [1] * 3)
    assert counted(engine) == (2, 3)
    ask(engine, [2] * 3)
    assert counted(engine) == (2, 4)


def test_all_answers_together_stay_within_their_bytes(tensor_model):
    cache = Cache(1000, Stats(), max_bytes=30_000)
    for number in range(50):
        key, _ = cache.look(call(tensor_model, ONE * number))
        cache.keep(key, [np.zeros(1000)])
    assert len(cache) == 3
    key, _ = cache.look(call(tensor_model, ONE * -1))
    cache.keep(key, [np.zeros(10_000)])  # one alone that would take everything
    assert len(cache) == 3
    for number in range(50):
        key, _ = cache.look(call(tensor_model, ONE * number + 100))
        cache.keep(key, [np.array(["text" * 1000], object)])
    assert len(cache) == 5
    assert cache._bytes == sum(size for _, size in cache._kept.values()) <= 30_000


def test_an_answer_that_is_kept_cannot_be_written_to(tensor_model):
    cache = Cache(10, Stats())
    one = call(tensor_model, ONE)
    batch = np.arange(6.0).reshape(2, 3)
    cache.keep(cache.look(one)[0], [np.zeros(3), batch[:1]])
    _, found = cache.look(one)
    for array in found:
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 1
    batch[:] = 9
    assert found[1].tolist() == [[0.0, 1.0, 2.0]]
    assert found[1].base is None  # it does not keep the rest of its batch in memory
    found.clear()
    assert len(cache.look(one)[1]) == 2


def test_a_failure_is_not_kept(tensor_model, monkeypatch):
    engine = engine_of(tensor_model)
    run = tensor_model._run
    monkeypatch.setattr(tensor_model, "_run", lambda *_: 1 / 0)
    assert ask(engine, [1, 2, 3])[0] == 500
    monkeypatch.setattr(tensor_model, "_run", run)
    assert ask(engine, [1, 2, 3])[0] == 200
    assert counted(engine) == (0, 2)


def test_nothing_is_kept_unless_asked(tensor_model):
    engine = engine_of(tensor_model, 0)
    assert [ask(engine, [1, 2, 3])[0] for _ in range(2)] == [200, 200]
    assert counted(engine) == (0, 0)


def test_a_large_request_on_a_thread_is_kept_too(tensor_model):
    engine = engine_of(tensor_model)
    rows = np.arange(60_000.0).reshape(-1, 3).tolist()
    first = ask(engine, rows)
    assert first[0] == 200
    assert ask(engine, rows) == first
    assert counted(engine) == (1, 1)
