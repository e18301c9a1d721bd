"""The page at ``/``, looked at in a real browser."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import httpx
import numpy as np
import pytest
from onnx import helper

from modelrel.serving import load_model
from modelrel.serving.answers import Refused
from modelrel.serving.front import locked
from modelrel.serving.models import Endpoint, Models, Snapshot, State
from modelrel.serving.options import defaults
from modelrel.serving.page import pretty
from modelrel.serving.routing import Router
from modelrel.serving.routing import answer as asked
from tests.serving.browser import Page, browser, contrast, tab
from tests.serving.conftest import Running, start, write_folder
from tests.serving.released import METADATA, digits_folder, image_folder, table_folder, with_golden

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOSTILE = "\"'><script>window.hacked=1</script><img src=x onerror=window.hacked=1></textarea></title>"

# Sends the form of a protocol and gives what the page then shows.
SEND = """
(async (path) => {
  const form = [...document.forms].find(form => decodeURIComponent(form.dataset.path) === path);
  form.closest("details").open = true;
  const said = form.querySelector("output");
  const told = new Promise(resolve => new MutationObserver(() => said.textContent && resolve())
    .observe(said, {childList: true, characterData: true, subtree: true}));
  form.querySelector("button").click();
  await told;
  return {said: said.textContent, kind: said.className, answer: form.querySelector(".answer").textContent,
          shown: !form.querySelector(".answer").hidden, curl: form.querySelector(".curl").textContent};
})(%s)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    top = tmp_path_factory.mktemp("served")
    digits_folder(top / "digits")
    table_folder(top / "table")
    image_folder(top / "image")
    hostile_folder(top / "hostile")
    running = start(top)
    yield running
    running.process.kill()
    running.process.communicate()


def hostile_folder(folder: Path) -> Path:
    nodes = [helper.make_node("Identity", [HOSTILE], ["out" + HOSTILE])]
    written = write_folder(
        folder, nodes, [(HOSTILE, "BYTES", [-1])], [("out" + HOSTILE, "BYTES", [-1])],
        name=HOSTILE, version=HOSTILE, metadata={HOSTILE: HOSTILE, "run_id": HOSTILE, "parity": {HOSTILE: HOSTILE},
                                                 "tools": {HOSTILE: HOSTILE}, "more": [HOSTILE]},
    )  # fmt: skip
    return with_golden(written, {HOSTILE: [HOSTILE, "b"]})


@pytest.fixture(scope="module")
def devtools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with browser(tmp_path_factory.mktemp("profile")) as address:
        yield address


@pytest.fixture
def page(devtools: str, server: Running) -> Iterator[Page]:
    with tab(devtools) as made:
        made.open(server.url + "/")
        yield made


def send(page: Page, path: str) -> dict:
    return page.run(SEND % json.dumps(path))


def golden(server: Running, path: str) -> dict:
    return httpx.get(f"{server.url}/examples/{path}").json()


def test_the_button_sends_the_golden_row_and_shows_the_golden_answer(page: Page) -> None:
    found = send(page, "/v2/models/digits/infer")
    assert found["said"].startswith("200 OK in ")
    assert (found["kind"], found["shown"]) == ("good", True)
    recorded = page.run(
        "[...document.querySelectorAll('summary')].find(one => one.textContent.startsWith('What the release'))"
        ".parentNode.querySelector('pre').textContent"
    )
    expected = json.loads(recorded)
    outputs = {one["name"]: one for one in json.loads(found["answer"])["outputs"]}
    assert outputs["label"]["data"] == expected["label"]
    np.testing.assert_array_equal([outputs["probabilities"]["data"]], expected["probabilities"])


def test_the_first_model_can_be_asked_in_mlflow_s_form_too(page: Page) -> None:
    label = json.loads(send(page, "/v2/models/digits/infer")["answer"])["outputs"][0]["data"]
    assert json.loads(send(page, "/invocations")["answer"]) == {"predictions": label}


def test_every_request_on_the_page_is_one_that_its_model_answers(page: Page) -> None:
    paths = page.run("[...document.forms].map(form => decodeURIComponent(form.dataset.path))")
    assert len(paths) >= 5
    assert {path: send(page, path)["said"][:6] for path in paths} == dict.fromkeys(paths, "200 OK")


def test_columns_with_quotes_are_asked_as_they_are(page: Page) -> None:
    found = send(page, "/v2/models/churn/infer")
    assert found["kind"] == "good"
    assert {one["name"] for one in json.loads(found["answer"])["outputs"]} >= {"score", "s_out"}


def test_a_long_golden_row_is_fetched_when_it_is_sent(page: Page, server: Running) -> None:
    assert page.run("document.querySelector('[data-example*=image] textarea').value") == ""
    found = send(page, "/v2/models/image/infer")
    assert found["kind"] == "good"
    row = golden(server, "image/versions/2/v2")["inputs"][0]["data"]
    np.testing.assert_allclose(json.loads(found["answer"])["outputs"][0]["data"], [sum(row)], rtol=1e-5)


def test_a_request_that_is_refused_shows_the_sentence(page: Page) -> None:
    page.run("document.querySelector('form[data-path=\"/v2/models/digits/infer\"] textarea').value = '{'")
    found = send(page, "/v2/models/digits/infer")
    assert found["said"].startswith("400 ")
    assert found["kind"] == "bad"
    assert "error" in json.loads(found["answer"])


@pytest.mark.parametrize("path", ["/v2/models/digits/infer", "/v2/models/churn/infer", "/v2/models/image/infer"])
def test_the_curl_command_does_in_a_shell_what_the_button_does(page: Page, path: str) -> None:
    found = send(page, path)
    done = subprocess.run(["bash", "-c", found["curl"]], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == json.loads(found["answer"])


def test_the_curl_command_follows_what_is_typed(page: Page) -> None:
    curl = page.run(
        "(() => { const form = document.forms[0], body = form.querySelector('textarea');"
        "body.value = \"it's\"; body.dispatchEvent(new Event('input'));"
        "return form.querySelector('.curl').textContent })()"
    )
    assert curl.endswith("-d 'it'\\''s'")


def test_nothing_from_a_model_is_run_and_all_of_it_is_shown(page: Page) -> None:
    assert page.run("window.hacked") is None
    assert page.run("window.stopped") == []
    assert page.run("document.scripts.length") == 1
    assert page.run("document.images.length") == 0
    assert page.run("document.querySelectorAll('section b').length") == 0
    text = page.run("document.body.textContent")
    assert text.count(HOSTILE) >= 8
    values = page.run("[...document.querySelectorAll('textarea')].map(one => one.value)")
    requests = [json.loads(value)["inputs"] for value in values if '"shape"' in value]
    assert [HOSTILE] in [tensors[0]["data"] for tensors in requests]


def test_a_model_with_a_hostile_name_can_be_asked(page: Page) -> None:
    found = send(page, f"/v2/models/{HOSTILE}/infer")
    assert found["kind"] == "good", found
    assert json.loads(found["answer"])["outputs"][0]["data"] == [HOSTILE]
    assert page.run("window.hacked") is None


def test_the_page_asks_nobody_else_for_anything(page: Page, server: Running) -> None:
    send(page, "/v2/models/digits/infer")
    assert [url for url in page.requested if not url.startswith((server.url, "data:", "about:"))] == []


def test_a_script_that_got_into_the_page_would_not_run(page: Page) -> None:
    page.run("document.body.insertAdjacentHTML('beforeend', '<img src=\"data:,\" onerror=\"window.hacked = 1\">')")
    page.run(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.hacked = 2'}))"
    )
    assert page.run("window.hacked") is None
    assert set(page.run("window.stopped")) <= {"script-src", "script-src-elem", "script-src-attr"}
    assert page.run("window.stopped.length") >= 1


def test_without_scripts_all_of_it_can_be_read(devtools: str, server: Running) -> None:
    with tab(devtools) as page:
        page.call("Emulation.setScriptExecutionDisabled", value=True)
        page.open(server.url + "/")
        text = page.run("document.body.innerText")
        assert "probabilities" in text
        assert METADATA["run_id"] in text
        assert "10,688" in text
        assert json.loads(page.run("document.querySelector('textarea').value"))["inputs"][0]["name"] == "input"
        assert page.run("[...document.querySelectorAll('button')].every(one => one.disabled)")


def test_everything_that_can_be_used_has_a_name_for_those_who_do_not_see_it(page: Page) -> None:
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    named = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in nodes
        if not node.get("ignored") and node.get("role", {}).get("value") in ("button", "textbox", "link", "heading")
    ]
    assert ("button", "Send") in named
    assert ("textbox", "Request") in named
    assert [role for role, name in named if not name] == []
    assert page.run("document.documentElement.lang") == "en"


CONTRAST = contrast("h1,h2,h3,p,a,td,th,dt,dd,code,pre,textarea,summary,button,small,.good,.bad")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read_in_light_and_dark(page: Page, scheme: str) -> None:
    page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    dark = page.run("getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0] < 100")
    assert dark == (scheme == "dark")
    assert page.run(CONTRAST) >= 4.5


@pytest.mark.parametrize("width", [320, 700, 1600])
def test_it_fits_the_width_of_the_screen(page: Page, width: int) -> None:
    page.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
    assert page.run("document.documentElement.scrollWidth") <= width


# without a browser


def test_the_page_of_a_model_is_small_and_says_that_it_runs_nothing_else(tmp_path: Path) -> None:
    reply = asked(load_model(digits_folder(tmp_path / "digits")), "GET", "/", {}, b"")
    assert reply.status == 200
    assert len(reply.body) < 20_000
    policy = reply.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert b"http" not in reply.body.replace(b"http://SERVER", b"")


def test_versions_labels_shares_and_what_is_gone_are_shown(tmp_path: Path) -> None:
    one, two = (load_model(digits_folder(tmp_path / version, version=version)) for version in "12")
    models = Models.of(one, two)
    end = Endpoint("digits", {"1": one, "2": two}, two, {"champion": "1"}, ((one, 3.0), (two, 1.0)), (two,))
    states = (*models.snapshot.states, State("digits", "3", "UNAVAILABLE", "no such operator" + HOSTILE),
              State("fraud", "1", "UNAVAILABLE", "its file is missing"))  # fmt: skip
    models.snapshot = Snapshot({"digits": end}, states)
    text = asked(Router(models), "GET", "/", {}, b"").body.decode()
    for said in ("label champion, 75 % of requests", "25 % of requests, shadow", "no such operator",
                 "Not served", "its file is missing"):  # fmt: skip
        assert said in text
    assert ("not ready" in text) == (not models.snapshot.ready)
    assert text.count("<script") == 1
    assert "<img" not in text


def test_programs_get_the_index_in_json(tmp_path: Path) -> None:
    model = load_model(digits_folder(tmp_path / "digits"))
    reply = asked(model, "GET", "/", {"accept": "application/json"}, b"")
    assert json.loads(reply.body)["models"] == [{"name": "digits", "version": "7", "state": "READY", "reason": ""}]


@pytest.mark.parametrize("given", [{}, {"api_key": "secret"}])
def test_the_page_has_a_field_for_the_key_where_one_is_needed(tmp_path: Path, given: dict) -> None:
    router = Router(Models.of(load_model(digits_folder(tmp_path / "digits"))), settings=defaults(**given))
    text = asked(router, "GET", "/", {}, b"").body
    assert (b'id="key"' in text) == bool(given)
    assert b"secret" not in text


def test_a_browser_without_a_key_is_asked_for_one_and_a_program_is_not() -> None:
    error = Refused(401, "an API key is needed", {"www-authenticate": "Bearer"})
    found = locked(error, "/", {"accept": "text/html,*/*"})
    assert found is not None
    assert (found.status, found.headers["www-authenticate"]) == (401, "Bearer")
    assert b'id="key"' in found.body
    assert locked(error, "/", {"accept": "*/*"}) is None
    assert locked(error, "/v2", {"accept": "text/html"}) is None
    assert locked(Refused(403, "no"), "/", {"accept": "text/html"}) is None


def test_pretty_json_is_the_same_json() -> None:
    value = {"a": [list(range(64))], "b": {"c": "x" * 90, "d": [{"e": None}, True]}, "f": []}
    assert json.loads(pretty(value)) == value
    assert max(len(line) for line in pretty({"a": [[1, 2]] * 40}).splitlines()) < 20
