"""kserve's own client, as it comes, against the server as a process."""

import pytest

from tests.serving.clients import run_client

ASKING = """
import asyncio, json, sys
import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig

url, binary = sys.argv[1], sys.argv[2] == "True"

async def main():
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        sent = InferInput("x", [2, 3], "FP32")
        sent.set_data_from_numpy(np.array([[1, 2, 3], [4, 5, 6]], np.float32), binary_data=binary)
        answered = await client.infer(url, InferRequest("churn", [sent], request_id="r1"), model_name="churn")
        said = {
            "live": await client.is_server_live(url),
            "ready": await client.is_server_ready(url),
            "model": await client.is_model_ready(url, "churn"),
            "other": await client.is_model_ready(url, "other"),
            "id": answered.id,
            "name": answered.model_name,
            "y": [output.as_numpy().tolist() for output in answered.outputs if output.name == "y"],
        }
        try:
            await client.infer(url, InferRequest("other", [sent]), model_name="other")
        except httpx.HTTPStatusError as error:
            said["error"] = [error.response.status_code, str(error)]
        print(json.dumps(said))

asyncio.run(main())
"""


@pytest.mark.parametrize("binary", [False, True])
def test_kserve_s_client_talks_v2_as_it_comes(kserve_python, tensor_server, binary):
    said = run_client(kserve_python, ASKING, tensor_server.url, binary)
    status, message = said.pop("error")
    assert said == {
        "live": True,
        "ready": True,
        "model": True,
        "other": False,
        "id": "r1",
        "name": "churn",
        "y": [[[2, 4, 6], [8, 10, 12]]],
    }
    assert status == 404
    assert "there is no model 'other'" in message
