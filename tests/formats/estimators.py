"""Each estimator of scikit-learn, built sensibly and fitted on small data that it is made for."""

from __future__ import annotations

import warnings
from typing import Any, Final

import numpy as np
from sklearn import datasets
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.svm import LinearSVC
from sklearn.utils import all_estimators

REFUSED: Final = {
    "ClassifierChain": "several targets",
    "DictVectorizer": "dictionaries",
    "DictionaryLearning": "optimisation",
    "FeatureHasher": "MurmurHash3",
    "GaussianProcessClassifier": "error function",
    "Isomap": "no converter",
    "LatentDirichletAllocation": "until it converges",
    "LocallyLinearEmbedding": "system of equations",
    "MiniBatchDictionaryLearning": "optimisation",
    "MiniBatchNMF": "until it converges",
    "MultiLabelBinarizer": "sets of labels",
    "MultiOutputClassifier": "several targets",
    "NMF": "until it converges",
    "PatchExtractor": "several rows for each row",
    "SparseCoder": "optimisation",
}
"""Estimator -> words of the reason for which it is refused; every other one is equal, in float64 and float32."""

KINDS: Final[dict[str, Any]] = {
    name: kind for name, kind in all_estimators() if hasattr(kind, "predict") or hasattr(kind, "transform")
}
"""Name -> class of every estimator that predicts or transforms."""

_LINE: Final = LogisticRegression(max_iter=1000)
_MEMBERS: Final = [("line", _LINE), ("other", LogisticRegression(C=0.1))]
_ROOT: Final = {"func": np.log1p, "inverse_func": np.expm1}

_ALIKE: Final[dict[tuple[str, ...], dict[str, Any]]] = {
    ("CCA", "PLSRegression", "PLSCanonical", "PLSSVD", "TruncatedSVD"): {"n_components": 2},
    ("PCA", "IncrementalPCA", "FactorAnalysis", "FastICA", "KernelPCA"): {"n_components": 2},
    ("Isomap", "LocallyLinearEmbedding", "LatentDirichletAllocation"): {"n_components": 2},
    ("KMeans", "MiniBatchKMeans", "BisectingKMeans", "Birch"): {"n_clusters": 3},
    ("SparsePCA", "MiniBatchSparsePCA", "MiniBatchDictionaryLearning"): {"n_components": 2},
    ("ExtraTreesClassifier", "ExtraTreesRegressor", "RandomForestClassifier", "RandomForestRegressor"): {
        "n_estimators": 5
    },
    ("GradientBoostingClassifier", "GradientBoostingRegressor"): {"n_estimators": 5},
    ("HistGradientBoostingClassifier", "HistGradientBoostingRegressor"): {"max_iter": 5},
    ("AdaBoostClassifier", "AdaBoostRegressor"): {"n_estimators": 5},
    ("MLPClassifier", "MLPRegressor"): {"hidden_layer_sizes": (8,), "max_iter": 50},
}

ARGUMENTS: Final[dict[str, dict[str, Any]]] = {
    **{name: said for names, said in _ALIKE.items() for name in names},
    "BaggingClassifier": {"n_estimators": 3},
    "BaggingRegressor": {"n_estimators": 3},
    "CalibratedClassifierCV": {"method": "isotonic", "cv": 2},
    "ClassifierChain": {"estimator": _LINE},
    "ColumnTransformer": {"transformers": [("a", StandardScaler(), [0, 2]), ("b", "passthrough", [1])]},
    "DictionaryLearning": {"n_components": 3, "max_iter": 20},
    "DummyClassifier": {"strategy": "prior"},
    "FeatureAgglomeration": {"n_clusters": 2},
    "FeatureHasher": {"input_type": "string", "n_features": 8},
    "FeatureUnion": {"transformer_list": [("a", StandardScaler()), ("b", MinMaxScaler())]},
    "FixedThresholdClassifier": {"estimator": _LINE, "threshold": 0.3},
    "FunctionTransformer": {},
    "GaussianMixture": {"n_components": 3},
    "GenericUnivariateSelect": {"mode": "k_best", "param": 2},
    "GridSearchCV": {"estimator": _LINE, "param_grid": {"C": [0.1, 1.0]}, "cv": 2},
    "HashingVectorizer": {"n_features": 16},
    "IsolationForest": {"n_estimators": 10},
    "KBinsDiscretizer": {"quantile_method": "averaged_inverted_cdf"},
    "KNeighborsClassifier": {"weights": "distance"},
    "KNeighborsRegressor": {"weights": "distance"},
    "KernelRidge": {"kernel": "rbf"},
    "LinearSVC": {"max_iter": 5000},
    "LocalOutlierFactor": {"novelty": True},
    "LogisticRegression": {"max_iter": 1000},
    "LogisticRegressionCV": {"max_iter": 1000, "l1_ratios": (0,), "use_legacy_attributes": False},
    "MultiOutputClassifier": {"estimator": _LINE},
    "MultiOutputRegressor": {"estimator": Ridge()},
    "NMF": {"n_components": 2},
    "MiniBatchNMF": {"n_components": 2},
    "Nystroem": {"n_components": 20},
    "OneHotEncoder": {"handle_unknown": "ignore"},
    "OneVsOneClassifier": {"estimator": LinearSVC()},
    "OneVsRestClassifier": {"estimator": _LINE},
    "OrdinalEncoder": {"handle_unknown": "use_encoded_value", "unknown_value": -1},
    "OutputCodeClassifier": {"estimator": _LINE, "random_state": 0},
    "PatchExtractor": {"patch_size": (2, 2)},
    "Pipeline": {"steps": [("scaler", StandardScaler()), ("line", _LINE)]},
    "PolynomialCountSketch": {"n_components": 8},
    "QuantileTransformer": {"n_quantiles": 20, "output_distribution": "normal"},
    "RFE": {"estimator": _LINE, "n_features_to_select": 2},
    "RFECV": {"estimator": _LINE, "cv": 2},
    "RadiusNeighborsClassifier": {"radius": 2.0, "weights": "distance", "outlier_label": 0},
    "RadiusNeighborsRegressor": {"radius": 2.0, "weights": "distance"},
    "RandomTreesEmbedding": {"n_estimators": 3},
    "RandomizedSearchCV": {"estimator": _LINE, "param_distributions": {"C": [0.1, 1.0]}, "n_iter": 2, "cv": 2},
    "RegressorChain": {"estimator": Ridge()},
    "SelectFdr": {"alpha": 0.5},
    "SelectFromModel": {"estimator": _LINE},
    "SelectKBest": {"k": 2},
    "SelfTrainingClassifier": {"estimator": _LINE},
    "SequentialFeatureSelector": {"estimator": LinearRegression(), "n_features_to_select": 2, "cv": 2},
    "SparseCoder": {"dictionary": np.eye(4)[:3] + 0.1, "transform_n_nonzero_coefs": 2},
    "SparseRandomProjection": {"n_components": 2},
    "GaussianRandomProjection": {"n_components": 2},
    "StackingClassifier": {"estimators": _MEMBERS, "cv": 2},
    "StackingRegressor": {"estimators": [("line", Ridge()), ("other", LinearRegression())], "cv": 2},
    "TransformedTargetRegressor": {"regressor": Ridge(), **_ROOT},
    "TunedThresholdClassifierCV": {"estimator": _LINE, "cv": 2},
    "VotingClassifier": {"estimators": _MEMBERS, "voting": "soft"},
    "VotingRegressor": {"estimators": [("line", Ridge()), ("other", LinearRegression())]},
}
"""What differs from the constructor's own; random states are fixed for all that have one."""

_CODES: Final = {"CategoricalNB", "OneHotEncoder", "OrdinalEncoder", "TargetEncoder"}
_TEXTS: Final = {"CountVectorizer", "HashingVectorizer", "TfidfVectorizer"}
_GAPS: Final = {"KNNImputer", "MissingIndicator", "SimpleImputer"}
_BINARY: Final = {"FixedThresholdClassifier", "TunedThresholdClassifierCV"}
_TWO: Final = {
    "CCA", "MultiOutputRegressor", "MultiTaskElasticNet", "MultiTaskElasticNetCV", "MultiTaskLasso",
    "MultiTaskLassoCV", "PLSCanonical", "PLSRegression", "PLSSVD", "RegressorChain",
}  # fmt: skip
_TWO_CLASSES: Final = {"ClassifierChain", "MultiOutputClassifier"}
_TARGETS: Final = {"LabelBinarizer", "LabelEncoder"}
_WORDS: Final = ["good film, it's great", "bad bad movie", "I don't like it", "naïve café", "great_one x y"]


def fitted(name: str, dtype: type[np.floating[Any]]) -> tuple[Any, Any]:
    """Return one estimator, fitted on numbers of `dtype` (where it takes numbers), and the data."""
    kind = KINDS[name]
    model = kind(**ARGUMENTS.get(name, {}))
    if "random_state" in model.get_params(deep=False):
        model.set_params(random_state=0)
    return fit(model, dtype)


def fit(model: Any, dtype: type[np.floating[Any]]) -> tuple[Any, Any]:
    """Fit a model on the data that its class is made for, and return both."""
    data, target = _data(type(model).__name__, dtype, model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(data, target) if target is not None else model.fit(data)
    return model, data


def _data(name: str, dtype: Any, model: Any) -> tuple[Any, Any]:
    """Return rows and a target (or None) that suit the estimator."""
    rows, classes = datasets.load_iris(return_X_y=True)
    random = np.random.default_rng(0)
    # Real numbers, not tenths: ties and rows on the edge of something are what the generated rows are for.
    rows = (rows + random.uniform(0, 0.05, rows.shape)).astype(dtype)
    numbers = 1 + rows @ np.array([0.5, 0.2, 1.0, 0.3]) + random.uniform(0, 0.5, len(rows))
    gaps = np.where(random.random(rows.shape) < 0.2, np.nan, rows).astype(dtype)
    two = np.stack([numbers, rows @ [1.0, -1.0, 0.0, 0.5]], axis=1)
    special: dict[str, tuple[Any, Any]] = {
        "FeatureHasher": (np.array([text.split()[:2] for text in _WORDS], object), None),
        "DictVectorizer": ([{"a": 1.0, "b": 2.0}, {"a": 3.0}], None),
        "MultiLabelBinarizer": (np.stack([classes, classes + 1], axis=1), None),
        "PatchExtractor": (random.normal(size=(5, 4, 4)).astype(dtype), None),
        "KernelCenterer": ((rows @ rows.T).astype(dtype), None),
        "IsotonicRegression": (rows[:, 2:3], numbers),
        "BernoulliRBM": ((rows > 2).astype(dtype), None),
        **dict.fromkeys(_TEXTS, (np.array(_WORDS * 9, object), None)),
        **dict.fromkeys(_TARGETS, (classes, None)),
        **dict.fromkeys(_CODES, (np.floor(rows), classes)),
        **dict.fromkeys(_GAPS, (gaps, None)),
        **dict.fromkeys(_TWO, (rows, two)),
        **dict.fromkeys(_TWO_CLASSES, (rows, np.stack([classes > 0, classes > 1], axis=1))),
        **dict.fromkeys(_BINARY, (rows, classes > 0)),
    }
    return special.get(name, (rows, numbers if _regresses(model) else classes))


def _regresses(model: Any) -> bool:
    from sklearn.base import is_regressor

    return bool(is_regressor(model)) or type(model).__name__ == "SequentialFeatureSelector"


NOT_TFLITE: Final = {
    "GaussianProcessRegressor": "it needs Scan",
    "KNeighborsTransformer": "it needs Scan",
    "LocalOutlierFactor": "it needs Scan",
}
"""Estimator -> words of the reason for which it does not become TFLite, beside those that do not become ONNX."""

NARROW: Final = {"OneClassSVM", "PolynomialCountSketch", "RBFSampler"}
"""Estimators whose answers float32 does not hold on some of the sweep's rows: `verify` refuses those copies."""

PMML: Final = {
    "ARDRegression", "BayesianRidge", "BernoulliNB", "Binarizer", "ColumnTransformer", "ComplementNB",
    "DecisionTreeClassifier", "DecisionTreeRegressor", "ElasticNet", "ElasticNetCV", "ExtraTreeClassifier",
    "ExtraTreeRegressor", "ExtraTreesClassifier", "ExtraTreesRegressor", "FeatureUnion", "FunctionTransformer",
    "GammaRegressor", "GaussianNB", "GenericUnivariateSelect", "GradientBoostingClassifier",
    "GradientBoostingRegressor", "GridSearchCV", "HistGradientBoostingClassifier",
    "HistGradientBoostingRegressor", "HuberRegressor", "IsolationForest", "KBinsDiscretizer", "KMeans", "Lars",
    "LarsCV", "Lasso", "LassoCV", "LassoLars", "LassoLarsCV", "LassoLarsIC", "LinearDiscriminantAnalysis",
    "LinearRegression", "LinearSVC", "LinearSVR", "LogisticRegression", "LogisticRegressionCV", "MaxAbsScaler",
    "MinMaxScaler", "MiniBatchKMeans", "MissingIndicator", "MultiTaskElasticNet", "MultiTaskElasticNetCV",
    "MultiTaskLasso", "MultiTaskLassoCV", "MultinomialNB", "Normalizer", "OneHotEncoder", "OrdinalEncoder",
    "OrthogonalMatchingPursuit", "OrthogonalMatchingPursuitCV", "PCA", "PassiveAggressiveClassifier",
    "PassiveAggressiveRegressor", "Perceptron", "Pipeline", "PoissonRegressor", "PolynomialFeatures",
    "QuantileRegressor", "RandomForestClassifier", "RandomForestRegressor", "RandomizedSearchCV", "Ridge",
    "RidgeCV", "RidgeClassifier", "RidgeClassifierCV", "RobustScaler", "SGDClassifier", "SGDRegressor",
    "SelectFdr", "SelectFpr", "SelectFromModel", "SelectFwe", "SelectKBest", "SelectPercentile",
    "SequentialFeatureSelector", "SimpleImputer", "StandardScaler", "TheilSenRegressor", "TruncatedSVD",
    "TweedieRegressor", "VarianceThreshold",
}  # fmt: skip
"""Estimators that become PMML, equal in both scorers; every other one is refused."""
