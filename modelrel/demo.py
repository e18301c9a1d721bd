"""`make demo`: real models in an embedded registry, released, refused and rolled back by README's commands."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from modelrel.errors import Refused, Unavailable

_POLICY: Final = """\
[policy.champion]
smoke = ["lambda"]                # the built artifact answered
signature = "compatible"          # who asks the one before can ask this one
metrics = { accuracy = 0.02 }     # at least as good as the one before, within this margin
"""

_STRENGTH: Final = {"1": 1.0, "2": 1e-4, "3": 0.1}
"""Version of `progression` -> how freely it was fitted (C); the second hardly learns anything."""

_QUIET: Final = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_LOGGING_LEVEL": "ERROR", "PYTHONWARNINGS": "ignore"}


def main() -> int:
    """Run the demo in the folder that the command line names; return the exit code."""
    top = Path(sys.argv[1] if len(sys.argv) > 1 else ".demo").resolve()
    os.environ.update(_QUIET)
    top.mkdir(parents=True, exist_ok=True)
    os.chdir(top)
    if not Path("mlflow.db").is_file():
        _say(
            "training four versions of two models and registering them in .demo/mlflow.db (an embedded MLflow registry)"
        )
        try:
            _register()
        except BaseException:
            # half a registry would be taken for a whole one next time
            Path("mlflow.db").unlink(missing_ok=True)
            shutil.rmtree("mlruns", ignore_errors=True)
            raise
    else:
        _say("the models are in .demo/mlflow.db already")
    Path("modelrel.toml").write_text(_POLICY, encoding="utf-8")
    for name in ("progression/1", "digits/1"):
        words = ["release", name, "--target", "lambda", "--target", "docker", "--promote", "champion"]
        code = _modelrel(words)
        if code == Unavailable.exit_code:
            _say("what this machine lacks is not needed to see it work: docker stops after the build context")
            code = _modelrel([*words, "--render-only"])
        if code:
            return code
    code = _story()
    if not code:
        _next(top)
    return code


def _story() -> int:
    """Show what a policy is for: a worse version is refused, a good one promoted and taken back."""
    promote = ["--target", "lambda", "--promote", "champion", "--message"]
    steps = [
        ("a worse version", ["release", "progression/2", *promote, "trained anew"], Refused.exit_code),
        ("a good one", ["release", "progression/3", *promote, "more regular"], 0),
        ("back to the one before", ["rollback", "progression", "--alias", "champion", "--message", "complaints"], 0),
        ("who moved what, when and why", ["history", "progression"], 0),
        ("the whole release on one page", ["report", "progression/3"], 0),
    ]
    for title, words, wanted in steps:
        _say(title)
        code = _modelrel(words)
        if code != wanted:
            _say(f"that ended with exit code {code}, not {wanted} as it should")
            return code or 1
        if code:
            _say(f"exit code {code}: refused, and the alias stays where it is")
    return 0


def _modelrel(words: list[str]) -> int:
    _say("modelrel " + " ".join(words))
    return subprocess.run([sys.executable, "-m", "modelrel", *words], check=False).returncode


def _say(text: str) -> None:
    print(f"\n• {text}", file=sys.stderr, flush=True)  # noqa: T201  # the demo talks to the person who runs it


def _next(top: Path) -> None:
    modelrel = Path(sys.executable).with_name("modelrel")
    shown = Path(os.path.relpath(modelrel, top))
    print(  # noqa: T201
        f"""
What to try next, in {top}:

  cd {top.name}
  {shown} release digits@candidate --target lambda --target docker --promote champion   # again: nothing to do
  dist/progression-3/report.html                                      # open it: verdict, lineage, proof, latency, sizes
  {shown} diff progression/1 progression/3                            # what a person asks before promoting
  {shown} inspect progression@champion                                # what it is, where it comes from
  {shown} verify progression@champion --to onnx --rows 20000          # look harder
  {shown} serve digits@champion --port 8080                           # then, in another terminal:
  curl -s localhost:8080/v2/models/digits
  ls dist/digits-1/onnx/docker/context                                # a plain Dockerfile, plain files
  {shown} doctor                                                      # what this machine has
"""
    )


def _register() -> None:
    """Train and register: a pipeline with text columns (scikit-learn), and a gradient-boosted classifier (XGBoost)."""
    import logging
    import warnings

    warnings.filterwarnings("ignore")
    import mlflow

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.ERROR)
    mlflow.set_tracking_uri("sqlite:///mlflow.db")
    mlflow.set_experiment("modelrel demo")
    _progression(mlflow)
    _digits(mlflow)


def _progression(mlflow: Any) -> None:
    """Log a classifier of diabetes progression: two text columns, one of whole numbers, seven of measurements."""
    import pandas as pd
    from sklearn.compose import ColumnTransformer
    from sklearn.datasets import load_diabetes
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import train_test_split
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    data = load_diabetes(as_frame=True, scaled=False)
    rows = data.data.astype({"age": "int64"})
    rows["sex"] = rows["sex"].map({1.0: "female", 2.0: "male"})
    rows["weight"] = pd.cut(rows["bmi"], [0, 22, 27, 100], labels=["low", "middle", "high"]).astype(str)
    fast = pd.Series((data.target > data.target.median()).map({True: "fast", False: "slow"}), name="progression")
    numbers = [name for name in rows.columns if name not in {"sex", "weight"}]
    train, test, train_answers, test_answers = train_test_split(rows, fast, random_state=0)
    for version, strength in _STRENGTH.items():
        columns = ColumnTransformer(
            [
                ("words", OneHotEncoder(handle_unknown="ignore"), ["sex", "weight"]),
                ("numbers", StandardScaler(), numbers),
            ]
        )
        classifier = LogisticRegression(C=strength, max_iter=1000)
        pipeline = Pipeline([("columns", columns), ("classifier", classifier)])
        pipeline.fit(train, train_answers)
        _log(mlflow, f"progression/{version}", mlflow.sklearn, pipeline, (train, test, test_answers))


def _digits(mlflow: Any) -> None:
    """Log a classifier of handwritten digits: 64 grey values in, one of ten digits out."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
    from xgboost import XGBClassifier

    rows, answers = load_digits(return_X_y=True)
    train, test, train_answers, test_answers = train_test_split(rows.astype("float32"), answers, random_state=0)
    classifier = XGBClassifier(n_estimators=60, max_depth=4, learning_rate=0.3, n_jobs=2)
    classifier.fit(train, train_answers)
    _log(mlflow, "digits/1", mlflow.xgboost, classifier, (train, test, test_answers))


def _log(mlflow: Any, label: str, flavor: Any, model: Any, data: tuple[Any, Any, Any]) -> None:
    train, test, answers = data
    name, _, version = label.partition("/")
    with mlflow.start_run(run_name=name):
        accuracy = float(model.score(test, answers))
        mlflow.log_metric("accuracy", accuracy)
        if name == "progression":
            mlflow.log_param("C", _STRENGTH[version])
        source = mlflow.data.from_numpy(train, name=name) if not hasattr(train, "columns") else None
        mlflow.log_input(source or mlflow.data.from_pandas(train, name=name), context="training")
        # MLflow tells on stderr what the next line tells better
        with contextlib.redirect_stderr(io.StringIO()):
            flavor.log_model(
                model,
                name="model",
                registered_model_name=name,
                signature=mlflow.models.infer_signature(test, model.predict(test)),
                input_example=test[:5],
                pip_requirements=_requirements("xgboost" if name == "digits" else "pandas"),
            )
    mlflow.MlflowClient().set_registered_model_alias(name, "candidate", version)
    _say(f"registered {label} (accuracy {accuracy:.3f})")


def _requirements(library: str) -> list[str]:
    """Return what both kinds of model need, as it is installed here; MLflow would load each model to find out."""
    from importlib.metadata import version

    return [f"{name}=={version(name)}" for name in ("mlflow", "numpy", "scikit-learn", library)]


if __name__ == "__main__":
    sys.exit(main())
