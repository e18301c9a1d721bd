"""TFLite files with bad offsets, cut short, or with other tensors: one sentence, and the process lives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier

from modelrel.errors import Refused
from modelrel.formats import FORMATS
from tests.models import compared

ROWS = np.random.default_rng(0).normal(size=(100, 4)).astype(np.float32)

_LOAD = """
import sys
from pathlib import Path
import numpy as np
from modelrel.errors import ModelrelError
from modelrel.formats import tflite
good = Path(sys.argv[1]).read_bytes()
random = np.random.default_rng(int(sys.argv[2]))
path = Path(sys.argv[1]).with_name("changed.tflite")
for _ in range(80):
    changed = bytearray(good)
    for _ in range(int(random.integers(1, 4))):
        changed[int(random.integers(len(changed)))] = int(random.integers(256))
    path.write_bytes(changed[: int(random.integers(1, len(changed)))] if random.random() < 0.1 else changed)
    try:
        tflite.check(path)
        tflite.load(path)({"input": np.zeros((3, 4), np.float32)})
        print("answered")
    except ModelrelError as stop:
        assert stop.message.count("\\n") == 0
        print("refused")
"""


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    compared(RandomForestClassifier(4, random_state=0).fit(ROWS, ROWS[:, 0] > 0), ROWS, folder, to="tflite")
    return folder / "model.tflite"


@pytest.mark.parametrize("seed", range(3))
def test_a_changed_file_is_refused_or_answers_and_the_process_lives(good: Path, seed: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _LOAD, str(good), str(seed)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split().count("refused") > 20
    assert len(done.stdout.split()) == 80


def _loaded(path: Path) -> None:
    FORMATS["tflite"].check(path)
    FORMATS["tflite"].load(path)


@pytest.mark.parametrize("content", [b"", b"TFL3", b"\x00" * 100, b"\x1c\x00\x00\x00TFL3" + b"\xff" * 200])
def test_what_is_no_model_is_one_sentence(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    with pytest.raises(Refused):
        _loaded(path)
