"""Registries as they are: sick, hostile, guarded. Each ends in a documented error, or in what was asked for."""

from __future__ import annotations

import base64
import io
import json
import os
import socket
import socketserver
import ssl
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from urllib.parse import parse_qs, urlsplit

import pytest

from modelrel.errors import Conflict, ModelrelError, Refused, Unavailable
from modelrel.oci import connection, download, insecure, media, names
from modelrel.oci.connection import DOCUMENT_BYTES
from modelrel.oci.content import Descriptor, canonical
from modelrel.oci.push import Moved, fallback, push, referrers
from modelrel.oci.registry import Registry
from tests import registries
from tests.oci.fake_registry import Fake, Request, digest, serving

BIG = os.urandom(1 << 20) * 6  # more than a socket's buffers
Mood = Callable[[Request], bool]


class Parts:
    """A store in memory: an image of a config and two layers, one of them large."""

    def __init__(self, large: bytes = BIG, small: bytes = b"a small layer") -> None:
        self.contents: dict[str, bytes] = {}
        config = self.keep(b'{"architecture":"amd64","os":"linux"}', media.OCI_CONFIG)
        self.layers = [self.keep(large, media.OCI_LAYER), self.keep(small, media.OCI_LAYER)]
        layers = [one.plain() for one in self.layers]
        self.top = self.document({"mediaType": media.OCI_MANIFEST, "config": config.plain(), "layers": layers})

    def keep(self, content: bytes, kind: str) -> Descriptor:
        self.contents[digest(content)] = content
        return Descriptor.of(content, kind)

    def document(self, plain: dict[str, object]) -> Descriptor:
        return self.keep(canonical({"schemaVersion": 2, **plain}), str(plain["mediaType"]))

    def referrer(self, text: bytes) -> Descriptor:
        empty, layer = self.keep(b"{}", media.OCI_EMPTY), self.keep(text, "text/plain")
        return self.document({
            "mediaType": media.OCI_MANIFEST, "artifactType": "text/x-proof", "config": empty.plain(),
            "layers": [layer.plain()], "subject": self.top.plain(),
        })  # fmt: skip

    def open(self, part: Descriptor) -> BinaryIO:
        return io.BytesIO(self.contents[part.digest])


@pytest.fixture(autouse=True)
def _nobody_is_logged_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def fake() -> Iterator[Fake]:
    with serving() as found:
        yield found


@pytest.fixture
def pauses() -> list[float]:
    return []


def to(fake: Fake, name: str = "team/churn:7", pauses: list[float] | None = None) -> Registry:
    wait = (lambda _: None) if pauses is None else pauses.append
    return Registry.connect(names.parse(f"{fake.address}/{name}"), write=True, wait=wait)


def pushed(fake: Fake, parts: Parts, name: str = "team/churn:7", *more: Descriptor, near: str = "") -> Moved:
    with to(fake, name) as registry:
        return push(parts, (parts.top, *more), registry, [near] if near else [])


def login(host: str, **entry: str) -> None:
    path = Path(os.environ["DOCKER_CONFIG"]) / "config.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"auths": {host: entry}}))


def always(status: int, code: str = "NO", **headers: str) -> Mood:
    return lambda request: request.error(status, code, **headers)


def times(count: int, mood: Mood, method: str = "", part: str = "") -> Mood:
    """A mood for the first requests of a method."""
    left = [count]

    def moody(request: Request) -> bool:
        if left[0] and method in ("", request.command) and part in request.path:
            left[0] -= 1
            return mood(request)
        return False

    return moody


# pushing and reading back


def test_what_is_pushed_comes_back_byte_for_byte(fake: Fake) -> None:
    parts = Parts()
    moved = pushed(fake, parts)
    assert (moved.sent, moved.mounted, moved.there, moved.changed) == (3, 0, 0, True)
    assert moved.wire == sum(len(content) for content in parts.contents.values()) - parts.top.size
    with to(fake) as registry:
        assert registry.index == parts.top
        for part in (parts.top, *parts.layers):
            assert registry.open(part).read() == parts.contents[part.digest]


def test_the_tag_comes_last(fake: Fake) -> None:
    pushed(fake, Parts())
    written = [one.path for one in fake.seen if one.method in ("PUT", "PATCH", "POST")]
    assert written[-1] == "/v2/team/churn/manifests/7"
    assert "/manifests/sha256:" in written[-2]
    assert all("/blobs/uploads/" in path for path in written[:-2])


def test_pushing_the_same_again_sends_nothing(fake: Fake) -> None:
    parts = Parts()
    pushed(fake, parts)
    fake.seen.clear()
    again = pushed(fake, parts)
    assert (again.sent, again.there, again.wire, again.changed) == (0, 3, 0, False)
    assert not [one for one in fake.seen if one.method not in ("GET", "HEAD")]


def test_only_the_changed_layer_is_sent(fake: Fake) -> None:
    pushed(fake, Parts())
    moved = pushed(fake, Parts(small=b"another small layer"))
    assert (moved.sent, moved.there, moved.wire) == (1, 2, len(b"another small layer"))


def test_layers_of_a_neighbour_are_taken_over(fake: Fake) -> None:
    pushed(fake, Parts(), "base/python:3")
    moved = pushed(fake, Parts(), near="base/python")
    assert (moved.sent, moved.mounted, moved.wire) == (0, 3, 0)


def test_a_registry_that_mounts_nothing_gets_the_bytes(fake: Fake) -> None:
    pushed(fake, Parts(), "base/python:3")
    fake.mounts = False
    moved = pushed(fake, Parts(), near="base/python")
    assert (moved.sent, moved.mounted) == (3, 0)
    assert (fake.begun, len(fake.uploads)) == (9, 6)  # what a refused mount began is given back


def test_a_neighbour_that_may_not_be_read_is_no_obstacle(fake: Fake) -> None:
    fake.moods.append(lambda request: "base/python" in request.path and request.error(403, "DENIED"))
    assert pushed(fake, Parts(), near="base/python").sent == 3


def test_an_index_goes_after_its_manifests(fake: Fake) -> None:
    parts = Parts()
    parts.top = parts.document({"mediaType": media.OCI_INDEX, "manifests": [parts.top.plain()]})
    pushed(fake, parts)
    with to(fake) as registry:
        assert registry.index.media_type == media.OCI_INDEX


# cut connections


def half(request: Request) -> bool:
    """Take the first half of what is sent, then cut."""
    upload = urlsplit(request.path).path.rpartition("/")[2]
    request.fake.uploads[upload] += request.rfile.read(len(BIG) // 2)
    return request.drop()


def test_a_cut_upload_goes_on_where_it_was(fake: Fake) -> None:
    fake.moods.append(times(1, half, "PATCH"))
    moved = pushed(fake, Parts())
    ranges = [one.headers.get("Content-Range") for one in fake.asked("PATCH")]
    assert f"{len(BIG) // 2}-{len(BIG) - 1}" in ranges
    assert moved.sent == 3


def test_an_upload_that_the_registry_forgot_begins_anew(fake: Fake) -> None:
    def forget(request: Request) -> bool:
        request.fake.uploads.pop(urlsplit(request.path).path.rpartition("/")[2], None)
        return request.drop()

    fake.moods.append(times(1, forget, "PATCH"))
    assert pushed(fake, Parts()).sent == 3


def test_an_upload_that_is_cut_again_and_again_is_given_up_untagged(fake: Fake) -> None:
    fake.moods.append(lambda request: request.command == "PATCH" and request.drop())
    with pytest.raises(Unavailable, match=r"broke off the upload of sha256:\w+ .* 4 times"):
        pushed(fake, Parts())
    assert fake.tags("team/churn") == set()


def test_an_answer_that_got_lost_is_no_failure(fake: Fake) -> None:
    def stored(request: Request) -> bool:
        upload = fake.uploads[urlsplit(request.path).path.rpartition("/")[2]]
        fake.hold("team/churn", bytes(upload))
        return request.drop()

    fake.moods.append(times(1, stored, "PUT", "/uploads/"))
    assert pushed(fake, Parts()).sent == 3


def test_a_cut_download_goes_on_where_it_was(fake: Fake) -> None:
    part = Descriptor.of(BIG, media.OCI_LAYER)
    fake.hold("team/churn", BIG)

    def cut(request: Request) -> bool:
        request.send_response(200)
        request.send_header("Content-Length", str(len(BIG)))
        request.end_headers()
        request.wfile.write(BIG[: len(BIG) // 3])
        return request.drop()

    fake.moods.append(times(1, cut, "GET", "/blobs/"))
    with to(fake) as registry:
        assert registry.open(part).read() == BIG
    assert "Range" in fake.asked("GET", "/blobs/")[-1].headers


# refusals: each a sentence and an exit code


@pytest.mark.parametrize(
    ("mood", "kind", "sentence"),
    [
        (always(401, WWW_Authenticate='Basic realm="r"'), Unavailable, "lets nobody in without credentials"),
        (always(401), Unavailable, "lets nobody in without credentials"),
        (always(403, "DENIED"), Unavailable, r"does not allow it in team/churn \(403, DENIED\)"),
        (always(404, "NAME_UNKNOWN"), Unavailable, r"does not have"),
        (always(405, "UNSUPPORTED"), Unavailable, r"does not take (HEAD|GET) of /v2/team/churn/.* \(405"),
        (always(429, "TOOMANYREQUESTS"), Unavailable, r"has had too many requests \(429"),
        (always(429, Retry_After="3600"), Unavailable, "has had too many requests"),
        (always(429, Retry_After="0"), Unavailable, "has had too many requests"),
        (always(500, "UNKNOWN"), Unavailable, r"is not well \(500"),
        (always(503), Unavailable, r"is not well \(503"),
        (lambda request: request.drop(), Unavailable, "cannot be reached: the connection was cut"),
        (always(302, Location="/v2/again"), Refused, "redirects without end"),
        (always(307, Location="gopher://elsewhere/"), Refused, "leads from http to 'gopher://elsewhere/'"),
        (always(307, Location="http://[::1/"), Refused, "leads from http to"),
    ],
)  # fmt: skip
def test_a_refusal_is_one_sentence_and_nothing_is_tagged(
    fake: Fake, mood: Mood, kind: type[ModelrelError], sentence: str
) -> None:
    fake.moods.append(mood)
    with pytest.raises(kind, match=sentence) as caught:
        pushed(fake, Parts())
    assert caught.value.hint
    assert "\n" not in caught.value.message
    assert fake.tags("team/churn") == set()


@pytest.mark.parametrize("status", [500, 502, 503, 504])
@pytest.mark.parametrize("method", ["HEAD", "POST", "PATCH", "PUT", "GET"])
def test_what_passes_is_waited_for(fake: Fake, status: int, method: str) -> None:
    fake.moods.append(times(2, always(status), method))
    assert pushed(fake, Parts(large=b"large")).sent == 3


def test_the_pauses_grow(fake: Fake, pauses: list[float]) -> None:
    fake.moods.append(always(503))
    with to(fake, pauses=pauses) as registry, pytest.raises(Unavailable):
        registry.resolve("7")
    assert pauses == sorted(pauses)
    assert len(pauses) == 3


def test_retry_after_is_heeded(fake: Fake, pauses: list[float]) -> None:
    fake.moods.append(times(2, always(429, Retry_After="17")))
    with to(fake, pauses=pauses) as registry:
        assert registry.resolve("7") is None
    assert pauses == [17, 17]


def test_a_date_in_retry_after_is_by_the_registry_s_clock(fake: Fake, pauses: list[float]) -> None:
    def dated(request: Request) -> bool:
        request.date_time_string = lambda timestamp=None: "Wed, 21 Oct 2015 07:28:00 GMT"  # type: ignore[method-assign]
        return request.error(429, "NO", Retry_After="Wed, 21 Oct 2015 07:28:09 GMT")

    fake.moods.append(times(1, dated))
    with to(fake, pauses=pauses) as registry:
        assert registry.resolve("7") is None
    assert pauses == [9]


def test_a_failure_after_the_blobs_leaves_the_old_tag(fake: Fake) -> None:
    first = Parts(small=b"first")
    pushed(fake, first)
    fake.moods.append(lambda request: request.command == "PUT" and "/manifests/" in request.path and request.drop())
    with pytest.raises(Unavailable):
        pushed(fake, Parts(small=b"second"))
    assert digest(fake.manifests["team/churn", "7"][1]) == first.top.digest


def test_a_tag_that_somebody_else_moved_meanwhile_is_a_conflict(fake: Fake) -> None:
    parts, other = Parts(), canonical({"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": []})

    def faster(request: Request) -> bool:
        if request.command == "PUT" and request.path.endswith("/manifests/7"):
            request.body()
            fake.hold_manifest("team/churn", "7", media.OCI_INDEX, other)
            return request.reply(201)
        return False

    fake.moods.append(faster)
    with pytest.raises(Conflict, match=r"team/churn:7 is sha256:\w+ after sha256:\w+ was pushed"):
        pushed(fake, parts)


@pytest.mark.parametrize("where", ["/uploads/", "/manifests/"])
def test_another_digest_in_an_answer_is_refused(fake: Fake, where: str) -> None:
    def lie(request: Request) -> bool:
        if request.command == "PUT" and where in request.path:
            request.body()
            return request.reply(201, Docker_Content_Digest=f"sha256:{'ab' * 32}")
        return False

    fake.moods.append(lie)
    with pytest.raises(Refused, match="gave other bytes than asked for"):
        pushed(fake, Parts(large=b"large"))
    assert fake.tags("team/churn") == set()


def test_other_bytes_than_a_digest_names_are_refused(fake: Fake) -> None:
    part = Descriptor.of(b"as it should be", media.OCI_LAYER)
    for wrong in (b"as it could be!", b"as it should be, and more"):
        fake.blobs["team/churn", part.digest] = wrong
        with to(fake) as registry, pytest.raises(Refused, match="gave other bytes than"):
            registry.open(part).read()
    fake.manifests["team/churn", part.digest] = (media.OCI_INDEX, b'{"manifests":[]}')
    with to(fake) as registry, pytest.raises(Refused, match="gave other bytes than asked for"):
        registry.resolve(part.digest)


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (media.OCI_INDEX, b"[]"),
        (media.OCI_INDEX, b"{" * 100_000),
        (media.OCI_INDEX, b"\xff\xfe"),
        ("text/html", b"{}"),
        (media.OCI_INDEX, canonical({"mediaType": media.OCI_MANIFEST})),
        (media.OCI_INDEX, b" " * (DOCUMENT_BYTES + 1)),
    ],
)
def test_what_is_no_manifest_is_refused(fake: Fake, kind: str, content: bytes) -> None:
    fake.hold_manifest("team/churn", "7", kind, content)
    with to(fake) as registry, pytest.raises(Refused):
        registry.resolve("7")


def test_a_registry_that_does_not_answer_is_not_waited_for_without_end(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = threading.Event()
    monkeypatch.setattr(connection, "_ANSWER_S", 0.1)
    fake.moods.append(lambda request: bool(request.fake.seen) and answered.wait() and request.drop())
    try:
        with to(fake) as registry, pytest.raises(Unavailable, match="it gave no answer in time"):
            registry.resolve("7")
    finally:
        answered.set()


def test_a_registry_that_is_too_slow_is_given_up(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = Parts()
    pushed(fake, parts)
    with to(fake) as registry:
        monkeypatch.setattr(connection, "_DOCUMENT_S", -1.0)
        with pytest.raises(Unavailable, match="is too slow"):
            registry.resolve("7")
        monkeypatch.setattr(download, "_SLOW_S", -1.0)
        with pytest.raises(Unavailable, match=r"gave 0 of the 6,291,456 bytes of sha256:\w+ \(it is too slow\)"):
            registry.open(parts.layers[0]).read()


def test_the_user_s_proxy_is_used(fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = tmp_path / "registries.conf"
    settings.write_text('[[registry]]\nlocation = "images.invalid:5000"\ninsecure = true\n')
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(settings))
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, f"http://{fake.address}")
    for name in ("NO_PROXY", "no_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with Registry.connect(names.parse("images.invalid:5000/churn:7"), wait=lambda _: None) as registry:
        assert registry.resolve("7") is None
    assert fake.seen[-1].path == "http://images.invalid:5000/v2/churn/manifests/7"


# who we are


def guarded(realm: str, user: str = "ann", password: str = "secret") -> Mood:
    """A registry whose tokens come from a realm, which lies on it as well."""
    basic = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()

    def mood(request: Request) -> bool:
        if request.path.startswith("/token"):
            query = parse_qs(urlsplit(request.path).query)
            if request.headers.get("Authorization") != basic:
                return request.error(401, "UNAUTHORIZED")
            return request.reply(200, json.dumps({"token": "|".join(query["scope"])}).encode())
        shown = request.headers.get("Authorization", "")
        if not shown.startswith("Bearer repository:team/churn:pull,push"):
            told = f'Bearer realm="{realm}",service="images",scope="repository:team/churn:pull"'
            return request.error(401, "UNAUTHORIZED", WWW_Authenticate=told)
        return False

    return mood


def test_a_token_is_had_for_the_scope_and_used(fake: Fake) -> None:
    login(fake.address, auth=base64.b64encode(b"ann:secret").decode())
    fake.moods.append(guarded(f"http://{fake.address}/token"))
    assert pushed(fake, Parts()).sent == 3
    assert "service=images" in fake.asked("GET", "/token")[0].path


def test_an_identity_token_is_exchanged(fake: Fake) -> None:
    login(fake.address, auth=base64.b64encode(b"<token>:").decode(), identitytoken="refresh-me")

    def exchange(request: Request) -> bool:
        if request.path == "/token":
            form = parse_qs(request.body().decode())
            fine = form["grant_type"] == ["refresh_token"] and form["refresh_token"] == ["refresh-me"]
            return request.reply(200 if fine else 400, json.dumps({"access_token": form["scope"][0]}).encode())
        return guarded(f"http://{fake.address}/token")(request)

    fake.moods.append(exchange)
    with to(fake) as registry:
        assert registry.resolve("7") is None


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ((200, b"<html>"), "answered with 200 and no token"),
        ((200, b'{"token": 7}'), "answered with 200 and no token"),
        ((200, b'{"token": "a\\r\\nX-Evil: 1"}'), "answered with 200 and no token"),
        ((302, b""), "answered with 302 and no token"),
        ((500, b""), "answered with 500 and no token"),
        ((403, b""), "does not take the credentials that are known here"),
        ((200, b" " * (DOCUMENT_BYTES + 1)), "larger than"),
    ],
)
def test_a_token_endpoint_that_lies_is_one_sentence(fake: Fake, answer: tuple[int, bytes], sentence: str) -> None:
    login(fake.address, username="ann", password="secret")
    fake.moods.append(lambda request: request.path.startswith("/token") and request.reply(*answer))
    fake.moods.append(guarded(f"http://{fake.address}/token"))
    with to(fake) as registry, pytest.raises((Unavailable, Refused), match=sentence) as caught:
        registry.resolve("7")
    assert "secret" not in caught.value.message + caught.value.hint


@pytest.mark.parametrize("realm", ["", "file:///etc/passwd", "http://[bad", "//nowhere"])
def test_a_realm_that_is_no_address_is_refused(fake: Fake, realm: str) -> None:
    fake.moods.append(guarded(realm))
    with to(fake) as registry, pytest.raises(Refused, match="names no address to get a token from"):
        registry.resolve("7")


def test_a_token_that_ran_out_is_had_again(fake: Fake) -> None:
    login(fake.address, username="ann", password="secret")
    fake.moods.append(guarded(f"http://{fake.address}/token"))
    with to(fake) as registry:
        assert registry.resolve("7") is None
        fake.moods.insert(0, times(1, always(401, WWW_Authenticate=f'Bearer realm="http://{fake.address}/token"')))
        assert registry.resolve("7") is None
    assert len(fake.asked("GET", "/token")) == 2


def test_wrong_credentials_are_tried_once_and_never_shown(fake: Fake) -> None:
    login(fake.address, username="ann", password="hunter2")
    fake.moods.append(always(401, WWW_Authenticate='Basic realm="r"'))
    with to(fake) as registry, pytest.raises(Unavailable, match="does not take the credentials") as caught:
        registry.resolve("7")
    assert "hunter2" not in f"{caught.value.message} {caught.value.hint}"
    assert len(fake.asked("GET", "/manifests/")) == 2


def test_another_host_never_sees_who_we_are(fake: Fake) -> None:
    login(fake.address, username="ann", password="secret")
    parts = Parts()
    with serving() as elsewhere:
        elsewhere.hold("team/churn", BIG)

        def guard(request: Request) -> bool:
            if not request.headers.get("Authorization"):
                return request.error(401, "UNAUTHORIZED", WWW_Authenticate='Basic realm="r"')
            path = request.path
            return request.reply(307, Location=f"http://{elsewhere.address}{path}")

        fake.moods.append(guard)
        with to(fake) as registry:
            assert registry.open(parts.layers[0]).read() == BIG
        assert elsewhere.seen
        assert all("Authorization" not in one.headers for one in elsewhere.seen)
        assert "Authorization" in fake.seen[-1].headers


def test_a_credential_helper_is_asked(fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "docker-credential-vault"
    answer = json.dumps({"ServerURL": "x", "Username": "ann", "Secret": "secret"})
    program.write_text(f'#!/bin/sh\nread host\n[ "$1 $host" = "get {fake.address}" ] && echo \'{answer}\'\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    for setting in ({"credHelpers": {fake.address: "vault"}}, {"credsStore": "vault"}):
        config = Path(os.environ["DOCKER_CONFIG"]) / "config.json"
        config.parent.mkdir(exist_ok=True)
        config.write_text(json.dumps({**setting, "auths": {fake.address: {}}}))
        fake.moods[:] = [guarded(f"http://{fake.address}/token")]
        with to(fake) as registry:
            assert registry.resolve("7") is None


@pytest.mark.parametrize("helper", ["nowhere-to-be-found", "../../bin/sh"])
def test_a_credential_helper_that_is_not_there_is_named(fake: Fake, helper: str) -> None:
    config = Path(os.environ["DOCKER_CONFIG"]) / "config.json"
    config.parent.mkdir()
    config.write_text(json.dumps({"credsStore": helper}))
    fake.moods.append(always(401, WWW_Authenticate='Basic realm="r"'))
    with to(fake) as registry, pytest.raises(Unavailable, match=helper):
        registry.resolve("7")


def test_podman_s_login_is_found_by_namespace(fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "auth.json"
    entry = {"auth": base64.b64encode(b"ann:secret").decode()}
    path.write_text(json.dumps({"auths": {fake.address: {"auth": "eDp5"}, f"{fake.address}/team": entry}}))
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(path))
    fake.moods.append(guarded(f"http://{fake.address}/token"))
    with to(fake) as registry:
        assert registry.resolve("7") is None


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 with its key, signed by nobody else."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    words = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=registry -addext subjectAltName=IP:127.0.0.1"
    subprocess.run([*words.split(), "-keyout", path, "-out", path.with_suffix(".crt")], check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + path.with_suffix(".crt").read_bytes())
    return path


@pytest.fixture
def secured(certificate: Path) -> Iterator[Fake]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with serving(context) as found:
        yield found


@pytest.fixture
def trusted(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)


def test_a_certificate_that_nobody_vouches_for_is_not_taken(secured: Fake) -> None:
    with pytest.raises(Unavailable, match="a certificate that is not trusted here") as caught:
        to(secured)
    assert "SSL_CERT_FILE" in caught.value.hint
    assert not secured.seen


@pytest.mark.usefixtures("trusted")
def test_a_certificate_that_the_user_trusts_is_taken(secured: Fake) -> None:
    assert pushed(secured, Parts()).sent == 3


@pytest.mark.usefixtures("trusted")
def test_nothing_is_followed_from_https_to_http(secured: Fake, fake: Fake) -> None:
    fake.hold("team/churn", BIG)
    secured.moods.append(
        lambda request: (
            "/blobs/" in request.path and request.reply(307, Location=f"http://{fake.address}{request.path}")
        )
    )
    with to(secured) as registry, pytest.raises(Refused, match="leads from https to 'http://127"):
        registry.open(Parts().layers[0])
    assert not fake.seen


@pytest.mark.usefixtures("trusted")
def test_an_upload_is_not_led_from_https_to_http(secured: Fake, fake: Fake) -> None:
    elsewhere = f"http://{fake.address}/v2/team/churn/blobs/uploads/u1"
    secured.moods.append(lambda request: request.command == "POST" and request.reply(202, Location=elsewhere))
    with pytest.raises(Refused, match="leads from https to 'http://127"):
        pushed(secured, Parts())
    assert not fake.seen


@pytest.mark.usefixtures("trusted")
def test_credentials_are_not_sent_over_http_for_a_registry_over_https(secured: Fake, fake: Fake) -> None:
    login(secured.address, username="ann", password="secret")
    secured.moods.append(guarded(f"http://{fake.address}/token"))
    with to(secured) as registry, pytest.raises(Refused, match="wants credentials sent over http to 127"):
        registry.resolve("7")
    assert not fake.seen


def test_a_name_elsewhere_is_reached_by_https_alone(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    # the name of this machine that is not a loopback's: another one to whoever reads it
    monkeypatch.setattr("modelrel.oci.insecure.allowed", lambda host: False)
    with to(fake) as registry, pytest.raises(Unavailable, match="does not speak TLS"):
        registry.resolve("7")
    assert not fake.seen


def test_podman_s_settings_may_call_a_registry_insecure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "registries.conf"
    path.write_text('[[registry]]\nlocation = "images.example:5000/team"\ninsecure = true\n')
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(path))
    assert insecure.allowed("images.example:5000")
    assert not insecure.allowed("images.example")


# referrers


@pytest.mark.parametrize("api", [True, False])
def test_referrers_are_listed_by_the_registry_or_by_a_tag(fake: Fake, api: bool) -> None:
    fake.referrers = api
    parts = Parts(large=b"large")
    proofs = [parts.referrer(b"parity"), parts.referrer(b"golden")]
    pushed(fake, parts, "team/churn:7", *proofs)
    assert (fallback(parts.top.digest) in fake.tags("team/churn")) is not api
    with to(fake) as registry:
        found = referrers(registry, parts.top.digest)
    assert {one.digest for one in found} == {one.digest for one in proofs}
    assert {one.artifact_type for one in found} == {"text/x-proof"}
    fake.seen.clear()
    assert not pushed(fake, parts, "team/churn:7", *proofs).changed
    assert not [one for one in fake.seen if one.method == "PUT"]


def test_the_referrers_of_others_stay(fake: Fake) -> None:
    parts = Parts(large=b"large")
    pushed(fake, parts, "team/churn:7", parts.referrer(b"a signature"))
    pushed(fake, parts, "team/churn:7", parts.referrer(b"parity"))
    with to(fake) as registry:
        assert len(referrers(registry, parts.top.digest)) == 2


def test_a_tag_of_referrers_that_was_overwritten_is_set_again(fake: Fake) -> None:
    parts = Parts(large=b"large")
    empty = canonical({"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": []})

    def overwritten(request: Request) -> bool:
        request.body()
        fake.hold_manifest("team/churn", fallback(parts.top.digest), media.OCI_INDEX, empty)
        return request.reply(201)

    fake.moods.append(times(2, overwritten, "PUT", "/manifests/sha256-"))
    pushed(fake, parts, "team/churn:7", parts.referrer(b"parity"))
    with to(fake) as registry:
        assert len(referrers(registry, parts.top.digest)) == 1


def test_a_registry_that_nobody_runs_is_one_sentence() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))  # bound, and not listening
        name = names.parse(f"127.0.0.1:{listener.getsockname()[1]}/churn:7")
        with Registry.connect(name, wait=lambda _: None) as registry, pytest.raises(Unavailable, match="refused"):
            registry.resolve("7")


@contextmanager
def cutting(address: str, after: int, cuts: int) -> Iterator[tuple[str, list[int]]]:
    """Give the address of a proxy that ends its first connections which carry so many bytes, and how many it ended."""
    host, _, port = address.partition(":")
    ended: list[int] = []

    class Pipe(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection((host, int(port))) as behind:
                back = threading.Thread(target=self.pour, args=(behind, self.request, 0), daemon=True)
                back.start()
                self.pour(self.request, behind, after)
                back.join()

        def pour(self, source: socket.socket, sink: socket.socket, limit: int) -> None:
            had = 0
            try:
                while chunk := source.recv(1 << 16):
                    sink.sendall(chunk)
                    had += len(chunk)
                    if limit and had > limit and len(ended) < cuts:
                        ended.append(had)
                        break
            except OSError:
                pass
            for end in (source, sink):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Pipe)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}", ended
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("cuts", [1, 2])
def test_docker_s_registry_gets_all_through_a_line_that_is_cut(tmp_path: Path, cuts: int) -> None:
    parts = Parts()
    with (
        registries.running(tmp_path / "registry") as address,
        cutting(address, len(BIG) // 2, cuts) as (line, ended),
        Registry.connect(names.parse(f"{line}/team/churn:7"), write=True, wait=lambda _: None) as registry,
    ):
        assert push(parts, (parts.top,), registry).sent == 3
        assert len(ended) == cuts
        with Registry.connect(names.parse(f"{address}/team/churn:7")) as direct:
            assert direct.index == parts.top
            assert direct.open(parts.layers[0]).read() == BIG
