"""Estimators that are a product with a matrix, and something done to each number before or after."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from modelrel import trees
from modelrel.formats.onnx import tree_operators
from modelrel.formats.onnx.sklearn_tail.declared import STEP, Part, declare


def register() -> None:
    """Make skl2onnx convert these estimators with this module (in this process)."""
    from sklearn import (
        cluster,
        covariance,
        cross_decomposition,
        decomposition,
        ensemble,
        feature_selection,
        kernel_approximation,
        neural_network,
        random_projection,
    )

    for kind in (cross_decomposition.PLSRegression, cross_decomposition.PLSCanonical, cross_decomposition.CCA):
        declare(kind, _partial_least_squares)
    declare(cross_decomposition.PLSSVD, _partial_least_squares_svd)
    declare(decomposition.FactorAnalysis, _factor_analysis)
    declare(decomposition.FastICA, _independent)
    declare(decomposition.SparsePCA, _sparse_components)
    declare(decomposition.MiniBatchSparsePCA, _sparse_components)
    declare(random_projection.SparseRandomProjection, _projection)
    declare(cluster.FeatureAgglomeration, _agglomeration)
    declare(neural_network.BernoulliRBM, _boltzmann)
    declare(kernel_approximation.RBFSampler, _fourier)
    declare(kernel_approximation.SkewedChi2Sampler, _skewed)
    declare(kernel_approximation.AdditiveChi2Sampler, _additive)
    declare(kernel_approximation.PolynomialCountSketch, _sketch)
    declare(ensemble.RandomTreesEmbedding, _leaves)
    declare(covariance.EllipticEnvelope, _envelope)
    for kind in (feature_selection.RFE, feature_selection.RFECV, feature_selection.SequentialFeatureSelector):
        declare(kind, _selected)


def times(part: Part, x: str, matrix: object, plus: object = None) -> str:
    """Return `x @ matrix (+ plus)`."""
    product = part.nodes.add("MatMul", x, part.row(matrix))
    return product if plus is None else part.nodes.add("Add", product, part.row(plus))


def _partial_least_squares(part: Part) -> str:
    native = part.native
    centred = part.shifted(native._x_mean)
    if getattr(native, STEP, False):
        return times(part, part.nodes.add("Div", centred, part.row(native._x_std)), native.x_rotations_)
    return times(part, centred, native.coef_.T, native.intercept_)


def _partial_least_squares_svd(part: Part) -> str:
    native = part.native
    scaled = part.nodes.add("Div", part.shifted(native._x_mean), part.row(native._x_std))
    return times(part, scaled, native.x_weights_)


def _factor_analysis(part: Part) -> str:
    native = part.native
    components = native.components_.astype(np.float64)
    weighed = components / native.noise_variance_
    covariance = np.linalg.inv(np.eye(len(components)) + weighed @ components.T)
    return times(part, times(part, part.shifted(native.mean_), weighed.T), covariance)


def _independent(part: Part) -> str:
    x = part.shifted(part.native.mean_) if part.native.whiten else part.x
    return times(part, x, part.native.components_.T)


def _sparse_components(part: Part) -> str:
    """Write the ridge regression of a row on the components, which is one matrix."""
    native = part.native
    design = native.components_.T.astype(np.float64)
    gram = design.T @ design + native.ridge_alpha * np.eye(design.shape[1])
    return times(part, part.shifted(native.mean_), np.linalg.solve(gram, design.T).T)


def _projection(part: Part) -> str:
    components = part.native.components_
    return times(part, part.x, (components.toarray() if hasattr(components, "toarray") else components).T)


def _agglomeration(part: Part) -> str:
    """Write the mean of each group of features."""
    native = part.native
    if native.pooling_func is not np.mean:
        raise part.refused("pools by another function than numpy.mean", "Train it with pooling_func=numpy.mean.")
    member = np.eye(native.labels_.max() + 1)[native.labels_]
    return part.nodes.add("Div", times(part, part.x, member), part.row(member.sum(axis=0)))


def _boltzmann(part: Part) -> str:
    return part.nodes.add("Sigmoid", times(part, part.x, part.native.components_.T, part.native.intercept_hidden_))


def _cosines(part: Part, x: str) -> str:
    """Write random Fourier features; from float32 rows in float32, because a large angle loses digits there."""
    native, nodes = part.native, part.nodes
    kind = np.float32 if part.single else np.float64
    x = nodes.cast(x, TensorProto.FLOAT) if part.single else x
    angle = nodes.add("MatMul", x, nodes.constant(native.random_weights_, kind))
    angle = nodes.add("Add", angle, nodes.constant(native.random_offset_, kind))
    turned = nodes.add("Cos", nodes.cast(angle, TensorProto.DOUBLE))
    return nodes.add("Mul", turned, part.row(np.sqrt(2.0 / native.n_components)))


def _fourier(part: Part) -> str:
    return _cosines(part, part.x)


def _skewed(part: Part) -> str:
    return _cosines(part, part.nodes.add("Log", part.nodes.add("Add", part.x, part.row(part.native.skewedness))))


def _additive(part: Part) -> str:
    """Write the sampled Fourier transform of the chi-squared kernel (Vedaldi and Zisserman, 2010)."""
    native, nodes = part.native, part.nodes
    steps = native.sample_steps
    interval = native.sample_interval or {1: 0.8, 2: 0.5, 3: 0.4}[steps]
    there = nodes.add("Greater", part.x, part.row(0.0))
    safe = nodes.add("Where", there, part.x, part.row(1.0))

    def kept(tensor: str) -> str:
        return nodes.add("Where", there, tensor, part.row(0.0))

    found = [kept(nodes.add("Sqrt", nodes.add("Mul", safe, part.row(interval))))]
    scaled = nodes.add("Mul", nodes.add("Log", safe), part.row(interval))
    for step in range(1, steps):
        height = 2 * interval / np.cosh(np.pi * step * interval)
        factor = nodes.add("Sqrt", nodes.add("Mul", safe, part.row(height)))
        angle = nodes.add("Mul", scaled, part.row(float(step)))
        found += [kept(nodes.add("Mul", factor, nodes.add(name, angle))) for name in ("Cos", "Sin")]
    return nodes.add("Concat", *found, axis=1) if len(found) > 1 else found[0]


def _sketch(part: Part) -> str:
    """Write the circular convolution of count sketches, as products of their discrete Fourier transforms."""
    native, nodes = part.native, part.nodes
    size = native.n_components
    x = nodes.add("Mul", part.x, part.row(np.sqrt(native.gamma)))
    if native.coef0:
        first = nodes.add("Slice", x, *(nodes.constant([value], np.int64) for value in (0, 1, 1)))
        ones = nodes.add("Add", nodes.add("Mul", first, part.row(0.0)), part.row(np.sqrt(native.coef0)))
        x = nodes.add("Concat", x, ones, axis=1)
    angles = 2 * np.pi * np.outer(np.arange(size), np.arange(size)) / size
    real, imaginary = "", ""
    for index, bit in zip(native.indexHash_, native.bitHash_, strict=True):
        hashed = np.zeros((len(index), size))
        hashed[np.arange(len(index)), index] = bit
        a, b = times(part, x, hashed @ np.cos(angles)), times(part, x, hashed @ -np.sin(angles))
        if real:
            a, b = (
                nodes.add("Sub", nodes.add("Mul", real, a), nodes.add("Mul", imaginary, b)),
                nodes.add("Add", nodes.add("Mul", real, b), nodes.add("Mul", imaginary, a)),
            )
        real, imaginary = a, b
    return nodes.add("Sub", times(part, real, np.cos(angles) / size), times(part, imaginary, np.sin(angles) / size))


def _envelope(part: Part) -> tuple[str, str]:
    """Write the Mahalanobis distance, its sign turned, against the offset."""
    native, nodes = part.native, part.nodes
    centred = part.shifted(native.location_)
    stretched = nodes.add("Mul", times(part, centred, native.get_precision()), centred)
    distance = nodes.add("ReduceSum", stretched, nodes.constant([1], np.int64), keepdims=1)
    decision = nodes.add("Sub", nodes.add("Neg", distance), part.row(float(native.offset_)))
    inside = nodes.add("GreaterOrEqual", decision, part.row(0.0))
    label = nodes.add("Where", inside, nodes.constant(1, np.int64), nodes.constant(-1, np.int64))
    return label, decision


def _leaves(part: Part) -> str:
    """Write RandomTreesEmbedding: a column for each leaf of each tree that a training row reached."""
    native, nodes = part.native, part.nodes
    x = nodes.cast(nodes.cast(part.x, TensorProto.FLOAT), TensorProto.DOUBLE)
    forest = trees.forest(native)
    assert forest is not None
    known = native.one_hot_encoder_.categories_
    numbers = [
        start + np.searchsorted(np.flatnonzero(single.tree_.children_left < 0), own)
        for start, single, own in zip(forest.first_leaves, native.estimators_, known, strict=True)
    ]
    owner = np.repeat(np.arange(len(known)), [len(own) for own in known])
    leaf = tree_operators.leaves(nodes, x, forest, single=True)
    reached = nodes.add("Gather", leaf, nodes.constant(owner, np.int64), axis=1)
    same = nodes.add("Equal", reached, nodes.constant(np.concatenate(numbers).reshape(1, -1), np.int64))
    return nodes.cast(same, TensorProto.DOUBLE)


def _selected(part: Part) -> str:
    index = np.flatnonzero(part.native.get_support()).astype(np.int64)
    return part.nodes.cast(part.nodes.add("Gather", part.x, part.nodes.constant(index), axis=1), TensorProto.DOUBLE)
