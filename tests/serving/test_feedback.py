"""Feedback: the truth for a request that was answered before."""

import httpx
import pyarrow.parquet
import pytest

from modelrel.serving import load_model, record_files
from modelrel.serving.engine import Engine
from modelrel.serving.models import Models
from modelrel.serving.options import defaults

PATH = "/v2/models/churn/feedback"
X = {"name": "x", "shape": [2, 3], "datatype": "FP32", "data": [1, 2, 3, 4, 5, 6]}


def read(folder):
    return [
        row
        for path in sorted(folder.glob("feedback-*.parquet"))
        for row in pyarrow.parquet.read_table(path).to_pylist()
    ]


@pytest.fixture
def tell(tmp_path, ask):
    """Send feedback on a model to an engine of its own, and return the reply."""
    engines = []

    def tell(folder, body, path=PATH):
        if not engines:
            engines.append(Engine(Models.of(load_model(folder)), defaults(log_predictions=str(tmp_path))))
        return ask(engines[0].router, "POST", path, body)

    def close():
        engines[0].close()

    tell.close = close
    yield tell
    if engines:
        engines[0].close()


def test_the_truth_can_be_joined_with_the_prediction_by_the_id_that_the_client_was_told(
    tensor_dir, tmp_path, start_server
):
    running = start_server(tensor_dir, "--log-predictions", str(tmp_path))
    with httpx.Client(base_url=running.url) as client:
        name = client.post("/invocations", json={"inputs": [[1, 2, 3], [4, 5, 6]]}).headers["x-request-id"]
        truth = {"id": name, "truth": {"y": [[2, 4, 6], [8, 10, 13]]}, "comment": "measured"}
        told = client.post("/v2/models/churn/versions/7/feedback", json=truth)
    assert (told.status_code, told.json()) == (200, {"id": name, "rows": 2})
    running.stop()
    predictions = pyarrow.parquet.read_table(next(tmp_path.glob("predictions-*")))
    feedback = pyarrow.parquet.read_table(next(tmp_path.glob("feedback-churn-7-*")))
    predicted = {(row["request_id"], row["row"]): row["out.y"] for row in predictions.to_pylist()}
    joined = [(predicted[row["request_id"], row["row"]], row["truth.y"]) for row in feedback.to_pylist()]
    assert joined == [([2, 4, 6], [2, 4, 6]), ([8, 10, 12], [8, 10, 13])]
    assert feedback["comment"].to_pylist() == ["measured"] * 2
    assert feedback.schema.field("truth.y").type == predictions.schema.field("out.y").type


def test_a_row_a_list_of_rows_and_a_bare_value(columns_dir, tmp_path, tell):
    tell(columns_dir, {"id": "bare", "truth": {"score": 1.5, "s_out": "yes"}})
    tell(columns_dir, {"id": "list", "truth": {"score": [1.5, None], "l_out": [3, 4]}})
    tell(columns_dir, {"id": "row", "row": 5, "truth": {"b_out": True}})
    tell.close()
    rows = [
        (row["request_id"], row["row"], row["truth.score"], row["truth.s_out"], row["truth.l_out"], row["truth.b_out"])
        for row in read(tmp_path)
    ]
    assert rows[0] == ("bare", 0, 1.5, "yes", None, None)
    assert rows[1] == ("list", 0, 1.5, None, 3, None)
    assert (rows[2][:2], rows[2][4]) == (("list", 1), 4)
    assert rows[2][2] != rows[2][2]  # null is NaN
    assert rows[3] == ("row", 5, None, None, None, True)
    assert [row["version"] for row in read(tmp_path)] == [None] * 4  # the path named none


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"truth": {"score": 1}}, "missing required field `id`"),
        ({"id": "", "truth": {"score": 1}}, "length >= 1"),
        ({"id": "a" * 257, "truth": {"score": 1}}, "length <= 256"),
        ({"id": "a"}, "missing required field `truth`"),
        ({"id": "a", "truth": {}}, "length >= 1"),
        ({"id": "a", "truth": {"who": 1}}, "no output 'who'; it has score"),
        ({"id": "a", "truth": {"score": "high"}}, "the truth of 'score': "),
        ({"id": "a", "truth": {"l_out": 1.5}}, "the truth of 'l_out': "),
        ({"id": "a", "truth": {"score": []}}, "with something in it"),
        ({"id": "a", "truth": {"score": {"a": 1}}}, "the truth of 'score': "),
        ({"id": "a", "truth": {"score": [[1, 2]]}}, "the truth of 'score': "),
        ({"id": "a", "truth": {"score": [1, [2]]}}, "the truth of 'score': "),
        ({"id": "a", "truth": {"score": [1, 2], "l_out": [1]}}, "different numbers of rows: 'score' 2, 'l_out' 1"),
        ({"id": "a", "truth": {"score": [1, 2]}, "row": 0}, "the truth of 'score': "),
        ({"id": "a", "truth": {"score": 1}, "row": -1}, ">= 0"),
        ({"id": "a", "truth": {"score": 1}, "row": 2**31}, "the request does not fit"),
        ({"id": "a", "truth": {"score": 1}, "label": 1}, "unknown field `label`"),
        (b"{", "stops short"),
    ],
)
def test_what_makes_no_sense_is_refused_and_not_kept(columns_dir, tmp_path, tell, body, reason):
    reply = tell(columns_dir, body)
    assert reply.status == 400
    assert reason in reply.json["error"]
    tell.close()
    assert read(tmp_path) == []


def test_a_tensor_of_the_wrong_shape_is_refused(tensor_dir, tell):
    for truth in ([1, 2], [[1, 2]], [[1, 2, 3], [4, 5]], [[[1, 2, 3]]], 1):
        assert tell(tensor_dir, {"id": "a", "truth": {"y": truth}}).status == 400
    assert tell(tensor_dir, {"id": "a", "row": 1, "truth": {"y": [1, 2, 3]}}).json == {"id": "a", "rows": 1}


def test_without_a_prediction_log_it_is_501_and_says_what_to_do(tensor_dir, ask):
    engine = Engine(Models.of(load_model(tensor_dir)), defaults())
    reply = ask(engine.router, "POST", PATH, {"id": "a", "truth": {"y": [1, 2, 3]}})
    engine.close()
    assert reply.status == 501
    assert "--log-predictions" in reply.json["error"]


def test_feedback_that_finds_no_room_is_503_not_lost_in_silence(columns_dir, tell, monkeypatch):
    monkeypatch.setattr(record_files, "MOST_BYTES", 0)
    reply = tell(columns_dir, {"id": "a", "truth": {"score": 1}})
    assert (reply.status, reply.answer.headers["retry-after"]) == (503, "5")
