"""A connection to one registry of images: who we are, what is tried again, and what each refusal means.

| what the registry does | what happens | error |
|---|---|---|
| 401 after credentials were shown, or without any | stop | `Unavailable` (3) |
| 403 | stop | `Unavailable` (3) |
| 404 | the caller decides; an image that is not there | `Unavailable` (3) |
| 429 with or without `Retry-After` | waits, two minutes in all at most, then stops | `Unavailable` (3) |
| 500, 502, 503, 504 | four tries with growing pauses (or as long as `Retry-After` says) | `Unavailable` (3) |
| the connection fails, or is cut | the same; what was sent, or had, is not sent or had again | `Unavailable` (3) |
| nothing for a minute; a small document that takes two | stop | `Unavailable` (3) |
| any other status, an answer that is none | stop | `Unavailable` (3) |
| another digest than the one that was asked for | stop | `Refused` (4) |
| a redirect without end, or from https to http | stop | `Refused` (4) |
| a redirect to another host | followed without `Authorization` | |
| a token endpoint over http for a registry over https | no credentials are sent there: stop | `Refused` (4) |
| a manifest, or a token, beyond 4 MiB | stop | `Refused` (4) |
| a tag that is about other bytes than those just pushed | stop | `Conflict` (5) |

Source: OCI distribution-spec, spec.md.
Proxies and certificates are those of the usual variables (HTTPS_PROXY, NO_PROXY, REQUESTS_CA_BUNDLE, SSL_CERT_FILE).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, BinaryIO, Final
from urllib.parse import urljoin, urlsplit

from modelrel import __version__
from modelrel.errors import ModelrelError, Refused, Unavailable
from modelrel.oci import insecure
from modelrel.oci.authorization import Authorization
from modelrel.oci.names import Name

if TYPE_CHECKING:
    import requests

DOCUMENT_BYTES: Final = 4 * 1024 * 1024
"""The largest manifest or token that is read; registries need not take larger ones (spec.md, "Pushing Manifests")."""

TRIES: Final = 4
_LIMITED: Final = 20
_PAUSES_S: Final = (0.5, 2.0, 5.0)
_PATIENCE_S: Final = 120.0
_CONNECT_S: Final = 20.0
_ANSWER_S: Final = 60.0
_KEEP_S: Final = 300.0  # what was sent is hashed, and moved, before it is answered
_DOCUMENT_S: Final = 120.0
_REDIRECTS: Final = 5
_REDIRECTED: Final = frozenset({301, 302, 303, 307, 308})
_PASSING: Final = frozenset({429, 500, 502, 503, 504})
_HUB: Final = {"docker.io": "registry-1.docker.io"}
_NO_PROXY: Final = {"http": None, "https": None, "all": None}

Wait = Callable[[float], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A request: `body` opens what is sent, anew for every try; `expect` are the statuses that the caller knows.

    `once`: a cut connection, and a 5xx, are the caller's business (`Cut`): a part of the body may have arrived.
    """

    method: str
    url: str
    scope: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Callable[[], BinaryIO | bytes] | None = None
    expect: tuple[int, ...] = (200,)
    once: bool = False


class Cut(Exception):
    """The connection ended, or never came about."""


class NoTLS(Unavailable):
    """Whoever answers does not speak TLS."""


class Connection:
    """A way to one registry; safe to be used by several threads."""

    def __init__(self, name: Name, wait: Wait = time.sleep) -> None:
        """Find out how the registry of `name` is reached; `wait` is how pauses pass."""
        import requests
        from requests.adapters import HTTPAdapter

        self.name, self.wait = name, wait
        self._session = requests.Session()
        self._session.auth = _nobody  # else requests takes passwords from ~/.netrc
        # we follow redirects ourselves; requests would read the body of each, however long
        self._session.get_redirect_target = _nowhere  # type: ignore[method-assign]
        for scheme in ("https://", "http://"):
            self._session.mount(scheme, HTTPAdapter(pool_maxsize=8))
        self._session.headers.update({"User-Agent": f"modelrel/{__version__}", "Accept-Encoding": "identity"})
        if not os.environ.get("REQUESTS_CA_BUNDLE") and (bundle := os.environ.get("SSL_CERT_FILE")):
            self._session.verify = bundle
        self._authorization = Authorization(name, self._token)
        self.origin = self._reached(_HUB.get(name.host, name.host))

    def close(self) -> None:
        """Close what is open."""
        self._session.close()

    def url(self, path: str, repository: str = "") -> str:
        """Return the address of something in the repository (or another one): `blobs/DIGEST`, `manifests/TAG`."""
        return f"{self.origin}/v2/{repository or self.name.path}/{path}"

    def _reached(self, host: str) -> str:
        """Return the origin: https, or http where that may be and nobody speaks TLS."""
        if insecure.allowed(host):
            try:
                self._send("GET", f"https://{host}/v2/", {}, None).close()
            except (Cut, NoTLS):
                return f"http://{host}"
        return f"https://{host}"

    def ask(self, asked: Ask) -> requests.Response:
        """Send a request, with what it takes to be let in, again where that may help; return an expected answer.

        The caller closes it. Raises what the table above says.
        """
        waited, tries, refusals = 0.0, 0, 0
        while True:
            shown = self._authorization.shown(asked.scope)
            try:
                answer = self._followed(asked, shown)
            except Cut as cut:
                tries += 1
                if asked.once:
                    raise
                if tries >= TRIES:
                    raise self.unreachable(cut) from cut
                self.wait(_PAUSES_S[tries - 1])
                continue
            if answer.status_code in asked.expect:
                return answer
            with closing(answer):
                if answer.status_code == 401 and not refusals and self._let_in(answer, asked, shown):
                    refusals += 1
                    continue
                if asked.once and answer.status_code in _PASSING - {429}:
                    raise Cut(f"it answered {answer.status_code}")
                tries += 1
                pause = retry_after(answer.headers, _PAUSES_S[min(tries, len(_PAUSES_S)) - 1])
                waited += pause
                told = answer.status_code == 429 and "Retry-After" in answer.headers
                patient = tries < (_LIMITED if told else TRIES)
                if answer.status_code not in _PASSING or waited > _PATIENCE_S or not patient:
                    raise self.stopped(answer, asked)
            self.wait(pause)

    def document(self, asked: Ask) -> tuple[requests.Response, bytes]:
        """Return an answer with its body, which is small."""
        for tried in range(1, TRIES + 1):
            with closing(self.ask(asked)) as answer:
                try:
                    return answer, self._small(answer, "an answer")
                except Cut as cut:
                    if tried == TRIES:
                        raise self.unreachable(cut) from cut
            self.wait(_PAUSES_S[tried - 1])
        raise AssertionError(asked)

    def unreachable(self, cut: Cut) -> Unavailable:
        """Return the error for a registry that does not answer, or stops in the middle."""
        return Unavailable(
            f"the registry {self.name.host} cannot be reached: {cut}", "Is the name right, and the network up?"
        )

    def _followed(self, asked: Ask, shown: str) -> requests.Response:
        url = asked.url
        for _ in range(_REDIRECTS + 1):
            # nobody else is to see it
            own = {"Authorization": shown} if shown and _origin(url) == self.origin else {}
            body = asked.body() if asked.body else None
            try:
                answer = self._send(asked.method, url, {**asked.headers, **own}, body)
            finally:
                if body is not None and not isinstance(body, bytes):
                    body.close()
            if answer.status_code not in _REDIRECTED or "Location" not in answer.headers:
                return answer
            answer.close()
            url = self.location(url, answer.headers["Location"])
        raise Refused(f"the registry {self.name.host} redirects without end", "Ask who runs it.")

    def location(self, url: str, told: str) -> str:
        """Return where a `Location` leads; raises `Refused` where that leaves https, or is no address."""
        try:
            found = urlsplit(urljoin(url, told))
            fine = bool(found.hostname) and found.scheme in ("http", "https")
        except ValueError:
            fine = False
        if not fine or (found.scheme == "http" and self.origin.startswith("https:")):
            raise Refused(
                f"the registry {self.name.host} leads from {urlsplit(url).scheme} to {told.partition('?')[0][:80]!r}",
                "What is sent there could be read and changed on the way; ask who runs the registry.",
            )
        return found.geturl()

    def _send(self, method: str, url: str, headers: Mapping[str, str], body: Any) -> requests.Response:
        from requests import exceptions

        host = urlsplit(url).netloc.rpartition("@")[2]
        proxies: Any = _NO_PROXY if insecure.here(host) else None
        try:
            return self._session.request(
                method, url, headers=dict(headers), data=body, proxies=proxies,
                stream=True, allow_redirects=False,
                timeout=(_CONNECT_S, _KEEP_S if method in ("PATCH", "PUT") else _ANSWER_S),
            )  # fmt: skip
        except exceptions.SSLError as error:
            if "CERTIFICATE_VERIFY_FAILED" not in str(error):
                raise NoTLS(
                    f"the registry {host} does not speak TLS", "Only registries of this machine may."
                ) from error
            raise Unavailable(
                f"the registry {host} shows a certificate that is not trusted here",
                "Name its authority's certificate in SSL_CERT_FILE or REQUESTS_CA_BUNDLE.",
            ) from error
        except (exceptions.RequestException, ValueError) as error:
            if isinstance(error, ValueError) and not isinstance(error, exceptions.JSONDecodeError):
                raise Refused(
                    f"the registry {self.name.host} leads to an address that is none", "Ask who runs it."
                ) from error
            raise Cut(_reason(error)) from error
        except OSError as error:
            raise Cut(_reason(error)) from error

    def _small(self, answer: requests.Response, what: str) -> bytes:
        from urllib3.exceptions import HTTPError

        end, content = time.monotonic() + _DOCUMENT_S, bytearray()
        stated = answer.headers.get("Content-Length", "")
        try:
            while chunk := answer.raw.read1(65536):
                content += chunk
                if len(content) > DOCUMENT_BYTES:
                    raise Refused(
                        f"{what} of the registry {self.name.host} is larger than {DOCUMENT_BYTES:,} bytes",
                        "No manifest is; ask who runs the registry.",
                    )
                if time.monotonic() > end:
                    raise Unavailable(f"the registry {self.name.host} is too slow", "Try again later.")
        except (OSError, HTTPError) as error:
            raise Cut(_reason(error)) from error
        if stated.isdigit() and int(stated) != len(content) and answer.request.method != "HEAD":
            raise Cut("the connection was cut")
        return bytes(content)

    def _let_in(self, answer: requests.Response, asked: Ask, shown: str) -> bool:
        if _origin(answer.url) != self.origin:
            return False
        wanted = answer.headers.get("WWW-Authenticate", "")
        return self._authorization.let_in(wanted, asked.scope, shown, self.origin)

    def _token(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> tuple[int, bytes]:
        """Ask a token endpoint; it is followed nowhere else."""
        for tried in range(1, TRIES + 1):
            pause = _PAUSES_S[min(tried, len(_PAUSES_S)) - 1]
            try:
                with closing(self._send(method, url, headers, body)) as answer:
                    if answer.status_code not in _PASSING or tried == TRIES:
                        return answer.status_code, self._small(answer, "a token")
                    pause = min(retry_after(answer.headers, pause), _PATIENCE_S / TRIES)
            except Cut as cut:
                if tried == TRIES:
                    raise Unavailable(
                        f"the token endpoint {urlsplit(url).hostname} of the registry {self.name.host} "
                        f"cannot be reached: {cut}",
                        "Is the network up?",
                    ) from cut
            self.wait(pause)
        raise AssertionError(url)

    def stopped(self, answer: requests.Response, asked: Ask) -> ModelrelError:
        """Return the error for an answer that was not expected."""
        host, status = self.name.host, answer.status_code
        if status == 401:
            return self._authorization.refusal(status)
        said = _said(answer)
        told = {
            403: (f"does not allow it in {self.name.path}", "Ask who runs it for the right to do so."),
            404: (f"does not have {asked.url.partition('/v2/')[2].partition('?')[0][:200]}", "Is the name right?"),
            429: ("has had too many requests", "Try again later."),
        }
        sick = ("is not well", "Try again later.")
        odd = (f"does not take {asked.method} of {urlsplit(asked.url).path[:200]}", "Is it a registry of images?")
        what, hint = told.get(status, sick if status >= 500 else odd)
        return Unavailable(f"the registry {host} {what} ({status}{said})", hint)


def _nobody(request: Any) -> Any:
    return request


def _nowhere(resp: Any) -> None:  # noqa: ARG001
    return None


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _reason(error: BaseException) -> str:
    known = {
        "NameResolutionError": "its name is unknown",
        "roxy": "the proxy does not answer",
        "refused": "connection refused",
        "imed out": "it gave no answer in time",
        "imeout": "it gave no answer in time",
    }
    return next((told for sign, told in known.items() if sign in repr(error)), "the connection was cut")


def retry_after(headers: Mapping[str, str], default: float) -> float:
    """Return the seconds that an answer asks us to wait (RFC 9110, 10.2.3).

    >>> retry_after({"Retry-After": "7"}, 1.0), retry_after({}, 1.0)
    (7.0, 1.0)
    """
    told = headers.get("Retry-After", "")
    if told.isascii() and told.isdigit():
        return float(told[:9])
    try:  # a date, by the registry's own clock
        pause = parsedate_to_datetime(told) - parsedate_to_datetime(headers.get("Date", ""))
    except (ValueError, TypeError):
        return default
    return max(pause.total_seconds(), 0.0)


def _said(answer: requests.Response) -> str:
    """Return the code that a registry gives for its refusal (`, DENIED`): one word, and nothing else of its making."""
    from urllib3.exceptions import HTTPError

    try:
        found = json.loads(answer.raw.read1(65536))["errors"][0]["code"]
    except (ValueError, KeyError, TypeError, IndexError, RecursionError, OSError, HTTPError):
        return ""
    fine = isinstance(found, str) and len(found) < 60 and found.replace("_", "").isalnum() and found.isascii()
    return f", {found}" if fine else ""
