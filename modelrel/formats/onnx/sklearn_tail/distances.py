"""Distances and kernels between rows and kept points, and the clusters and kernel methods made of them."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from modelrel.formats.onnx import links
from modelrel.formats.onnx.sklearn_tail.declared import STEP, Part, declare

_UNROLLED: Final = 64
"""Up to so many features a difference is taken for each: exact near zero, where a product cancels digits."""


_UNSTEADY: Final = "where the rounding of the original is larger than what a copy may be off"
_DOUBLE: Final = "Train and log it with float64 rows."


def register() -> None:
    """Make skl2onnx convert these estimators with this module (in this process)."""
    from sklearn import cluster, kernel_approximation, kernel_ridge, neighbors, semi_supervised

    for kind in (cluster.KMeans, cluster.MiniBatchKMeans):
        declare(kind, _means)
    for kind in (cluster.MeanShift, cluster.AffinityPropagation):
        declare(kind, _centres)
    declare(cluster.Birch, _birch)
    declare(cluster.BisectingKMeans, _bisected)
    declare(neighbors.NearestCentroid, _centroids)
    declare(kernel_ridge.KernelRidge, _ridge)
    declare(kernel_approximation.Nystroem, _nystroem)
    for kind in (semi_supervised.LabelPropagation, semi_supervised.LabelSpreading):
        declare(kind, _propagated)


def squared(part: Part, x: str, points: Any) -> str:
    """Return the squared Euclidean distance of each row to each point, (N, points)."""
    points = np.asarray(points, np.float64)
    if points.shape[1] <= _UNROLLED:
        return _summed(part, x, points, lambda gap: part.nodes.add("Mul", gap, gap))
    nodes, one = part.nodes, part.nodes.constant([1], np.int64)
    norms = nodes.add("ReduceSum", nodes.add("Mul", x, x), one, keepdims=1)
    cross = nodes.add("MatMul", x, part.row(-2 * points.T))
    total = nodes.add("Add", nodes.add("Add", norms, cross), part.row((points**2).sum(axis=1)))
    return nodes.add("Max", total, part.row(0.0))


def distance(part: Part, x: str, points: Any, metric: str, p: float = 2) -> str:
    """Return the distance of each row to each point, (N, points)."""
    nodes = part.nodes
    if metric in ("l2", "euclidean") or (metric == "minkowski" and p == 2):
        return nodes.add("Sqrt", squared(part, x, points))
    points = np.asarray(points, np.float64)
    if metric == "sqeuclidean":
        return squared(part, x, points)
    if metric in ("l1", "manhattan", "cityblock") or (metric == "minkowski" and p == 1):
        return _summed(part, x, points, lambda gap: nodes.add("Abs", gap))
    if metric == "minkowski" and np.isfinite(p):
        total = _summed(part, x, points, lambda gap: nodes.add("Pow", nodes.add("Abs", gap), part.row(float(p))))
        return nodes.add("Pow", total, part.row(1 / p))
    if metric in ("chebyshev", "minkowski"):
        return _summed(part, x, points, lambda gap: nodes.add("Abs", gap), "Max")
    raise part.refused(f"measures by {metric!r}, which has no proven copy", "Train it with metric='minkowski'.")


def _summed(part: Part, x: str, points: Any, of: Any, join: str = "Add") -> str:
    nodes, total = part.nodes, ""
    for index, values in enumerate(np.asarray(points, np.float64).T):
        own = nodes.add("Gather", x, nodes.constant([index], np.int64), axis=1)
        term = of(nodes.add("Sub", own, part.row(values[None, :])))
        total = nodes.add(join, total, term) if total else term
    return total


def kernel(part: Part, x: str, points: Any, name: Any, **said: Any) -> str:
    """Return the kernel of each row with each point (`sklearn.metrics.pairwise`), (N, points)."""
    nodes = part.nodes
    gamma = said.get("gamma")
    gamma = 1.0 / points.shape[1] if gamma is None else float(gamma)
    offset = 1.0 if said.get("coef0") is None else float(said["coef0"])
    degree = 3.0 if said.get("degree") is None else float(said["degree"])
    if name == "rbf":
        return nodes.add("Exp", nodes.add("Mul", squared(part, x, points), part.row(-gamma)))
    if name == "laplacian":
        return nodes.add("Exp", nodes.add("Mul", distance(part, x, points, "l1"), part.row(-gamma)))
    if name == "cosine" and not part.single:
        one = nodes.constant([1], np.int64)
        lengths = nodes.add("Sqrt", nodes.add("ReduceSum", nodes.add("Mul", x, x), one, keepdims=1))
        none = nodes.add("Equal", lengths, part.row(0.0))
        unit = nodes.add("Div", x, nodes.add("Where", none, part.row(1.0), lengths))
        norms = np.linalg.norm(points, axis=1, keepdims=True)
        return nodes.add("MatMul", unit, part.row((points / np.where(norms == 0, 1, norms)).T))
    if part.single and name != "linear":
        raise part.refused(f"has the kernel {name!r} of float32 rows, {_UNSTEADY}", _DOUBLE)
    if name not in ("linear", "poly", "polynomial", "sigmoid"):
        raise part.refused(f"has the kernel {name!r}, which has no proven copy", "Train it with kernel='rbf'.")
    product = nodes.add("MatMul", x, part.row(points.T))
    if name == "linear":
        return product
    inside = nodes.add("Add", nodes.add("Mul", product, part.row(gamma)), part.row(offset))
    return nodes.add("Tanh", inside) if name == "sigmoid" else nodes.add("Pow", inside, part.row(degree))


def _nearest(part: Part, x: str, points: Any) -> str:
    return part.nodes.add("ArgMin", squared(part, x, points), axis=1, keepdims=0)


def _means(part: Part) -> str | tuple[str, str]:
    scores = distance(part, part.x, part.native.cluster_centers_, "l2")
    if getattr(part.native, STEP, False):
        return scores
    return _nearest(part, part.x, part.native.cluster_centers_), scores


def _centres(part: Part) -> tuple[str, str]:
    points = getattr(part.native, "cluster_centers_", np.empty((0, 0)))
    if not len(points):
        raise part.refused("found no clusters", "Train it with a Euclidean affinity, until it converges.")
    return _nearest(part, part.x, points), distance(part, part.x, points, "l2")


def _birch(part: Part) -> str | tuple[str, str]:
    native = part.native
    scores = distance(part, part.x, native.subcluster_centers_, "l2")
    if getattr(native, STEP, False):
        return scores
    labels = part.nodes.constant(np.asarray(native.subcluster_labels_, np.int64))
    return part.nodes.add("Gather", labels, _nearest(part, part.x, native.subcluster_centers_)), scores


def _bisected(part: Part) -> str | tuple[str, str]:
    """Write a tree of pairs of centres: a row goes to the nearer one, the first of two equally near."""
    native, nodes = part.native, part.nodes
    scores = distance(part, part.x, native.cluster_centers_, "l2")
    if getattr(native, STEP, False):
        return scores
    shift = getattr(native, "_X_mean", 0.0)

    def below(node: Any) -> str:
        if node.left is None:
            return nodes.constant([node.label], np.int64)
        pair = np.stack([node.left.center, node.right.center]) + shift
        first = nodes.add("Equal", _nearest(part, part.x, pair), nodes.constant([0], np.int64))
        return nodes.add("Where", first, below(node.left), below(node.right))

    return below(native._bisecting_tree), scores


def _centroids(part: Part) -> tuple[str, str]:
    """Write NearestCentroid: the label by the plain distance where all classes are as likely."""
    native, nodes = part.native, part.nodes
    spread = np.where(native.within_class_std_dev_ == 0, 1, native.within_class_std_dev_)
    scaled = distance(part, nodes.add("Div", part.x, part.row(spread)), native.centroids_ / spread, native.metric)
    scores = nodes.add("Sub", part.row(2 * np.log(native.class_prior_)), nodes.add("Mul", scaled, scaled))
    if np.isclose(native.class_prior_, 1 / len(native.classes_)).all():
        plain = distance(part, part.x, native.centroids_, native.metric)
        index = nodes.add("ArgMin", plain, axis=1, keepdims=0)
    elif len(native.classes_) > 2:
        index = links.largest(nodes, scores)
    else:
        index = ""
    if len(native.classes_) == 2 and not hasattr(native, "predict_proba"):
        scores = times_pair(part, scores)
        index = index or links.above(nodes, scores, part.row(0.0))
    elif hasattr(native, "predict_proba"):
        index = index or links.above(nodes, times_pair(part, scores), part.row(0.0))
        scores = nodes.add("Softmax", scores, axis=1)
    return part.label(index), scores


def times_pair(part: Part, scores: str) -> str:
    """Return the second column minus the first, (N, 1)."""
    return part.nodes.add("MatMul", scores, part.row([[-1.0], [1.0]]))


def _ridge(part: Part) -> str:
    native = part.native
    said = dict(native.kernel_params or {}) or {key: getattr(native, key) for key in ("gamma", "degree", "coef0")}
    weights = np.asarray(native.dual_coef_, np.float64).reshape(len(native.X_fit_), -1)
    return part.nodes.add(
        "MatMul", kernel(part, part.x, np.asarray(native.X_fit_, np.float64), native.kernel, **said), part.row(weights)
    )


def _nystroem(part: Part) -> str:
    native = part.native
    said = native._get_kernel_params()
    if part.single and native.kernel not in ("rbf", "laplacian"):
        raise part.refused(f"has the kernel {native.kernel!r} of float32 rows, {_UNSTEADY}", _DOUBLE)
    embedded = kernel(part, part.x, np.asarray(native.components_, np.float64), native.kernel, **said)
    return part.nodes.add("MatMul", embedded, part.row(native.normalization_.T))


def _propagated(part: Part) -> tuple[str, str]:
    """Write the labels of the training rows, weighed by a kernel or taken from the nearest ones."""
    native, nodes = part.native, part.nodes
    if native.kernel == "rbf":
        weights = part.rounded(kernel(part, part.x, native.X_.astype(np.float64), "rbf", gamma=native.gamma))
        total = nodes.add("MatMul", weights, part.row(native.label_distributions_))
    elif native.kernel == "knn":
        gaps = squared(part, part.x, native.X_)
        count = nodes.constant([native.n_neighbors], np.int64)
        index = lowest(part, gaps, count)[1]
        picked = nodes.add("Gather", part.row(native.label_distributions_), index, axis=0)
        total = nodes.add("ReduceSum", picked, nodes.constant([1], np.int64), keepdims=0)
    else:
        raise part.refused("has a kernel that is a function", "Train it with kernel='rbf' or 'knn'.")
    share = nodes.add("Div", total, nodes.add("ReduceSum", total, nodes.constant([1], np.int64), keepdims=1))
    return part.label(links.largest(nodes, share)), share


def lowest(part: Part, values: str, count: str) -> tuple[str, str]:
    """Return the smallest values of each row and their columns, (N, count) both; the first of equal ones."""
    from onnx import helper

    found, index = part.nodes.name(), part.nodes.name()
    part.nodes.nodes.append(helper.make_node("TopK", [values, count], [found, index], axis=1, largest=0, sorted=1))
    return found, index
