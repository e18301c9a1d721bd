"""Logs models with an old scikit-learn and an old MLflow; run by their Python: `python trained_long_ago.py FOLDER`."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path


def main(top):
    """Write `forest`, `isolation` and `pipeline` below `top`, each with `asked.csv` and its answers, `answered.csv`.

    And `wrapper`, a Python model that calls the forest.
    """
    warnings.filterwarnings("ignore")
    from sklearn.compose import ColumnTransformer
    from sklearn.datasets import load_iris
    from sklearn.ensemble import IsolationForest, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    data = load_iris(as_frame=True)
    rows = data.data.rename(columns=lambda name: name.replace(" (cm)", "").replace(" ", "_"))
    log(RandomForestClassifier(15, random_state=0), rows, data.target, top / "forest", None)
    found = (top / "forest" / "requirements.txt").read_text().split()
    wrapped(top / "forest", rows, top / "wrapper")
    outliers = IsolationForest(n_estimators=20, max_features=0.8, contamination=0.1, random_state=0)
    log(outliers, rows, None, top / "isolation", found)
    numbers = list(rows.columns)
    rows["shape"] = (rows["petal_length"] > 2.5).map({True: "long", False: "short"})
    columns = ColumnTransformer(
        [("words", OneHotEncoder(handle_unknown="ignore"), ["shape"]), ("numbers", StandardScaler(), numbers)]
    )
    pipeline = Pipeline([("columns", columns), ("classifier", LogisticRegression(max_iter=500))])
    # What MLflow found out for the first model, in ten seconds, holds for the second.
    log(pipeline, rows, data.target, top / "pipeline", found)


def wrapped(forest, rows, folder):
    import mlflow

    class Wrapper(mlflow.pyfunc.PythonModel):
        def load_context(self, context):
            self.forest = mlflow.sklearn.load_model(context.artifacts["forest"])

        def predict(self, context, model_input):
            return self.forest.predict_proba(model_input)

    mlflow.pyfunc.save_model(
        folder,
        python_model=Wrapper(),
        artifacts={"forest": str(forest)},
        signature=mlflow.models.infer_signature(rows),
        input_example=rows[:5],
        pip_requirements=["mlflow-skinny==2.9.2", "scikit-learn==1.2.2", "numpy<2", "pandas<2.1", "cloudpickle<4"],
    )


def log(model, rows, answers, folder, requirements):
    import mlflow
    import numpy as np

    model.fit(rows, answers)
    mlflow.sklearn.save_model(
        model,
        folder,
        signature=mlflow.models.infer_signature(rows, model.predict(rows)),
        input_example=rows[:5],
        pip_requirements=requirements,
    )
    rows.to_csv(folder.with_name(f"{folder.name}.asked.csv"), index=False)
    answered = model.predict_proba(rows) if hasattr(model, "predict_proba") else model.decision_function(rows)
    np.savetxt(folder.with_name(f"{folder.name}.answered.csv"), answered, "%.17g")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
