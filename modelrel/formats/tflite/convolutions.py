"""Convolutions, pooling, padding and splitting in TensorFlow operators (onnx.ai/onnx/operators says what).

ONNX has channels before places, (N, C, H, W), TFLite after them, (N, H, W, C): each operator turns its input and its
answer, and TensorFlow's converter takes out what turns twice. One dimension of places is two, of which one has size 1.

Missing numbers and infinities go on as in PyTorch. LiteRT's own MAX_POOL_2D and AVERAGE_POOL_2D lose a missing number,
and its TRANSPOSE_CONV an infinity; so a maximum looks for missing numbers apart, and the others are convolutions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from modelrel.errors import Refused

_ONNX: Final = "Convert it to onnx, which has this operator."


_LEAKING: Final = frozenset(range(1, 25)) - {3, 4, 9}
"""Sizes of windows over single channels for which XNNPACK takes a larger one whose other weights are 0.

Those are multiplied with neighbours, and 0 times infinity is no number.
"""


@dataclass(frozen=True, slots=True)
class _Window:
    """What moves over two dimensions of places: its size, steps, gaps, and the cells before and after the places.

    `more` is how many cells ceil_mode adds behind `after`, `counts` the places of the answer.
    """

    size: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    before: tuple[int, int]
    after: tuple[int, int]
    more: tuple[int, int]
    counts: tuple[int, int]


def _last(call: Any, x: Any) -> Any:
    """Return (N, C, H, W), or (N, C, W), as (N, H, W, C)."""
    if len(x.shape) not in (3, 4):
        raise Refused(
            f"the model has an operator over {len(x.shape) - 2} dimensions of places; TFLite has 1 and 2", _ONNX
        )
    return call.tf.transpose(x if len(x.shape) == 4 else call.tf.expand_dims(x, 2), [0, 2, 3, 1])


def _first(call: Any, x: Any, rank: int) -> Any:
    """Return (N, H, W, C) as (N, C, H, W), or (N, C, W)."""
    turned = call.tf.transpose(x, [0, 3, 1, 2])
    return turned if rank == 4 else call.tf.squeeze(turned, axis=[2])


def _pair(values: Sequence[int] | None, rank: int, otherwise: int) -> tuple[int, int]:
    """Return an attribute with one number for each dimension of places as two."""
    found = [int(value) for value in values or [otherwise] * (rank - 2)]
    return (found[0], found[1]) if len(found) == 2 else (otherwise, found[0])


def _places(x: Any) -> tuple[int, int]:
    """Return H and W of (N, H, W, C); raises `Refused` where they are open."""
    height, width = x.shape[1], x.shape[2]
    if height is None or width is None:
        raise Refused(
            "the model moves a window over places whose number is open, and a TFLite copy takes rows of one size",
            "Log it with a signature whose dimensions, but the first, are numbers; or convert it to onnx.",
        )
    return int(height), int(width)


def _window(call: Any, x: Any, rank: int, size: tuple[int, int]) -> _Window:
    """Return the window of a Conv or a pool of these sizes over `x`, (N, H, W, C)."""
    strides, dilations = (_pair(call.get(name), rank, 1) for name in ("strides", "dilations"))
    given = [int(value) for value in call.get("pads") or [0] * (2 * (rank - 2))]
    before, after = (_pair(part, rank, 0) for part in (given[: rank - 2], given[rank - 2 :]))
    wide = [(size[axis] - 1) * dilations[axis] + 1 for axis in (0, 1)]
    places = _places(x)
    auto = call.get("auto_pad", b"NOTSET")
    if auto in (b"SAME_UPPER", b"SAME_LOWER"):
        lacks = [max((-(-places[at] // strides[at]) - 1) * strides[at] + wide[at] - places[at], 0) for at in (0, 1)]
        less, most = (lacks[0] // 2, lacks[1] // 2), (-(-lacks[0] // 2), -(-lacks[1] // 2))
        before, after = (less, most) if auto == b"SAME_UPPER" else (most, less)
    elif auto == b"VALID":
        before = after = (0, 0)
    elif auto != b"NOTSET":
        raise Refused(f"the model has an operator with auto_pad {auto.decode()}, which ONNX does not know", _ONNX)
    counts, more = [], []
    for at in (0, 1):
        room = places[at] + before[at] + after[at]
        count = (room - wide[at]) // strides[at] + 1
        if call.get("ceil_mode", 0):
            count = -(-(room - wide[at]) // strides[at]) + 1
            # no window begins behind the places and the cells before them
            count -= (count - 1) * strides[at] >= places[at] + before[at]
        counts.append(count)
        more.append(max((count - 1) * strides[at] + wide[at] - room, 0))
    if min(counts) < 1:
        raise Refused(
            f"the model moves a window of {wide[0]} by {wide[1]} over {places[0]} by {places[1]} places", _ONNX
        )
    return _Window(size, strides, dilations, before, after, (more[0], more[1]), (counts[0], counts[1]))


def _widened(tf: Any, x: Any, before: Sequence[int], after: Sequence[int]) -> Any:
    """Return `x`, (N, H, W, C), with zeros before and after its places; numbers below zero take places away."""
    if any((*before, *after)):
        cut = [slice(max(-one, 0), min(other, 0) or None) for one, other in zip(before, after, strict=True)]
        x = x[:, cut[0], cut[1], :] if min(*before, *after) < 0 else x
        kept = [[max(one, 0), max(other, 0)] for one, other in zip(before, after, strict=True)]
        x = tf.pad(x, [[0, 0], *kept, [0, 0]]) if np.any(kept) else x
    return x


def _slid(tf: Any, x: Any, weights: Any, window: _Window, groups: int) -> Any:
    """Return `x`, (N, H, W, C), under `weights`, (h, w, C / groups, M), at each step of a window inside of it."""
    each = weights.shape[2] == 1
    steps, gaps = window.strides, window.dilations
    if each and weights.shape[0] * weights.shape[1] in _LEAKING:
        return _one_by_one(tf, x, weights, window, groups)
    # TensorFlow has no steps where there are gaps, nor two for channels alone: then some of all places are taken
    apart = max(steps) > 1 and (max(gaps) > 1 or (each and steps[0] != steps[1]))
    taken = (1, 1) if apart else steps
    if each:
        own = weights.reshape(*weights.shape[:2], groups, -1)
        found = tf.nn.depthwise_conv2d(x, own, [1, *taken, 1], "VALID", dilations=list(gaps))
    else:
        found = tf.nn.conv2d(x, weights, [1, *taken, 1], "VALID", dilations=list(gaps))
    return found[:, :: steps[0], :: steps[1], :] if apart else found


def _one_by_one(tf: Any, x: Any, weights: Any, window: _Window, groups: int) -> Any:
    """Return the same for channels alone, as a sum over the cells of the window."""
    if weights.shape[3] != groups:
        x = tf.gather(x, np.arange(groups, dtype=np.int32).repeat(weights.shape[3] // groups), axis=3)
    total: Any = None
    for cell in np.ndindex(weights.shape[:2]):
        starts = [cell[at] * window.dilations[at] for at in (0, 1)]
        ends = [starts[at] + (window.counts[at] - 1) * window.strides[at] + 1 for at in (0, 1)]
        rows, columns = (slice(starts[at], ends[at], window.strides[at]) for at in (0, 1))
        part = x[:, rows, columns, :] * weights[cell[0], cell[1], 0]
        total = part if total is None else total + part
    return total


def _weights(call: Any) -> Any:
    """Return a node's weights, (M, C, h, w), float32; raises `Refused` where they are not fixed."""
    found = call.inputs[1]
    if not isinstance(found, np.ndarray):
        raise Refused("the model computes the weights of a convolution from its rows, which TFLite does not", _ONNX)
    if found.ndim not in (3, 4):
        raise Refused(
            f"the model has a convolution over {found.ndim - 2} dimensions of places; TFLite has 1 and 2", _ONNX
        )
    return np.asarray(found if found.ndim == 4 else found[:, :, None], np.float32)


def _convolved(call: Any) -> Any:
    x, tf = call.inputs[0], call.tf
    weights = _weights(call).transpose(2, 3, 1, 0)
    rank = len(x.shape)
    x = _last(call, x)
    window = _window(call, x, rank, weights.shape[:2])
    found = _slid(tf, _widened(tf, x, window.before, window.after), weights, window, int(call.get("group", 1)))
    return _first(call, _shifted(call, found), rank)


def _shifted(call: Any, x: Any) -> Any:
    """Add a node's third input, one number for each channel, to (N, H, W, C)."""
    return x + call.inputs[2] if len(call.inputs) > 2 and call.inputs[2] is not None else x


def _transposed(call: Any) -> Any:
    """Return a ConvTranspose: zeros between the places, then a convolution with the weights turned about."""
    x, tf, groups = call.inputs[0], call.tf, int(call.get("group", 1))
    weights, rank = _weights(call), len(x.shape)
    if call.get("output_shape") or call.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        raise Refused("the model has a ConvTranspose with an output_shape or auto_pad, which is not known here", _ONNX)
    x = _last(call, x)
    (height, width), channels = _places(x), int(x.shape[3])
    strides, dilations = (_pair(call.get(name), rank, 1) for name in ("strides", "dilations"))
    given = [int(value) for value in call.get("pads") or [0] * (2 * (rank - 2))]
    before, after = (_pair(part, rank, 0) for part in (given[: rank - 2], given[rank - 2 :]))
    more = _pair(call.get("output_padding"), rank, 0)
    if strides[0] > 1:
        x = tf.pad(tf.reshape(x, [-1, height, 1, width * channels]), [[0, 0], [0, 0], [0, strides[0] - 1], [0, 0]])
    if strides[1] > 1:
        x = tf.reshape(x, [-1, height * strides[0] * width, 1, channels])
        x = tf.pad(x, [[0, 0], [0, 0], [0, strides[1] - 1], [0, 0]])
    x = tf.reshape(x, [-1, height * strides[0], width * strides[1], channels])
    reach = [(weights.shape[2 + at] - 1) * dilations[at] for at in (0, 1)]
    ends = [reach[at] - after[at] + more[at] - (strides[at] - 1) for at in (0, 1)]
    x = _widened(tf, x, [reach[at] - before[at] for at in (0, 1)], ends)
    # (C, M / groups, h, w) -> (h, w, C / groups, M)
    parts = np.split(weights[:, :, ::-1, ::-1], groups)
    turned = np.concatenate([part.transpose(2, 3, 0, 1) for part in parts], axis=3)
    counts = tuple(int(x.shape[1 + at]) - reach[at] for at in (0, 1))
    window = _Window(turned.shape[:2], (1, 1), dilations, (0, 0), (0, 0), (0, 0), (counts[0], counts[1]))
    return _first(call, _shifted(call, _slid(tf, x, np.ascontiguousarray(turned), window, groups)), rank)


def _repeated(tf: Any, x: Any, before: Sequence[int], after: Sequence[int]) -> Any:
    """Return `x` with its first and last places of dimensions 1, 2 … so many times more."""
    for axis, (one, other) in enumerate(zip(before, after, strict=True), 1):
        if one or other:
            edge: list[Any] = [slice(None)] * len(x.shape)
            head, tail = (*edge[:axis], slice(0, 1)), (*edge[:axis], slice(-1, None))
            x = tf.concat([*[x[head]] * one, x, *[x[tail]] * other], axis=axis)
    return x


def _largest(call: Any) -> Any:
    """Return a MaxPool, in which a missing number is the largest, as in PyTorch.

    Cells beyond the places get the numbers of the nearest place, which is under the same window; a number that is lower
    than any, as others take, would ruin the range of a copy in 8 bits.
    """
    x, tf = call.inputs[0], call.tf
    rank = len(x.shape)
    x = _last(call, x)
    window = _window(call, x, rank, _pair(call.said["kernel_shape"], rank, 1))
    if max(window.dilations) > 1:
        raise Refused("the model has a MaxPool with gaps in its window (dilations), which TFLite does not have", _ONNX)
    ends = [after + more for after, more in zip(window.after, window.more, strict=True)]
    if any(cells >= size for cells, size in zip((*window.before, *ends), window.size * 2, strict=True)):
        raise Refused("the model has a MaxPool whose window can lie outside of the places (pads)", _ONNX)
    x = _repeated(tf, x, window.before, ends)

    def pooled(numbers: Any) -> Any:
        return tf.nn.max_pool2d(numbers, window.size, window.strides, "VALID")

    return _first(call, _missing(tf, x, pooled), rank)


def _missing(tf: Any, x: Any, largest: Callable[[Any], Any]) -> Any:
    """Return the largest numbers of `x`, and NaN where any of them is."""
    lacks = largest(tf.cast(tf.math.is_nan(x), tf.float32))
    found = largest(x)
    return tf.where(lacks > 0.5, tf.zeros_like(found) + np.float32(np.nan), found)


def _averaged(call: Any) -> Any:
    """Return an AveragePool: a convolution of each channel, divided by the cells that count under each window."""
    x, tf = call.inputs[0], call.tf
    rank, channels = len(x.shape), x.shape[1]
    x = _last(call, x)
    window = _window(call, x, rank, _pair(call.said["kernel_shape"], rank, 1))
    counted = []
    for at, places in enumerate(_places(x)):
        own = np.zeros(window.before[at] + places + window.after[at] + window.more[at])
        own[window.before[at] : window.before[at] + places] = 1
        if call.get("count_include_pad", 0):
            own[: len(own) - window.more[at]] = 1
        starts = np.arange(window.counts[at]) * window.strides[at]
        counted.append(own[starts[:, None] + np.arange(window.size[at]) * window.dilations[at]].sum(axis=1))
    cells = counted[0][:, None] * counted[1]
    if channels is None or not cells.all():
        raise Refused("the model has an AveragePool whose window can lie outside of the places (pads)", _ONNX)
    ends = [after + more for after, more in zip(window.after, window.more, strict=True)]
    most = cells.max()
    weights = np.full((*window.size, 1, int(channels)), 1 / most, np.float32)
    wide = _widened(tf, x, window.before, ends)
    found = _slid(tf, wide, weights, window, int(channels))
    if cells.min() < most:
        found = found * (most / cells).astype(np.float32)[None, :, :, None]
    return _first(call, found, rank)


def _overall(name: str) -> Callable[[Any], Any]:
    """Return what makes GlobalAveragePool or GlobalMaxPool: one number for each channel."""

    def pool(call: Any) -> Any:
        x, tf = call.inputs[0], call.tf
        rank = len(x.shape)
        x = _last(call, x)
        if name == "mean":
            return _first(call, tf.reduce_mean(x, axis=[1, 2], keepdims=True), rank)
        return _first(call, _missing(tf, x, lambda one: tf.reduce_max(one, axis=[1, 2], keepdims=True)), rank)

    return pool


def _padded(call: Any) -> Any:
    """Return a Pad; numbers below zero take places away."""
    x, tf, rank = call.inputs[0], call.tf, len(call.inputs[0].shape)
    pads = call.fixed(1, "pads") or []
    axes = [axis % rank for axis in call.fixed(3) or range(rank)]
    cells = np.zeros((rank, 2), int)
    cells[axes] = np.array(pads).reshape(2, -1).T
    cut = [slice(max(-one, 0), min(other, 0) or None) for one, other in cells.tolist()]
    x = x[tuple(cut)] if (cells < 0).any() else x
    cells = np.maximum(cells, 0)
    mode = call.get("mode", b"constant").decode()
    if mode == "constant":
        value = call.inputs[2] if len(call.inputs) > 2 else None
        fill = call.get("value", 0.0) if value is None else value
        if not isinstance(fill, np.ndarray | float):
            raise Refused("the model computes what it pads with from its rows, which TFLite does not", _ONNX)
        return tf.pad(x, cells, constant_values=np.asarray(fill).ravel()[0].astype(np.dtype(x.dtype.as_numpy_dtype)))
    if mode == "reflect":
        return tf.pad(x, cells, mode="REFLECT")
    if mode == "edge" and not cells[0].any():
        return _repeated(tf, x, cells[1:, 0].tolist(), cells[1:, 1].tolist())
    raise Refused(f"the model pads by the mode {mode}, for which TFLite has no operator", _ONNX)


def _parted(call: Any) -> Any:
    """Return the parts of a Split."""
    x, axis = call.inputs[0], int(call.get("axis", 0)) % len(call.inputs[0].shape)
    sizes = call.fixed(1, "split")
    if sizes is None:
        whole, count = x.shape[axis], int(call.get("num_outputs", call.outputs))
        if whole is None:
            raise Refused("the model splits a dimension whose size is open, which TFLite does not", _ONNX)
        each = -(-int(whole) // count)
        sizes = [min(each, int(whole) - at * each) for at in range(count)]
    return tuple(call.tf.split(x, sizes, axis=axis))


def _kept(call: Any) -> Any:
    """Return what goes into a Dropout, which does nothing but in training."""
    if len(call.inputs) > 2 and call.inputs[2] is not None and np.any(call.inputs[2]):
        raise Refused(
            "the model has a Dropout in training mode, whose answers are chance", "Log it in evaluation mode."
        )
    return call.inputs[0]


OPERATORS: Final[dict[str, Callable[[Any], Any]]] = {
    "AveragePool": _averaged,
    "Conv": _convolved,
    "ConvTranspose": _transposed,
    "Dropout": _kept,
    "GlobalAveragePool": _overall("mean"),
    "GlobalMaxPool": _overall("max"),
    "MaxPool": _largest,
    "Pad": _padded,
    "Split": _parted,
}
"""ONNX operator -> what makes it of TensorFlow's."""
