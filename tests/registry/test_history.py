"""A model's history: what is written comes back, gaps are moves made outside modelrel, and who held what before."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from modelrel.promoted import Entry
from modelrel.registry import history, story, turns
from modelrel.registry.lookup import ModelInfo

START = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)


def model(*moves: str, now: str | None = None, alias: str = "champion") -> ModelInfo:
    """Return a model whose history is told as `p 1>2` (promoted), `b 2>1` (rolled back), `r 1>3` (refused)."""
    events = {"p": "promoted", "b": "rolled back", "r": "refused"}
    tags, holder = {}, ""
    for minute, move in enumerate(moves):
        event, _, way = move.partition(" ")
        previous, _, version = way.partition(">")
        at = START + timedelta(minutes=minute)
        entry = Entry(
            id=history.new_id(at), event=events[event], kind="alias", to=alias, version=version, previous=previous,
            by="ann", at=at.isoformat(),
        )  # fmt: skip
        tags.update([history.tag(entry)])
        holder = holder if event == "r" else version
    found = holder if now is None else now
    return ModelInfo(name="churn", aliases={alias: found} if found else {}, tags=tags)


def told(found: ModelInfo) -> list[str]:
    return [f"{one.event} {one.previous}>{one.version}" for one in story.of(found)]


def test_an_entry_comes_back_as_it_was_written() -> None:
    entry = Entry(
        id=history.new_id(START), event="promoted", kind="alias", to="champion", version="1", previous="", by="Zoë",
        at="2026-05-04T03:02:01+00:00", message="größer", modelrel="1.0", evidence={"docker": "ab" * 32}, rules=("a",),
    )  # fmt: skip
    key, text = history.tag(entry)
    assert history.entries(ModelInfo(name="churn", tags={key: text})) == (entry,)


def test_a_message_that_does_not_fit_is_cut_and_nothing_else_is() -> None:
    entry = Entry(
        id=history.new_id(START), event="promoted", kind="alias", to="champion", version="1", previous="", by="ann",
        at="now", message="why " * 5000, evidence={"docker": "ab" * 32},
    )  # fmt: skip
    key, text = history.tag(entry)
    assert len(text) <= 5000
    (found,) = history.entries(ModelInfo(name="churn", tags={key: text}))
    assert found.message.endswith("…")
    assert replace(found, message="") == replace(entry, message="")


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("modelrel.history.mine", "{}"),
        ("modelrel.history.20260504T030201.000000Z-0a0b0c0d", "no JSON"),
        ("modelrel.history.20260504T030201.000000Z-0a0b0c0d", '{"event": "exploded"}'),
        ("modelrel.turn.x", '{"entry": 3}'),
        ("modelrel.turn.x", "[]"),
    ],
)
def test_tags_of_others_are_passed_over(key: str, text: str) -> None:
    found = ModelInfo(name="churn", tags={key: text})
    assert history.entries(found) == ()
    assert turns.claims(found, "alias", "champion") == {}


def test_entries_stand_in_the_order_of_the_moves_though_a_clock_is_behind() -> None:
    first = history.new_id(START)
    second = history.new_id(START - timedelta(hours=1), after=first)
    assert first < second


@pytest.mark.parametrize(
    ("moves", "now", "expected"),
    [
        (("p >1", "p 1>2"), None, ["promoted >1", "promoted 1>2"]),
        (("p 4>1",), None, ["outside >4", "promoted 4>1"]),
        (("p >1", "p 3>2"), None, ["promoted >1", "outside 1>3", "promoted 3>2"]),
        (("p >1",), "5", ["promoted >1", "outside 1>5"]),
        (("p >1",), "", ["promoted >1", "outside 1>"]),
        (("p >1", "r 1>2", "p 1>3"), None, ["promoted >1", "refused 1>2", "promoted 1>3"]),
        (("p >1", "p 1>2", "b 2>1"), None, ["promoted >1", "promoted 1>2", "rolled back 2>1"]),
        (("r >1",), "", ["refused >1"]),
    ],
)
def test_a_move_that_modelrel_did_not_make_is_a_gap(
    moves: tuple[str, ...], now: str | None, expected: list[str]
) -> None:
    assert told(model(*moves, now=now)) == expected


def test_a_gap_says_since_when_it_may_be_there() -> None:
    outside = story.of(model("p >1", "p 1>2", now="5"))[-1]
    assert (outside.at, outside.by, outside.id) == ((START + timedelta(minutes=1)).isoformat(), "", "")


def test_aliases_have_histories_of_their_own() -> None:
    one, other = model("p >1", "p 1>2"), model("p >3", alias="staging")
    both = ModelInfo(name="churn", aliases={**one.aliases, **other.aliases}, tags={**one.tags, **other.tags})
    assert sorted(told(both)) == ["promoted 1>2", "promoted >1", "promoted >3"]
    assert story.holders(both, "alias", "champion") == ("1",)
    assert story.holders(both, "alias", "staging") == ()


@pytest.mark.parametrize(
    ("moves", "now", "expected"),
    [
        ((), None, ()),
        (("p >1",), None, ()),
        (("p >1", "p 1>2", "p 2>3"), None, ("2", "1")),
        (("p >1", "p 1>2", "p 2>3", "b 3>2"), None, ("1",)),
        (("p >1", "p 1>2", "p 2>3", "b 3>2", "b 2>1"), None, ()),
        (("p >1", "p 1>2", "p 2>3", "b 3>1"), None, ()),
        (("p >1", "p 1>2", "b 2>1", "p 1>3"), None, ("1",)),
        (("p >1", "p 1>2", "p 2>1"), None, ("2", "1")),
        (("p >1", "p 1>2", "p 2>1", "b 1>2"), None, ("1",)),
        (("p >1", "p 1>2"), "5", ("2", "1")),
        (("p >1", "p 1>2"), "", ("2", "1")),
        (("p >1", "p 1>2", "r 2>4"), None, ("1",)),
        (("p >1", "p 1>1", "p 1>2"), None, ("1",)),
    ],
)
def test_who_held_it_before_goes_further_back_after_a_rollback(
    moves: tuple[str, ...], now: str | None, expected: tuple[str, ...]
) -> None:
    assert story.holders(model(*moves, now=now), "alias", "champion") == expected
