"""A registry in memory that can be stopped at any call: before it is carried out, after it, or for good."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace

from modelrel.promoted import Entry
from modelrel.registry.lookup import ModelInfo, VersionInfo
from modelrel.registry.turns import Mover


class Killed(BaseException):
    """What a process meets that is killed: nothing of it is carried out any more."""


class Memory:
    """What the registry holds: one model of five versions; everybody looks at it through a `Client` of his own."""

    def __init__(self) -> None:
        self.model = ModelInfo(name="churn")
        self.versions = {str(number): VersionInfo(name="churn", version=str(number)) for number in range(1, 6)}

    def change(self, *, aliases: dict[str, str] | None = None, tags: dict[str, str | None] | None = None) -> None:
        kept = {**self.model.tags, **(tags or {})}
        found = {key: value for key, value in kept.items() if value is not None}
        self.model = replace(self.model, aliases={**self.model.aliases, **(aliases or {})}, tags=found)


class Client:
    """A door to the registry; `gate` is asked before and after every call, with its number from 1 and what it is."""

    def __init__(self, memory: Memory, gate: Callable[[int, str, str], None] = lambda *_: None) -> None:
        self.memory, self.gate, self.calls = memory, gate, 0
        self.shown, self.writer = "memory", self

    def _done(self, what: str, do: Callable[[], object]) -> object:
        self.calls += 1
        number = self.calls
        self.gate(number, "before", what)
        found = do()
        self.gate(number, "after", what)
        return found

    def model(self, name: str) -> ModelInfo:
        return self._done("read", lambda: self.memory.model)  # type: ignore[return-value]

    def version(self, name: str, version: str) -> VersionInfo | None:
        return self.memory.versions.get(version)

    def set_alias(self, name: str, alias: str, version: str) -> None:
        self._done("set", lambda: self.memory.change(aliases={alias: version}))

    def set_model_tag(self, name: str, key: str, value: str) -> None:
        self._done(key, lambda: self.memory.change(tags={key: value}))

    def delete_model_tag(self, name: str, key: str) -> None:
        self._done("delete", lambda: self.memory.change(tags={key: None}))

    def set_tags(self, name: str, version: str, tags: dict[str, str]) -> None:
        def tagged() -> None:
            found = self.memory.versions[version]
            self.memory.versions[version] = replace(found, tags={**found.tags, **tags})

        self._done("audit", tagged)


def wanted(version: str, previous: str, by: str = "ann") -> Entry:
    return Entry(
        id="", event="promoted", kind="alias", to="champion", version=version, previous=previous, by=by, at="now"
    )


def move(client: Client, entry: Entry, patience_s: float = 0.05) -> Entry:
    return Mover(client, "churn", entry, patience_s=patience_s).move({})  # type: ignore[arg-type]


def interleaved(memory: Memory, seed: int, jobs: Iterable[Callable[[Client], object]]) -> list[object]:
    """Run jobs at the same time, one call to the registry after the other in an order that `seed` decides.

    Returns what each returned, or the error that ended it.
    """
    choose, gate = random.Random(seed), threading.Condition()
    waiting: set[int] = set()
    ended: dict[int, object] = {}
    turn: list[int] = []
    todo = list(jobs)

    def passing(mine: int) -> Callable[[int, str, str], None]:
        def ask(number: int, when: str, what: str) -> None:
            if when == "after":
                return
            with gate:
                waiting.add(mine)
                gate.notify_all()
                gate.wait_for(lambda: turn == [mine])
                turn.clear()
                waiting.discard(mine)

        return ask

    def work(mine: int) -> None:
        try:
            found: object = todo[mine](Client(memory, passing(mine)))
        except Exception as error:  # noqa: BLE001
            found = error
        with gate:
            ended[mine] = found
            gate.notify_all()

    threads = [threading.Thread(target=work, args=(mine,), daemon=True) for mine in range(len(todo))]
    for thread in threads:
        thread.start()
    with gate:
        while len(ended) < len(todo):
            assert gate.wait_for(lambda: not turn and len(waiting) + len(ended) == len(todo), 60)
            if waiting:
                turn.append(choose.choice(sorted(waiting)))
                gate.notify_all()
    return [ended[mine] for mine in range(len(todo))]
