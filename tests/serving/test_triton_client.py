"""Triton's own HTTP client, as it comes, against the server as a process."""

import json

import numpy as np
import pytest
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from tests.serving.conftest import tensor_folder

ROWS = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
COLUMNS = {
    "d": np.array([[1.5], [-2.0]]),
    "l": np.array([[2], [-3]], np.int64),
    "s": np.array([["x"], ["zażółć"]], np.object_),
    "b": np.array([[True], [False]]),
    "f": np.array([[0.25], [np.nan]], np.float32),
}
TYPES = {"d": "FP64", "l": "INT64", "s": "BYTES", "b": "BOOL", "f": "FP32"}


@pytest.fixture(scope="module")
def triton(tensor_server):
    with InferenceServerClient(f"127.0.0.1:{tensor_server.port}") as client:
        yield client


@pytest.fixture(scope="module")
def columns_triton(columns_server):
    with InferenceServerClient(f"127.0.0.1:{columns_server.port}") as client:
        yield client


def sent(name, array, datatype="FP32", **options):
    tensor = InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array, **options)
    return tensor


def test_it_finds_server_and_model_ready(triton):
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready("churn")
    assert triton.is_model_ready("churn", "7")
    assert not triton.is_model_ready("churn", "8")
    assert not triton.is_model_ready("other")


def test_it_reads_the_metadata(triton):
    metadata = triton.get_server_metadata()
    assert metadata["name"] == "modelrel"
    assert "binary_tensor_data" in metadata["extensions"]
    for version in ("", "7"):
        assert triton.get_model_metadata("churn", version)["inputs"][0]["name"] == "x"


@pytest.mark.parametrize("version", ["", "7"])
def test_it_infers_with_its_default_settings(triton, version):
    result = triton.infer("churn", [sent("x", ROWS)], version, request_id="abc")
    np.testing.assert_array_equal(result.as_numpy("y"), ROWS * 2)
    np.testing.assert_array_equal(result.as_numpy("z"), ROWS)
    response = result.get_response()
    assert (response["id"], response["model_version"]) == ("abc", "7")
    assert response["outputs"][0]["parameters"] == {"binary_data_size": 24}


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_either_way_may_be_bytes_or_json(triton, binary_in, binary_out):
    outputs = [InferRequestedOutput("z", binary_data=binary_out), InferRequestedOutput("y", binary_data=not binary_out)]
    result = triton.infer("churn", [sent("x", ROWS, binary_data=binary_in)], outputs=outputs)
    np.testing.assert_array_equal(result.as_numpy("y"), ROWS * 2)
    np.testing.assert_array_equal(result.as_numpy("z"), ROWS)
    assert ["data" in output for output in result.get_response()["outputs"]] == [not binary_out, binary_out]


@pytest.mark.parametrize("binary_data", [True, False])
def test_several_inputs_of_every_kind_come_back_as_they_were_sent(columns_triton, binary_data):
    inputs = [sent(name, array, TYPES[name], binary_data=binary_data) for name, array in COLUMNS.items()]
    if not binary_data:
        inputs[-1] = sent("f", COLUMNS["f"], "FP32")  # NaN is no JSON, so one input of the request is bytes after all
    result = columns_triton.infer("churn", inputs)
    np.testing.assert_array_equal(result.as_numpy("score"), [[1.5 + 200 + 1000 + 10000 + 0.25], [-2 - 300 + 0.5]])
    for name, array in COLUMNS.items():
        texts = np.vectorize(lambda one: one.encode(), otypes=[np.object_])
        expected = texts(array) if name == "s" else array
        np.testing.assert_array_equal(result.as_numpy(f"{name}_out"), expected)


@pytest.mark.parametrize("binary_data", [True, False])
def test_a_request_about_no_rows_comes_back_with_none(triton, binary_data):
    result = triton.infer("churn", [sent("x", ROWS[:0], binary_data=binary_data)])
    assert result.as_numpy("y").shape == (0, 3)


def test_it_is_told_what_is_wrong_with_a_request(triton):
    wrong = {
        "'other'": ("other", [sent("x", ROWS)]),
        "takes \\[-1, 3\\]": ("churn", [sent("x", ROWS[:, :2].copy())]),
        "no input 'q'": ("churn", [sent("q", ROWS)]),
        "would change its values": ("churn", [sent("x", ROWS.astype("f8") / 3, "FP64")]),
        "no output 'q'": ("churn", [sent("x", ROWS)], "", [InferRequestedOutput("q")]),
    }
    for why, arguments in wrong.items():
        with pytest.raises(InferenceServerException, match=why) as raised:
            triton.infer(*arguments)
        assert raised.value.status() in {"400", "404"}


def test_bytes_that_are_no_text_are_refused_by_element(columns_triton):
    arrays = COLUMNS | {"s": np.array([[b"ok"], [b"\xff\xfe"]], np.object_)}
    with pytest.raises(InferenceServerException, match="element 1 of BYTES is not UTF-8"):
        columns_triton.infer("churn", [sent(name, array, TYPES[name]) for name, array in arrays.items()])


def test_the_async_client_infers_many_at_once(triton):
    answers = [triton.async_infer("churn", [sent("x", ROWS + i)]) for i in range(50)]
    for i, answered in enumerate(answers):
        np.testing.assert_array_equal(answered.get_result().as_numpy("y"), (ROWS + i) * 2)


def test_it_unloads_and_loads_models(tmp_path, start_server, columns_dir):
    tensor_folder(tmp_path / "tensor", name="tensor")
    (tmp_path / "churn").symlink_to(columns_dir)
    running = start_server(tmp_path)
    with InferenceServerClient(f"127.0.0.1:{running.port}") as client:
        index = client.get_model_repository_index()
        assert [(line["name"], line["version"], line["state"]) for line in index] == [
            ("churn", "7", "READY"),
            ("tensor", "7", "READY"),
        ]
        client.unload_model("tensor")
        assert not client.is_model_ready("tensor")
        assert client.is_model_ready("churn")
        with pytest.raises(InferenceServerException, match="not ready: UNAVAILABLE") as raised:
            client.infer("tensor", [sent("x", ROWS)])
        assert raised.value.status() == "503"
        client.load_model("tensor")
        np.testing.assert_array_equal(client.infer("tensor", [sent("x", ROWS)]).as_numpy("z"), ROWS)
        for change in (client.load_model, client.unload_model):
            with pytest.raises(InferenceServerException, match="no model 'other'"):
                change("other")
        with pytest.raises(InferenceServerException, match="'config'"):
            client.load_model("tensor", config=json.dumps({"backend": "x"}))
