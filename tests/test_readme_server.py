"""The lines of README that ask the server, run as they stand there."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving.conftest import Running, start
from tests.serving.released import digits_folder

README = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")
SECTION = README.split("\n## The server\n")[1].split("\n## ")[0]
LINES = SECTION.split("```sh\n")[1].split("```")[0].splitlines()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = start(digits_folder(tmp_path_factory.mktemp("served") / "digits", version="1"), "--no-access-log")
    yield running
    running.process.kill()
    running.process.communicate()


def test_every_protocol_is_asked() -> None:
    for path in ("/v2/models/digits/infer", "/v1/models/digits:predict", "/invocations", "/openapi.json", "/metrics"):
        assert any(path in line for line in LINES), path


@pytest.mark.parametrize("line", LINES, ids=range(len(LINES)))
def test_a_curl_line_of_readme_is_answered(server: Running, line: str) -> None:
    assert "localhost:8080" in line
    # -f: a refusal is a failure
    command = line.replace("localhost:8080", server.url).replace("curl -s ", "curl -sSf ")
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout
