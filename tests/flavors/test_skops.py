"""Models in skops files: what loading one brings into the process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression

from tests.models import logged

LOAD = """
import sys
from pathlib import Path
from modelrel.flavors import sklearn
model = sklearn.load(Path(sys.argv[1]))
print(type(model).__name__, "torch" in sys.modules)
import sklearn.externals.array_api_compat.torch
print("torch" in sys.modules)
"""


def test_loading_one_does_not_load_pytorch_which_can_be_loaded_afterwards(tmp_path: Path) -> None:
    model = LogisticRegression().fit(np.eye(4), [0, 1, 0, 1])
    source = logged(model, np.eye(4), tmp_path, serialization_format="skops")
    words = [sys.executable, "-c", LOAD, str(source.model_dir)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["LogisticRegression", "False", "True"]
