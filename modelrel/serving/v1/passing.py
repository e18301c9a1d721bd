"""Pass-through fields: taken off a predict request before the model sees it, put beside its answer untouched.

A field is any JSON value and comes back byte for byte, so that no digit of a number and no escape of a text changes.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from ..answers import Refused, encode
from .metadata import shortened

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Fields = dict[str, msgspec.Raw]

# A text may lack its end: what cannot fail and gives nothing back takes linear time on any body.
_LITERAL: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|NaN|-?Infinity', re.DOTALL)
_WORD: Final = os.urandom(12).hex().encode()
_MARKED: Final = re.compile(b'"(NaN|-?Infinity)' + _WORD + b'"')


class Split(NamedTuple):
    """A request without its fields: the body that is left, and the fields of each instance, or of ``inputs``."""

    body: bytes
    rows: list[Fields] | None = None
    whole: Fields | None = None


class _Request(msgspec.Struct, gc=False):
    signature_name: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    instances: list[msgspec.Raw] | msgspec.UnsetType = msgspec.UNSET
    inputs: dict[str, msgspec.Raw] | msgspec.UnsetType = msgspec.UNSET


_REQUEST: Final = msgspec.json.Decoder(_Request)
_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Passing:
    """Takes the fields of some names off the requests to a model of some inputs and outputs."""

    def __init__(self, names: Sequence[str], inputs: Sequence[str], outputs: Sequence[str]) -> None:
        # What the model takes is the model's: such a name is no field of this model.
        self._names = [name for name in names if name not in inputs]
        self._outputs = frozenset(outputs)
        self._marks = [encode(name)[1:-1] for name in self._names]

    def split(self, body: bytes) -> Split:
        """Take the fields off a request. What is no request comes back as it is, for the reader to refuse.

        Raises ``Refused`` (400) for a field with the name of an output.
        """
        if not any(mark in body for mark in self._marks) and b"\\" not in body:
            return Split(body)
        literals = b"NaN" in body or b"Infinity" in body
        try:
            request = _REQUEST.decode(_LITERAL.sub(_mark, body) if literals else body)
            found = self._of(request)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return Split(body)
        return found if found.rows or found.whole else Split(body)

    def _of(self, request: _Request) -> Split:
        if request.inputs is not msgspec.UNSET and request.instances is msgspec.UNSET:
            taken = self._taken(request.inputs)
            return Split(_rest(request), whole=taken)
        if request.instances is msgspec.UNSET or request.inputs is not msgspec.UNSET:
            return Split(b"")
        rows: list[Fields] = []
        for at, raw in enumerate(request.instances):
            instance = _OBJECT.decode(raw) if bytes(memoryview(raw)[:1]) == b"{" else None
            rows.append(self._taken(instance) if instance is not None else {})
            if rows[-1] and instance is not None:
                request.instances[at] = msgspec.Raw(encode(instance))
        return Split(_rest(request) if any(rows) else b"", rows=rows if any(rows) else None)

    def _taken(self, named: dict[str, msgspec.Raw]) -> Fields:
        taken = {name: msgspec.Raw(_unmarked(bytes(named.pop(name)))) for name in self._names if name in named}
        if both := self._outputs & taken.keys():
            raise Refused(400, f"the field {shortened(min(both))!r} cannot come back beside the output of its name")
        return taken


def _rest(request: _Request) -> bytes:
    return _unmarked(encode(request))


def _mark(found: re.Match[bytes]) -> bytes:
    """Make a text of a bare literal, which is no JSON; texts stay as they are."""
    word = found.group()
    return word if word.startswith(b'"') else b'"' + word + _WORD + b'"'


def _unmarked(body: bytes) -> bytes:
    return _MARKED.sub(rb"\1", body)


def beside(rows: list[Any], name: str | None, fields: Sequence[Mapping[str, msgspec.Raw]]) -> list[dict[str, Any]]:
    """Return predictions with the fields of their instances: objects of outputs, or of the only output's ``name``.

    Raises ``Refused`` (400) where there is not one prediction for each instance.
    """
    if len(rows) != len(fields):
        raise Refused(400, f"there are {len(rows)} predictions for {len(fields)} instances, so no field belongs to one")
    return [{**(row if name is None else {name: row}), **taken} for row, taken in zip(rows, fields, strict=True)]
