"""Activation functions and normalisations in TensorFlow operators that TFLite has (onnx.ai/onnx/operators says what).

They are written so that a missing number stays one: TFLite's Exp, Minimum and Relu6 give a number for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from modelrel.errors import Refused


def _clipped(call: Any) -> Any:
    x, (low, high) = call.inputs[0], (*call.inputs[1:], None, None)[:2]
    if low is not None:
        x = call.tf.where(x < low, call.tf.zeros_like(x) + low, x)
    return x if high is None else call.tf.where(x > high, call.tf.zeros_like(x) + high, x)


def _bent(call: Any, alpha: float, gamma: float) -> Any:
    """Return gamma * alpha * (exp(x) - 1) below zero, and gamma * x above."""
    x, tf = call.inputs[0], call.tf
    below = np.float32(alpha) * (tf.exp(tf.where(x > 0, tf.zeros_like(x), x)) - 1.0)
    return np.float32(gamma) * tf.where(x <= 0, below, x)


def _selu(call: Any) -> Any:
    return _bent(call, float(call.get("alpha", 1.6732632423543772)), float(call.get("gamma", 1.0507009873554805)))


def _sloped(call: Any) -> Any:
    x = call.inputs[0]
    slope = call.inputs[1] if len(call.inputs) > 1 else np.float32(call.get("alpha", 0.01))
    return call.tf.where(x < 0, x * slope, x)


def _hard(call: Any, alpha: float, beta: float) -> Any:
    tf = call.tf
    x = call.inputs[0] * np.float32(alpha) + np.float32(beta)
    x = tf.where(x < 0, tf.zeros_like(x), x)
    return tf.where(x > 1, tf.ones_like(x), x)


def _soft(call: Any) -> Any:
    """Return log(1 + exp(x)), which overflows nowhere."""
    x, tf = call.inputs[0], call.tf
    small = tf.exp(-tf.abs(x))
    # 1 + small has few digits of a small number: two terms of the series have all
    more = tf.where(small < 1e-3, small - small * small * 0.5, tf.math.log(1.0 + small))
    return tf.where(x < 0, tf.zeros_like(x), x) + more


def _gelu(call: Any) -> Any:
    return call.tf.nn.gelu(call.inputs[0], approximate=call.get("approximate", b"none") == b"tanh")


def _batch(call: Any) -> Any:
    """Normalise each channel, dimension 1, by what training measured."""
    x, *known = call.inputs
    if call.get("training_mode", 0):
        raise Refused("the model has a BatchNormalization in training mode", "Log it in evaluation mode.")
    shape = [1, -1, *[1] * (len(x.shape) - 2)]
    scale, offset, mean, variance = (np.asarray(one, np.float64).reshape(shape) for one in known)
    factor = scale / np.sqrt(variance + float(call.get("epsilon", 1e-5)))
    return (x - mean.astype(np.float32)) * factor.astype(np.float32) + offset.astype(np.float32)


def _layer(call: Any) -> Any:
    """Normalise each row over its dimensions from `axis` on."""
    x, scale, offset = (*call.inputs, None)[:3]
    found = _even(call, x, int(call.get("axis", -1)) % len(x.shape)) * scale
    return found if offset is None else found + offset


def _even(call: Any, x: Any, axis: int) -> Any:
    """Return `x` with mean 0 and variance 1 over its dimensions from `axis` on."""
    tf, axes = call.tf, list(range(axis, len(x.shape)))
    away = x - tf.reduce_mean(x, axis=axes, keepdims=True)
    spread = tf.reduce_mean(away * away, axis=axes, keepdims=True) + np.float32(call.get("epsilon", 1e-5))
    return away / tf.sqrt(spread)


def _instance(call: Any) -> Any:
    """Normalise each channel, dimension 1, of each row over its places."""
    x, *known = call.inputs
    scale, offset = (call.tf.reshape(one, [1, -1, *[1] * (len(x.shape) - 2)]) for one in known)
    return _even(call, x, 2) * scale + offset


def _group(call: Any) -> Any:
    """Normalise each group of channels; scale and offset are for a channel, before opset 21 for a group."""
    x, *known = call.inputs
    tf, groups, places = call.tf, int(call.said["num_groups"]), x.shape[2:]
    channels = x.shape[1]
    if None in (channels, *places):
        raise Refused("the model normalises groups of places whose number is open", "Convert it to onnx.")
    if any(len(one) not in (groups, channels) for one in known):
        raise Refused(
            f"the model has a GroupNormalization of {channels} channels with other scales", "Convert it to onnx."
        )
    scale, offset = (
        np.repeat(np.asarray(one), int(channels) // len(one)).reshape([1, -1, *[1] * len(places)]) for one in known
    )
    # a missing number is in its own group alone
    even = _even(call, tf.reshape(x, [-1, groups, int(channels) // groups * int(np.prod(places))]), 2)
    return tf.reshape(even, [-1, int(channels), *places]) * scale + offset


OPERATORS: Final[dict[str, Callable[[Any], Any]]] = {
    "BatchNormalization": _batch,
    "Clip": _clipped,
    "Elu": lambda call: _bent(call, float(call.get("alpha", 1.0)), 1.0),
    "Gelu": _gelu,
    "GroupNormalization": _group,
    "HardSigmoid": lambda call: _hard(call, float(call.get("alpha", 0.2)), float(call.get("beta", 0.5))),
    "HardSwish": lambda call: call.inputs[0] * _hard(call, 1 / 6, 0.5),
    "InstanceNormalization": _instance,
    "LayerNormalization": _layer,
    "LeakyRelu": _sloped,
    "LogSoftmax": lambda call: call.tf.nn.log_softmax(call.inputs[0], axis=int(call.get("axis", -1))),
    "Mish": lambda call: call.inputs[0] * call.tf.tanh(_soft(call)),
    "PRelu": _sloped,
    "Selu": _selu,
    "Softplus": _soft,
}
