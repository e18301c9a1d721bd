"""Fills a registry with a model whose runs logged their training data in many ways: `registered_data.py URI FOLDER`.

`VERSIONS` names the versions of `plans`, in their order.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

VERSIONS = ("csv", "parquet", "several", "code", "relative", "other columns", "gone", "pickle", "damaged", "none")


def table() -> pd.DataFrame:
    """5,000 rows: two numbers, a text with gaps, and the label."""
    random = np.random.default_rng(0)
    rows = pd.DataFrame(random.normal(size=(5000, 2)), columns=["a", "b"])
    rows["plan"] = random.choice(["basic", "pro"], len(rows))
    rows["label"] = ((rows["a"] > 0) ^ (rows["plan"] == "pro")).astype("int64")
    return rows


def main(uri: str, folder: Path) -> None:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    warnings.filterwarnings("ignore")
    import mlflow

    logging.disable(logging.WARNING)
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)  # another test may have left one in the environment
    mlflow.create_experiment("tests", artifact_location=str(folder / "artifacts"))
    mlflow.set_experiment("tests")
    rows = table()
    rows.to_csv(folder / "train.csv", index=False)
    rows.to_parquet(folder / "train.parquet")
    rows.drop(columns="a").to_csv(folder / "other.csv", index=False)
    rows.to_csv(folder / "gone.csv", index=False)
    rows.to_pickle(folder / "train.pkl")
    (folder / "damaged.parquet").write_bytes(b"PAR1 no table PAR1")
    sources = {
        "csv": ["train.csv"],
        "parquet": ["train.parquet"],
        "several": ["train.csv", "train.parquet", "other.csv"],
        "code": [None],
        "other columns": ["other.csv"],
        "gone": ["gone.csv"],
        "pickle": ["train.pkl"],
        "damaged": ["damaged.parquet"],
        "none": [],
    }
    for version in VERSIONS:
        with mlflow.start_run():
            for name in sources.get(version, ()):
                source = str(folder / name) if name else None
                data = mlflow.data.from_pandas(rows, source=source, targets="label", name=Path(name or version).name)
                mlflow.log_input(data, context="training")
            if version == "relative":
                os.chdir(folder)
                mlflow.log_input(mlflow.data.from_pandas(rows, source="train.csv", name="here"), context="training")
            _registered(mlflow, rows)
    (folder / "gone.csv").unlink()


def _registered(mlflow, rows):
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    words = ColumnTransformer([("words", OneHotEncoder(), ["plan"])], remainder="passthrough")
    given = rows.drop(columns="label")
    model = make_pipeline(words, LogisticRegression()).fit(given, rows["label"])
    mlflow.sklearn.log_model(
        model,
        name="model",
        registered_model_name="plans",
        signature=mlflow.models.infer_signature(given, model.predict(given)),
        input_example=given[:3],
        pip_requirements=["scikit-learn", "numpy"],
    )


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
