"""Fills a registry with small real models; run as a program: `python registered.py URI ARTIFACTS`."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from importlib.metadata import version


def needs(*names: str) -> list[str]:
    """Return requirements by the versions that are here. Named, they spare MLflow a process that finds them out."""
    return [f"{name}=={version(name)}" for name in ("mlflow", "numpy", "pandas", "scipy", *names)]


def main(uri: str, artifacts: str) -> None:
    """Register flowers/1..3 (a pipeline with a text column), digits/1 (XGBoost) and their aliases."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    warnings.filterwarnings("ignore")
    import mlflow

    logging.disable(logging.WARNING)
    mlflow.set_tracking_uri(uri)
    mlflow.create_experiment("tests", artifact_location=artifacts)
    mlflow.set_experiment("tests")
    for scale in (0.1, 1.0, 10.0):
        _flowers(mlflow, scale)
    _digits(mlflow)
    client = mlflow.MlflowClient()
    client.set_registered_model_alias("flowers", "candidate", "2")
    client.set_registered_model_alias("digits", "candidate", "1")
    client.transition_model_version_stage("flowers", "1", "Production")


def _flowers(mlflow, scale):
    from sklearn.compose import ColumnTransformer
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    data = load_iris(as_frame=True)
    rows = data.data.rename(columns=lambda name: name.replace(" (cm)", "").replace(" ", "_"))
    rows["shape"] = (rows["petal_length"] > 2.5).map({True: "long", False: "short"})
    rows["number"] = (rows["sepal_length"] * 10).astype("int64")
    numbers = [name for name in rows.columns if name != "shape"]
    columns = ColumnTransformer(
        [("words", OneHotEncoder(handle_unknown="ignore"), ["shape"]), ("numbers", StandardScaler(), numbers)]
    )
    model = Pipeline([("columns", columns), ("classifier", LogisticRegression(C=scale, max_iter=500))])
    model.fit(rows, data.target)
    with mlflow.start_run():
        mlflow.log_metric("accuracy", float(model.score(rows, data.target)))
        mlflow.log_param("C", scale)
        mlflow.set_tag("team", "botany")
        mlflow.log_input(mlflow.data.from_pandas(rows, name="iris"), context="training")
        mlflow.sklearn.log_model(
            model,
            name="model",
            registered_model_name="flowers",
            signature=mlflow.models.infer_signature(rows, model.predict(rows)),
            input_example=rows.iloc[::40],
            pip_requirements=needs("scikit-learn", "skops"),
        )


def _digits(mlflow):
    from sklearn.datasets import load_digits
    from xgboost import XGBClassifier

    rows, answers = load_digits(return_X_y=True)
    rows = rows.astype("float32")
    model = XGBClassifier(n_estimators=8, max_depth=3, n_jobs=1).fit(rows, answers)
    with mlflow.start_run():
        mlflow.log_metric("accuracy", float(model.score(rows, answers)))
        mlflow.xgboost.log_model(
            model,
            name="model",
            registered_model_name="digits",
            signature=mlflow.models.infer_signature(rows, model.predict(rows)),
            input_example=rows[:4],
            pip_requirements=needs("scikit-learn", "xgboost"),
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
