"""Registers one small real model, by any MLflow since 2: `python small.py URI NAME [ARTIFACTS [VERSIONS]]`."""

import sys
import warnings


def main(uri, name, artifacts="", versions="1"):
    """Log a classifier of flowers and register it as `name`; its files go to `artifacts`, or where the server says.

    All versions are the same model.
    """
    warnings.filterwarnings("ignore")
    import mlflow
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    mlflow.set_tracking_uri(uri)
    if artifacts:
        mlflow.create_experiment(name, artifact_location=artifacts)
    mlflow.set_experiment(name)
    data = load_iris(as_frame=True)
    rows = data.data.rename(columns=lambda column: column.replace(" (cm)", "").replace(" ", "_"))
    model = LogisticRegression(max_iter=500).fit(rows, data.target)
    with mlflow.start_run():
        mlflow.log_metric("accuracy", float(model.score(rows, data.target)))
        mlflow.log_param("max_iter", 500)
        mlflow.sklearn.log_model(
            model,
            "model",
            registered_model_name=name,
            signature=mlflow.models.infer_signature(rows, model.predict(rows)),
            input_example=rows.iloc[::40],
            # what is asked of an index for the sake of one line
            pip_requirements=[f"mlflow=={mlflow.__version__}", "scikit-learn"],
        )
    source = mlflow.MlflowClient().get_model_version(name, "1").source
    for _ in range(1, int(versions)):
        mlflow.register_model(source, name)


if __name__ == "__main__":
    main(*sys.argv[1:])
