"""Models that stand around others: targets transformed, thresholds chosen, probabilities calibrated, chains, codes."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

from modelrel.formats.onnx import links
from modelrel.formats.onnx.sklearn_tail import curves
from modelrel.formats.onnx.sklearn_tail.declared import Part, declare
from modelrel.formats.onnx.sklearn_tail.distances import squared


def register() -> None:
    """Make skl2onnx convert these estimators with this module (in this process)."""
    from sklearn import calibration, compose, dummy, isotonic, model_selection, multiclass, multioutput

    declare(dummy.DummyClassifier, _same_class)
    declare(dummy.DummyRegressor, _same_number)
    declare(isotonic.IsotonicRegression, _isotonic)
    declare(compose.TransformedTargetRegressor, _transformed)
    declare(calibration.CalibratedClassifierCV, _calibrated)
    declare(getattr(model_selection, "FixedThresholdClassifier", None), _threshold)
    declare(getattr(model_selection, "TunedThresholdClassifierCV", None), _threshold)
    declare(multiclass.OneVsRestClassifier, _one_against_all)
    declare(multiclass.OutputCodeClassifier, _coded)
    declare(multioutput.RegressorChain, _chained)


def _repeated(part: Part, row: Any) -> str:
    """Return one row for each of the rows, whatever they hold."""
    nodes = part.nodes
    count = nodes.add("Gather", nodes.add("Shape", part.x), nodes.constant([0], np.int64))
    shape = nodes.add("Concat", count, nodes.constant([np.shape(row)[-1]], np.int64), axis=0)
    return nodes.add("Expand", part.row(np.reshape(row, (1, -1))), shape)


def _same_class(part: Part) -> tuple[str, str]:
    native = part.native
    if native.strategy in ("uniform", "stratified"):
        raise part.refused(f"guesses at random (strategy={native.strategy!r})", "Train it with strategy='prior'.")
    chosen = int(np.asarray(native.class_prior_).argmax())
    if native.strategy == "constant":
        chosen = int(np.flatnonzero(native.classes_ == native.constant)[0])
    row = np.asarray(native.class_prior_) if native.strategy == "prior" else np.eye(len(native.classes_))[chosen]
    shares = _repeated(part, row)
    place = part.nodes.cast(_repeated(part, [float(chosen)]), TensorProto.INT64)
    return part.label(part.nodes.add("Squeeze", place, part.nodes.constant([1], np.int64))), shares


def _same_number(part: Part) -> str:
    return _repeated(part, np.asarray(part.native.constant_).ravel())


def _isotonic(part: Part) -> str:
    native, nodes = part.native, part.nodes
    x = part.column(part.x)
    knots = np.asarray(native.X_thresholds_)
    if knots.dtype == np.float32:
        x = nodes.cast(nodes.cast(x, TensorProto.FLOAT), TensorProto.DOUBLE)
    found = curves.interpolated(part, x, knots, native.y_thresholds_)
    if native.out_of_bounds == "clip":
        return found
    # Where it raises, there is nothing to compare with; where it says NaN, the copy does.
    low, high = part.row(float(native.X_min_)), part.row(float(native.X_max_))
    out = nodes.add("Or", nodes.add("Less", x, low), nodes.add("Greater", x, high))
    return nodes.add("Where", out, part.row(np.nan), found)


def _transformed(part: Part) -> str:
    native, nodes = part.native, part.nodes
    (raw,) = part.inner(native.regressor_, part.x)
    raw = nodes.cast(raw, TensorProto.DOUBLE)
    back = native.transformer_
    kind = type(back).__name__
    if kind == "FunctionTransformer":
        return _undone(part, raw, back.inverse_func)
    if kind == "StandardScaler":
        scaled = nodes.add("Mul", raw, part.row(1.0 if back.scale_ is None else back.scale_))
        return nodes.add("Add", scaled, part.row(0.0 if back.mean_ is None else back.mean_))
    if kind == "MinMaxScaler" and not back.clip:
        return nodes.add("Div", nodes.add("Sub", raw, part.row(back.min_)), part.row(back.scale_))
    if kind == "MaxAbsScaler":
        return nodes.add("Mul", raw, part.row(back.scale_))
    if kind == "RobustScaler":
        scaled = nodes.add("Mul", raw, part.row(1.0 if not back.with_scaling else back.scale_))
        return nodes.add("Add", scaled, part.row(0.0 if not back.with_centering else back.center_))
    raise part.refused(
        f"transforms its target by {kind}", "Use a scaler, or func=numpy.log1p and inverse_func=numpy.expm1."
    )


def _undone(part: Part, raw: str, function: Any) -> str:
    """Write the inverse function of a target."""
    nodes = part.nodes
    if function is None:
        return raw
    plain = {np.exp: "Exp", np.log: "Log", np.sqrt: "Sqrt", np.abs: "Abs", np.negative: "Neg"}
    known = next((op for found, op in plain.items() if function is found), None)
    if known:
        return nodes.add(known, raw)
    if function is np.expm1:
        return nodes.add("Sub", nodes.add("Exp", raw), part.row(1.0))
    if function is np.log1p:
        return nodes.add("Log", nodes.add("Add", raw, part.row(1.0)))
    if function is np.square:
        return nodes.add("Mul", raw, raw)
    if function is np.exp2:
        return nodes.add("Pow", part.row(2.0), raw)
    said = getattr(function, "__name__", repr(function))
    raise part.refused(f"has the inverse_func {said}", "Use numpy.exp, expm1, log, log1p, sqrt, square or exp2.")


def decided(part: Part, estimator: Any, x: str) -> str:
    """Return what `decision_function` gives, (N, 1 or classes), of an estimator that has it."""
    nodes = part.nodes
    if hasattr(estimator, "steps"):
        if len(estimator.steps) > 1:
            (x,) = part.inner(estimator[:-1], x)
        return decided(part, estimator.steps[-1][1], x)
    module = type(estimator).__module__
    if hasattr(estimator, "best_estimator_"):
        return decided(part, estimator.best_estimator_, x)
    if hasattr(estimator, "coef_") and ("linear_model" in module or type(estimator).__name__ == "LinearSVC"):
        product = nodes.add("MatMul", nodes.cast(x, TensorProto.DOUBLE), part.row(np.atleast_2d(estimator.coef_).T))
        return nodes.add("Add", product, part.row(estimator.intercept_))
    if type(estimator).__name__ in ("SVC", "NuSVC") and len(estimator.classes_) == 2:
        return last(part, nodes.cast(part.inner(estimator, x, scores=True)[1], TensorProto.DOUBLE))
    raise part.refused(
        f"needs the decision_function of {type(estimator).__name__}, which has no proven copy",
        "Use a linear model inside, or one that has predict_proba only.",
    )


def _shares(part: Part, estimator: Any) -> str:
    """Return what `predict_proba` gives."""
    return part.nodes.cast(part.inner(estimator, part.x)[1], TensorProto.DOUBLE)


def last(part: Part, tensor: str) -> str:
    """Return the last column, (N, 1)."""
    return part.nodes.add("Gather", tensor, part.nodes.constant([-1], np.int64), axis=1)


def _binary(part: Part, estimator: Any) -> str:
    """Return how sure one of several models of two classes is of the second, (N, 1)."""
    from sklearn.base import is_regressor

    if type(estimator).__name__ == "_ConstantPredictor":
        return _repeated(part, [float(np.ravel(estimator.y_)[0])])
    if is_regressor(estimator):
        return part.column(part.nodes.cast(part.inner(estimator, part.x)[0], TensorProto.DOUBLE))
    if hasattr(estimator, "decision_function"):
        return decided(part, estimator, part.x)
    return last(part, _shares(part, estimator))


def _second(part: Part, estimator: Any, decision: str) -> str:
    """Return the probability of the second class; in double where a logistic one is far below float32's range."""
    if type(estimator).__name__ in ("LogisticRegression", "LogisticRegressionCV"):
        # As the original has it, in its own precision: the shares of several are compared, far below 1e-38 even.
        nodes, kind = part.nodes, TensorProto.FLOAT if part.single else TensorProto.DOUBLE
        rise = nodes.add("Exp", nodes.add("Neg", nodes.cast(decision, kind)))
        one = nodes.constant(1.0, np.float32 if part.single else np.float64)
        return nodes.cast(nodes.add("Reciprocal", nodes.add("Add", one, rise)), TensorProto.DOUBLE)
    return last(part, _shares(part, estimator))


def _calibrated(part: Part) -> tuple[str, str]:
    native, nodes = part.native, part.nodes
    total = ""
    for one in native.calibrated_classifiers_:
        own = _one_calibrated(part, one)
        total = nodes.add("Add", total, own) if total else own
    mean = nodes.add("Div", total, part.row(float(len(native.calibrated_classifiers_))))
    return part.label(links.largest(nodes, mean)), mean


def _one_calibrated(part: Part, one: Any) -> str:
    """Write one calibrated classifier: a curve for each class, made to sum to 1."""
    nodes = part.nodes
    if one.method not in ("isotonic", "sigmoid"):
        raise part.refused(f"calibrates by {one.method!r}", "Train it with method='sigmoid' or 'isotonic'.")
    estimator = one.estimator
    while type(estimator).__name__ == "FrozenEstimator":  # how one calibrates what was fitted before
        estimator = estimator.estimator
    scored = hasattr(estimator, "decision_function")
    raw = decided(part, estimator, part.x) if scored else _shares(part, estimator)
    two = len(one.classes) == 2
    if two and not scored:
        raw = last(part, raw)
    if len(estimator.classes_) != len(one.classes):
        raise part.refused("was calibrated on parts without some classes", "Train it with stratified parts.")
    found = []
    for index, curve in enumerate(one.calibrators):
        own = nodes.add("Gather", raw, nodes.constant([index], np.int64), axis=1)
        if one.method == "isotonic":
            knots = np.asarray(curve.X_thresholds_)
            own = nodes.cast(nodes.cast(own, TensorProto.FLOAT), TensorProto.DOUBLE) if knots.dtype == "f4" else own
            found.append(curves.interpolated(part, own, knots, curve.y_thresholds_))
        else:
            # onnxruntime's Sigmoid is an ulp off, which makes a label of two classes that are equally sure.
            line = nodes.add("Add", nodes.add("Mul", own, part.row(float(curve.a_))), part.row(float(curve.b_)))
            found.append(nodes.add("Reciprocal", nodes.add("Add", part.row(1.0), nodes.add("Exp", line))))
    if two:
        return links.both(nodes, found[-1])
    joined = nodes.add("Concat", *found, axis=1)
    count = nodes.add("ReduceSum", joined, nodes.constant([1], np.int64), keepdims=1)
    none = nodes.add("Equal", count, part.row(0.0))
    share = nodes.add("Div", joined, nodes.add("Where", none, part.row(1.0), count))
    return nodes.add("Where", none, part.row(1.0 / len(one.classes)), share)


def _threshold(part: Part) -> tuple[str, str]:
    native, nodes = part.native, part.nodes
    tuned = hasattr(native, "best_threshold_")
    estimator = native.estimator_
    chosen = native._curve_scorer._get_pos_label() if tuned else native.pos_label
    wanted = native._get_response_method()
    wanted = [wanted] if isinstance(wanted, str) else list(wanted)
    method = next(name for name in wanted if hasattr(estimator, name))
    limit = native.best_threshold_ if tuned else native.threshold
    if isinstance(limit, str):
        limit = 0.5 if method == "predict_proba" else 0.0
    positive = 1 if chosen is None else int(np.flatnonzero(native.classes_ == chosen)[0])
    shares = _shares(part, estimator) if hasattr(estimator, "predict_proba") else decided(part, estimator, part.x)
    if method == "predict_proba":
        score = nodes.add("Gather", shares, nodes.constant([positive], np.int64), axis=1)
    else:
        score = decided(part, estimator, part.x)
        score = score if positive else nodes.add("Neg", score)
    over = links.above(nodes, score, part.row(float(limit)), or_equal=True)
    return part.label(over if positive else nodes.add("Sub", nodes.constant(1, np.int64), over)), shares


def _one_against_all(part: Part) -> tuple[str, str]:
    native, nodes = part.native, part.nodes
    if native.multilabel_:
        raise part.refused("predicts several labels at once", "Release one model per label.")
    sure = [_binary(part, estimator) for estimator in native.estimators_]
    score = nodes.add("Concat", *sure, axis=1)
    if len(sure) == 1:
        first = native.estimators_[0]
        limit = 0.0 if hasattr(first, "decision_function") else 0.5
        index = links.above(nodes, score, part.row(limit))
    else:
        index = links.largest(nodes, score)
    if not hasattr(native, "predict_proba"):
        return part.label(index), score
    columns = [
        own if type(one).__name__ == "_ConstantPredictor" else _second(part, one, own)
        for one, own in zip(native.estimators_, sure, strict=True)
    ]
    if len(columns) == 1:
        return part.label(index), links.both(nodes, columns[0])
    return part.label(index), normalised(part, nodes.add("Concat", *columns, axis=1))


def normalised(part: Part, shares: str) -> str:
    """Return rows that sum to 1; a row of zeros stays."""
    nodes = part.nodes
    count = nodes.add("ReduceSum", shares, nodes.constant([1], np.int64), keepdims=1)
    none = nodes.add("Equal", count, part.row(0.0))
    return nodes.add("Div", shares, nodes.add("Where", none, part.row(1.0), count))


def _coded(part: Part) -> tuple[str, str]:
    """Write OutputCodeClassifier: the class whose code is nearest."""
    native, nodes = part.native, part.nodes
    sure = nodes.add("Concat", *(_binary(part, estimator) for estimator in native.estimators_), axis=1)
    gaps = squared(part, sure, native.code_book_)
    return part.label(nodes.add("ArgMin", gaps, axis=1, keepdims=0)), gaps


def _chained(part: Part) -> str:
    native, nodes = part.native, part.nodes
    x, found = part.x, []
    for estimator in native.estimators_:
        (own,) = part.inner(estimator, x)
        found.append(part.column(nodes.cast(own, TensorProto.DOUBLE)))
        x = nodes.add("Concat", x, found[-1], axis=1)
    return nodes.add("Concat", *(found[index] for index in np.argsort(native.order_)), axis=1)
