"""`modelrel webhook` on events that a real MLflow server signs and posts, and on those that somebody changed."""

from __future__ import annotations

import io
import json
import os
import shlex
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Done, Run, free_port

SECRET = "correct horse battery staple"
KINDS = ("registered_model.created", "model_version.created", "model_version_tag.set", "model_version_alias.created",
         "model_version_alias.deleted")  # fmt: skip
ODD = "it's $(touch x); churn -rf"


@dataclass(frozen=True)
class Delivery:
    """One request as the receiver got it."""

    body: bytes
    headers: dict[str, str]

    @property
    def kind(self) -> str:
        content = json.loads(self.body)
        return f"{content['entity']}.{content['action']}"

    @property
    def words(self) -> list[str]:
        return [word for name, value in self.headers.items() for word in ("--header", f"{name}: {value}")]


def post(url: str, body: dict[str, Any], method: str = "POST") -> None:
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}, method=method
    )
    urllib.request.urlopen(request, timeout=60).read()


@pytest.fixture(scope="module")
def deliveries(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Delivery]]:
    """What `mlflow server` posts when models are registered, tagged, and given aliases."""
    got: list[Delivery] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append(Delivery(body, {name: value for name, value in self.headers.items() if name.startswith("X-")}))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    receiver = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    folder, port = tmp_path_factory.mktemp("webhook"), free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db",
               "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]  # fmt: skip
    # the receiver is on this machine, and speaks no TLS: both are refused unless these say so
    allowed = {"MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http", "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true"}
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            command, stdout=log, stderr=log, cwd=folder, start_new_session=True, env={**os.environ, **allowed}
        )
    try:
        api = f"http://127.0.0.1:{port}/api/2.0/mlflow"
        while not _answers(f"http://127.0.0.1:{port}/health"):
            assert server.poll() is None, (folder / "log").read_text()[-2000:]
        _happen(api, receiver.server_address[1])
        while len(got) < 8:
            assert server.poll() is None
            time.sleep(0.05)
        yield got
    finally:
        os.killpg(server.pid, 15)
        server.wait(20)
        receiver.shutdown()
        receiver.server_close()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=30):
            return True
    except OSError:
        time.sleep(0.2)
        return False


def _happen(api: str, port: int) -> None:
    events = [dict(zip(("entity", "action"), kind.upper().split("."), strict=True)) for kind in KINDS]
    hook = {"name": "pipeline", "url": f"http://127.0.0.1:{port}/", "events": events, "secret": SECRET}
    post(f"{api}/webhooks", hook)
    for name in ("churn", ODD):
        post(f"{api}/registered-models/create", {"name": name})
    post(f"{api}/model-versions/create", {"name": "churn", "source": "s3://bucket/model", "description": "Größe: 5 €"})
    post(f"{api}/model-versions/create", {"name": ODD, "source": "s3://bucket/model"})
    post(f"{api}/model-versions/set-tag", {"name": "churn", "version": "1", "key": "reviewed", "value": "yes"})
    post(f"{api}/registered-models/alias", {"name": "churn", "alias": "candidate", "version": "1"})
    post(f"{api}/registered-models/alias", {"name": "churn", "alias": "champion", "version": "1"})
    post(f"{api}/registered-models/alias", {"name": "churn", "alias": "candidate"}, "DELETE")


def one(deliveries: list[Delivery], kind: str, **data: str) -> Delivery:
    """Return the delivery of an event with these data."""
    return next(d for d in deliveries if d.kind == kind and json.loads(d.body)["data"].items() >= data.items())


Heard = Callable[..., Done]


@pytest.fixture
def hear(run: Run, monkeypatch: pytest.MonkeyPatch) -> Heard:
    """Run the command on a delivery; it knows the secret."""
    monkeypatch.setenv("HOOK_SECRET", SECRET)

    def call(delivery: Delivery, *words: object) -> Done:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(delivery.body)))
        return run("webhook", "--secret-env", "HOOK_SECRET", *delivery.words, *words)

    return call


def settings(text: str) -> None:
    Path("modelrel.toml").write_text(text)


def test_an_alias_that_asks_for_a_release_gives_its_command(deliveries: list[Delivery], hear: Heard) -> None:
    settings('[release]\ntarget = ["docker", "lambda"]\npromote = "champion"\n')
    done = hear(one(deliveries, "model_version_alias.created", alias="candidate"))
    assert (done.code, done.out) == (
        0, "modelrel release churn/1 --target docker --target lambda --promote champion\n",
    )  # fmt: skip


def test_a_new_version_is_tried_dry(deliveries: list[Delivery], hear: Heard) -> None:
    done = hear(one(deliveries, "model_version.created", name="churn"))
    assert (done.code, done.out) == (0, "modelrel release churn/1 --dry-run\n")


def test_the_settings_say_which_events_ask_for_something(deliveries: list[Delivery], hear: Heard) -> None:
    settings('[webhook]\nalias = ["champion"]\ncreated = false\n')
    assert hear(one(deliveries, "model_version.created", name="churn")).out == ""
    assert hear(one(deliveries, "model_version_alias.created", alias="candidate")).out == ""
    assert hear(one(deliveries, "model_version_alias.created", alias="champion")).out == "modelrel release churn/1\n"


@pytest.mark.parametrize("kind", ["registered_model.created", "model_version_tag.set", "model_version_alias.deleted"])
def test_an_event_that_needs_nothing_prints_nothing(deliveries: list[Delivery], hear: Heard, kind: str) -> None:
    done = hear(one(deliveries, kind, name="churn"))
    assert (done.code, done.out, done.err) == (0, "", "")
    told = hear(one(deliveries, kind, name="churn"), "--json")
    assert (told.json["event"], told.json["command"]) == (kind, [])


def test_a_name_with_everything_in_it_stays_one_word_for_a_shell(deliveries: list[Delivery], hear: Heard) -> None:
    done = hear(one(deliveries, "model_version.created", name=ODD))
    assert shlex.split(done.out) == ["modelrel", "release", f"{ODD}/1", "--dry-run"]
    said = subprocess.run(
        ["sh", "-c", f"modelrel() {{ printf '%s\\n' \"$@\"; }}; {done.out}"], capture_output=True, text=True, check=True
    )
    assert said.stdout.splitlines() == ["release", f"{ODD}/1", "--dry-run"]
    assert not Path("x").exists()


def test_headers_come_from_the_environment_as_web_servers_hand_them_on(
    deliveries: list[Delivery], hear: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    delivery = one(deliveries, "model_version.created", name="churn")
    for name, value in delivery.headers.items():
        monkeypatch.setenv(f"HTTP_{name.upper().replace('-', '_')}", value)
    assert hear(replace(delivery, headers={})).out == "modelrel release churn/1 --dry-run\n"


@pytest.mark.parametrize(
    "change", ["body", "secret", "X-Mlflow-Signature", "X-Mlflow-Timestamp", "X-Mlflow-Delivery-Id"]
)
def test_what_somebody_changed_is_refused(
    deliveries: list[Delivery], hear: Heard, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    delivery = one(deliveries, "model_version_alias.created", alias="candidate")
    if change == "body":
        delivery = replace(delivery, body=delivery.body.replace(b"churn", b"chUrn"))
    elif change == "secret":
        monkeypatch.setattr("tests.commands.test_webhook.SECRET", "another")
        monkeypatch.setenv("HOOK_SECRET", "another")
    else:
        headers = {name.title(): value for name, value in delivery.headers.items()}
        last = headers[change][-3]
        headers[change] = headers[change][:-3] + ("1" if last != "1" else "2") + headers[change][-2:]
        delivery = replace(delivery, headers=headers)
    done = hear(delivery)
    assert (done.code, done.out) == (4, "")
    assert "signature" in done.err


def test_an_event_without_a_signature_is_refused(deliveries: list[Delivery], hear: Heard) -> None:
    delivery = one(deliveries, "model_version.created", name="churn")
    headers = {name: value for name, value in delivery.headers.items() if "signature" not in name.lower()}
    done = hear(replace(delivery, headers=headers))
    assert (done.code, "no X-MLflow-Signature" in done.err) == (4, True)


def test_an_event_older_than_the_tolerance_is_refused(deliveries: list[Delivery], hear: Heard) -> None:
    from modelrel.errors import Refused
    from modelrel.registry.webhook import checked

    delivery = one(deliveries, "model_version.created", name="churn")
    signed = int(next(value for name, value in delivery.headers.items() if name.lower() == "x-mlflow-timestamp"))
    assert checked(delivery.body, delivery.headers, SECRET, signed + 300, 300).version == "1"
    for now in (signed + 301, signed - 301):
        with pytest.raises(Refused, match="301 s"):
            checked(delivery.body, delivery.headers, SECRET, now, 300)
    assert hear(delivery, "--tolerance", "0.000001").code == 4
    assert hear(delivery, "--tolerance", "-1").code == hear(delivery, "--tolerance", "nan").code == 2


def signed(body: bytes) -> Delivery:
    """Return a body with the signature that MLflow's own function makes."""
    from mlflow.webhooks.delivery import _generate_hmac_signature

    now = str(int(time.time()))
    headers = {"X-MLflow-Signature": _generate_hmac_signature(SECRET, "id", now, body.decode()),
               "X-MLflow-Timestamp": now, "X-MLflow-Delivery-Id": "id"}  # fmt: skip
    return Delivery(body, headers)


@pytest.mark.parametrize("body", [
    b"", b"no json", b"[]", b"{}", b'{"entity": "model_version", "action": "created"}',
    b'{"entity": "model_version", "action": "created", "data": {"name": 1}}',
    b'{"entity": "model_version", "action": "created", "data": {"name": "a:b/c", "version": "x"}}',
], ids=["empty", "text", "list", "object", "no-data", "number", "no-version"])  # fmt: skip
def test_what_is_signed_but_no_event_is_wrong_input(hear: Heard, body: bytes) -> None:
    done = hear(signed(body))
    assert (done.code, done.out) == (2, "")
    assert "Traceback" not in done.err


def test_a_release_that_would_start_itself_again_is_wrong_input(hear: Heard) -> None:
    settings('[release]\npromote = "champion"\n[webhook]\nalias = ["champion"]\n')
    done = hear(signed(b'{"entity": "model_version", "action": "created", "data": {"name": "a", "version": "1"}}'))
    assert (done.code, "each would start the next" in done.err) == (2, True)


def test_a_missing_secret_and_a_header_that_is_none_are_wrong_input(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"{}")))
    assert run("webhook", "--secret-env", "HOOK_SECRET").code == 2
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    assert run("webhook", "--secret-env", "HOOK_SECRET", "--header", "X-MLflow-Timestamp").code == 2
