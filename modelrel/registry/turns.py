"""Moving an alias (or stage) in turns, so that two promotions at once do not overwrite each other unseen.

MLflow has no compare-and-swap, only values that are set and read. That is enough for turns: Lamport's bakery ("A new
solution of Dijkstra's concurrent programming problem", 1974), each ticket ("claim") a tag of the registered model:

1. write my claim (no number yet), read all claims, number mine one higher than the highest, write it again;
2. wait while a claim of the same alias has no number yet, or comes before mine by (number, id);
3. my turn: say in the claim that the alias is about to be set, read alias and claims again, and set it only if it is
   where it was when the promotion was judged; read back; write the version's audit tag and the entry of the history;
4. take the claim away.

The claim holds the entry that is to be written. Setting the alias is the one moment at which a promotion happens: a
process that dies before it has changed nothing, and one that dies after it leaves a claim from which the next one (and
`story`, which only reads) completes the history. A claim that somebody has watched unchanged for `PATIENCE_S` belongs
to a dead process, and is taken away; waiting processes renew theirs.

What is left of the race, since the registry checks nothing itself:

* a process that sleeps for longer than `PATIENCE_S` between its last reading and its setting the alias, or whose
  request travels that long, sets it out of turn. It finds that the alias moved meanwhile, writes into the history that
  it replaced that version, and ends with `Conflict`;
* whoever does not take turns (MLflow's own client, the web page) and sets the alias between our last reading and our
  setting is overwritten, which nobody can see in MLflow; before and after that moment it is seen: `Conflict`, and the
  history tells it as a move outside modelrel;
* a registry whose readings lag behind its writings (a read-only replica).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from modelrel.errors import Conflict, Invalid, ModelrelError, Unavailable
from modelrel.promoted import Entry
from modelrel.registry import history
from modelrel.registry.lookup import ModelInfo

if TYPE_CHECKING:
    from modelrel.registry import Registry

PREFIX: Final = "modelrel.turn."
"""What the key of a claim's tag begins with; the claim's id follows."""

PATIENCE_S: Final = 30.0
"""After how many seconds without a change a claim is of a dead process."""

_LOOKS_S: Final = (0.02, 0.5)
_LONGEST: Final = 4700
_TRIES: Final = 3
_PAUSES_S: Final = (0.2, 0.8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A process that wants to move an alias: its place in the row (0: not chosen yet), and what it will write.

    `setting` is True once the alias may have been set; `entry.id` is that of the entry then, and of the claim before.
    """

    id: str
    number: int
    beat: int
    setting: bool
    entry: Entry

    @property
    def text(self) -> str:
        """The value of its tag."""
        entry = json.loads(history.text_of(self.entry, _LONGEST))
        own = {"number": self.number, "beat": self.beat, "setting": self.setting, "id": self.entry.id, "entry": entry}
        return json.dumps(own, sort_keys=True, ensure_ascii=False)


def claims(model: ModelInfo, kind: str, to: str) -> dict[str, Claim]:
    """Return the claims to move an alias (or stage) by their ids; tags that are no claim are passed over."""
    found = {}
    for key, text in model.tags.items():
        if not key.startswith(PREFIX):
            continue
        with suppress(ValueError, TypeError, KeyError, AttributeError):
            said = json.loads(text)
            entry = history.parsed(json.dumps(said["entry"]), str(said["id"]))
            if entry is not None and (entry.kind, entry.to) == (kind, to):
                mine = key.removeprefix(PREFIX)
                found[mine] = Claim(
                    id=mine, number=int(said["number"]), beat=int(said["beat"]), setting=bool(said["setting"]),
                    entry=entry,
                )  # fmt: skip
    return found


def happened(claim: Claim, holder: str) -> bool:
    """Return whether what a claim announces was done: it was about to be set, and there it is."""
    return claim.setting and claim.entry.version == holder


class Mover:
    """Moves one alias (or stage) of one model, in turns with whoever else does.

    `wanted` is the entry to be written; its `previous` is the version that must hold the alias when the turn comes.
    `details` go into the audit tag of the version. A mover moves once.
    """

    def __init__(
        self,
        registry: Registry,
        name: str,
        wanted: Entry,
        note: Callable[[str], None] = lambda _: None,
        patience_s: float = 0,
    ) -> None:
        """Prepare; nothing is written yet."""
        self._registry, self._name, self._note = registry, name, note
        self._patience_s = patience_s or PATIENCE_S
        self._claim = Claim(id=history.new_id(), number=0, beat=0, setting=False, entry=wanted)
        self._written_at = 0.0
        self._details: Mapping[str, Any] = {}
        self._sent = self._unsure = False

    def move(self, details: Mapping[str, Any]) -> Entry:
        """Move it, and return the entry in the history.

        Raises `Conflict` where somebody else moved it meanwhile (and says who), `Unavailable` where the registry is
        silent: then the alias is as before, or it is set and the next promotion completes what is missing.
        """
        self._details = details
        try:
            return self._in_turn()
        except BaseException:
            with suppress(ModelrelError):  # the first stop is the one to tell; what stays is cleared by the next mover
                self._retire()
            raise

    # the row

    def _in_turn(self) -> Entry:
        wanted = self._claim.entry
        self._write()
        highest = max((one.number for one in self._claims(self._model()).values()), default=0)
        self._write(number=highest + 1)
        moves = history.moves(self._wait(), wanted.kind, wanted.to)
        last = moves[-1] if moves else None
        if last and last.version == wanted.version == wanted.previous == self.holder(self._model()):
            self._drop(self._claim)
            return last  # somebody completed it while we waited
        at = datetime.now(UTC).isoformat(timespec="seconds")
        entry = replace(wanted, id=history.new_id(after=last.id if last else ""), at=at)
        self._write(setting=True, entry=entry)
        self._set(last)
        return self._complete(last)

    def _write(self, **changed: Any) -> None:
        self._claim = replace(self._claim, beat=self._claim.beat + 1, **changed)
        self._written_at = time.monotonic()
        self._tag(PREFIX + self._claim.id, self._claim.text)

    def _wait(self) -> ModelInfo:
        """Return the model as it is when the turn has come."""
        seen: dict[str, tuple[Claim, float]] = {}
        told, look_s = "", _LOOKS_S[0]
        while True:
            model = self._model()
            row = self._claims(model)
            if self._claim.id not in row:
                raise self._lost()
            mine = (self._claim.number, self._claim.id)
            before = [one for one in row.values() if (one.number, one.id) < mine or one.setting]
            if not before:
                return model
            now = time.monotonic()
            seen = {one.id: seen[one.id] if seen.get(one.id, (None,))[0] == one else (one, now) for one in before}
            for claim, since in seen.values():
                if now - since > self._patience_s:
                    self._clear(claim, model)
            if told != before[0].id:
                told = before[0].id
                entry = before[0].entry
                self._note(f"waiting for {entry.by}, who moves {entry.to} to version {entry.version}")
            if now - self._written_at > self._patience_s / 4:
                self._write()
            time.sleep(look_s)
            look_s = min(look_s * 1.5, _LOOKS_S[1])

    def _clear(self, claim: Claim, model: ModelInfo) -> None:
        """Take the claim of a dead process away, and complete the history where it had set the alias."""
        entry = claim.entry
        if happened(claim, self.holder(model)):
            self._note(f"half a promotion by {entry.by} at {entry.at} (to version {entry.version}): finished")
            self._remember(entry, {})
        else:
            self._note(f"a promotion by {entry.by} (to version {entry.version}) was broken off: cleared away")
        self._drop(claim)

    def _lost(self) -> Conflict:
        wanted = self._claim.entry
        return Conflict(
            f"the promotion of {self._name}/{wanted.version} to {wanted.to} lost its turn: for {self._patience_s:g} s "
            "nothing was seen of it",
            "Nothing was changed; run the same command again.",
        )

    # the turn

    def _set(self, last: Entry | None) -> None:
        """Set the alias, if everything is still as it was; raises `Conflict` where it is not."""
        wanted = self._claim.entry
        model = self._model()
        row = self._claims(model)
        mine = row.pop(self._claim.id, None)
        if mine is None or mine.text != self._claim.text or any(one.setting for one in row.values()):
            raise self._lost()
        self._unmoved(model, last)
        for tried in range(1, _TRIES + 1):
            if time.monotonic() - self._written_at > self._patience_s / 3:
                raise Unavailable(
                    f"the registry {self._registry.shown} is too slow to move {wanted.to} of {self._name} safely",
                    "Nothing was changed; try again.",
                )
            if self.holder(model) == wanted.version:
                return  # it is there already: only the history was missing
            self._sent = self._unsure = True
            try:
                self._touch()
            except Invalid:
                self._sent = self._unsure = False
                raise
            except Unavailable:
                # it may have been done: look, rather than do it twice
                if tried == _TRIES:
                    raise
                model = self._model()
                self._unmoved(model, last, wanted.version)
            else:
                self._unsure = False
                return

    def _touch(self) -> None:
        wanted = self._claim.entry
        self._note(f"setting {wanted.kind} {wanted.to}")
        if wanted.kind == "alias":
            self._registry.writer.set_alias(self._name, wanted.to, wanted.version)
        else:
            self._registry.writer.set_stage(self._name, wanted.version, wanted.to)

    def _complete(self, last: Entry | None) -> Entry:
        """Read back, and write what happened."""
        entry = self._claim.entry
        model = self._model()
        now = self.holder(model)
        if now != entry.version:
            raise Conflict(
                f"{entry.kind} {entry.to} of {self._name} was set to version {entry.version}, but it is {shown(now)} "
                "now",
                f"Somebody who takes no turns moved it at the same moment; see: modelrel history {self._name}.",
            )
        moves = [one for one in history.moves(model, entry.kind, entry.to) if one.id != entry.id]
        overtaken = moves[-1] if moves and moves[-1].id != (last.id if last else "") else None
        if overtaken is not None:
            entry = replace(entry, id=history.new_id(after=overtaken.id), previous=overtaken.version)
        self._note("writing the history")
        self._remember(entry, self._details)
        self._sent = False
        with suppress(Unavailable):  # all is written: the next mover takes the claim away
            self._drop(self._claim)
        if overtaken is not None:
            raise Conflict(
                f"{entry.kind} {entry.to} of {self._name} was set to version {entry.version} out of turn: it replaced "
                f"version {overtaken.version}, to which {overtaken.by} had moved it at {overtaken.at}",
                f"Look at both, then promote the right one; see: modelrel history {self._name}.",
            )
        return entry

    def _retire(self) -> None:
        """Leave the registry as before or as after, when the move is broken off here."""
        model = self._model()
        mine = self._claims(model).get(self._claim.id, self._claim)
        if self._sent and happened(mine, self.holder(model)):
            self._remember(mine.entry, self._details)
        elif self._unsure:
            return  # the request may still arrive: whoever comes next will see
        self._drop(mine)

    # reading and writing

    def holder(self, model: ModelInfo) -> str:
        """Return the version that holds the alias, or "" for nobody; of a stage it is ours, else the highest in it."""
        wanted = self._claim.entry
        if wanted.kind == "alias":
            return model.aliases.get(wanted.to, "")
        mine = self._registry.version(self._name, wanted.version)
        if mine is not None and mine.stage == wanted.to:
            return wanted.version
        return self._registry.holder(self._name, stage=wanted.to)

    def _unmoved(self, model: ModelInfo, last: Entry | None, also: str = "") -> None:
        wanted = self._claim.entry
        now = self.holder(model)
        if now not in (wanted.previous, also or wanted.previous):
            raise Conflict(
                f"{wanted.kind} {wanted.to} of {self._name} was moved from {shown(wanted.previous)} to {shown(now)} "
                f"meanwhile, {who(last, now)}",
                f"Look at why (modelrel history {self._name}), then promote again.",
            )

    def _model(self) -> ModelInfo:
        found = self._registry.model(self._name)
        if found is None:
            raise Invalid(f"the registry {self._registry.shown} has no model {self._name!r} (any more)", "")
        return found

    def _claims(self, model: ModelInfo) -> dict[str, Claim]:
        return claims(model, self._claim.entry.kind, self._claim.entry.to)

    def _remember(self, entry: Entry, details: Mapping[str, Any]) -> None:
        with suppress(Invalid):  # a version that was deleted at once has no tags
            _again(lambda: self._registry.writer.set_tags(self._name, entry.version, history.audit(entry, details)))
        self._tag(*history.tag(entry))

    def _tag(self, key: str, value: str) -> None:
        _again(lambda: self._registry.writer.set_model_tag(self._name, key, value))

    def _drop(self, claim: Claim) -> None:
        with suppress(Invalid):  # older servers refuse to take away what is not there
            _again(lambda: self._registry.writer.delete_model_tag(self._name, PREFIX + claim.id))


def _again(write: Callable[[], None]) -> None:
    """Write a tag that nobody else writes: doing that twice is the same as once, so it is tried again."""
    for pause_s in _PAUSES_S:
        try:
            return write()
        except Unavailable:
            time.sleep(pause_s)
    return write()


def who(last: Entry | None, now: str) -> str:
    """Return who moved an alias to where it is now, by its last entry in the history."""
    if last is None or last.version != now:
        return "outside modelrel"
    why = f' ("{last.message}")' if last.message else ""
    return f"by {last.by} at {last.at}{why}"


def shown(version: str) -> str:
    """Return a holder for a sentence.

    >>> shown("3"), shown("")
    ('version 3', 'nobody')
    """
    return f"version {version}" if version else "nobody"
