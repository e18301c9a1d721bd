"""Images of another size: ONNX's Resize (onnx.ai/onnx/operators/onnx__Resize.html), nearest and linear.

Which places each new one is made of is known when the file is written, so the copy picks those. TFLite's own RESIZE
operators know a few of ONNX's ways to place them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from modelrel.errors import Refused

_ONNX: Final = "Convert it to onnx, which has this operator."


def _origins(size: int, count: int, scale: float, mode: str) -> Any:
    """Return where in `size` places each of `count` new ones lies, float32: ONNX's coordinate_transformation_mode."""
    new = np.arange(count, dtype=np.float32)
    scale32 = np.float32(scale)
    if mode == "asymmetric":
        return new / scale32
    if mode == "align_corners":
        return new * np.float32(size - 1) / np.float32(count - 1) if count > 1 else new * 0
    if mode == "pytorch_half_pixel" and count == 1:
        return new * 0
    if mode in ("half_pixel", "pytorch_half_pixel"):
        return (new + np.float32(0.5)) / scale32 - np.float32(0.5)
    raise Refused(f"the model resizes by the mode {mode}, which is not known here", _ONNX)


_NEAREST: Final[Mapping[str, Callable[[Any], Any]]] = {
    "round_prefer_floor": lambda at: np.ceil(at - 0.5),
    "round_prefer_ceil": lambda at: np.floor(at + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


def resized(call: Any) -> Any:
    """Return a Resize of float32; raises `Refused` for other modes than nearest and linear, and for open sizes."""
    x, tf, mode = call.inputs[0], call.tf, call.get("mode", b"nearest").decode()
    if mode not in ("nearest", "linear") or call.get("antialias") or call.get("exclude_outside"):
        raise Refused(f"the model resizes by {mode} with antialias or exclude_outside, or by curves", _ONNX)
    if call.get("keep_aspect_ratio_policy", b"stretch") != b"stretch":
        raise Refused("the model resizes by a keep_aspect_ratio_policy, which is not known here", _ONNX)
    named = call.get("coordinate_transformation_mode", b"half_pixel").decode()
    for axis, count, scale in _sizes(call):
        size = int(x.shape[axis])
        at = _origins(size, count, scale, named)
        if mode == "nearest":
            picked = _NEAREST[call.get("nearest_mode", b"round_prefer_floor").decode()](at)
            x = tf.gather(x, np.clip(picked, 0, size - 1).astype(np.int32), axis=axis)
            continue
        at = np.clip(at, 0, size - 1)
        low = np.floor(at).astype(np.int32)
        # at the end a place lies between itself and itself: 0 times infinity would be no number
        share = (
            np.where(low == size - 1, 0.5, at - low).astype(np.float32).reshape([-1, *[1] * (len(x.shape) - axis - 1)])
        )
        high = tf.gather(x, np.minimum(low + 1, size - 1), axis=axis)
        x = tf.gather(x, low, axis=axis) * (1 - share) + high * share
    return x


def _sizes(call: Any) -> list[tuple[int, int, float]]:
    """Return the dimensions that a Resize changes: which, how many places it gives, and the scale."""
    x = call.inputs[0]
    scales, sizes = (*call.inputs[2:], None, None)[:2]
    by_size = sizes is not None
    # exporters take the rows' number from the input: TensorFlow says which of the sizes do not depend on it
    given = call.tf.fill(sizes, 0.0).shape.as_list() if by_size else scales
    if given is None or (not by_size and not isinstance(given, np.ndarray)):
        raise Refused("the model computes from its rows how it resizes, which TFLite does not", _ONNX)
    found = []
    for axis, value in zip(call.get("axes") or range(len(x.shape)), given, strict=True):
        size = x.shape[int(axis)]
        stays = size is None and value is None and int(axis) == 0 if by_size else value == 1
        if stays:
            continue
        if size is None or value is None:
            raise Refused("the model resizes a dimension whose size is open, and a TFLite copy has one size", _ONNX)
        count = int(value) if by_size else int(np.floor(np.float32(size) * np.float32(value)))
        if count != size or not by_size:
            found.append((int(axis) % len(x.shape), count, count / size if by_size else float(value)))
    return found
