"""Requests that are computed together get what each of them would have got alone."""

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper

from modelrel.serving import load_model
from modelrel.serving.answers import Refused
from modelrel.serving.batching import Batches, may_merge
from modelrel.serving.calls import Call
from modelrel.serving.engine import Engine, Stats
from modelrel.serving.model import InferenceFailed
from modelrel.serving.models import Models
from modelrel.serving.options import defaults

from .conftest import columns_folder, write_folder


class Recorder:
    """What a model is computed by: it notes the rows of each run, and waits where it is told to."""

    def __init__(self, model):
        self.model = model
        self.run = model._run
        self.rows = []
        self.params = []
        self.open = threading.Event()
        self.open.set()
        self.started = threading.Semaphore(0)
        model._run = self

    def __call__(self, outputs, feeds, params):
        self.rows.append(len(next(iter(feeds.values()))))
        self.params.append(params)
        self.started.release()
        self.open.wait(30)
        return self.run(outputs, feeds, params)


def call(model, x, outputs=("y",), params=None, name="x"):
    return Call(model, list(outputs), {name: np.asarray(x)}, None, params=params)


def together(model, calls, *, max_rows=64, wait_s=0.0, slots=2, inline=False):
    """Return the outcomes of calls that come at the same time, and what was counted."""
    stats = Stats()
    model.batches = True
    model.row_ms = 0.0 if inline else 1e9
    with ThreadPoolExecutor(slots) as pool:

        async def ask():
            batches = Batches(pool, stats, max_rows, wait_s, slots)
            return await asyncio.gather(*(batches.results(one) for one in calls), return_exceptions=True)

        return asyncio.run(ask()), stats


def alone(one):
    try:
        return one.model.run(one.outputs, one.feeds, one.params)
    except (InferenceFailed, Refused) as error:
        return error


def assert_same(outcomes, calls):
    for outcome, one in zip(outcomes, calls, strict=True):
        expected = alone(one)
        if isinstance(expected, Exception):
            assert type(outcome) is type(expected)
            continue
        for got, want in zip(outcome, expected, strict=True):
            assert got.dtype == want.dtype
            np.testing.assert_array_equal(got, want)


# a model whose every row tells what went in: exact arithmetic, texts, and failures by value

MIXED_IN = [("x", "FP32", [-1, -1]), ("at", "INT64", [-1, 1])]
MIXED_OUT = [
    ("y", "FP32", [-1, -1]),
    ("picked", "FP64", [-1, 1]),
    ("same", "INT64", [-1, 1]),
    ("text", "BYTES", [-1, 1]),
]


def mixed_folder(folder, version="7"):
    """Write a model that fails for rows whose ``at`` is none of 0 to 3; each version gives other numbers."""
    table = helper.make_tensor("", onnx.TensorProto.DOUBLE, [4], [0.1, 0.2, 0.3, 0.4])
    nodes = [
        helper.make_node("Constant", [], ["table"], value=table),
        helper.make_node("Constant", [], ["third"], value_float=int(version) / 3),
        helper.make_node("Mul", ["x", "third"], ["scaled"]),
        helper.make_node("Tanh", ["scaled"], ["y"]),
        helper.make_node("Gather", ["table", "at"], ["picked"]),
        helper.make_node("Identity", ["at"], ["same"]),
        helper.make_node("Cast", ["at"], ["text"], to=onnx.TensorProto.STRING),
    ]
    return write_folder(folder, nodes, MIXED_IN, MIXED_OUT, version=version)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mixed")
    return [load_model(mixed_folder(folder / version, version)) for version in ("1", "2")]


floats = st.floats(width=32, allow_nan=True, allow_infinity=True)


@st.composite
def requests(draw):
    rows, width = draw(st.integers(1, 5)), draw(st.integers(1, 3))
    x = draw(st.lists(floats, min_size=rows * width, max_size=rows * width))
    # 9 is what the model fails by
    at = draw(st.lists(st.sampled_from([0, 1, 2, 3, 3, 3, 9]), min_size=rows, max_size=rows))
    outputs = draw(st.lists(st.sampled_from([name for name, _, _ in MIXED_OUT]), min_size=1, max_size=4, unique=True))
    feeds = {"x": np.array(x, np.float32).reshape(rows, width), "at": np.array(at, np.int64).reshape(rows, 1)}
    return draw(st.integers(0, 1)), outputs, feeds, draw(st.sampled_from([None, {}, {"a": 1}, {"a": 1.0}]))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    asked=st.lists(requests(), min_size=1, max_size=12),
    turns=st.lists(st.integers(0, 2), min_size=12, max_size=12),
    how=st.tuples(st.integers(2, 9), st.integers(1, 3), st.booleans()),
)
def test_batched_equals_unbatched_bit_for_bit(mixed, asked, turns, how):
    max_rows, slots, inline = how
    calls = [Call(mixed[which], outputs, feeds, None, params=params) for which, outputs, feeds, params in asked]
    stats = Stats()
    for model in mixed:
        model.batches, model.row_ms = True, 0.0 if inline else 1e9
    with ThreadPoolExecutor(slots) as pool:

        async def ask():
            batches = Batches(pool, stats, max_rows, 0.0005, slots)

            async def later(one, count):
                for _ in range(count):
                    await asyncio.sleep(0)
                return await batches.results(one)

            found = await asyncio.gather(*map(later, calls, turns), return_exceptions=True)
            assert not batches._lanes
            return found

        outcomes = asyncio.run(ask())
    assert_same(outcomes, calls)
    assert stats.waiting == 0


columns = st.fixed_dictionaries(
    {
        "d": st.floats(-1e6, 1e6),
        "l": st.integers(-(2**31), 2**31),
        "s": st.sampled_from(["x", "", "é", "longer"]),
        "b": st.booleans(),
        "f": st.floats(width=32, allow_infinity=False),
    }
)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return load_model(columns_folder(tmp_path_factory.mktemp("table") / "m"))


@settings(max_examples=40, deadline=None)
@given(asked=st.lists(st.lists(columns, min_size=1, max_size=4), min_size=2, max_size=8), inline=st.booleans())
def test_tables_with_texts_are_the_same_batched_and_unbatched(table, asked, inline):
    dtypes = {"d": np.float64, "l": np.int64, "s": object, "b": np.bool_, "f": np.float32}
    calls = [
        Call(
            table,
            [spec.name for spec in table.outputs],
            {name: np.array([[row[name]] for row in rows], dtype) for name, dtype in dtypes.items()},
            None,
        )
        for rows in asked
    ]
    outcomes, stats = together(table, calls, inline=inline)
    assert_same(outcomes, calls)
    assert stats.batched_calls == len(calls)


@pytest.mark.parametrize("inline", [True, False], ids=["loop", "thread"])
def test_a_network_gives_the_same_numbers_within_rounding(tmp_path, inline):
    chance = np.random.default_rng(0)
    weights = [(chance.standard_normal(shape) / 8).astype(np.float32) for shape in ((32, 64), (64, 5))]
    nodes = [
        helper.make_node("Constant", [], [f"w{at}"], value=onnx.numpy_helper.from_array(weight))
        for at, weight in enumerate(weights)
    ]
    nodes += [
        helper.make_node("MatMul", ["x", "w0"], ["a"]),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("MatMul", ["r", "w1"], ["b"]),
        helper.make_node("Softmax", ["b"], ["y"]),
    ]
    model = load_model(write_folder(tmp_path / "m", nodes, [("x", "FP32", [-1, 32])], [("y", "FP32", [-1, 5])]))
    assert may_merge(model)
    calls = [call(model, chance.standard_normal((rows, 32)).astype(np.float32)) for rows in (1, 1, 3, 1, 2, 7)]
    outcomes, stats = together(model, calls, inline=inline)
    for outcome, one in zip(outcomes, calls, strict=True):
        np.testing.assert_allclose(outcome[0], alone(one)[0], rtol=1e-5, atol=1e-6)
    assert stats.batches < len(calls)


# who goes with whom


@pytest.fixture
def model(make_tensor_folder):
    return load_model(make_tensor_folder())


ROW = np.ones((1, 3), np.float32)


def test_requests_of_one_turn_of_the_loop_are_one_run(model):
    recorder = Recorder(model)
    calls = [call(model, ROW * number) for number in range(10)]
    outcomes, stats = together(model, calls, inline=True)
    assert recorder.rows == [10]
    assert (stats.batches, stats.batched_calls, stats.batched_rows) == (1, 10, 10)
    assert_same(outcomes, calls)


def test_a_batch_has_no_more_rows_than_are_allowed(model):
    recorder = Recorder(model)
    calls = [call(model, np.repeat(ROW * rows, rows, axis=0)) for rows in (3, 3, 3, 2, 1, 4)]
    outcomes, _ = together(model, calls, max_rows=4, inline=True)
    assert recorder.rows == [3, 3, 3, 3, 4]
    recorder.rows.clear()
    assert_same(outcomes, calls)


def test_a_request_larger_than_a_batch_goes_alone(model):
    recorder = Recorder(model)
    calls = [call(model, np.repeat(ROW, rows, axis=0)) for rows in (1, 9, 1)]
    _, stats = together(model, calls, max_rows=4, inline=True)
    assert sorted(recorder.rows) == [2, 9]
    assert stats.batched_rows == 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"outputs": ["y"]}, {"outputs": ["z"]}),
        ({"outputs": ["y", "z"]}, {"outputs": ["z", "y"]}),
        ({"params": {"a": 1}}, {"params": {"a": 2}}),
        ({"params": {"a": 1}}, {"params": {"a": True}}),
        ({"params": {"a": 1}}, {}),
        ({"params": {"a": ...}}, {"params": {"a": ...}}),  # what has no encoding cannot be compared
    ],
)
def test_requests_for_other_things_are_not_merged(model, one, other):
    recorder = Recorder(model)
    together(model, [call(model, ROW, **one), call(model, ROW, **other)], inline=True)
    assert recorder.rows == [1, 1]
    assert recorder.params == [one.get("params"), other.get("params")]


def test_requests_for_other_versions_are_not_merged(mixed):
    feeds = {"x": np.ones((1, 1), np.float32), "at": np.zeros((1, 1), np.int64)}
    calls = [Call(mixed[which], ["y"], feeds, None) for which in (0, 1, 0, 1)]
    stats = Stats()
    for model in mixed:
        model.batches, model.row_ms = True, 0.0

    async def ask():
        batches = Batches(None, stats, 64, 0, 1)
        return await asyncio.gather(*(batches.results(one) for one in calls))

    outcomes = asyncio.run(ask())
    assert_same(outcomes, calls)
    assert outcomes[0][0] != outcomes[1][0]
    assert (stats.batches, stats.batched_rows) == (2, 4)


def test_requests_of_other_shapes_and_dtypes_are_not_merged(tmp_path):
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    model = load_model(write_folder(tmp_path / "m", nodes, [("x", "FP32", [-1, -1])], [("y", "FP32", [-1, -1])]))
    recorder = Recorder(model)
    calls = [call(model, np.ones((1, width), np.float32)) for width in (2, 3, 2)]
    together(model, calls, inline=True)
    assert sorted(recorder.rows) == [1, 2]
    recorder.rows.clear()
    outcomes, _ = together(
        model, [call(model, np.ones((1, 2), dtype)) for dtype in (np.float32, np.float64)], inline=True
    )
    assert recorder.rows == [1, 1]
    assert isinstance(outcomes[1], InferenceFailed)


def test_one_that_fails_fails_alone(mixed):
    model = mixed[0]
    calls = [
        Call(model, ["picked"], {"x": np.ones((1, 1), np.float32), "at": np.array([[at]])}, None) for at in (0, 1, 9, 2)
    ]
    for inline in (True, False):
        outcomes, _ = together(model, calls, inline=inline)
        assert isinstance(outcomes[2], InferenceFailed)
        assert [outcomes[at][0].item() for at in (0, 1, 3)] == [0.1, 0.2, 0.3]


# when


def test_what_would_hold_up_the_loop_goes_to_a_thread_and_what_is_short_does_not(model):
    ran = []
    run = model._run
    model._run = lambda *words: (ran.append(threading.current_thread()), run(*words))[1]
    model.batches, model.row_ms = True, 1.0
    with ThreadPoolExecutor(1) as pool:

        async def ask(count):
            batches = Batches(pool, Stats(), 64, 0, 1)
            await asyncio.gather(*(batches.results(call(model, ROW)) for _ in range(count)))

        asyncio.run(ask(1))
        asyncio.run(ask(20))
    assert [thread is threading.main_thread() for thread in ran] == [True, False]


def test_what_comes_while_a_model_computes_goes_together_afterwards(model):
    recorder = Recorder(model)
    recorder.open.clear()
    model.batches, model.row_ms = True, 1e9
    with ThreadPoolExecutor(1) as pool:

        async def ask():
            batches = Batches(pool, Stats(), 64, 1e9, 1)
            first = asyncio.ensure_future(batches.results(call(model, ROW)))
            await asyncio.to_thread(recorder.started.acquire)  # it has not waited for anybody
            rest = [asyncio.ensure_future(batches.results(call(model, ROW * number))) for number in range(5)]
            await asyncio.sleep(0)
            assert recorder.rows == [1]
            recorder.open.set()
            return await asyncio.gather(first, *rest)

        assert len(asyncio.run(ask())) == 6
    assert recorder.rows == [1, 5]


def test_nobody_waits_longer_than_is_allowed_where_a_thread_is_free(model):
    recorder = Recorder(model)
    recorder.open.clear()
    model.batches, model.row_ms = True, 1e9
    with ThreadPoolExecutor(2) as pool:

        async def ask():
            batches = Batches(pool, Stats(), 64, 0.001, 2)
            tasks = [asyncio.ensure_future(batches.results(call(model, ROW)))]
            await asyncio.to_thread(recorder.started.acquire)
            tasks += [asyncio.ensure_future(batches.results(call(model, ROW))) for _ in range(2)]
            await asyncio.to_thread(recorder.started.acquire)  # the second, although the first is not through
            recorder.open.set()
            await asyncio.gather(*tasks)

        asyncio.run(ask())
    assert recorder.rows == [1, 2]


def test_a_full_batch_waits_for_nothing_but_a_thread(model):
    recorder = Recorder(model)
    recorder.open.clear()
    model.batches, model.row_ms = True, 1e9
    with ThreadPoolExecutor(2) as pool:

        async def ask():
            batches = Batches(pool, Stats(), 3, 1e6, 2)
            tasks = [asyncio.ensure_future(batches.results(call(model, ROW)))]
            await asyncio.to_thread(recorder.started.acquire)
            tasks += [asyncio.ensure_future(batches.results(call(model, ROW))) for _ in range(3)]
            await asyncio.to_thread(recorder.started.acquire)
            recorder.open.set()
            await asyncio.gather(*tasks)

        asyncio.run(ask())
    assert recorder.rows == [1, 3]


def test_who_does_not_wait_any_more_is_not_computed(model):
    recorder = Recorder(model)
    recorder.open.clear()
    model.batches, model.row_ms = True, 1e9
    stats = Stats()
    with ThreadPoolExecutor(1) as pool:

        async def ask():
            batches = Batches(pool, stats, 64, 1e9, 1)
            tasks = [asyncio.ensure_future(batches.results(call(model, ROW)))]
            await asyncio.to_thread(recorder.started.acquire)
            tasks += [asyncio.ensure_future(batches.results(call(model, ROW))) for _ in range(3)]
            await asyncio.sleep(0)
            tasks[0].cancel()  # it is being computed; the others wait
            tasks[2].cancel()
            await asyncio.sleep(0)
            recorder.open.set()
            await asyncio.gather(tasks[1], tasks[3])

        asyncio.run(ask())
    assert recorder.rows == [1, 2]
    assert stats.waiting == 0


def test_a_model_is_not_closed_while_a_batch_computes_that_nobody_waits_for(model):
    recorder = Recorder(model)
    recorder.open.clear()
    model.batches, model.row_ms = True, 1e9
    closed = threading.Event()
    model._loaded.close = closed.set
    with ThreadPoolExecutor(1) as pool:

        async def ask():
            task = asyncio.ensure_future(Batches(pool, Stats(), 64, 0, 1).results(call(model, ROW)))
            await asyncio.to_thread(recorder.started.acquire)
            task.cancel()
            await asyncio.sleep(0)
            model.retire()
            assert not closed.is_set()
            recorder.open.set()

        asyncio.run(ask())
    assert closed.wait(30)


# which models


def one_to_one(folder, nodes, y):
    return load_model(write_folder(folder, nodes, [("x", "FP32", [-1, 3])], [("y", "FP32", y)]))


def test_rows_of_a_model_that_looks_at_one_at_a_time_are_merged(model, table, mixed):
    assert may_merge(model)
    assert may_merge(table)
    assert may_merge(mixed[0])


@pytest.mark.parametrize(
    ("nodes", "shape"),
    [
        ([helper.make_node("Softmax", ["x"], ["y"], axis=0)], [-1, 3]),
        ([helper.make_node("ReduceMean", ["x", "axes"], ["m"]), helper.make_node("Sub", ["x", "m"], ["y"])], [-1, 3]),
        ([helper.make_node("CumSum", ["x", "zero"], ["y"])], [-1, 3]),
        ([helper.make_node("ReduceMax", ["x"], ["y"], keepdims=0)], []),
        ([helper.make_node("Transpose", ["x"], ["y"], perm=[1, 0])], [3, -1]),
        ([helper.make_node("Transpose", ["x"], ["y"], perm=[1, 0])], [-1, -1]),
        ([helper.make_node("Unique", ["x"], ["y"])], [-1]),
    ],
)
def test_a_model_whose_rows_depend_on_each_other_is_never_batched(tmp_path, nodes, shape, caplog):
    constants = [
        helper.make_node("Constant", [], ["axes"], value_ints=[0]),
        helper.make_node("Constant", [], ["zero"], value_int=0),
    ]
    used = {name for node in nodes for name in node.input}
    assert not may_merge(one_to_one(tmp_path / "m", [one for one in constants if one.output[0] in used] + nodes, shape))
    assert "computed request by request" in caplog.text


@pytest.mark.parametrize("rows", [1, 2])
def test_the_golden_rows_are_what_is_tried(tmp_path, rows):
    # Only rows beyond 100 have to do with each other.
    nodes = [
        helper.make_node("Constant", [], ["hundred"], value_float=100.0),
        helper.make_node("Constant", [], ["axes"], value_ints=[0]),
        helper.make_node("Sub", ["x", "hundred"], ["over"]),
        helper.make_node("Relu", ["over"], ["some"]),
        helper.make_node("ReduceSum", ["some", "axes"], ["sum"]),
        helper.make_node("Add", ["x", "sum"], ["y"]),
    ]
    folder = tmp_path / "m"
    write_folder(folder, nodes, [("x", "FP32", [-1, 3])], [("y", "FP32", [-1, 3])])
    assert may_merge(load_model(folder))
    manifest = json.loads((folder / "modelrel.json").read_text())
    (folder / "modelrel.json").write_text(json.dumps(manifest | {"golden": "golden.json"}))
    (folder / "golden.json").write_text(json.dumps({"inputs": {"x": [[150 + row] * 3 for row in range(rows)]}}))
    assert not may_merge(load_model(folder))


def test_answers_of_another_length_end_batching_and_each_gets_its_own(model, caplog):
    """A model that looked right: it answers two requests with one row too many."""
    run = model._run
    model._run = lambda outputs, feeds, params: [
        np.concatenate([array, array[:1]]) if len(array) > 1 else array for array in run(outputs, feeds, params)
    ]
    calls = [call(model, ROW * number) for number in range(3)]
    outcomes, _ = together(model, calls, inline=True)
    assert [outcome[0].tolist() for outcome in outcomes] == [(ROW * 2 * number).tolist() for number in range(3)]
    assert not model.batches
    assert "no more batches" in caplog.text


# in the engine and the server


def test_the_engine_batches_only_where_it_was_asked_to(model):
    model.batches = True
    assert Engine(Models.of(model), defaults())._batches is None
    assert Engine(Models.of(model), defaults(max_batch=8))._batches is not None


@pytest.mark.parametrize("cache", [0, 100])
def test_each_client_of_a_batch_gets_its_own_answer_and_is_recorded(model, cache):
    recorder = Recorder(model)
    engine = Engine(Models.of(model), defaults(max_batch=64, cache=cache))
    model.batches, model.row_ms = True, 0.0
    seen = []
    engine.observers.append(lambda call, results, ms, role: seen.append((call.id, results[0].tolist(), ms > 0, role)))

    def body(number):
        tensor = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [number] * 3}
        return json.dumps({"id": str(number), "inputs": [tensor]}).encode()

    async def ask():
        return await asyncio.gather(
            *(engine.answer("POST", "/v2/models/churn/infer", {}, body(number)) for number in range(20))
        )

    for _ in range(2):
        for number, answer in enumerate(asyncio.run(ask())):
            said = json.loads(answer.body)
            assert (said["id"], said["outputs"][0]["data"]) == (str(number), [2.0 * number] * 3)
            assert answer.headers["modelrel-model"] == "churn/7"
    assert sorted(seen) == sorted((str(n), [[2.0 * n] * 3], True, "answer") for n in range(20) for _ in range(2))
    assert recorder.rows == ([20] if cache else [20, 20])
    assert (engine.stats.cache_hits, engine.stats.cache_misses) == ((20, 20) if cache else (0, 0))


def test_clients_of_a_batching_server_get_what_they_would_alone(tmp_path, start_server):
    folder = mixed_folder(tmp_path / "m")
    running = start_server(folder, "--max-batch", "16", "--max-wait-ms", "1")

    def ask(client, number):
        at = 9 if number % 7 == 0 else number % 4
        inputs = [
            {"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [0]},
            {"name": "at", "shape": [1, 1], "datatype": "INT64", "data": [at]},
        ]
        reply = client.post("/v2/models/churn/infer", json={"inputs": inputs})
        if at == 9:
            return reply.status_code == 500
        return reply.json()["outputs"][1]["data"] == [[0.1, 0.2, 0.3, 0.4][at]]

    with httpx.Client(base_url=running.url, timeout=30) as client, ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, [client] * 60, range(60)))
