"""predict, classify and regress of one model: requests to calls, each for the signature that it names."""

from __future__ import annotations

from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ..answers import Refused
from ..calls import Call
from . import answers, careful, examples
from .metadata import shortened
from .passing import Passing
from .requests import Reader

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..answers import Answer
    from ..model import Model
    from ..tensors import Array


class Verbs:
    """What reads the requests of one model; ``fields`` are passed through, ``by_place`` is as in ``Reader``."""

    def __init__(self, model: Model, fields: Sequence[str], *, by_place: bool) -> None:
        self._model = model
        self._fields = fields
        self._by_place = by_place
        self._outputs = {name: [spec.name for spec in one.outputs] for name, one in model.signatures.items()}

    @cached_property
    def _readers(self) -> dict[str, Reader]:
        return {name: Reader(one, by_place=self._by_place) for name, one in self._model.signatures.items()}

    @cached_property
    def _passing(self) -> dict[str, Passing]:
        return {
            name: Passing(self._fields, [spec.name for spec in one.inputs], self._outputs[name])
            for name, one in self._model.signatures.items()
        }

    def predict(self, body: bytes) -> Call:
        """Read ``POST ...:predict``. Raises ``Refused``."""
        model = self._model
        if b'"signature_name"' in body:
            model = self._signature(_named(body))
        key = model.signature
        rows = whole = None
        if self._fields:
            body, rows, whole = self._passing[key].split(body)
        form, feeds = self._readers[key].read(body)
        render: Any = answers.rows if form == "instances" else answers.columns
        if rows is not None or whole:
            render = partial(render, fields=rows if rows is not None else whole)
        return Call(model, self._outputs[key], feeds, render)

    def classify(self, body: bytes) -> Call:
        """Read ``POST ...:classify``. Raises ``Refused``."""
        return self._examples("classify", body, _classes)

    def regress(self, body: bytes) -> Call:
        """Read ``POST ...:regress``. Raises ``Refused``."""
        return self._examples("regress", body, _numbers)

    def _examples(self, method: str, body: bytes, render: Callable[[Call, list[Array]], Answer]) -> Call:
        document = careful.parse(body)
        asked = careful.signature_name(document)
        # TF Serving's own examples call the signature by its method.
        model = self._signature("" if asked == f"tensorflow/serving/{method}" else asked)
        output = examples.output_for(method, model)
        return Call(model, [output], examples.read(document, model), render)

    def _signature(self, asked: str) -> Model:
        """Return what answers for a signature. Raises ``Refused`` (400) where the model has none of that name."""
        found = self._model if not asked else self._model.signatures.get(asked)
        if found is None:
            name = shortened(asked)
            raise Refused(400, f'Serving signature name: "{name}" not found in signature def')
        return found


class _Named(msgspec.Struct, gc=False):
    signature_name: str = ""


_NAMED: Final = msgspec.json.Decoder(_Named)


def _named(body: bytes) -> str:
    try:
        return _NAMED.decode(body).signature_name
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return careful.signature_name(careful.parse(body))


def _classes(call: Call, results: list[Array]) -> Answer:
    return answers.classes(examples.labels(call.model), results[0])


def _numbers(_call: Call, results: list[Array]) -> Answer:
    return answers.numbers(results[0])
