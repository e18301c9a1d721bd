"""Which version answers: labels, shares, shadows; and that each answer says which it was."""

import asyncio
import json
import math
import random
import subprocess
import sys
import threading
from collections import Counter

import httpx
import numpy as np
import pytest
from onnx import helper

from modelrel.serving import load_model
from modelrel.serving.answers import MODEL_HEADER, Answer, signed
from modelrel.serving.calls import Call
from modelrel.serving.engine import Engine
from modelrel.serving.manifest import BrokenModel
from modelrel.serving.models import Models
from modelrel.serving.options import defaults, read
from modelrel.serving.traffic import Traffic
from modelrel.serving.variants import Chooser, kept

from .conftest import tensor_folder, write_folder

INFER = "/v2/models/churn/infer"
JSON = {"content-type": "application/json"}


def version_folder(folder, version, *, name="churn", width=3, **changes):
    """Write a model that answers x times its version, and the customers as they came."""
    nodes = [
        helper.make_node("Constant", [], ["k"], value_float=float(version)),
        helper.make_node("Mul", ["x", "k"], ["y"]),
        helper.make_node("Identity", ["customer"], ["who"]),
    ]
    inputs = [("x", "FP32", [-1, width]), ("customer", "INT64", [-1, 1])]
    outputs = [("y", "FP32", [-1, width]), ("who", "INT64", [-1, 1])]
    return write_folder(folder, nodes, inputs, outputs, name=name, version=str(version), **changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("versions")
    for version in (7, 8, 9, 10):
        version_folder(folder / f"churn-{version}", version)
    version_folder(folder / "other", 1, name="other")
    return folder


def engine_of(folder, *words, seed=1):
    settings = read([str(folder), *words], {})
    models = Models(
        settings.folders,
        traffic=Traffic(settings.label, settings.weight, settings.shadow, settings.sticky),
    )
    models.load_all()
    return Engine(models, settings, random.Random(seed))


def body_of(customer=1, x=1.0):
    inputs = [
        {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [x] * 3},
        {"name": "customer", "shape": [1, 1], "datatype": "INT64", "data": [customer]},
    ]
    return json.dumps({"inputs": inputs}).encode()


def answers(engine, requests, path=INFER):
    """Return the versions that answered (headers, body) requests, having checked that each is named rightly."""

    async def all_of_them():
        found = []
        for headers, body in requests:
            answer = await engine.answer("POST", path, JSON | headers, body)
            assert answer.status == 200, answer.body
            said = json.loads(answer.body)
            assert answer.headers[MODEL_HEADER] == f"{said['model_name']}/{said['model_version']}"
            assert said["outputs"][0]["data"] == [float(said["model_version"])] * 3
            found.append(said["model_version"])
        return found

    return asyncio.run(all_of_them())


def one(engine, path=INFER, **headers):
    return answers(engine, [(headers, body_of())], path)[0]


# labels


def test_a_label_stands_where_a_version_does_and_the_answer_names_the_version(folder):
    engine = engine_of(folder, "--label", "churn/champion=8")
    assert one(engine, "/v2/models/churn/versions/champion/infer") == "8"
    assert one(engine, "/v2/models/churn/versions/8/infer") == "8"
    assert one(engine) == "10"


def test_an_unknown_label_is_404_and_the_known_ones_are_said(folder):
    engine = engine_of(folder, "--label", "churn/champion=8")
    answer = asyncio.run(engine.answer("GET", "/v2/models/churn/versions/challenger", {}, b""))
    assert answer.status == 404
    assert "'champion'" in json.loads(answer.body)["error"]


def test_a_label_goes_with_its_version_and_comes_back_with_it(tmp_path):
    for version in (7, 8):
        version_folder(tmp_path / f"v{version}", version)
    engine = engine_of(tmp_path, "--label", "churn/champion=8")
    manifest = tmp_path / "v8" / "modelrel.json"
    manifest.rename(tmp_path / "v8" / "away")
    engine.models.load("churn")
    path = "/v2/models/churn/versions/champion"
    assert asyncio.run(engine.answer("GET", path, {}, b"")).status == 404
    (tmp_path / "v8" / "away").rename(manifest)
    engine.models.load("churn")
    assert one(engine, f"{path}/infer") == "8"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["--label", "churn/champion=11"],
            "names version '11' of 'churn', which is not loaded, only '7', '8', '9', '10'",
        ),
        (["--label", "nobody/champion=1"], "there is no model 'nobody' here, only 'churn', 'other'"),
        (["--weight", "churn/7=1", "--weight", "churn/12=1"], "names version '12' of 'churn'"),
        (["--weight", "churn/7=0"], "the weights of 'churn' are all 0"),
        (["--shadow", "churn/12"], "names version '12' of 'churn'"),
        (["--shadow", "other/1"], "every version of 'other' is a shadow"),
        (["--shadow", "churn/7", "--weight", "churn/7=1"], "cannot be a shadow"),
        (["--weight", "churn/7=1", "--sticky", "field:nothing"], "no input 'nothing'"),
    ],
)
def test_what_speaks_of_versions_that_are_not_there_is_refused_at_the_start(folder, words, sentence):
    with pytest.raises(BrokenModel, match=sentence):
        engine_of(folder, *words)


def test_the_refusal_is_one_sentence_and_exit_code_2(folder):
    command = [sys.executable, "-m", "modelrel.serving", str(folder), "--port", "0", "--label", "churn/a=11"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert "'11'" in result.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["--label", "churn=7"],
        ["--label", "churn/7=8"],
        ["--weight", "churn/7"],
        ["--weight", "churn/7=many"],
        ["--weight", "churn/7=-1"],
        ["--weight", "churn/7=nan"],
        ["--shadow", "churn"],
        ["--sticky", "cookie:a"],
        ["--sticky", "header:"],
    ],
)
def test_what_cannot_be_read_is_a_wrong_command_line(words, capsys):
    with pytest.raises(SystemExit) as error:
        read(["folder", *words], {})
    assert error.value.code == 2
    assert words[0] in capsys.readouterr().err


def test_the_variables_say_the_same(folder):
    said = {"MODELREL_WEIGHT": "churn/7=90,churn/8=10", "MODELREL_STICKY": "header:X-User"}
    settings = read([str(folder)], said)
    assert [(share.version, share.weight) for share in settings.weight] == [("7", 90.0), ("8", 10.0)]
    assert settings.sticky == (True, "x-user")


# variants


def test_requests_that_name_no_version_are_shared_by_weight(folder):
    engine = engine_of(folder, "--weight", "churn/7=90", "--weight", "churn/8=10")
    counts = Counter(answers(engine, [({}, body_of())] * 1000))
    expected = random.Random(1)
    small = sum(expected.random() >= 0.9 for _ in range(1000))
    assert counts == {"7": 1000 - small, "8": small}
    assert 60 < small < 140


def test_a_version_that_is_named_answers_whatever_the_weights(folder):
    engine = engine_of(folder, "--weight", "churn/7=90", "--weight", "churn/8=10")
    assert {one(engine, "/v2/models/churn/versions/10/infer") for _ in range(20)} == {"10"}


def test_mlflow_s_route_is_shared_too(tmp_path):
    for version in ("7", "8"):
        tensor_folder(tmp_path / version, version=version)
    engine = engine_of(tmp_path, "--weight", "churn/7=1", "--weight", "churn/8=1")

    async def asked():
        found = [await engine.answer("POST", "/invocations", JSON, b'{"inputs": [[1, 2, 3]]}') for _ in range(50)]
        return {answer.headers[MODEL_HEADER] for answer in found}

    assert asyncio.run(asked()) == {"churn/7", "churn/8"}


def test_a_weight_of_0_gets_nothing_and_one_variant_gets_all(folder):
    engine = engine_of(folder, "--weight", "churn/7=1", "--weight", "churn/8=0")
    assert {one(engine) for _ in range(20)} == {"7"}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"width": 4}, r"its input 'x' is FP32 \[-1, 4\], that of churn/8 FP32 \[-1, 3\]"),
        ({"predict": "who"}, "it predicts 'who', churn/8 predicts 'y'"),
        ({"classes": [1, 2]}, "it has other classes"),
        ({"optional": ["x"]}, r"\(optional\)"),
    ],
)
def test_variants_of_another_signature_are_refused_with_the_difference(tmp_path, changes, sentence):
    version_folder(tmp_path / "a", 7, **changes)
    version_folder(tmp_path / "b", 8)
    with pytest.raises(BrokenModel, match=rf"churn/7 cannot share requests with churn/8: .*{sentence}"):
        engine_of(tmp_path, "--weight", "churn/7=1", "--weight", "churn/8=1")


@pytest.mark.parametrize(
    "sent",
    [
        lambda i: ({"x-user-id": f"user-{i}"}, body_of()),
        lambda i: ({}, body_of(customer=i)),
    ],
    ids=["header", "field"],
)
def test_a_client_stays_at_its_variant(folder, sent):
    sticky = "field:customer" if "x-user-id" not in sent(0)[0] else "header:X-User-Id"
    words = ["--weight", "churn/7=50", "--weight", "churn/8=50", "--sticky", sticky]
    requests = [sent(i) for i in range(40)]
    first = answers(engine_of(folder, *words, seed=1), requests)
    assert answers(engine_of(folder, *words, seed=2), requests) == first
    assert set(first) == {"7", "8"}


def test_a_field_and_a_header_of_the_same_text_choose_the_same(folder):
    words = ["--weight", "churn/7=50", "--weight", "churn/8=50", "--sticky"]
    by_header = answers(engine_of(folder, *words, "header:id"), [({"id": str(i)}, body_of()) for i in range(30)])
    by_field = answers(engine_of(folder, *words, "field:customer"), [({}, body_of(i)) for i in range(30)])
    assert by_header == by_field


def test_a_client_without_the_header_is_shared_by_chance(folder):
    engine = engine_of(folder, "--weight", "churn/7=1", "--weight", "churn/8=1", "--sticky", "header:x-user-id")
    assert set(answers(engine, [({}, body_of())] * 50)) == {"7", "8"}


@pytest.fixture(scope="module")
def three(folder):
    models = Models([folder])
    models.load_all()
    return [models.snapshot.endpoints["churn"].versions[version] for version in ("7", "8", "9")]


VALUES = [f"user-{number}".encode() for number in range(3000)]


def kept_by(models, weights):
    return [kept(tuple(zip(models, weights, strict=True)), value).version for value in VALUES]


def test_the_order_of_variants_does_not_matter(three):
    assert kept_by(three, [5, 3, 2]) == kept_by(three[::-1], [2, 3, 5])


def test_each_variant_keeps_its_share_of_all_clients(three):
    counts = Counter(kept_by(three, [5, 3, 2]))
    for version, share in (("7", 0.5), ("8", 0.3), ("9", 0.2)):
        spread = math.sqrt(len(VALUES) * share * (1 - share))
        assert abs(counts[version] - len(VALUES) * share) < 5 * spread


def test_more_weight_draws_clients_to_a_variant_and_moves_no_other(three):
    before, after = kept_by(three, [5, 3, 2]), kept_by(three, [5, 3, 4])
    moved = {(old, new) for old, new in zip(before, after, strict=True) if old != new}
    assert moved == {("7", "9"), ("8", "9")}


def test_a_new_variant_takes_clients_and_moves_no_other(three):
    before, after = kept_by(three[:2], [5, 3]), kept_by(three, [5, 3, 2])
    assert {new for old, new in zip(before, after, strict=True) if old != new} == {"9"}


def test_the_choice_for_a_client_is_the_same_in_every_release(three):
    # Written down once: a server of another version, machine or process must not move anybody.
    assert "".join(kept_by(three, [1, 1, 1])[:20]) == "97889797888898978889"


@pytest.mark.parametrize(
    ("field", "same"),
    [
        (np.array([[1.5]]), np.array([[1.5], [2.5]])),
        (np.array([["a"]], object), np.array([["a"], ["b"]], object)),
        (np.array([[1, 2, 3]]), np.array([[1, 2, 3], [4, 5, 6]])),
    ],
)
def test_the_first_row_of_a_field_decides(three, field, same):
    from modelrel.serving.traffic import Sticky

    chooser = Chooser(Sticky(is_header=False, name="f"))
    variants = tuple((model, 1.0) for model in three)
    chosen = [
        chooser.choose(variants, Call(three[0], [], {"f": rows}, None)) for rows in (field, same) for _ in range(9)
    ]
    assert len(set(chosen)) == 1


# what an answer says


def test_a_failing_variant_is_named_too(tmp_path):
    nodes = [helper.make_node("Reshape", ["x", "s"], ["y"]), helper.make_node("Cast", ["x"], ["s0"], to=7)]
    nodes = [nodes[1], helper.make_node("Reshape", ["x", "s1"], ["y"])]
    nodes.insert(1, helper.make_node("Flatten", ["s0"], ["s2"], axis=0))
    nodes.insert(2, helper.make_node("Squeeze", ["s2"], ["s1"]))
    write_folder(tmp_path / "m", nodes, [("x", "FP32", [-1, 2])], [("y", "FP32", [-1, 2])])
    engine = engine_of(tmp_path)
    body = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [5, 5]}]}
    answer = asyncio.run(engine.answer("POST", INFER, JSON, json.dumps(body).encode()))
    assert answer.status == 500
    assert answer.headers[MODEL_HEADER] == "churn/7"


def test_a_name_that_no_header_can_hold_is_encoded(make_tensor_folder):
    model = load_model(make_tensor_folder(name="mod\r\nèle", version="1/2"))
    assert model.headers[MODEL_HEADER] == "mod%0D%0A%C3%A8le/1%2F2"


def test_headers_of_an_answer_stay_when_the_model_is_named(tensor_model):
    answer = signed(Answer(200, {"content-type": "text/plain"}, b""), tensor_model.headers)
    assert answer.headers == {"content-type": "text/plain", MODEL_HEADER: "churn/7"}


def test_the_model_is_named_over_the_wire(client):
    body = {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]}
    for path, sent in ((INFER, body), ("/invocations", {"inputs": [[1, 2, 3]]})):
        reply = client.post(path, json=sent)
        assert reply.headers["modelrel-model"] == "churn/7"
        assert reply.headers["content-type"] == "application/json"


# shadows


def recorded(engine, role):
    """Return a list that fills with the calls of a role, and an event for each one."""
    found, more = [], threading.Semaphore(0)

    def observe(call, results, ms, own_role):
        if own_role == role:
            found.append((call, list(results), ms))
            more.release()

    engine.observers.append(observe)
    return found, more


def test_a_shadow_gets_a_copy_and_answers_nobody(folder):
    engine = engine_of(folder, "--shadow", "churn/10")
    found, more = recorded(engine, "shadow")
    given, _ = recorded(engine, "answer")
    assert [one(engine, id=str(number)) for number in range(3)] == ["9"] * 3
    for _ in range(3):
        assert more.acquire(timeout=30)
    assert [(call.model.version, call.headers["id"]) for call, _, _ in found] == [("10", "0"), ("10", "1"), ("10", "2")]
    assert [results[0].tolist() for _, results, _ in found] == [[[10.0] * 3]] * 3
    assert [call.model.version for call, _, _ in given] == ["9"] * 3
    assert all(ms > 0 for _, _, ms in found + given)
    engine.close()


def test_a_request_that_names_a_version_has_no_shadow(folder):
    engine = engine_of(folder, "--shadow", "churn/10")
    found, more = recorded(engine, "shadow")
    one(engine, "/v2/models/churn/versions/7/infer")
    one(engine)
    assert more.acquire(timeout=30)
    assert len(found) == 1
    engine.close()


class Gate:
    """What a model is computed by: it waits until it may, and fails for the customer 666."""

    def __init__(self, model):
        self.run = model._run
        self.open = threading.Event()

    def __call__(self, outputs, feeds, params):
        self.open.wait(30)
        if feeds["customer"][0, 0] == 666:
            raise RuntimeError("no")
        return self.run(outputs, feeds, params)


@pytest.fixture
def gated(folder):
    """An engine with a shadow that waits, and its gate."""
    engine = engine_of(folder, "--shadow", "churn/10")
    model = engine.models.snapshot.endpoints["churn"].versions["10"]
    model._run = gate = Gate(model)
    yield engine, gate
    gate.open.set()
    engine.close()


def test_nobody_waits_for_a_shadow_and_what_it_cannot_keep_up_with_is_dropped_and_counted(gated):
    from modelrel.serving.shadows import MAX_CALLS

    engine, gate = gated
    found, more = recorded(engine, "shadow")
    assert Counter(answers(engine, [({}, body_of())] * (MAX_CALLS + 50))) == {"9": MAX_CALLS + 50}
    assert engine.stats.shadow_dropped == 50
    gate.open.set()
    for _ in range(MAX_CALLS):
        assert more.acquire(timeout=30)
    assert (len(found), engine.stats.shadow_computed) == (MAX_CALLS, MAX_CALLS)


def test_a_shadow_that_fails_is_counted_and_nothing_else(gated, caplog):
    engine, gate = gated
    gate.open.set()
    found, more = recorded(engine, "shadow")
    assert answers(engine, [({}, body_of(666))] * 3 + [({}, body_of())]) == ["9"] * 4
    assert more.acquire(timeout=30)
    assert (len(found), engine.stats.shadow_failed) == (1, 3)
    assert caplog.text.count("the shadow churn/10 fails") == 1


def test_a_shadow_that_is_unloaded_computes_what_is_in_its_line_first(gated):
    engine, gate = gated
    model = engine.models.snapshot.endpoints["churn"].versions["10"]
    found, more = recorded(engine, "shadow")
    one(engine)
    engine.models.unload("churn")
    assert model.enter()  # still held by the copy
    model.leave()
    gate.open.set()
    assert more.acquire(timeout=30)
    assert len(found) == 1


def test_a_shadow_must_take_what_the_others_take(tmp_path):
    version_folder(tmp_path / "a", 7)
    version_folder(tmp_path / "b", 8, width=4)
    with pytest.raises(BrokenModel, match="churn/8 cannot be a shadow: its input 'x'"):
        engine_of(tmp_path, "--shadow", "churn/8")


def test_an_observer_that_fails_harms_nobody(folder):
    engine = engine_of(folder)
    engine.observers.append(lambda *_: 1 / 0)
    found, _ = recorded(engine, "answer")
    assert one(engine) == "10"
    assert len(found) == 1


def test_shares_labels_and_shadows_work_in_the_server(folder, start_server):
    running = start_server(
        folder, "--weight", "churn/7=1", "--weight", "churn/8=1", "--sticky", "header:x-user", "--shadow", "churn/9",
        "--label", "churn/champion=7",
    )  # fmt: skip
    with httpx.Client(base_url=running.url) as client:
        said = {user: client.post(INFER, content=body_of(), headers={"x-user": user}) for user in map(str, range(20))}
        again = {user: client.post(INFER, content=body_of(), headers={"x-user": user}) for user in said}
        champion = client.post("/v2/models/churn/versions/champion/infer", content=body_of())
    versions = {user: reply.json()["model_version"] for user, reply in said.items()}
    assert versions == {user: reply.json()["model_version"] for user, reply in again.items()}
    assert set(versions.values()) == {"7", "8"}
    assert champion.headers["modelrel-model"] == "churn/7"
    assert defaults().label == ()
