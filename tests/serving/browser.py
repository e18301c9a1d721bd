"""A real browser, driven by Chromium's DevTools protocol (https://chromedevtools.github.io/devtools-protocol/)."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import ClientConnection, connect

NAMES = ("chromium", "chromium-browser", "google-chrome")

# In every page before its own scripts: what the policy stopped.
WATCH = """
window.stopped = [];
document.addEventListener("securitypolicyviolation", event => window.stopped.push(event.violatedDirective));
"""


class Page:
    """One tab. ``requested`` are the addresses that it asked for."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._number = 0
        self.requested: list[str] = []
        self._events: list[str] = []
        for domain in ("Page", "Network", "Runtime", "Accessibility"):
            self.call(f"{domain}.enable")
        self.call("Page.addScriptToEvaluateOnNewDocument", source=WATCH)

    def call(self, method: str, **params: Any) -> Any:
        """Call a method of the protocol and wait for its result."""
        self._number += 1
        self._connection.send(json.dumps({"id": self._number, "method": method, "params": params}))
        while True:
            message = self._next()
            if message.get("id") == self._number:
                assert "error" not in message, message
                return message["result"]

    def open(self, url: str) -> None:
        """Go to an address and wait until it is loaded."""
        self._events.clear()
        self.call("Page.navigate", url=url)
        while "Page.loadEventFired" not in self._events:
            self._next()

    def run(self, script: str) -> Any:
        """Return what an expression is in the page; a promise is waited for."""
        done = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def _next(self) -> Any:
        message = json.loads(self._connection.recv(60))
        if "method" in message:
            self._events.append(message["method"])
            if message["method"] == "Network.requestWillBeSent":
                self.requested.append(message["params"]["request"]["url"])
        return message


@contextmanager
def browser(folder: Path) -> Iterator[str]:
    """Start a browser without a window; gives the address at which tabs are opened."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"no browser on PATH ({', '.join(NAMES)})")
    command = [
        program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        "--remote-debugging-port=0", f"--user-data-dir={folder}", "about:blank",
    ]  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stderr is not None
            lines = []
            for line in process.stderr:
                lines.append(line)
                if line.startswith("DevTools listening on ws://"):
                    yield "http://" + line.split("ws://")[1].split("/")[0]
                    break
            else:
                raise AssertionError("".join(lines))
        finally:
            process.kill()


@contextmanager
def tab(address: str) -> Iterator[Page]:
    """Open a tab, and close it in the end."""
    made = httpx.put(f"{address}/json/new?about:blank", timeout=60).json()
    with connect(made["webSocketDebuggerUrl"], max_size=None) as connection:
        yield Page(connection)
    httpx.get(f"{address}/json/close/{made['id']}", timeout=60)


def contrast(texts: str, drawn: str = "") -> str:
    """Return JavaScript for the contrast of text with what is behind it, by WCAG 2.2's formula, at its worst.

    `texts` and `drawn` (letters of a plot) are selectors of CSS; what is not shown, or cannot be used now, is left out.
    """
    return _CONTRAST.replace("TEXTS", json.dumps(texts)).replace("DRAWN", json.dumps(drawn or ":not(*)"))


_CONTRAST = """
(() => {
  const light = colour => { const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map(part => {
    const value = part / 255; return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4 });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b };
  const behind = node => { for (; node; node = node.parentElement) {
    const found = getComputedStyle(node).backgroundColor; if (!/, 0\\)$/.test(found)) return found }
    return "rgb(255, 255, 255)" };
  const all = (selector, ink) => [...document.querySelectorAll(selector)]
    .map(node => [node, getComputedStyle(node)[ink]]);
  return Math.min(...[...all(TEXTS, "color"), ...all(DRAWN, "fill")]
    .filter(([node]) => !node.disabled && node.getClientRects().length).map(([node, ink]) => {
      const [a, b] = [light(ink), light(behind(node))];
      return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) }));
})()
"""
