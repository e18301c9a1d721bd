"""Models come and go while requests run: each is answered, and by what is served at that moment."""

import asyncio
import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from onnx import helper

from modelrel.serving import load_model, models
from modelrel.serving.engine import Engine
from modelrel.serving.manifest import BrokenModel
from modelrel.serving.models import Models
from modelrel.serving.options import defaults
from modelrel.serving.routing import Router, answer

from .conftest import tensor_folder, write_folder

BODY = json.dumps({"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]}).encode()


def version_folder(folder, version, name="churn", factor=None):
    """Write a model that answers x times ``factor``, which is its version unless it is said."""
    nodes = [
        helper.make_node("Constant", [], ["k"], value_float=float(factor or version)),
        helper.make_node("Mul", ["x", "k"], ["y"]),
    ]
    return write_folder(
        folder, nodes, [("x", "FP32", [-1, 3])], [("y", "FP32", [-1, 3])], name=name, version=str(version)
    )


def loaded(*folders):
    made = Models(folders)
    made.load_all()
    return made


def infer(served, path="/v2/models/churn/infer"):
    reply = answer(Router(served) if isinstance(served, Models) else served, "POST", path, {}, BODY)
    return reply.status, json.loads(reply.body)


def factor(served, path="/v2/models/churn/infer"):
    status, said = infer(served, path)
    assert status == 200, said
    return said["outputs"][0]["data"][0]


def is_not_served(status, said):
    """Whether an answer says that there is no such model, or that it is known but not loaded."""
    return status == 404 or (status == 503 and "not ready" in said["error"])


def states(served):
    return {f"{state.name}/{state.version}": state.state for state in served.snapshot.states}


def reasons(served):
    return {f"{state.name}/{state.version}": state.reason for state in served.snapshot.states}


# what fails


def test_a_model_that_fails_to_load_leaves_the_others_serving_and_says_why(tmp_path):
    version_folder(tmp_path / "a", 7)
    (version_folder(tmp_path / "b", 1, "fraud") / "model.onnx").write_bytes(b"nothing")
    served = loaded(tmp_path)
    assert factor(served) == 7
    assert states(served) == {"churn/7": "READY", "fraud/1": "UNAVAILABLE"}
    assert "b/model.onnx cannot be loaded" in reasons(served)["fraud/1"]
    assert is_not_served(*infer(served, "/v2/models/fraud/infer"))


def test_the_server_is_ready_for_what_it_has(tmp_path):
    version_folder(tmp_path / "a", 7)
    (version_folder(tmp_path / "b", 1, "fraud") / "model.onnx").write_bytes(b"nothing")
    served = loaded(tmp_path)
    assert served.snapshot.ready
    served.unload("churn")
    assert not served.snapshot.ready


def test_reasons_do_not_say_where_the_folders_lie(tmp_path):
    version_folder(tmp_path / "in" / "a", 7)
    (version_folder(tmp_path / "in" / "b", 1, "fraud") / "model.onnx").unlink()
    served = loaded(tmp_path / "in")
    assert str(tmp_path) not in "".join(reasons(served).values())
    with pytest.raises(BrokenModel) as error:
        served.load("fraud")
    assert str(tmp_path) not in str(error.value)
    assert "model.onnx" in str(error.value)


@pytest.mark.parametrize("broken", ["model.onnx", "modelrel.json"])
def test_a_broken_new_file_keeps_the_old_version_serving_and_says_why(tmp_path, broken):
    folder = version_folder(tmp_path / "a", 7)
    served = loaded(tmp_path)
    good = (folder / broken).read_bytes()
    (folder / broken).write_bytes(b"nothing")
    if broken == "modelrel.json":
        version_folder(tmp_path / "b", 6)  # so that there is something to load by this name
    with pytest.raises(BrokenModel, match="a/"):
        served.load("churn")
    assert factor(served, "/v2/models/churn/versions/7/infer") == 7
    assert states(served)["churn/7"] == "READY"
    assert broken in reasons(served)["churn/7"]
    (folder / broken).write_bytes(good)
    served.load("churn")
    assert set(reasons(served).values()) == {""}


def test_one_broken_version_does_not_keep_the_others_from_being_loaded(tmp_path):
    for version in (7, 8):
        version_folder(tmp_path / str(version), version)
    served = loaded(tmp_path)
    version_folder(tmp_path / "7", 7, factor=70)
    (tmp_path / "8" / "model.onnx").write_bytes(b"nothing")
    version_folder(tmp_path / "9", 9)
    with pytest.raises(BrokenModel):
        served.load("churn")
    assert [factor(served, f"/v2/models/churn/versions/{v}/infer") for v in (7, 8, 9)] == [70, 8, 9]
    assert factor(served) == 9


def test_a_folder_whose_manifest_is_mended_leaves_no_trace_of_its_fault(tmp_path):
    version_folder(tmp_path / "a", 7)
    (version_folder(tmp_path / "b", 8) / "modelrel.json").write_text("{")
    served = loaded(tmp_path)
    assert states(served) == {"churn/7": "READY", "b/": "UNAVAILABLE"}
    version_folder(tmp_path / "b", 8)
    served.load("churn")
    assert states(served) == {"churn/7": "READY", "churn/8": "READY"}


def test_of_two_folders_with_the_same_version_the_first_is_served(tmp_path, caplog):
    version_folder(tmp_path / "a", 7)
    version_folder(tmp_path / "b", 7, factor=70)
    assert factor(loaded(tmp_path)) == 7
    assert "are both churn/7" in caplog.text


# what changes


def test_the_greatest_version_answers_and_numbers_are_compared_as_numbers(tmp_path):
    for version in (9, 10):
        version_folder(tmp_path / str(version), version)
    served = loaded(tmp_path)
    assert factor(served) == 10
    version_folder(tmp_path / "11", 11)
    assert factor(served) == 10
    served.load("churn")
    assert factor(served) == 11


def test_a_version_whose_folder_is_gone_is_not_served_any_more(tmp_path):
    for version in (7, 8):
        version_folder(tmp_path / str(version), version)
    served = loaded(tmp_path)
    shutil.rmtree(tmp_path / "8")
    assert factor(served) == 8
    served.load("churn")
    assert factor(served) == 7
    assert states(served) == {"churn/7": "READY"}


def test_an_unloaded_model_is_not_served_and_comes_back_by_a_load(tmp_path):
    version_folder(tmp_path / "a", 7)
    served = loaded(tmp_path)
    served.unload("churn")
    assert is_not_served(*infer(served))
    assert (states(served), reasons(served)) == ({"churn/7": "UNAVAILABLE"}, {"churn/7": "unloaded"})
    served.load("churn")
    assert factor(served) == 7
    assert reasons(served) == {"churn/7": ""}


@pytest.mark.parametrize("change", ["load", "unload"])
def test_a_name_that_nobody_knows_is_a_key_error(tmp_path, change):
    version_folder(tmp_path / "a", 7)
    served = loaded(tmp_path)
    with pytest.raises(KeyError):
        getattr(served, change)("fraud")


def test_the_first_model_stays_the_first_when_it_is_loaded_again(tmp_path):
    for name in ("a", "b"):
        tensor_folder(tmp_path / name, name=name)
    served = loaded(tmp_path)
    assert served.snapshot.first.name == "a"
    served.load("a")
    assert list(served.snapshot.endpoints) == ["a", "b"]


def test_the_old_version_serves_until_the_new_one_is_there(tmp_path, monkeypatch):
    folder = version_folder(tmp_path / "a", 7)
    served = loaded(tmp_path)
    version_folder(folder, 7, factor=70)
    while_loading = []

    def slow(*words):
        while_loading.append((factor(served), states(served), served.snapshot.ready))
        return load_model(*words)

    monkeypatch.setattr(models, "load_model", slow)
    served.load("churn")
    assert while_loading == [(7, {"churn/7": "READY"}, True)]
    assert factor(served) == 70


def test_loading_one_model_keeps_neither_requests_nor_loads_of_another_waiting(tmp_path, monkeypatch):
    for name in ("slow", "quick"):
        tensor_folder(tmp_path / name, name=name)
    served = loaded(tmp_path)
    begun, go = threading.Event(), threading.Event()

    def gated(folder, *words):
        if folder.name == "slow":
            begun.set()
            assert go.wait(30)
        return load_model(folder, *words)

    monkeypatch.setattr(models, "load_model", gated)
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(served.load, "slow")
        assert begun.wait(30)
        served.load("quick")
        served.unload("quick")
        served.load("quick")
        assert {infer(served, f"/v2/models/{name}/infer")[0] for name in ("slow", "quick")} == {200}
        go.set()
        loading.result()


# the last request of a model


def test_a_model_is_given_back_with_its_last_request_and_not_before(tensor_dir):
    model = load_model(tensor_dir)
    closed = []
    model._loaded.close = lambda: closed.append(True)
    assert model.enter()
    model.retire()
    assert model.enter()  # still open, so it may be used
    model.leave()
    assert not closed
    model.leave()
    assert closed == [True]
    assert not model.enter()
    model.retire()
    assert closed == [True]


def test_a_request_that_finds_its_model_closed_is_answered_by_what_took_its_place(tmp_path):
    version_folder(tmp_path / "a", 7)
    served = loaded(tmp_path)
    engine = Engine(served, defaults())
    old = engine.router.route("POST", "/v2/models/churn/infer")
    version_folder(tmp_path / "a", 7, factor=70)
    served.load("churn")
    assert not old.model.enter()
    found = iter([old])
    route = engine.router.route
    engine.router.route = lambda *words: next(found, None) or route(*words)
    reply = asyncio.run(engine.answer("POST", "/v2/models/churn/infer", {}, BODY))
    assert json.loads(reply.body)["outputs"][0]["data"][0] == 70


def test_a_server_that_is_stopping_says_so(tmp_path):
    version_folder(tmp_path / "a", 7)
    served = loaded(tmp_path)
    engine = Engine(served, defaults())
    served.close()
    reply = asyncio.run(engine.answer("POST", "/v2/models/churn/infer", {}, BODY))
    assert (reply.status, json.loads(reply.body)) == (503, {"error": "the server is stopping"})


class Watched:
    """What a model is computed by, and whether it was ever asked after it was closed."""

    def __init__(self, model):
        self._run, self._closed = model._run, False
        model._run, model._loaded.close = self, self.close

    def __call__(self, *words):
        assert not self._closed
        results = self._run(*words)
        assert not self._closed
        return results

    def close(self):
        self._closed = True


class Asking:
    """Eight threads that ask engines and event loops of their own, by turns, until they are told to stop."""

    def __init__(self, served, **options):
        self.done = threading.Event()
        self.turns = [0] * 8
        self.pool = ThreadPoolExecutor(8)
        self.asking = [self.pool.submit(self.ask, Engine(served, defaults(**options)), number) for number in range(8)]

    def ask(self, engine, number):
        """Ask for the name of this thread, and return the versions that answered, "none" among them."""
        name = ["churn", "steady"][number % 2]

        async def asked():
            seen = set()
            while not self.done.is_set():
                path = f"/v2/models/{name}/infer"
                replies = await asyncio.gather(*(engine.answer("POST", path, {}, BODY) for _ in range(3)))
                seen |= {self.checked(name, reply) for reply in replies}
                self.turns[number] += 1
            return seen

        return asyncio.run(asked())

    def checked(self, name, reply):
        said = json.loads(reply.body)
        if is_not_served(reply.status, said):
            return "none"
        assert reply.status == 200, said
        version = said["model_version"]
        assert reply.headers["modelrel-model"] == f"{name}/{version}"
        # Loaded again, 7 has another factor; the answer is wholly of one of them.
        known = {"1": [1], "7": [7, 70], "8": [8]}[version]
        assert said["outputs"][0]["data"] in [[factor, 2 * factor, 3 * factor] for factor in known]
        return version

    def all_have_asked(self):
        """Wait until each thread has begun and ended a turn since."""
        before = list(self.turns)
        waiting = zip(self.turns, before, self.asking, strict=True)
        while any(turn < was + 2 and not one.done() for turn, was, one in waiting):
            self.done.wait(0.001)
            waiting = zip(self.turns, before, self.asking, strict=True)

    def stop(self):
        """Return what each thread has seen."""
        self.done.set()
        seen = [one.result() for one in self.asking]
        self.pool.shutdown()
        return seen


@pytest.mark.parametrize("options", [{}, {"max_batch": 8, "cache": 50}], ids=["plain", "batches-and-cache"])
def test_no_request_is_lost_while_models_are_loaded_and_unloaded(tmp_path, monkeypatch, options):
    version_folder(tmp_path / "steady", 1, "steady")
    version_folder(tmp_path / "7", 7)

    def watched(*words):
        model = load_model(*words)
        Watched(model)
        return model

    monkeypatch.setattr(models, "load_model", watched)
    served = Models([tmp_path], batches="max_batch" in options)
    served.load_all()
    asking = Asking(served, **options)
    try:
        for turn in range(4):
            version_folder(tmp_path / "8", 8)
            served.load("churn")
            asking.all_have_asked()
            shutil.rmtree(tmp_path / "8")
            version_folder(tmp_path / "7", 7, factor=70 if turn % 2 else 7)
            served.load("churn")
            asking.all_have_asked()
            served.unload("churn")
            asking.all_have_asked()
            served.load("steady")
            served.load("churn")
    finally:
        seen = asking.stop()
    assert all(one == {"1"} for one in seen[1::2])
    assert all(one == {"none", "7", "8"} for one in seen[::2])


def test_variants_are_chosen_anew_where_one_was_unloaded_a_moment_ago(tmp_path):
    from modelrel.serving.traffic import Share, Traffic

    for version in (7, 8):
        version_folder(tmp_path / str(version), version)
    served = Models([tmp_path], traffic=Traffic(shares=(Share("churn", "7", 1), Share("churn", "8", 1))))
    served.load_all()
    engine = Engine(served, defaults())
    choose = engine._chooser.choose
    times = []

    def chosen(variants, call):
        model = choose(variants, call)
        if not times:
            model = variants[0][0]  # not the greatest version: that one is held by its route
            served.load("churn")  # between the choice and the use
        times.append(model)
        return model

    engine._chooser.choose = chosen
    reply = asyncio.run(engine.answer("POST", "/v2/models/churn/infer", {}, BODY))
    assert reply.status == 200
    old, new = times
    assert old.number != new.number
    assert new is served.snapshot.endpoints["churn"].versions[new.version]
    assert np.array_equal(json.loads(reply.body)["outputs"][0]["data"], np.array([1, 2, 3]) * int(new.version))


def test_a_variant_that_changes_its_signature_leaves_the_share_to_the_others(tmp_path, caplog):
    from modelrel.serving.traffic import Share, Traffic

    for version in (7, 8):
        version_folder(tmp_path / str(version), version)
    served = Models([tmp_path], traffic=Traffic(shares=(Share("churn", "7", 1), Share("churn", "8", 1))))
    served.load_all()
    assert len(served.snapshot.endpoints["churn"].variants) == 2
    tensor_folder(tmp_path / "7", version="7")
    served.load("churn")
    assert served.snapshot.endpoints["churn"].variants == ()
    assert factor(served) == 8
    assert "churn/7 cannot share requests with churn/8: it has the output 'z', which churn/8 has not" in caplog.text
