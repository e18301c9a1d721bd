"""What goes back to a client: an answer, or a refusal that becomes one; and the reading of JSON bodies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

T = TypeVar("T")

JSON_HEADERS: Final[Mapping[str, str]] = {"content-type": "application/json"}
TEXT_HEADERS: Final[Mapping[str, str]] = {"content-type": "text/plain; charset=utf-8"}

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
