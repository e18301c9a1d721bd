"""What goes back to a client: an answer, or a refusal that becomes one; and the reading of JSON bodies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

T = TypeVar("T")


class Headers(dict[str, str]):
    """Headers of many answers. They are never changed; ``raw`` has them as ASGI wants them, ``lines`` as HTTP does."""

    __slots__ = ("lines", "raw")

    def __init__(self, headers: Mapping[str, str]) -> None:
        super().__init__(headers)
        self.raw: Final = tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items())
        self.lines: Final = b"".join(b"%s: %s\r\n" % pair for pair in self.raw)


JSON_HEADERS: Final[Mapping[str, str]] = Headers({"content-type": "application/json"})
TEXT_HEADERS: Final[Mapping[str, str]] = Headers({"content-type": "text/plain; charset=utf-8"})

MODEL_HEADER: Final = "modelrel-model"
"""The header of an answer that says which model made it, as NAME/VERSION (percent-encoded where it has to be)."""

encode: Final = msgspec.json.Encoder().encode


class Answer(NamedTuple):
    """A whole HTTP response, whatever carries it. Header names are lower case; Content-Length is the carrier's."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Refused(Exception):
    """The client's request cannot be answered as it is.

    ``status`` is the HTTP status, ``str(error)`` the sentence the client reads, ``headers`` what the status demands
    beyond the content type (``allow`` for 405).
    """

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers or {}


def named(name: str, version: str) -> Headers:
    """Return the headers of a JSON answer that a version of a model made."""
    return Headers({**JSON_HEADERS, MODEL_HEADER: f"{quoted(name, safe='/')}/{quoted(version, safe='')}"})


def quoted(text: str, safe: str = "/") -> str:
    """Return a text percent-encoded but for letters, digits, ``_.-~`` and what is ``safe``."""
    if text.isascii() and text.replace("_", "").isalnum():
        return text
    from urllib.parse import quote  # here, because a function that starts has no time for it

    return quote(text, safe=safe, errors="replace")


def signed(answer: Answer, headers: Headers) -> Answer:
    """Return an answer of a model with the model's name on it; ``headers`` are the model's (see ``named``)."""
    if answer.headers is headers:
        return answer
    if answer.headers is JSON_HEADERS:
        return Answer(answer.status, headers, answer.body)
    return answer._replace(headers={**answer.headers, MODEL_HEADER: headers[MODEL_HEADER]})


def as_json(value: object, status: int = 200) -> Answer:
    """Wrap a JSON-ready value in an answer. NaN and infinities become ``null``, as JSON has no word for them."""
    return Answer(status, JSON_HEADERS, encode(value))


def decode(decoder: msgspec.json.Decoder[T], body: bytes | msgspec.Raw) -> T:
    """Read JSON into the decoder's type.

    Raises ``Refused`` (400) that names the byte or the field where the body stops being what was expected.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise Refused(400, f"the request does not fit: {error}") from error
    except msgspec.DecodeError as error:
        reason = str(error)
        if reason == "Input data was truncated":
            # The one message of msgspec without a position: it ran off the end, or met half a surrogate pair.
            length = len(body) if isinstance(body, bytes) else len(bytes(body))
            reason = f"JSON is malformed: it stops short (byte {length})"
        raise Refused(400, reason) from error
    except UnicodeDecodeError as error:
        raise Refused(400, f"the body is not UTF-8: {error.reason} (byte {error.start})") from error
    except RecursionError as error:
        raise Refused(400, "the JSON is nested too deeply") from error
