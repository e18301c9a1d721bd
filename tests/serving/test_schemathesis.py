"""schemathesis against a running server: no 5xx, no status, content type or schema that the document does not name.

``MODELREL_TEST_CASES`` is how many cases each operation gets in each phase (8). What a schema allows the server may
still refuse (data of another length than its shape says), so ``positive_data_acceptance`` is not checked; what a schema
of ours rules out the server must refuse, so ``negative_data_rejection`` is. Another verb than the one listed is not 405
in every protocol (TensorFlow Serving says 400), so that is tested beside the document, without schemathesis.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from openapi_spec_validator import OpenAPIV30SpecValidator

from tests.serving.conftest import Running, start
from tests.serving.released import digits_folder, table_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

CASES = os.environ.get("MODELREL_TEST_CASES", "8")
OPEN_INFERENCE = Path(__file__).with_name("open_inference.yaml")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    top = tmp_path_factory.mktemp("served")
    digits_folder(top / "digits")
    table_folder(top / "table")
    running = start(top, "--no-access-log", "--log-predictions", str(tmp_path_factory.mktemp("log")))
    yield running
    running.process.kill()
    running.process.communicate()


def passed(document: str, url: str, *exclude: str) -> int:
    """Run schemathesis on a document; return how many cases there were. Every failure is an assertion."""
    checks = ",".join(("positive_data_acceptance", "unsupported_method", *exclude))
    done = subprocess.run(
        [
            sys.executable, "-m", "schemathesis.cli", "run", document, "--url", url, "--max-examples", CASES,
            "--generation-deterministic", "--no-color", "--exclude-checks", checks,
            # what is unloaded is 404 everywhere else, and nothing more would be tried
            "--exclude-path-regex", "^/v2/repository/models/",
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    found = re.search(r"(\d+) generated", done.stdout)
    assert found, done.stdout
    return int(found[1])


@pytest.mark.slow
def test_the_server_keeps_to_its_own_document(server: Running) -> None:
    assert passed(f"{server.url}/openapi.json", server.url) > 500


@pytest.mark.slow
def test_the_server_keeps_to_the_open_inference_document(server: Running, tmp_path: Path) -> None:
    document = yaml.safe_load(OPEN_INFERENCE.read_text())
    OpenAPIV30SpecValidator(document).validate()
    for name, values in {"name": ["digits", "absent"], "version": ["7", "8"]}.items():
        document["components"]["parameters"][name]["schema"]["enum"] = values
    path = tmp_path / "open_inference.json"
    path.write_text(json.dumps(document))
    # more is taken than the specification has (null for an id), so what it rules out need not be refused
    assert passed(str(path), server.url, "negative_data_rejection") > 300
