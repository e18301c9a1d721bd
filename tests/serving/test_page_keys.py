"""The page of a server that wants a key, in a real browser."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx

from tests.serving.browser import browser, tab
from tests.serving.conftest import start
from tests.serving.released import digits_folder
from tests.serving.test_page import send

if TYPE_CHECKING:
    from pathlib import Path

# Opens the page with a key, and gives what is there then.
OPEN = """
(async (key) => {
  const form = document.getElementById("unlock"), said = form.querySelector("output");
  document.getElementById("key").value = key;
  form.querySelector("button").click();
  await new Promise(resolve => { const seen = () => {
    if (said.textContent || document.querySelector("section")) resolve(); else requestAnimationFrame(seen) }; seen() });
  return said.textContent;
})("%s")
"""


def test_a_person_with_the_key_gets_in_and_asks_the_model(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("right\n")
    running = start(digits_folder(tmp_path / "digits"), "--no-access-log", "--api-key-file", str(tmp_path / "keys"))
    try:
        with browser(tmp_path / "profile") as address, tab(address) as page:
            page.open(running.url + "/")
            assert page.run("document.querySelectorAll('section').length") == 0
            assert page.run(OPEN % "wrong") == "This is not the key."
            page.run(OPEN % "right")
            assert page.run("window.stopped") == []
            found = send(page, "/v2/models/digits/infer")
            assert found["kind"] == "good", found
            assert "right" not in found["curl"]
            assert "$KEY" in found["curl"]
        reply = httpx.get(running.url + "/")
        assert (reply.status_code, reply.headers["content-type"]) == (401, "application/json")
        assert httpx.get(running.url + "/", headers={"authorization": "Bearer right"}).status_code == 200
    finally:
        running.process.kill()
        running.process.communicate()
