"""Support vector machines in TensorFlow operators that TFLite has: ai.onnx.ml SVMRegressor and SVMClassifier."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from modelrel.errors import Refused


def score(tf: Any, x: Any, said: Mapping[str, Any]) -> Any:
    """Return an SVMRegressor's answers, (N, 1) float32: a sum over its vectors of a kernel, and a constant."""
    weights = np.array(said["coefficients"])[:, None]
    (rho,) = said["rho"]
    count = int(said.get("n_supports", 0))
    found = _weighed(tf, x, said, weights) if count else tf.matmul(x, weights.astype(np.float32))
    found += np.float32(rho)
    return tf.sign(found) if said.get("one_class") else found


def classes(tf: Any, x: Any, said: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return an SVMClassifier's labels, (N,), and its scores: (N, 2) for two classes, else one for each pair.

    One against one, as LIBSVM has it (Chang and Lin 2011, section 7.1): a score above zero is a vote for the first
    class of the pair, and the first class with the most votes wins. Raises `Refused` for probabilities.
    """
    if said.get("prob_a"):
        raise Refused(
            "an SVC with probability=True has no form in TFLite: it finds probabilities by iterating",
            "Train it without probability=True, or convert it to onnx.",
        )
    sizes = [int(size) for size in said.get("vectors_per_class") or ()]
    if not sizes:
        raise Refused("an SVMClassifier without vectors has no form in TFLite", "Convert it to onnx.")
    pairs = [(first, second) for first in range(len(sizes)) for second in range(first + 1, len(sizes))]
    weights = _pairwise(np.array(said["coefficients"]).reshape(len(sizes) - 1, -1), sizes, pairs)
    found = _weighed(tf, x, said, weights) + np.array(said["rho"], np.float32)[None, :]
    won = tf.cast(found > 0, tf.float32)
    votes = np.zeros((2, len(pairs), len(sizes)), np.float32)
    for number, (first, second) in enumerate(pairs):
        votes[0, number, first] = votes[1, number, second] = 1
    place = tf.argmax(tf.matmul(won, votes[0]) + tf.matmul(1 - won, votes[1]), axis=1, output_type=tf.int64)
    names = said.get("classlabels_ints")
    known = np.array(names, np.int64) if names else np.array([one.decode() for one in said["classlabels_strings"]])
    # of two classes, both are given a score: onnxruntime's SVMClassifier answers (-s, s)
    return tf.gather(known, place), tf.concat([-found, found], axis=1) if len(sizes) == 2 else found


def _pairwise(coefficients: Any, sizes: list[int], pairs: list[tuple[int, int]]) -> Any:
    """Return (vectors, pairs): the vectors of a class have one coefficient for each other class, in LIBSVM's order."""
    ends = np.cumsum([0, *sizes])
    weights = np.zeros((ends[-1], len(pairs)))
    for number, (first, second) in enumerate(pairs):
        for mine, other in ((first, second), (second, first)):
            own = slice(ends[mine], ends[mine + 1])
            weights[own, number] = coefficients[other - (other > mine), own]
    return weights


def _weighed(tf: Any, x: Any, said: Mapping[str, Any], weights: Any) -> Any:
    """Return the kernel of each row with each vector, (N, vectors), times `weights`, (vectors, columns)."""
    wide = np.array(said["support_vectors"]).reshape(len(weights), -1)
    name = said.get("kernel_type", b"LINEAR").decode()
    if name == "LINEAR":
        return tf.matmul(x, (wide.T @ weights).astype(np.float32))  # multiplied in float64, and a fraction of the work
    vectors = wide.astype(np.float32)
    gamma, constant, degree = (np.float32(value) for value in said["kernel_params"])
    product = tf.matmul(x, vectors, transpose_b=True)
    if name == "RBF":
        squares = tf.reduce_sum(x * x, axis=1, keepdims=True) + (vectors**2).sum(axis=1)[None, :]
        kernel = tf.exp((squares - 2.0 * product) * -gamma)
    elif name == "POLY":
        kernel = tf.pow(product * gamma + constant, degree)
    else:
        kernel = tf.tanh(product * gamma + constant)
    return tf.matmul(kernel, weights.astype(np.float32))
