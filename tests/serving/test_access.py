"""Who may ask: keys, certificates, pages of other sites."""

import os
import signal
import ssl
import subprocess
import sys

import httpx
import pytest

from modelrel.serving.keys import BadKeys, Keys
from modelrel.serving.options import defaults

INFER = "/v2/models/churn/infer"
BODY = {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")

    def make(name, *more):
        made = ["-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem"]
        who = ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
        kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
        subprocess.run(["openssl", "req", *kind, *made, *who, *more], check=True, capture_output=True)

    make("own", "-nodes")
    make("other", "-nodes")
    make("locked", "-passout", "pass:secret")
    return folder


@pytest.fixture(scope="module")
def key_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("keys") / "keys"
    path.write_text("# the keys\nfirst-key\n\n  second-key \nschlüssel\n")
    return path


@pytest.mark.parametrize(
    ("headers", "right"),
    [
        ({"authorization": "Bearer first-key"}, True),
        ({"authorization": "bearer   second-key"}, True),
        ({"x-api-key": "second-key"}, True),
        ({"x-api-key": "schlüssel".encode().decode("latin-1")}, True),
        ({"x-api-key": "given"}, True),
        ({}, False),
        ({"x-api-key": ""}, False),
        ({"x-api-key": "first-ke"}, False),
        ({"x-api-key": "# the keys"}, False),
        ({"authorization": "first-key"}, False),
        ({"authorization": "Basic first-key"}, False),
        ({"authorization": "Bearer wrong", "x-api-key": "first-key"}, False),
        ({"authorization": "Bearer first-key, Bearer second-key"}, False),
        ({"x-api-key": "\u20ac"}, False),
    ],
)
def test_a_key_is_one_of_those_known_or_none(key_file, headers, right):
    assert Keys(defaults(api_key="given", api_key_file=str(key_file))).authorized(headers) is right


@pytest.mark.parametrize("content", [None, b"", b"# nothing\n\n", b"\xff\xfe"])
def test_a_file_without_keys_is_refused_in_one_sentence(tmp_path, content):
    path = tmp_path / "keys"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadKeys, match="file of API keys"):
        Keys(defaults(api_key_file=str(path)))


def test_an_empty_key_is_refused():
    with pytest.raises(BadKeys, match="empty"):
        Keys(defaults(api_key=""))


@pytest.fixture(scope="module")
def closed(tensor_dir, key_file):
    from tests.serving.conftest import start

    running = start(tensor_dir, "--api-key-file", str(key_file), "--cors", "https://example.org")
    yield running
    running.process.kill()
    running.process.communicate()


def test_who_has_no_key_is_401_and_told_how_to_bring_one(closed):
    reply = httpx.post(closed.url + INFER, json=BODY)
    assert reply.status_code == 401
    assert reply.headers["www-authenticate"].startswith("Bearer")
    assert "X-Api-Key" in reply.json()["error"]


@pytest.mark.parametrize("path", ["/v2", "/nothing", "/v2/models/churn", "/invocations", "/metrics", "//ping"])
def test_without_a_key_nothing_is_told_not_even_what_there_is(closed, path):
    assert httpx.get(closed.url + path).status_code == 401


@pytest.mark.parametrize("path", ["/ping", "/health", "/v2/health/live", "/v2/health/ready"])
def test_whether_the_server_is_up_is_told_to_everybody(closed, path):
    assert httpx.get(closed.url + path).status_code == 200


@pytest.mark.parametrize("headers", [{"authorization": "Bearer first-key"}, {"x-api-key": "second-key"}])
def test_who_has_a_key_is_answered(closed, headers):
    assert httpx.post(closed.url + INFER, json=BODY, headers=headers).status_code == 200


def test_a_body_without_a_key_is_not_even_read(closed):
    assert httpx.post(closed.url + INFER, content=b" " * 1_000_000).status_code == 401


def test_a_page_of_an_allowed_site_may_ask_whether_it_may_ask_without_a_key(closed):
    asked = {
        "origin": "https://example.org",
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type,x-api-key",
    }
    reply = httpx.options(closed.url + INFER, headers=asked)
    assert reply.status_code == 204
    assert reply.headers["access-control-allow-origin"] == "https://example.org"
    assert "POST" in reply.headers["access-control-allow-methods"]
    assert reply.headers["access-control-allow-headers"] == "content-type,x-api-key"
    assert "origin" in reply.headers["vary"]


def test_a_page_of_an_allowed_site_can_read_answers_and_refusals(closed):
    for headers in ({}, {"x-api-key": "first-key"}):
        reply = httpx.post(closed.url + INFER, json=BODY, headers=headers | {"origin": "https://example.org"})
        assert reply.headers["access-control-allow-origin"] == "https://example.org"
        assert reply.headers["vary"] == "origin"


def test_a_page_of_another_site_is_told_nothing(closed):
    headers = {"origin": "https://evil.example", "access-control-request-method": "POST", "x-api-key": "first-key"}
    assert "access-control-allow-origin" not in httpx.options(closed.url + INFER, headers=headers).headers
    reply = httpx.get(closed.url + "/v2", headers=headers)
    assert "access-control-allow-origin" not in reply.headers
    assert reply.headers["vary"] == "origin"


def test_a_server_that_nobody_told_says_nothing_about_other_sites(client):
    headers = {"origin": "https://example.org", "access-control-request-method": "POST"}
    for reply in (client.get("/v2", headers=headers), client.options(INFER, headers=headers)):
        assert not [name for name in reply.headers if name.startswith("access-control") or name == "vary"]


def test_what_a_browser_sends_for_a_page_of_another_site_is_refused(client):
    assert client.post(INFER, json=BODY, headers={"sec-fetch-site": "cross-site"}).status_code == 403
    assert client.post(INFER, json=BODY, headers={"sec-fetch-site": "same-origin"}).status_code == 200
    assert client.get("/v2", headers={"sec-fetch-site": "cross-site"}).status_code == 200


def test_options_says_what_may_be_asked(client):
    reply = client.options(INFER)
    assert (reply.status_code, reply.headers["allow"]) == (204, "POST, OPTIONS")
    assert client.options("/v2").headers["allow"] == "GET, HEAD, OPTIONS"
    assert client.options("/nothing").status_code == 404


def test_any_site_is_allowed_by_a_star(tensor_dir, start_server):
    running = start_server(tensor_dir, "--cors", "*")
    reply = httpx.get(running.url + "/v2", headers={"origin": "https://example.org"})
    assert reply.headers["access-control-allow-origin"] == "*"
    assert "vary" not in reply.headers


def test_a_key_in_the_environment_is_a_quiet_one(tensor_dir, start_server):
    running = start_server(tensor_dir, env=os.environ | {"MODELREL_API_KEY": "quiet"})
    assert running.ready_line.startswith("modelrel serving churn/7")
    assert httpx.get(running.url + "/v2").status_code == 401
    assert httpx.get(running.url + "/v2", headers={"x-api-key": "quiet"}).status_code == 200


@pytest.mark.parametrize("words", [("--api-key", "loud"), ("--api-key=loud",)])
def test_a_key_on_the_command_line_is_warned_of_without_saying_it(tensor_dir, words):
    command = [sys.executable, "-m", "modelrel.serving", str(tensor_dir), "--port", "0", *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        warning, ready = process.stderr.readline(), process.stderr.readline()
        process.terminate()
    assert "MODELREL_API_KEY" in warning
    assert "loud" not in warning + ready
    assert ready.startswith("modelrel serving churn/7 on ")


def test_keys_are_read_again_at_sighup_and_a_broken_file_changes_nothing(tensor_dir, start_server, tmp_path):
    path = tmp_path / "keys"
    path.write_text("old\n")
    running = start_server(tensor_dir, "--no-access-log", "--api-key-file", str(path))

    def status(key):
        return httpx.get(running.url + "/v2", headers={"x-api-key": key}).status_code

    assert (status("old"), status("new")) == (200, 401)
    path.unlink()
    running.process.send_signal(signal.SIGHUP)
    assert "the one before stays" in running.process.stderr.readline()
    assert status("old") == 200
    path.write_text("new\n")
    running.process.send_signal(signal.SIGHUP)
    while status("new") != 200:
        pass
    assert status("old") == 401


def test_a_server_with_a_certificate_speaks_tls_and_its_url_says_so(tensor_dir, start_server, certificate):
    running = start_server(
        tensor_dir, "--tls-cert", str(certificate / "own.pem"), "--tls-key", str(certificate / "own.key")
    )
    assert running.url.startswith("https://127.0.0.1:")
    with httpx.Client(verify=ssl.create_default_context(cafile=certificate / "own.pem")) as client:
        assert client.post(running.url + INFER, json=BODY).json()["outputs"][0]["data"] == [2.0, 4.0, 6.0]
        assert client.post(running.url + INFER, content=b" " * 200).status_code == 400
    old = ["openssl", "s_client", "-tls1_1", "-cipher", "ALL:@SECLEVEL=0", "-connect", running.url[8:]]
    assert subprocess.run(old, input=b"", capture_output=True, check=False).returncode != 0
    with pytest.raises(httpx.HTTPError):
        httpx.get(running.url.replace("https", "http") + "/v2")
    check = [sys.executable, "-m", "modelrel.serving", "healthcheck", "--port", str(running.port)]
    told = os.environ | {"MODELREL_TLS_CERT": str(certificate / "own.pem")}
    assert subprocess.run(check, env=told, check=False).returncode == 0
    assert subprocess.run(check, check=False).returncode == 1
    assert running.stop() == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--tls-cert", "own.pem", "--tls-key", "other.key"), "key values mismatch"),
        (("--tls-cert", "missing.pem", "--tls-key", "own.key"), "cannot be read"),
        (("--tls-cert", "own.key", "--tls-key", "own.key"), "no certificate"),
        (("--tls-cert", "locked.pem", "--tls-key", "locked.key"), "encrypted"),
        (("--tls-key", "own.key"), "no certificate"),
        (("--api-key-file", "missing"), "cannot be read"),
    ],
)
def test_what_cannot_be_used_is_one_sentence_and_exit_code_2(tensor_dir, certificate, words, said):
    words = [word if word.startswith("--") else str(certificate / word) for word in words]
    command = [sys.executable, "-m", "modelrel.serving", str(tensor_dir), "--port", "0", *words]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert said in result.stderr
