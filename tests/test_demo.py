"""`make demo` tells its story on a machine without an engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TOP = Path(__file__).resolve().parent.parent


def ran(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    # an engine would build an image, which other tests do
    variables = {**os.environ, "PYTHONPATH": str(TOP), "MODELREL_DOCKER_RENDER_ONLY": "true"}
    return subprocess.run(
        [sys.executable, "-m", *words], cwd=folder, env=variables, capture_output=True, text=True, check=False
    )


def told(folder: Path) -> list[tuple[str, str, str]]:
    """Return what happened to champion, oldest first: event, from, to."""
    done = ran("modelrel", "history", "progression", "--alias", "champion", "--json", folder=folder)
    lines: list[dict[str, Any]] = sorted(json.loads(done.stdout)["history"], key=lambda line: line["id"])
    return [(line["event"], line["previous"], line["version"]) for line in lines]


@pytest.mark.slow
def test_a_worse_version_is_refused_a_better_one_promoted_and_rolled_back(tmp_path: Path) -> None:
    done = ran("modelrel.demo", "demo", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    story = [("promoted", "", "1"), ("refused", "1", "2"), ("promoted", "1", "3"), ("rolled back", "3", "1")]
    assert told(tmp_path / "demo") == story
    assert "accuracy" in done.stderr[done.stderr.index("a worse version") : done.stderr.index("a good one")]
    assert (tmp_path / "demo/dist/progression-3/report.html").is_file()
