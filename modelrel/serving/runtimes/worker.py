"""The process in which a model answers apart from the server, run by path; and its messages.

For a Python model it is run in the model's own environment: it needs Python 3.9, numpy, and MLflow with what the model
asks for; nothing of the server, which imports this file too, for the messages. Each is two sizes, a head in JSON and
the bytes of arrays one after another, so that nothing that one side says can run code in the other:

    8 bytes         bytes of the head, bytes of the arrays (little-endian, 32 and 64 bits)
    head            {..., "arrays": [[name, datatype, shape, bytes], ...]}
    arrays          row-major, little-endian; BYTES as a JSON list of texts and nulls
"""

from __future__ import annotations

import ctypes
import importlib
import json
import math
import os
import resource
import signal
import site
import socket
import struct
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

SIZES: Final = struct.Struct("<IQ")
MOST_HEAD: Final = 2**24
MOST_BYTES: Final = 2**31
"""What one message may hold beyond its head; the other side is not believed, so that there must be an end."""

KINDS: Final = {
    "BOOL": np.dtype("?"), "UINT8": np.dtype("u1"), "UINT16": np.dtype("<u2"), "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"), "INT8": np.dtype("i1"), "INT16": np.dtype("<i2"), "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"), "FP16": np.dtype("<f2"), "FP32": np.dtype("<f4"), "FP64": np.dtype("<f8"),
    "BYTES": np.dtype("O"),
}  # fmt: skip
"""Open Inference datatype -> numpy dtype."""

_NAMES: Final = {dtype: name for name, dtype in KINDS.items()}
_PIECE: Final = 2**20
_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
_MEMORY_SHARE: Final = 0.8
_SENTENCE: Final = 400

_METHODS: Final = {
    "label": ("predict",),
    "prediction": ("predict",),
    "probabilities": ("predict_proba",),
    "scores": ("decision_function", "transform"),
    "transformed": ("transform",),
}
"""Output -> the method of an estimator that gives it, for models that MLflow's predict answers one output of."""

_ESTIMATORS: Final = ("sklearn", "xgboost", "lightgbm", "catboost")
_HELD: Final = ("sklearn_model", "xgb_model", "lgb_model", "cb_model")


def send(
    channel: socket.socket, said: Mapping[str, Any], arrays: Mapping[str, Any], deadline: float | None = None
) -> None:
    """Send a message. Raises ``OSError`` where nobody listens, ``TimeoutError`` beyond the deadline (monotonic)."""
    entries, parts = [], []
    for name, array in arrays.items():
        kind = _NAMES[array.dtype]
        content = json.dumps(array.ravel().tolist()).encode() if kind == "BYTES" else array.tobytes()
        entries.append([name, kind, list(array.shape), len(content)])
        parts.append(content)
    head = json.dumps({**said, "arrays": entries}).encode()
    channel.settimeout(_left(deadline))
    channel.sendall(SIZES.pack(len(head), sum(map(len, parts))) + head)
    for part in parts:
        channel.settimeout(_left(deadline))
        channel.sendall(part)


def receive(channel: socket.socket, deadline: float | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the next message: what it says, and its arrays by name.

    Raises ``EOFError`` where the other side is gone, ``ValueError`` for what is no message, ``TimeoutError`` beyond the
    deadline. No more is kept in memory than was really sent.
    """
    head_bytes, array_bytes = SIZES.unpack(_exactly(channel, SIZES.size, deadline))
    if head_bytes > MOST_HEAD or array_bytes > MOST_BYTES:
        raise ValueError(f"a message of {head_bytes} and {array_bytes} bytes")
    try:
        said = dict(json.loads(_exactly(channel, head_bytes, deadline)))
        entries = [(str(name), KINDS[kind], list(shape), size) for name, kind, shape, size in said.pop("arrays")]
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"a message whose head is wrong: {error!r}") from error
    for _, _, shape, size in entries:
        if not all(type(number) is int and number >= 0 for number in [*shape, size]) or len(shape) > 32:
            raise ValueError(f"an array of the shape {shape} in {size} bytes")
    if sum(size for _, _, _, size in entries) != array_bytes:
        raise ValueError("arrays of other sizes than the message has")
    body = _exactly(channel, array_bytes, deadline)
    found, at = {}, 0
    for name, dtype, shape, size in entries:
        found[name] = _array(body[at : at + size], dtype, shape)
        at += size
    return said, found


def _array(content: bytearray, dtype: np.dtype[Any], shape: list[int]) -> Any:
    count = math.prod(shape)
    if dtype.kind != "O":
        if count * dtype.itemsize != len(content):
            raise ValueError(f"{len(content)} bytes for an array of the shape {shape}")
        return np.frombuffer(content, dtype).reshape(shape)
    try:
        values = json.loads(content)
    except RecursionError as error:
        raise ValueError("texts that are nested") from error
    if type(values) is not list or len(values) != count:
        raise ValueError(f"not the texts of an array of the shape {shape}")
    if not all(value is None or type(value) is str for value in values):
        raise ValueError("an array of texts with something else in it")
    array = np.empty(count, object)
    array[:] = values
    return array.reshape(shape)


def _exactly(channel: socket.socket, count: int, deadline: float | None) -> bytearray:
    found = bytearray()
    while len(found) < count:
        channel.settimeout(_left(deadline))
        piece = channel.recv(min(count - len(found), _PIECE))
        if not piece:
            raise EOFError
        found += piece
    return found


def _left(deadline: float | None) -> float | None:
    if deadline is None:
        return None
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


class Served:
    """A model loaded by MLflow, and what it is asked for: the fields of the server's first message.

    ``kind``, ``inputs`` and ``outputs`` (name, datatype, shape) and ``predict`` are the manifest's, ``flavor`` is what
    the model was logged with.
    """

    def __init__(self, asked: Mapping[str, Any]) -> None:
        """Load it; raises whatever MLflow and the model raise."""
        import mlflow.pyfunc

        self._model: Any = mlflow.pyfunc.load_model(asked["folder"])
        self._kind = asked["kind"]
        self._inputs = [tuple(spec) for spec in asked["inputs"]]
        self._outputs = {name: (kind, shape) for name, kind, shape in asked["outputs"]}
        self._predict = asked["predict"]
        self._estimator = _estimator(self._model) if asked["flavor"] in _ESTIMATORS else None
        texts = [kind for _, kind, _ in self._inputs] == ["BYTES"] and self._kind == "columns"
        self._alone = texts and _begins_with_words(self._estimator)

    def answer(
        self, outputs: Sequence[str], feeds: Mapping[str, Any], params: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        """Return the named outputs for rows, in the dtypes and shapes of the manifest.

        What MLflow's predict answers comes from there. The other outputs of an estimator are its other methods'.
        Raises whatever the model raises, and ``ValueError`` where it answers something else than it should.
        """
        data = self._given(feeds)
        count = len(next(iter(feeds.values())))
        parts: dict[str, Any] | None = None
        found = {}
        for name in outputs:
            method = self._method(name)
            if method is not None:
                value = self._called(method, data)
            else:
                parts = self._parted(data, params) if parts is None else parts
                if name not in parts:
                    raise ValueError(f"the model answers {', '.join(parts)}, and not {name}")
                value = parts[name]
            found[name] = _fitted(name, _plain(value), self._outputs[name], count)
        return found

    def _method(self, name: str) -> str | None:
        if self._estimator is None or (name == self._predict and not self._alone):
            return None
        return next((method for method in _METHODS.get(name, ()) if hasattr(self._estimator, method)), None)

    def _called(self, method: str, data: Any) -> Any:
        # A vectorizer would count the words of a frame's column names.
        data = data.iloc[:, 0] if self._alone else data
        one_thread = {"thread_count": 1} if type(self._estimator).__module__.startswith("catboost") else {}
        return getattr(self._estimator, method)(data, **one_thread)

    def _given(self, feeds: Mapping[str, Any]) -> Any:
        """Return rows as MLflow takes them: a frame, an array, or arrays by name."""
        if self._kind == "tensor":
            return feeds[self._inputs[0][0]] if len(self._inputs) == 1 else dict(feeds)
        import pandas as pd

        # pandas 3 gives text its own dtype whatever the rows are; before, it was object.
        text: Any = "str" if int(pd.__version__.partition(".")[0]) >= 3 else object
        columns = {}
        for name, kind, _ in self._inputs:
            column = feeds[name].reshape(-1)
            columns[name] = pd.Series(column.tolist(), dtype=text) if kind == "BYTES" else pd.Series(column)
        return pd.DataFrame(columns)

    def _parted(self, data: Any, params: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return what predict answers by name: columns of a frame, entries of a dictionary, a list for each output."""
        import pandas as pd

        value = self._model.predict(data, params=dict(params)) if params else self._model.predict(data)
        if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
            value = pd.DataFrame(value)
        if isinstance(value, pd.DataFrame):
            named = all(isinstance(name, str) for name in value.columns)
            value = {name: value[name] for name in value.columns} if named else value.to_numpy()
        if isinstance(value, (list, tuple)) and len(self._outputs) > 1 and len(value) == len(self._outputs):
            value = {name: value[place] for place, name in enumerate(self._outputs)}
        parts = {str(name): one for name, one in value.items()} if isinstance(value, dict) else {self._predict: value}
        if len(parts) == 1 and len(self._outputs) == 1:
            return {self._predict: next(iter(parts.values()))}
        return parts


def _estimator(model: Any) -> Any:
    """Return the estimator behind MLflow's wrapper of it, of any version; None for one without such methods."""
    wrapper = getattr(model, "_model_impl", None)
    held = [getattr(wrapper, name) for name in _HELD if hasattr(wrapper, name)]
    return held[0] if held else None


def _begins_with_words(estimator: Any) -> bool:
    """Whether what an estimator does first is to count words, for which it wants texts and no frame of them."""
    inner = getattr(estimator, "best_estimator_", estimator)
    steps = [step for _, step in getattr(inner, "steps", getattr(inner, "transformer_list", ()))]
    if steps:
        first = steps if hasattr(inner, "transformer_list") else steps[:1]
        return any(_begins_with_words(step) for step in first)
    return any(kind.__name__ in ("CountVectorizer", "HashingVectorizer") for kind in type(inner).__mro__)


def _plain(value: Any) -> Any:
    """Return what a model answered as one array: series, sparse matrices and lists included."""
    if hasattr(value, "toarray"):
        value = value.toarray()
    array = np.asarray(value.to_numpy() if hasattr(value, "to_numpy") else value)
    if array.dtype.kind in "UT":
        return array.astype(object)
    if array.dtype.kind == "O" and not any(isinstance(item, str) for item in array.ravel()):
        return np.asarray(array.tolist())
    return array


def _fitted(name: str, array: Any, spec: tuple[str, Sequence[int]], count: int) -> Any:
    """Return an answer in the datatype and shape of the manifest. Raises ``ValueError`` where it is something else."""
    kind, (_, *inner) = spec[0], spec[1] or [-1]
    wanted = KINDS[kind]
    if array.shape[1:] != tuple(inner) and -1 not in inner and array.size == count * math.prod(inner):
        array = array.reshape([count, *inner])
    sizes_fit = len(array.shape) == 1 + len(inner) and all(
        want in (-1, array.shape[place + 1]) for place, want in enumerate(inner)
    )
    if not sizes_fit or array.shape[0] != count:
        raise ValueError(f"the model answers {count} rows with {name} of the shape {list(array.shape)}")
    if kind == "BYTES" and array.dtype.kind == "O":
        flat = [None if item is None or item != item else item for item in array.ravel()]  # noqa: PLR0124 (NaN)
        if not all(item is None or isinstance(item, str) for item in flat):
            raise ValueError(f"the model answers {name} with what is no text")
        array = np.empty(array.shape, object)
        array.ravel()[:] = [item if item is None else str(item) for item in flat]
    elif kind == "BYTES" or not np.can_cast(array.dtype, wanted, "same_kind"):
        raise ValueError(f"the model answers {name} as {array.dtype}, and the manifest says {kind}")
    return array.astype(wanted, copy=False)


def _confine(parent: int) -> None:
    """Die with the server, dump no core, and fail an allocation far beyond the machine's memory before it swaps."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # it died before the line above
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    memory = int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * _MEMORY_SHARE)
    # It counts what is reserved, which is more than what is used, hence the room.
    hard = 2 * memory + 2**30
    resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))


def _failure(error: BaseException) -> dict[str, str]:
    """Write the traceback to stderr, and return one sentence for the server's operator."""
    traceback.print_exc()
    text = " ".join(str(error).split())[:_SENTENCE]
    kind = type(error).__name__
    return {"error": f"{kind}: {text}" if text else kind, "kind": kind}


def _serve(channel: socket.socket, load: Callable[[Mapping[str, Any]], Any]) -> None:
    asked, _ = receive(channel)
    try:
        model = load(asked)
    except BaseException as error:  # noqa: BLE001 (a model may raise anything)
        send(channel, _failure(error), {})
        return
    send(channel, {}, {})
    while True:
        request, feeds = receive(channel)
        said: Mapping[str, Any] = {}
        found: Mapping[str, Any] = {}
        try:
            found = model.answer(request["outputs"], feeds, request["params"])
        except BaseException as error:  # noqa: BLE001 (SystemExit too: this process ends when the server says so)
            said = _failure(error)
        send(channel, said, found)


def main() -> None:
    """Answer on a socket until it is closed.

    The arguments are its number, the server's process, and the file here whose ``Served`` answers ("" for this one).
    """
    if sys.flags.no_site:  # a folder of packages is all there is: what the interpreter does for its own is done for it
        site.addsitedir(os.environ["PYTHONPATH"])
        site.setquit()
    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120
    # A script's folder comes first where modules are looked for, and this one has an onnx.py: it is there for the
    # server's own file alone.
    others = [place for place in sys.path if os.path.abspath(place) != here]  # noqa: PTH100
    sys.path[:] = [here, *others]
    load: Callable[[Mapping[str, Any]], Any] = importlib.import_module(sys.argv[3]).Served if sys.argv[3] else Served
    sys.path[:] = others
    _confine(int(sys.argv[2]))
    channel = socket.socket(fileno=int(sys.argv[1]))
    channel.set_inheritable(False)
    try:
        _serve(channel, load)
    except (EOFError, ConnectionError):
        return


if __name__ == "__main__":
    main()
