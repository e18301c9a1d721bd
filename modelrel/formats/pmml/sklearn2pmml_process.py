"""The process in which sklearn2pmml runs: under AGPL-3.0, it is never imported into modelrel's own processes.

It imports nothing of modelrel. Its one argument is a JSON object: `path` (sys.path), `model` (a joblib file), `copy`
(the PMML file to write), `fields` (names of the features), `target` (name of the label), `told` (the version of
scikit-learn to write into the pickle, "" for the true one).
"""

import json
import sys


def main() -> None:
    """Write the copy, or end with what went wrong on stdout and stderr, and another exit code than 0."""
    request = json.loads(sys.argv[1])
    sys.path[:] = request["path"]
    import joblib
    import numpy as np
    import sklearn.base
    from sklearn2pmml import sklearn2pmml
    from sklearn2pmml.pipeline import PMMLPipeline

    pipeline = PMMLPipeline([("model", joblib.load(request["model"]))])
    pipeline.active_fields = np.array(request["fields"], dtype=object)
    pipeline.target_fields = np.array([request["target"]], dtype=object)
    if request["told"]:
        # `BaseEstimator.__getstate__` writes it into the pickle, and the converter reads it there.
        sklearn.base.__version__ = request["told"]
    sklearn2pmml(pipeline, request["copy"], pmml_schema="4.4", java_opts=["-XX:+UseSerialGC", "-Xss64m"])


if __name__ == "__main__":
    main()
