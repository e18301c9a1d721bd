"""Functions of one number: steps, lines between knots, splines, and the normal distribution's quantiles."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from onnx import TensorProto

from modelrel.formats.onnx.sklearn_tail.declared import Part

# Wichura (1988), Algorithm AS 241, PPND16: highest power first. Its third range, beyond 5.4e-11, is never reached.
_MIDDLE: Final = (
    (2.5090809287301226727e3, 3.3430575583588128105e4, 6.7265770927008700853e4, 4.5921953931549871457e4,
     1.3731693765509461125e4, 1.9715909503065514427e3, 1.3314166789178437745e2, 3.3871328727963666080e0),
    (5.2264952788528545610e3, 2.8729085735721942674e4, 3.9307895800092710610e4, 2.1213794301586595867e4,
     5.3941960214247511077e3, 6.8718700749205790830e2, 4.2313330701600911252e1, 1.0),
)  # fmt: skip
_TAIL: Final = (
    (7.7454501427834140764e-4, 2.27238449892691845833e-2, 2.41780725177450611770e-1, 1.27045825245236838258e0,
     3.64784832476320460504e0, 5.76949722146069140550e0, 4.63033784615654529590e0, 1.42343711074968357734e0),
    (1.05075007164441684324e-9, 5.47593808499534494600e-4, 1.51986665636164571966e-2, 1.48103976427480074590e-1,
     6.89767334985100004550e-1, 1.67638483018380384940e0, 2.05319162663775882187e0, 1.0),
)  # fmt: skip
_EDGE: Final = 5.199337582605575
"""Where scikit-learn cuts normal quantiles off: -ppf(1e-7 - 2.2e-16)."""


def steps(part: Part, x: str, edges: Any) -> str:
    """Return how many of the edges are at or below each number: float64, (N, 1)."""
    nodes = part.nodes
    over = nodes.cast(nodes.add("GreaterOrEqual", x, part.row(np.asarray(edges)[None, :])), TensorProto.DOUBLE)
    return nodes.add("ReduceSum", over, nodes.constant([1], np.int64), keepdims=1)


def interpolated(part: Part, x: str, knots: Any, values: Any) -> str:
    """Return `numpy.interp(x, knots, values)`, (N, 1): flat outside the knots, the last of equal knots at them."""
    nodes = part.nodes
    knots, values = np.asarray(knots, np.float64), np.asarray(values, np.float64)
    gap = np.diff(knots, append=np.inf)
    with np.errstate(invalid="ignore", divide="ignore"):
        slopes = np.where(gap > 0, np.diff(values, append=values[-1]) / gap, 0.0)
    place = nodes.cast(steps(part, x, knots), TensorProto.INT64)
    # Place 0 is below the first knot, where nothing rises.
    start, rise, base = (
        nodes.add("Gather", part.row(np.append(first, table)), place, axis=0)
        for first, table in ((knots[0], knots), (0.0, slopes), (values[0], values))
    )
    level = nodes.add("Mul", rise, nodes.add("Sub", x, start))
    flat = nodes.add("Equal", rise, part.row(0.0))  # infinity is at an end, where 0 * infinity is not wanted
    return nodes.add("Add", nodes.add("Where", flat, part.row(0.0), level), base)


def _polynomial(part: Part, x: str, coefficients: Any) -> str:
    nodes, total = part.nodes, ""
    for value in coefficients:
        total = nodes.add("Add", nodes.add("Mul", total, x), part.row(value)) if total else part.row(value)
    return total


def normal_quantile(part: Part, p: str) -> str:
    """Return the quantiles of the standard normal distribution, cut off as scikit-learn does; NaN stays."""
    nodes = part.nodes
    q = nodes.add("Sub", p, part.row(0.5))
    r = nodes.add("Sub", part.row(0.180625), nodes.add("Mul", q, q))
    middle = nodes.add("Mul", q, nodes.add("Div", *(_polynomial(part, r, side) for side in _MIDDLE)))
    low = nodes.add("LessOrEqual", q, part.row(0.0))
    tail = nodes.add("Where", low, p, nodes.add("Sub", part.row(1.0), p))
    tail = nodes.add("Max", tail, part.row(1e-9))  # the logarithm stays finite; beyond the edge it is cut anyway
    t = nodes.add("Sub", nodes.add("Sqrt", nodes.add("Neg", nodes.add("Log", tail))), part.row(1.6))
    far = nodes.add("Div", *(_polynomial(part, t, side) for side in _TAIL))
    far = nodes.add("Where", low, nodes.add("Neg", far), far)
    near = nodes.add("LessOrEqual", nodes.add("Abs", q), part.row(0.425))
    found = nodes.add("Where", near, middle, far)
    found = nodes.add("Max", nodes.add("Min", found, part.row(_EDGE)), part.row(-_EDGE))
    return nodes.add("Where", nodes.add("IsNaN", p), p, found)


def spline(part: Part, x: str, native: Any, beyond: str) -> str:
    """Return the values of a feature's B-splines (`scipy.interpolate.BSpline` of vectors), (N, splines).

    `beyond` is SplineTransformer's `extrapolation`.
    """
    from scipy.interpolate import PPoly

    nodes = part.nodes
    ends = native.t[native.k], native.t[-native.k - 1]
    low, high = float(ends[0]), float(ends[1])
    pieces = [PPoly.from_spline((native.t, column, native.k)) for column in native.c.T]
    knots = pieces[0].x
    inside = (knots[:-1] >= low) & (knots[:-1] < high) & (np.diff(knots) > 0)
    starts, tables = knots[:-1][inside], np.stack([piece.c[:, inside] for piece in pieces], axis=2)
    at = x
    if beyond == "periodic":
        turn = nodes.add("Div", nodes.add("Sub", x, part.row(low)), part.row(high - low))
        whole = nodes.add("Mul", nodes.add("Floor", turn), part.row(high - low))
        at = nodes.add("Sub", x, whole)
    elif beyond in ("constant", "linear"):
        at = nodes.add("Max", nodes.add("Min", x, part.row(high)), part.row(low))
    found = _pieced(part, at, starts, tables)
    if beyond != "linear":
        return found
    slopes = native.derivative()
    for limit, side in ((low, "Min"), (high, "Max")):
        over = nodes.add(side, nodes.add("Sub", x, part.row(limit)), part.row(0.0))
        found = nodes.add("Add", found, nodes.add("Mul", over, part.row(slopes(limit)[None, :])))
    return found


def _pieced(part: Part, x: str, starts: Any, tables: Any) -> str:
    """Return the polynomial of the piece that each number is in; the first and last reach on."""
    nodes = part.nodes
    if len(starts) > 1:
        place = nodes.cast(steps(part, x, starts[1:]), TensorProto.INT64)
    else:
        place = nodes.cast(nodes.add("Mul", x, part.row(0.0)), TensorProto.INT64)
    place = nodes.add("Reshape", place, nodes.constant([-1], np.int64))
    start = nodes.add("Gather", part.row(starts[:, None]), place, axis=0)
    along = nodes.add("Sub", x, start)
    total = ""
    for table in tables:
        own = nodes.add("Gather", part.row(table), place, axis=0)
        total = nodes.add("Add", nodes.add("Mul", total, along), own) if total else own
    return total
