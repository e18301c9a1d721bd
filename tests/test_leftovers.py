"""What a run of the tests takes away with it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.leftovers import since

LEAVE = """
import subprocess, sys, tempfile
from tests.leftovers import removed
with removed():
    tempfile.mkdtemp()
    subprocess.run([sys.executable, "-c", "import tempfile; tempfile.mkstemp()"], check=True)
    print(tempfile.gettempdir())
print(tempfile.gettempdir())
"""


def test_temporary_files_of_a_run_and_its_processes_go_with_it(tmp_path: Path) -> None:
    environment = {name: os.environ[name] for name in os.environ if not name.startswith("MODELREL_")}
    environment |= {"TMPDIR": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", LEAVE], env=environment, capture_output=True, text=True, check=True)
    inside, after = map(Path, done.stdout.split())
    assert (inside.parent, after) == (tmp_path, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_images_that_were_built_go_the_last_layer_first_and_others_stay() -> None:
    before = {"base": "", "old": "base"}
    now = before | {"layer": "base", "image": "layer", "beside": "old", "pulled": "", "on pulled": "pulled"}
    assert since(before, now) == ["beside", "image", "layer"]
