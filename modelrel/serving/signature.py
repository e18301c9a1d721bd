"""What the Open Inference Protocol checks of a request, whatever its tensors travel in: names, shapes, datatypes.

A tensor comes as JSON, as bytes behind the JSON or in a protobuf message; the reader of each gives the values, and
what is here says whether the model takes them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np

from .answers import Refused
from .tensors import DTYPES, Array, cast_exactly

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .manifest import TensorSpec
    from .model import Model


class Sent(Protocol):
    """One input of a request: its values are read by whoever knows the encoding."""

    @property
    def name(self) -> str:
        """The name of the input."""

    @property
    def shape(self) -> list[int]:
        """The shape that the values have, none of its sizes below 0."""

    @property
    def datatype(self) -> str:
        """The datatype that the values have, which is any word."""


S = TypeVar("S", bound=Sent)


class NoRows(Exception):
    """The request is about no rows at all. It has an answer, but none that a runtime must be trusted to find."""


class Signature:
    """The inputs and outputs of a model; everything that does not depend on a request is computed here, once."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.outputs = {spec.name: spec for spec in model.outputs}
        self.output_names = [spec.name for spec in model.outputs]
        self._inputs = {spec.name: _Input(spec, model.kind) for spec in model.inputs}
        self._aligned = model.kind == "columns" and len(model.inputs) > 1

    def wanted(self, names: list[str]) -> list[str]:
        """Return the outputs to compute; none asked for means all. Raises ``Refused`` (400)."""
        if not names:
            return self.output_names
        for name in names:
            if name not in self.outputs:
                raise Refused(400, f"the model has no output {name!r}; it has {', '.join(self.output_names)}")
        if len(set(names)) != len(names):
            raise Refused(400, "an output is asked for twice")
        return names

    def feeds(self, inputs: Sequence[S], read: Callable[[S], Array], *, without_rows: bool = False) -> dict[str, Array]:
        """Return the arrays that the model takes, by name.

        ``read`` returns the values of one input in the datatype and shape that it claims, which are checked before.
        Raises ``Refused`` (400), and ``NoRows`` unless that is what the arrays are expected to be.
        """
        feeds: dict[str, Array] = {}
        for sent in inputs:
            known = self._inputs.get(sent.name)
            if known is None:
                raise Refused(400, f"the model has no input {sent.name!r}; it has {', '.join(self._inputs)}")
            if sent.name in feeds:
                raise Refused(400, f"the input {sent.name!r} is sent twice")
            try:
                if without_rows or sent.shape[1:] != known.row or not sent.shape or sent.shape[0] == 0:
                    known.check_shape(sent.shape, without_rows=without_rows)
                array = read(sent) if sent.datatype == known.datatype else known.cast(sent, read)
            except Refused as error:
                raise Refused(error.status, f"input {sent.name!r}: {error}") from error
            feeds[sent.name] = array.reshape(-1, 1) if known.column else array
        if len(feeds) != len(self._inputs):
            self._fill(feeds)
        if self._aligned:
            rows = len(next(iter(feeds.values())))
            for name, array in feeds.items():
                if len(array) != rows:
                    raise Refused(400, f"input {name!r} has {len(array)} rows, input {next(iter(feeds))!r} has {rows}")
        return feeds

    def no_rows(self, inputs: Sequence[S], read: Callable[[S], Array], names: Sequence[str]) -> list[Array]:
        """Return the named outputs for a request about no rows: no rows, without asking the model.

        Raises ``Refused`` (400) for a request that would be refused with rows too, and where the first dimension of an
        output is not the batch.
        """
        self.feeds(inputs, read, without_rows=True)
        found = []
        for spec in (self.outputs[name] for name in names):
            if spec.shape[:1] != (-1,):
                raise Refused(400, f"output {spec.name!r} has the shape {list(spec.shape)}, so there must be rows")
            found.append(np.empty([max(size, 0) for size in spec.shape], DTYPES[spec.datatype]))
        return found

    def _fill(self, feeds: dict[str, Array]) -> None:
        """Put NaN where an optional column was left out. Raises ``Refused`` for what cannot be left out."""
        missing = [spec for spec in self.model.inputs if spec.name not in feeds]
        optional = self.model.kind == "columns" and bool(feeds)
        needed = [repr(spec.name) for spec in missing if spec.required or spec.datatype[:2] != "FP" or not optional]
        if needed:
            raise Refused(400, f"the model needs the input {', '.join(needed)}")
        rows = len(next(iter(feeds.values())))
        for spec in missing:
            feeds[spec.name] = np.full((rows, 1), np.nan, DTYPES[spec.datatype])


class _Input:
    """One input of the model. ``row`` is its shape without the rows where that is fixed, the usual case."""

    def __init__(self, spec: TensorSpec, kind: str) -> None:
        self.datatype: str = spec.datatype
        self.column = kind == "columns"
        self._shape = list(spec.shape)
        self.row = self._shape[1:] if self._shape[:1] == [-1] and -1 not in self._shape[1:] else None

    def cast(self, sent: S, read: Callable[[S], Array]) -> Array:
        """Return what was sent in the model's datatype. Raises ``Refused`` where a value would change."""
        if sent.datatype not in DTYPES:
            raise Refused(400, f"there is no datatype {sent.datatype!r}")
        return cast_exactly(read(sent), sent.datatype, self.datatype)

    def check_shape(self, shape: list[int], *, without_rows: bool) -> None:
        """Raise ``Refused`` unless the model takes the shape; ``NoRows`` where it does, but there are none."""
        short = self.column and len(shape) == 1
        if not short and (
            len(shape) != len(self._shape)
            or any(want not in {have, -1} for have, want in zip(shape, self._shape, strict=True))
        ):
            raise Refused(400, f"the shape is {shape}, the model takes {self._shape}")
        if 0 in shape[1:] or (0 in shape and self._shape[0] != -1):
            raise Refused(400, f"the shape {shape} has no elements")
        if without_rows and 0 not in shape:
            raise Refused(400, f"it has {shape[0] if shape else 'no'} rows, but another input has none")
        if 0 in shape and not without_rows:
            raise NoRows
