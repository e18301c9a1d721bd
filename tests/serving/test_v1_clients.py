"""Clients of TensorFlow Serving's API and of KServe's V1 by others, as they come, against the server as a process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.serving.clients import run_client
from tests.serving.tfserving import NAME, half_plus_two

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.serving.conftest import Running

OVMS = """
import json, sys
import numpy as np
from ovmsclient import make_http_client
from ovmsclient.tfs_compat.base.errors import ModelServerError

name = sys.argv[2]
client = make_http_client(sys.argv[1].removeprefix("http://"))
said = {
    "status": client.get_model_status(name, 123),
    "dtype": client.get_model_metadata(name, 123)["metadata"]["signature_def"]["signature_def"]["serving_default"]
    ["inputs"]["x"]["dtype"],
    "one": client.predict({"x": np.array([1, 2, 5], np.float32)}, name, 123).tolist(),
    "list": client.predict({"x": [1.0, 0.2]}, name, 123).tolist(),
}
for what, ask in {
    "unknown": lambda: client.get_model_status("other", 1),
    "version": lambda: client.predict({"x": [1.0]}, name, 99),
    "wrong": lambda: client.predict({"x": np.array([b"a"])}, name, 123),
}.items():
    try:
        ask()
    except ModelServerError as error:
        said[what] = [type(error).__name__, str(error)]
print(json.dumps(said))
"""

KSERVE = """
import asyncio, json, sys
import httpx
from kserve import InferenceRESTClient, RESTConfig

url, name = sys.argv[1:]

async def main():
    async with InferenceRESTClient(RESTConfig(protocol="v1")) as client:
        said = {
            "ready": await client.is_model_ready(url, name),
            "predictions": await client.infer(url, {"instances": [1.0, 2.0, 5.0]}, model_name=name),
        }
        for what, ask in {
            "other": lambda: client.is_model_ready(url, "other"),
            "explain": lambda: client.explain(url, name, {"instances": [1.0]}),
            "unknown": lambda: client.infer(url, {"instances": [1.0]}, model_name="other"),
            "wrong": lambda: client.infer(url, {"instances": ["a"]}, model_name=name),
        }.items():
            try:
                await ask()
            except httpx.HTTPStatusError as error:
                said[what] = error.response.status_code
        print(json.dumps(said))

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def half_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return half_plus_two(tmp_path_factory.mktemp("half") / "model")


def test_ovmsclient_talks_tf_serving_s_api_as_it_comes(
    ovms_python: Path, half_dir: Path, start_server: Callable[..., Running]
) -> None:
    said: Any = run_client(ovms_python, OVMS, start_server(half_dir).url, NAME)
    assert said.pop("unknown")[0] == "ModelNotFoundError"
    assert said.pop("version")[0] == "ModelNotFoundError"
    kind, message = said.pop("wrong")
    assert kind == "InvalidInputError"
    assert "not of expected type: float" in message
    assert said == {
        "status": {"123": {"state": "AVAILABLE", "error_code": 0, "error_message": ""}},
        "dtype": "DT_FLOAT",
        "one": [2.5, 3.0, 4.5],
        "list": [2.5, 2.1],
    }


def test_kserve_s_client_talks_v1_as_it_comes(
    kserve_python: Path, half_dir: Path, start_server: Callable[..., Running]
) -> None:
    assert run_client(kserve_python, KSERVE, start_server(half_dir, "--v1", "kserve").url, NAME) == {
        "ready": True,
        "other": 404,
        "predictions": {"predictions": [2.5, 3.0, 4.5]},
        "explain": 501,
        "unknown": 404,
        "wrong": 400,
    }
