"""Linear models, naive Bayes and k-means of scikit-learn -> scores of linear functions, and what is made of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from modelrel.errors import Refused
from modelrel.formats.pmml import last
from modelrel.formats.pmml.document import Column, Document
from modelrel.formats.pmml.elements import Expression, apply
from modelrel.formats.pmml.features import summed
from modelrel.trees import Choice, Ensemble
from modelrel.trees.ensemble import LinkName
from modelrel.trees.from_sklearn import known_classes

_IDENTITY: Final = frozenset({
    "ARDRegression", "BayesianRidge", "ElasticNet", "ElasticNetCV", "HuberRegressor", "Lars", "LarsCV", "Lasso",
    "LassoCV", "LassoLars", "LassoLarsCV", "LassoLarsIC", "LinearRegression", "LinearSVR", "MultiTaskElasticNet",
    "MultiTaskElasticNetCV", "MultiTaskLasso", "MultiTaskLassoCV", "OrthogonalMatchingPursuit",
    "OrthogonalMatchingPursuitCV", "PassiveAggressiveRegressor", "QuantileRegressor", "Ridge", "RidgeCV",
    "SGDRegressor", "TheilSenRegressor",
})  # fmt: skip
_EXP: Final = frozenset({"GammaRegressor", "PoissonRegressor", "TweedieRegressor"})
_SCORES: Final = frozenset({
    "LinearSVC", "PassiveAggressiveClassifier", "Perceptron", "RidgeClassifier", "RidgeClassifierCV", "SGDClassifier",
})  # fmt: skip
_LOGISTIC: Final = frozenset({"LogisticRegression", "LogisticRegressionCV", "LinearDiscriminantAnalysis"})
_BAYES: Final = frozenset({"BernoulliNB", "ComplementNB", "GaussianNB", "MultinomialNB"})
KNOWN: Final = tuple(sorted(_IDENTITY | _EXP | _SCORES | _LOGISTIC | _BAYES | {"KMeans", "MiniBatchKMeans"}))


def model(document: Document, native: Any, columns: Sequence[Column], names: Sequence[str]) -> last.Made:
    """Return the model of an estimator, and its outputs of these names; raises `Refused`, by name, for another one."""
    kind = type(native).__name__
    if not type(native).__module__.startswith("sklearn.") or kind not in KNOWN:
        raise Refused(
            f"{kind} has no form in PMML",
            "It is written from trees and their ensembles, linear and logistic models, naive Bayes and k-means; "
            "try --with sklearn2pmml (AGPL-3.0, Java), or convert it to onnx.",
        )
    if any(column.text for column in columns):
        raise Refused(f"{kind} is given text", "Encode it before the model, in a Pipeline.")
    if kind in _IDENTITY | _EXP:
        return _regressor(document, native, columns, names)
    if kind in _BAYES:
        return _bayes(document, native, columns, names)
    if kind.endswith("KMeans"):
        return _means(document, native, columns, names)
    return _classifier(document, native, columns, names)


def _regressor(document: Document, native: Any, columns: Sequence[Column], names: Sequence[str]) -> last.Made:
    weights, intercept = _weights(native.coef_, native.intercept_, len(columns))
    link: LinkName = "identity"
    if type(native).__name__ in _EXP:
        power = getattr(native, "power", 1)
        said = getattr(native, "link", "log")
        link = "exp" if said == "log" or (said == "auto" and power > 0) else "identity"
    if link == "identity" and len(weights) == 1:
        field = document.name(names[0])
        line = last.line(document, columns, (weights[0], float(intercept[0])), field, inner=False)
        return last.chain(document, [line], {names[0]: [field]})
    return _finished(document, (columns, weights, intercept), names, link=link)


def _weights(coef: Any, intercept: Any, features: int) -> tuple[Any, Any]:
    """Return weights (scores, features) and intercepts (scores,) as float64."""
    weights = np.asarray(coef.toarray() if hasattr(coef, "toarray") else coef, np.float64).reshape(-1, features)
    return weights, np.broadcast_to(np.asarray(intercept, np.float64).ravel(), (len(weights),))


def _finished(
    document: Document, lines: tuple[Sequence[Column], Any, Any], names: Sequence[str], **how: Any
) -> last.Made:
    """Return the model of linear functions - columns, weights (scores, features), intercepts - and what follows."""
    columns, weights, intercept = lines
    fields = [document.name(f"score {score}") for score in range(len(weights))]
    segments = [
        last.line(document, columns, (row, float(plus)), field)
        for row, plus, field in zip(weights, intercept, fields, strict=True)
    ]
    scored = last.Scored(tuple(segments), tuple(fields))
    return last.finished(document, scored, _ensemble(len(columns), len(weights), **how), names)


def _classifier(document: Document, native: Any, columns: Sequence[Column], names: Sequence[str]) -> last.Made:
    classes = known_classes(native)
    weights, intercept = _weights(native.coef_, native.intercept_, len(columns))
    lines = (columns, weights, intercept)
    binary = len(weights) == 1
    choice = Choice(classes=classes, rule="above" if binary else "largest", of="raw")
    if "probabilities" not in names:
        return _finished(document, lines, names, choice=choice)
    return _finished(document, lines, names, choice=choice, **_probable(native, binary=binary))


def _probable(native: Any, *, binary: bool) -> dict[str, Any]:
    """Return what makes probabilities of a linear classifier's scores; raises `Refused` where that is not known."""
    kind = type(native).__name__
    loss = getattr(native, "loss", "log_loss")
    if kind == "SGDClassifier" and loss != "log_loss":
        raise Refused(f"SGDClassifier(loss={loss!r}) has no proven probabilities in PMML", "Train it with log_loss.")
    if kind not in _LOGISTIC | {"SGDClassifier"}:
        raise Refused(f"{kind} with probabilities has no form in PMML", "Convert it to onnx.")
    each = (
        kind == "SGDClassifier"
        or getattr(native, "multi_class", None) == "ovr"
        or getattr(native, "solver", "") == "liblinear"
    )
    if binary:
        multinomial = kind.startswith("Logistic") and getattr(native, "multi_class", None) == "multinomial"
        return {"link": "sigmoid", "slope": 2.0 if multinomial else 1.0, "pair": True}
    if each:
        raise Refused(
            f"{kind} makes probabilities of one model for each class, which has no proven form in PMML",
            "Train LogisticRegression with its default solver, or convert it to onnx.",
        )
    return {"link": "softmax"}


def _bayes(document: Document, native: Any, columns: Sequence[Column], names: Sequence[str]) -> last.Made:
    """Return naive Bayes: the joint log likelihood of each class, and its softmax."""
    how: dict[str, Any] = {"link": "softmax", "choice": Choice(classes=known_classes(native), of="raw")}
    kind = type(native).__name__
    if kind == "GaussianNB":
        return _gaussian(document, native, columns, names, how)
    weights, intercept = (
        np.asarray(native.feature_log_prob_, np.float64),
        np.asarray(native.class_log_prior_, np.float64),
    )
    if kind == "ComplementNB" and len(native.classes_) > 1:
        intercept = np.zeros(len(weights))
    if kind == "BernoulliNB":
        rest = np.log(1 - np.exp(weights))
        weights, intercept = weights - rest, intercept + rest.sum(axis=1)
        if native.binarize is not None:
            limit = float(native.binarize)
            columns = [
                document.derive(
                    f"above({one.field})", apply("if", apply("greaterThan", one.field, limit), 1.0, 0.0), one
                )
                for one in columns
            ]
    if len(weights) == 1:
        raise Refused(f"{kind} of one class has no form in PMML", "Train it on two classes or more.")
    return _finished(document, (columns, weights, intercept), names, **how)


def _gaussian(
    document: Document, native: Any, columns: Sequence[Column], names: Sequence[str], how: dict[str, Any]
) -> last.Made:
    """Return GaussianNB, whose likelihoods are sums of squares (`sklearn.naive_bayes.GaussianNB`)."""
    scores: list[Expression] = []
    for prior, means, variances in zip(native.class_prior_, native.theta_, native.var_, strict=True):
        squares = [
            apply("/", _square(one.field, float(mean)), float(variance))
            for one, mean, variance in zip(columns, means, variances, strict=True)
        ]
        base = float(np.log(prior) - 0.5 * np.log(2.0 * np.pi * variances).sum())
        name = f"likelihood {len(scores)}"
        scores.append(document.derive(name, apply("-", base, apply("*", 0.5, summed(squares))), *columns).field)
    scored = last.Scored((), tuple(scores), last.sources(columns))
    return last.finished(document, scored, _ensemble(len(columns), len(scores), **how), names)


def _square(field: str, center: float) -> Expression:
    return apply("*", apply("-", field, center), apply("-", field, center))


def _means(document: Document, native: Any, columns: Sequence[Column], names: Sequence[str]) -> last.Made:
    """Return k-means: the number of the nearest center, the first of several, and the distances to all."""
    near: list[Expression] = []
    distances = []
    for place, center in enumerate(np.asarray(native.cluster_centers_, np.float64).tolist()):
        terms = [_square(one.field, value) for one, value in zip(columns, center, strict=True)]
        square = document.derive(f"square {place}", summed(terms), *columns).field
        distances.append(document.derive(f"distance {place}", apply("sqrt", square), *columns).field)
        near.append(document.derive(f"near {place}", apply("-", 0.0, square), *columns).field)
    choice = Choice(classes=tuple(range(len(near))), of="raw")
    ensemble = _ensemble(len(columns), len(near), choice=choice)
    scored = last.Scored((), tuple(near), last.sources(columns), tuple(distances))
    return last.finished(document, scored, ensemble, names)


def _ensemble(features: int, scores: int, **how: Any) -> Ensemble:
    """Return what is made of scores, as ensembles of trees say it."""
    return Ensemble(features=features, forest=None, targets=None, base=np.zeros(scores), **how)
