"""Moving an alias in turns: whatever the order of the calls, and wherever a process dies, nothing is lost unseen."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress

import pytest

from modelrel.errors import Conflict, Interrupted, Unavailable
from modelrel.promoted import Entry
from modelrel.registry import history, story, turns
from tests.registry.memory import Client, Killed, Memory, interleaved, move, wanted

CALLS = 12
"""More than one promotion makes."""


@pytest.fixture(autouse=True)
def _nobody_waits_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "_LOOKS_S", (0.001, 0.001))
    monkeypatch.setattr(turns, "_PAUSES_S", (0.0, 0.0))


def told(memory: Memory) -> list[tuple[str, str, str]]:
    return [(one.event, one.previous, one.version) for one in story.of(memory.model)]


def consistent(memory: Memory) -> None:
    """Alias, last entry of the history and audit tag say the same; the history has no gap; nobody is in the row."""
    entries = history.moves(memory.model, "alias", "champion")
    before = ["", *(entry.version for entry in entries)]
    assert [entry.previous for entry in entries] == before[:-1]
    assert memory.model.aliases.get("champion", "") == before[-1]
    assert not turns.claims(memory.model, "alias", "champion")
    for entry in {entry.version: entry for entry in entries}.values():
        audit = json.loads(memory.versions[entry.version].tags["modelrel.promotion.champion"])
        assert (audit["entry"], audit["by"]) == (entry.id, entry.by)


@pytest.mark.parametrize("seed", range(150))
def test_of_two_at_once_one_wins_and_the_other_hears_who(seed: int) -> None:
    memory = Memory()
    move(Client(memory), wanted("1", ""))
    by = {"2": "bob", "3": "eve"}
    jobs = [lambda client, to=to: move(client, wanted(to, "1", by[to]), 60) for to in by]
    ended = interleaved(memory, seed, jobs)
    winners = [one for one in ended if isinstance(one, Entry)]
    losers = [one for one in ended if isinstance(one, Conflict)]
    assert (len(winners), len(losers)) == (1, 1), ended
    assert f"to version {winners[0].version} meanwhile, by {winners[0].by} at " in losers[0].message
    consistent(memory)
    assert len(told(memory)) == 2


@pytest.mark.parametrize("seed", range(40))
def test_of_four_at_once_one_wins(seed: int) -> None:
    memory = Memory()
    jobs = [lambda client, to=to: move(client, wanted(to, "", to), 60) for to in "1234"]
    ended = interleaved(memory, seed, jobs)
    assert sorted(type(one).__name__ for one in ended) == ["Conflict", "Conflict", "Conflict", "Entry"]
    consistent(memory)


@pytest.mark.parametrize("seed", range(20))
def test_different_aliases_do_not_wait_for_each_other(seed: int) -> None:
    memory = Memory()
    other = Entry(id="", event="promoted", kind="alias", to="staging", version="2", previous="", by="eve", at="now")
    jobs: list[Callable[[Client], object]] = [
        lambda client: move(client, wanted("1", ""), 60), lambda client: move(client, other, 60)
    ]  # fmt: skip
    assert all(isinstance(one, Entry) for one in interleaved(memory, seed, jobs))
    assert memory.model.aliases == {"champion": "1", "staging": "2"}


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("last", range(1, CALLS))
def test_a_process_killed_at_any_call_leaves_the_state_before_or_after(last: int, when: str) -> None:
    memory = Memory()
    move(Client(memory), wanted("1", ""))

    def kill(number: int, now: str, what: str) -> None:
        if number > last or (number == last and now == when):
            raise Killed

    try:
        move(Client(memory, kill), wanted("2", "1", "bob"))
    except Killed:
        holder = memory.model.aliases["champion"]
        # read at once, before anybody mends it: the alias and its history are both old, or both new
        assert told(memory)[-1][2] == holder
        assert len(told(memory)) == (2 if holder == "2" else 1)
    done = move(Client(memory), wanted("3", memory.model.aliases["champion"], "eve"))
    assert done.version == "3"
    consistent(memory)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("last", range(1, CALLS))
@pytest.mark.parametrize("stop", [Interrupted, KeyboardInterrupt])
def test_an_interrupted_process_clears_up_behind_itself(last: int, when: str, stop: type[BaseException]) -> None:
    memory = Memory()
    move(Client(memory), wanted("1", ""))

    def interrupt(number: int, now: str, what: str) -> None:
        if (number, now) == (last, when):
            raise stop("terminated")

    with suppress(stop):
        move(Client(memory, interrupt), wanted("2", "1", "bob"))
    move(Client(memory), wanted("3", memory.model.aliases["champion"], "eve"))
    consistent(memory)


@pytest.mark.parametrize("mode", ["never arrived", "done, but not answered"])
@pytest.mark.parametrize("last", range(1, CALLS))
@pytest.mark.parametrize("until", ["once", "for good"])
def test_a_registry_that_fails_at_any_call_is_left_before_or_after(last: int, mode: str, until: str) -> None:
    memory = Memory()
    move(Client(memory), wanted("1", ""))

    def fail(number: int, now: str, what: str) -> None:
        hit = number == last if until == "once" else number >= last
        if hit and now == ("before" if mode == "never arrived" or number > last else "after"):
            raise Unavailable("no answer", "")

    try:
        done = move(Client(memory, fail), wanted("2", "1", "bob"))
        assert done.version == memory.model.aliases["champion"] == "2"
    except Unavailable:
        assert told(memory)[-1][2] == memory.model.aliases["champion"]
    move(Client(memory), wanted("3", memory.model.aliases["champion"], "eve"))
    consistent(memory)


def test_a_single_failed_write_of_a_tag_is_tried_again() -> None:
    for last in range(1, CALLS):
        memory = Memory()

        def fail(number: int, now: str, what: str, last: int = last) -> None:
            if (number, now) == (last, "before") and what != "read":
                raise Unavailable("no answer", "")

        assert move(Client(memory, fail), wanted("1", "")).version == "1"
        consistent(memory)


@pytest.mark.parametrize("call", range(1, 6))
def test_whoever_sets_the_alias_by_other_means_before_we_do_wins(call: int) -> None:
    memory = Memory()
    move(Client(memory), wanted("1", ""))

    def foreign(number: int, now: str, what: str) -> None:
        if (number, now) == (call, "after"):
            memory.change(aliases={"champion": "5"})

    with pytest.raises(Conflict, match="moved from version 1 to version 5 meanwhile, outside modelrel"):
        move(Client(memory, foreign), wanted("2", "1", "bob"))
    assert told(memory) == [("promoted", "", "1"), ("outside", "1", "5")]
    assert not turns.claims(memory.model, "alias", "champion")


def test_whoever_sets_the_alias_by_other_means_right_after_us_is_seen() -> None:
    memory = Memory()

    def foreign(number: int, now: str, what: str) -> None:
        if (now, what) == ("after", "set"):
            memory.change(aliases={"champion": "5"})

    with pytest.raises(Conflict, match="was set to version 2, but it is version 5 now"):
        move(Client(memory, foreign), wanted("2", "", "bob"))
    assert memory.model.aliases["champion"] == "5"
    assert not turns.claims(memory.model, "alias", "champion")


def test_a_process_that_sleeps_between_looking_and_setting_says_what_it_overwrote() -> None:
    """What is left of the race: nothing holds it back, but it is seen, by it and in the history."""
    memory = Memory()
    move(Client(memory), wanted("1", ""))

    def sleeps(number: int, now: str, what: str) -> None:
        if (now, what) == ("before", "set"):
            move(Client(memory), wanted("3", "1", "eve"))  # waits until the claim counts as dead

    with pytest.raises(Conflict, match="out of turn: it replaced version 3, to which eve had moved it"):
        move(Client(memory, sleeps), wanted("2", "1", "bob"))
    assert told(memory) == [("promoted", "", "1"), ("promoted", "1", "3"), ("promoted", "3", "2")]
    consistent(memory)


def test_a_process_that_sleeps_while_it_waits_loses_its_turn() -> None:
    memory = Memory()
    move(Client(memory), wanted("1", ""))
    key = turns.PREFIX

    def sleeps(number: int, now: str, what: str) -> None:
        if number == 3 and now == "after":
            assert what.startswith(key)
            move(Client(memory), wanted("3", "1", "eve"))

    with pytest.raises(Conflict, match="lost its turn"):
        move(Client(memory, sleeps), wanted("2", "1", "bob"))
    assert memory.model.aliases["champion"] == "3"
    consistent(memory)


def test_what_is_there_already_gets_its_history_once() -> None:
    memory = Memory()
    memory.change(aliases={"champion": "2"})
    move(Client(memory), wanted("2", "2", "bob"))
    again = move(Client(memory), wanted("2", "2", "eve"))
    assert again.by == "bob"
    assert told(memory) == [("outside", "", "2"), ("promoted", "2", "2")]
