"""Loading and unloading over HTTP while clients ask: no request is lost, and none is answered by half a change."""

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from .test_loading import is_not_served, version_folder

BODY = {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]}


class Clients:
    """Eight clients with a connection each, half of them for a model that changes."""

    def __init__(self, url):
        self.url = url
        self.done = threading.Event()
        self.turns = [0] * 8
        self.pool = ThreadPoolExecutor(8)
        self.asking = [self.pool.submit(self.ask, number) for number in range(8)]

    def ask(self, number):
        name = ["churn", "steady"][number % 2]
        seen = set()
        with httpx.Client(base_url=self.url, timeout=30) as client:
            while not self.done.is_set():
                reply = client.post(f"/v2/models/{name}/infer", json=BODY)
                seen.add(self.checked(name, reply))
                self.turns[number] += 1
        return seen

    def checked(self, name, reply):
        if is_not_served(reply.status_code, reply.json()):
            return "none"
        assert reply.status_code == 200, reply.text
        said = reply.json()
        version = said["model_version"]
        assert reply.headers["modelrel-model"] == f"{name}/{version}"
        assert said["outputs"][0]["data"] == [float(version) * x for x in (1, 2, 3)]
        return version

    def all_have_asked(self):
        """Wait until each client has begun and ended a request since."""
        before = list(self.turns)
        for number, one in enumerate(self.asking):
            while self.turns[number] < before[number] + 2 and not one.done():
                self.done.wait(0.001)

    def stop(self):
        """Return what each client has seen."""
        self.done.set()
        seen = [one.result() for one in self.asking]
        self.pool.shutdown()
        return seen


@pytest.mark.parametrize("options", [(), ("--max-batch", "8", "--cache", "10")], ids=["plain", "batches-and-cache"])
def test_no_request_is_lost_while_models_are_loaded_and_unloaded_over_http(tmp_path, start_server, options):
    version_folder(tmp_path / "steady", 1, "steady")
    version_folder(tmp_path / "7", 7)
    running = start_server(tmp_path, *options)
    clients = Clients(running.url)
    try:
        with httpx.Client(base_url=running.url, timeout=30) as client:

            def change(verb, name):
                assert client.post(f"/v2/repository/models/{name}/{verb}").status_code == 200
                clients.all_have_asked()

            for _ in range(3):
                version_folder(tmp_path / "8", 8)
                change("load", "churn")
                shutil.rmtree(tmp_path / "8")
                change("load", "churn")
                change("unload", "churn")
                change("load", "steady")
    finally:
        seen = clients.stop()
    assert all(one == {"1"} for one in seen[1::2])
    assert all(one == {"none", "7", "8"} for one in seen[::2])
