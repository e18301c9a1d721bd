"""A registry that fails at each of its first calls in turn: every command ends in order, nothing stays half done."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from modelrel.commands import main
from modelrel.registry import turns
from modelrel.registry.history import PREFIX as ENTRY
from tests.registry import small
from tests.registry.services import mlflow_server
from tests.registry.stumbling import MODES, Proxy, stumbling

pytestmark = pytest.mark.slow

FIRST = 30
FOR_GOOD = ("dropped before", "dropped after")
"""From a call on, the registry answers no more; the call itself is not carried out, or it is."""

TABLES = (
    "registered_models",
    "registered_model_aliases",
    "registered_model_tags",
    "model_version_tags",
    "model_versions",
)
KEPT = {"by", "event", "evidence", "from", "kind", "message", "modelrel", "previous", "to", "version"}


@dataclass
class Rig:
    """A real server behind a proxy, its database, and a folder in which the versions 1 and 2 are released."""

    proxy: Proxy
    database: Path
    dist: Path
    rows: dict[str, list[Any]] = field(default_factory=dict)

    def remember(self) -> None:
        """Keep what the registry says now."""
        with sqlite3.connect(self.database, timeout=30) as database:
            self.rows = {table: database.execute(f"select * from {table}").fetchall() for table in TABLES}

    def restore(self) -> None:
        """Put that back."""
        with sqlite3.connect(self.database, timeout=30) as database:
            for table, rows in self.rows.items():
                database.execute(f"delete from {table}")
                if rows:
                    database.executemany(f"insert into {table} values ({','.join('?' * len(rows[0]))})", rows)

    def claims(self) -> int:
        """Return how many promotions stand in the row."""
        with sqlite3.connect(self.database, timeout=30) as database:
            found = database.execute(
                "select count(*) from registered_model_tags where key like ?", (f"{turns.PREFIX}%",)
            ).fetchone()
        return int(found[0])

    def state(self) -> str:
        """Return what the registry says, in words that are the same for the same promotion at another time."""
        with sqlite3.connect(self.database, timeout=30) as database:
            aliases = sorted(database.execute("select name, alias, version from registered_model_aliases"))
            stages = sorted(database.execute("select name, version, current_stage from model_versions"))
            tags = [
                *database.execute("select name, 0, key, value from registered_model_tags"),
                *database.execute("select name, version, key, value from model_version_tags"),
            ]
        kept = []
        for name, version, key, value in tags:
            if key.startswith(turns.PREFIX) or key == "modelrel.promoted_at":
                continue
            shown = "entry" if key.startswith(ENTRY) else key
            kept.append((name, version, shown, _settled(value) if key.startswith("modelrel.") else value))
        return json.dumps([aliases, stages, sorted(kept)])


def _settled(text: str) -> str:
    """Return a record without what differs from one promotion to the next; whoever completes one knows less of it."""
    try:
        found = json.loads(text)
    except ValueError:
        return text
    if not isinstance(found, dict):
        return text
    kept = {key: found[key] for key in sorted(found) if key in KEPT}
    sums = {target: one.get("sha256") for target, one in found.get("artifacts", {}).items()}
    return json.dumps({**kept, "sums": sums}, sort_keys=True)


def _folder(dist: Path) -> dict[str, str]:
    """Return what is released: every file with its digest; of what holds times, that it is there."""
    found = {}
    for path in sorted(dist.rglob("*")):
        if path.is_file() and not path.name.startswith("."):
            timed = (path.name[0].isupper() and path.suffix == ".json") or path.name == "release.json"
            found[path.relative_to(dist).as_posix()] = "" if timed else hashlib.sha256(path.read_bytes()).hexdigest()
    return found


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp("rig")
    options = ("--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", f"{folder}/artifacts")
    with mlflow_server(folder, *options) as server, stumbling(server) as proxy:
        subprocess.run([sys.executable, small.__file__, server, "small", "", "2"], check=True)
        found = Rig(proxy, folder / "mlflow.db", folder / "dist")
        for version in ("1", "2"):
            words = ["release", f"small/{version}", "-t", "npm", "--promote", "champion", "--quiet"]
            assert main([*words, "--registry", proxy.uri, "--dist", str(found.dist)]) == 0
        found.remember()
        yield found


@pytest.fixture
def trials(
    rig: Rig, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Trial]:
    """What runs a command: the same tries as ever, with shorter pauses between them."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0.001")
    monkeypatch.setattr(turns, "_PAUSES_S", (0.0, 0.01))
    return lambda words: Trial(rig, words, capfd, tmp_path / "dist", monkeypatch)


def _once(at: int, mode: str) -> Callable[[int, str, str], str]:
    return lambda number, *_: mode if number == at else ""


def _for_good(at: int, mode: str) -> Callable[[int, str, str], str]:
    return lambda number, *_: mode if number == at else "dropped before" if number > at else ""


WAYS = [(mode, _once) for mode in MODES] + [(mode, _for_good) for mode in FOR_GOOD]
FEW = {"promote into": [("dropped after", _once), ("dropped after", _for_good)]}
"""It makes the most calls, most of them MLflow's own: every way of each would take as long as all the others."""

PROMOTE = ("promote", "small/1", "--to", "champion", "--message", "because")
CARRIED = "prod.small"
COMMANDS: dict[str, tuple[str, ...]] = {
    "pull": ("pull", "small/1"),
    "inspect": ("inspect", "small@champion", "--quick"),
    "release": ("release", "small/1", "-t", "npm", "--promote", "champion"),
    "promote": PROMOTE,
    "promote a stage": ("promote", "small/1", "--stage", "Production"),
    "promote into": (*PROMOTE, "--into", "the same server", "--as", CARRIED),
    "rollback": ("rollback", "small", "--alias", "champion"),
    "history": ("history", "small"),
    "diff": ("diff", "small/1", "small/2"),
}


@dataclass
class Trial:
    """Runs one command again and again, on a registry and a folder that are put back each time."""

    rig: Rig
    words: tuple[str, ...]
    capfd: pytest.CaptureFixture[str]
    at: Path
    monkeypatch: pytest.MonkeyPatch
    before: tuple[str, dict[str, str]] = ("", {})
    after: tuple[str, dict[str, str]] = ("", {})

    def begin(self) -> None:
        self.rig.proxy.begin()
        self.rig.restore()
        shutil.rmtree(self.at, ignore_errors=True)
        if self.words[0] != "pull":
            shutil.copytree(self.rig.dist, self.at)

    def found(self) -> tuple[str, dict[str, str]]:
        self.rig.proxy.begin()
        return self.rig.state(), _folder(self.at)

    def tries(self, number: int) -> None:
        self.monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", str(number))

    def patience(self, seconds: float) -> None:
        """Set for how long a claim is watched before its process is taken for dead."""
        defaults = (*turns.Mover.__init__.__defaults__[:-1], seconds)
        self.monkeypatch.setattr(turns.Mover.__init__, "__defaults__", defaults)

    def run(self) -> tuple[int, str]:
        """Return the exit code, and what is wrong with how the command ended."""
        self.capfd.readouterr()
        words = [self.rig.proxy.uri if word == "the same server" else word for word in self.words]
        code = main([*words, "--registry", self.rig.proxy.uri, "--dist", str(self.at), "--json"])
        out, err = self.capfd.readouterr()
        try:
            said = json.loads(out)
        except ValueError:
            return code, f"stdout is not one document: {out[:200]!r}"
        if "Traceback" in err or code == 1:
            return code, err[-1500:]
        if code and said["error"]["code"] != code:
            return code, f"JSON says {said['error']['code']}"
        return code, "" if code in (0, 3) else f"a registry that fails is no reason for {said['error']['message']}"

    def undisturbed(self) -> list[str]:
        """Run it on a registry that works, and return the methods of the calls that it makes."""
        self.begin()
        self.before = self.found()
        assert self.run() == (0, "")
        methods = [method for method, _ in self.rig.proxy.seen]
        self.after = self.found()
        return methods

    def disturbed(self, fails: Callable[[int, str, str], str]) -> tuple[int, str]:
        """Run it on a registry that fails, then on one that works; return the exit code, and what is wrong."""
        self.begin()
        self.rig.proxy.begin(fails)
        code, trouble = self.run()
        (registry, folder), claims = self.found(), self.rig.claims()
        if trouble:
            return code, trouble
        if code == 0 and (registry, folder) != self.after:
            return code, f"it ended well, and is not as after: {registry}"
        if folder not in (self.before[1], self.after[1]):
            return code, f"the folder is between: {sorted(set(folder) ^ set(self.before[1]))}"
        if registry not in (self.before[0], self.after[0]) and not claims and not self.carried(registry):
            return code, f"the registry is between: {registry}"
        # a process that failed is taken for dead after three seconds, each time: one command waits for that
        return code, self.healed() if code and (not claims or self.words == PROMOTE) else ""

    def carried(self, registry: str) -> bool:
        """Return whether a version came into the other registry, whole, and nothing was promoted."""
        (aliases, _, tags), before = json.loads(registry), json.loads(self.before[0])
        new = [tag for tag in tags if tag not in before[2]]
        return aliases == before[0] and all(
            name == CARRIED and not key.startswith(("entry", "modelrel.promot")) for name, _, key, _ in new
        )

    def healed(self) -> str:
        """Run it once more, on a registry that works; return what is wrong then. What is half done is completed."""
        self.tries(4)
        self.patience(3.0)
        for _ in range(3):  # three seconds can be too few on a busy machine, which then says so
            code, trouble = self.run()
            registry, _ = self.found()
            if code != 3:
                break
        self.patience(turns.PATIENCE_S)
        # what is in the history already may have left its claim: the next move takes it away
        if trouble or (code, registry) != (0, self.after[0]):
            return f"the next run ended with {code}: {registry} {trouble}"
        return ""


@pytest.mark.parametrize("command", COMMANDS)
def test_a_registry_that_fails_at_any_call_is_left_as_before_or_as_after(
    command: str, trials: Callable[..., Trial]
) -> None:
    trial = trials(COMMANDS[command])
    methods = trial.undisturbed()
    assert methods
    table, wrong, done = [], 0, 0
    for (at, method), (mode, way) in product(enumerate(methods[:FIRST], 1), FEW.get(command, WAYS)):
        if method == "GET" and mode.endswith(" before"):
            continue  # to who asks it is the same as after: nothing was changed
        trial.tries(0 if way is _for_good else 4)
        code, trouble = trial.disturbed(way(at, mode))
        done += code == 0
        wrong += bool(trouble)
        table.append(f"{at:3} {way.__name__:9} {mode:15} ended with {code} {trouble}".rstrip())
    print(f"{command}: {len(methods)} calls, {done} of {len(table)} runs ended well")
    assert not wrong, "\n".join([f"{wrong} of {len(table)} went wrong (after: {trial.after[0]})", *table])
