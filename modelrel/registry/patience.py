"""How long a registry that stumbles is waited for: what only reads is tried again, for a bounded time; no write is.

| what happens | reads |
|---|---|
| no connection, nothing having been answered so far | one more try: the registry is down, or its address is wrong |
| the connection is refused or cut, or ends before the answer does | four more tries |
| 408, 429, 500, 502, 503, 504 | the same, or when `Retry-After` says |
| nothing for 15 seconds; an answer that trickles | the same, for half a minute in all |
| any other status, an answer that is none | none |

Pauses double from half a second; each is shortened at random, by up to a half, so that many clients that were cut
together do not come back together. All questions of a command share half a minute of failing and waiting. MLflow's own
variables hold here, too: `MLFLOW_HTTP_REQUEST_MAX_RETRIES` (4), `_BACKOFF_FACTOR` (0.5 s), `_TIMEOUT` (15 s).
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from typing import Final, TypeVar

PASSING: Final = frozenset({408, 429, 500, 502, 503, 504})
"""What a server or a proxy answers when another time may go better."""

_LOST_S: Final = 30.0

Answer = TypeVar("Answer")


def setting(name: str, default: float) -> float:
    """Return one of MLflow's variables, as a number."""
    try:
        return max(0.0, float(os.environ.get(name, default)))
    except ValueError:
        return default


class Stumbled(Exception):
    """A question that was not answered, and may be asked again.

    `after`: seconds that the registry asks us to wait; `nobody`: no connection came about; `status`: what it answered.
    """

    def __init__(self, reason: str, *, after: float = 0.0, nobody: bool = False, status: int = 0) -> None:
        """Keep what happened."""
        super().__init__(reason)
        self.reason, self.after, self.nobody, self.status = reason, after, nobody, status


class Patience:
    """The time that one command has for a registry that stumbles."""

    def __init__(self, say: Callable[[str], None] = lambda _: None, wait: Callable[[float], None] = time.sleep) -> None:
        """Begin with all of it; `say` hears of every pause, `wait` is how it passes."""
        self._say, self._wait = say, wait
        self._lost = 0.0
        self._answered = False
        self.timeout = setting("MLFLOW_HTTP_REQUEST_TIMEOUT", 15.0)
        self._tries = int(setting("MLFLOW_HTTP_REQUEST_MAX_RETRIES", 4))
        self._pause = setting("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", 0.5)

    def read(self, ask: Callable[[], Answer]) -> Answer:
        """Return what `ask`, which changes nothing, returns; again after `Stumbled`, the last of which is raised."""
        tried = 0
        while True:
            begun = time.monotonic()
            try:
                found = ask()
            except Stumbled as stumbled:
                # a long download that is cut cost its time to a registry that worked: not all of it counts
                self._lost += min(time.monotonic() - begun, self.timeout)
                pause = stumbled.after or self._pause * 2**tried * random.uniform(0.5, 1)  # noqa: S311
                tried += 1
                allowed = self._tries if self._answered or not stumbled.nobody else min(self._tries, 1)
                if tried > allowed or self._lost + pause > _LOST_S:
                    raise
                self._lost += pause
                self._say(f"the registry does not answer ({stumbled.reason}), trying again in {pause:.1f} s")
                self._wait(pause)
            else:
                self._answered = True
                return found
