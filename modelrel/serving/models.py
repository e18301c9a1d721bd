"""Everything that is served: models by name and version, loaded and unloaded while requests run.

What is served at one moment is an immutable ``Snapshot``; a change makes a new one and puts it in place of the old. A
request works with the snapshot that it found, so no request ever meets half a change, and none is dropped.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from .manifest import FILE_NAME, BrokenModel, read_manifest
from .model import Model, joined, load_model
from .runtimes import Means
from .traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from .options import Settings

Key = tuple[str, str]
"""Name and version."""

_log: Final = logging.getLogger("modelrel.serving")


class State(NamedTuple):
    """A line of the repository index. ``state`` is UNKNOWN, READY, UNAVAILABLE, LOADING or UNLOADING (Triton's words).

    ``reason`` says why a model is not there, or why it is still the one from before and not the one that its folder
    holds now; "" where nothing is wrong.
    """

    name: str
    version: str
    state: str
    reason: str


class Endpoint(NamedTuple):
    """The versions of one name. ``default`` answers where a request names none; ``labels`` are names of versions.

    ``variants`` share the requests that name no version: (model, weight) where there are any, weights above 0.
    ``shadows`` get a copy of those requests, and their answers go nowhere but to the prediction log. ``divided`` is
    whether there are any of either.
    """

    name: str
    versions: Mapping[str, Model]
    default: Model
    labels: Mapping[str, str] = {}
    variants: tuple[tuple[Model, float], ...] = ()
    shadows: tuple[Model, ...] = ()
    divided: bool = False

    @property
    def named(self) -> Mapping[str, Model]:
        """The models by version and by label; a version goes before a label of the same name."""
        return {**{label: self.versions[version] for label, version in self.labels.items()}, **self.versions}


class Snapshot(NamedTuple):
    """What is served at one moment: the endpoints by name, in the order they were asked for, and all models' states."""

    endpoints: Mapping[str, Endpoint]
    states: tuple[State, ...]

    @property
    def first(self) -> Endpoint | None:
        """The endpoint of routes that name no model, such as MLflow's: the first one."""
        return next(iter(self.endpoints.values()), None)

    @property
    def ready(self) -> bool:
        """Whether the server has anything to answer with, now.

        The protocol has "ready" as "all models are ready". But a model whose file is broken does not get better by an
        orchestrator that keeps requests from the others, and loading one more version must not take a server out of
        service. So each model's own route and the index say what is not there, and this is about the rest. (A server
        listens only when all that can be loaded is loaded, so it is never ready too soon.)
        """
        return any(model.ready for endpoint in self.endpoints.values() for model in endpoint.versions.values())


class Models:
    """The models of a server. Methods are safe from any thread; reading ``snapshot`` needs no lock."""

    def __init__(
        self,
        folders: Sequence[str | Path] = (),
        *,
        threads: int | None = None,
        means: Means | None = None,
        traffic: Traffic | None = None,
        batches: bool = False,
    ) -> None:
        """Remember where models lie: model folders, and folders of model folders. ``load_all`` loads them.

        With ``batches``, each model is tried out on whether requests to it may be computed together.
        """
        self.traffic = traffic or Traffic()
        self._sources = [Path(folder) for folder in folders]
        self._threads = threads
        self._means = means
        self._batches = batches
        self._lock = threading.Lock()  # of what follows; nobody loads a model under it
        self._turns: dict[str, threading.Lock] = {}
        self._names: dict[str, None] = {}
        self._loaded: dict[Key, Model] = {}
        self._states: dict[Key, State] = {}
        self._faults: set[str] = set()
        self._started = False
        self._closed = False
        self.snapshot = Snapshot({}, ())

    @classmethod
    def of_settings(cls, settings: Settings) -> Self:
        """Return the models of a server, not loaded yet. Raises ``BrokenModel`` for a wish that makes no sense."""
        return cls(
            settings.folders,
            threads=settings.threads,
            means=Means(settings.threads, settings.python, settings.python_workers, settings.timeout),
            traffic=Traffic(settings.label, settings.weight, settings.shadow, settings.sticky),
            batches=settings.max_batch > 1,
        )

    @classmethod
    def of(cls, *models: Model, traffic: Traffic | None = None) -> Models:
        """Return a set of models that are loaded. Raises ``BrokenModel`` where ``traffic`` does not fit them."""
        made = cls(traffic=traffic)
        made._change({}, {(model.name, model.version): model for model in models}, {})
        made._check()
        return made

    def load_all(self) -> None:
        """Load every model of the folders; one that cannot be loaded says why in the index, and the others serve.

        Raises ``BrokenModel`` where none could be loaded, and where labels, weights or shadows speak of what is not
        there: who asks for a version by its number should not get another one.
        """
        loaded, broken = self._load(self._folders())
        self._change({}, loaded, broken)
        if not loaded:
            nothing = f"there is no {FILE_NAME} in {', '.join(map(str, self._sources))}"
            raise BrokenModel("; ".join(broken.values()) or nothing)
        self._check()

    def load(self, name: str) -> None:
        """Load every version of a name again, also those that were added to the folders since.

        What was loaded before serves until the new is there, and goes on where the new cannot be loaded. Versions that
        are gone from the folders stop being served. Raises ``KeyError`` for a name that the folders do not have,
        ``BrokenModel`` where one of its versions cannot be loaded (the others are then served all the same).
        """
        with self._turn(name):
            keys = {folder: self._key(folder) for folder in self._folders()}
            found = [folder for folder, key in keys.items() if key[0] == name]
            if not found:
                raise KeyError(name)
            loaded, broken = self._load(found)
            before = self._of(name)
            kept = {key: before.pop(key) for key in broken if key in before}
            old = [key for key in self._states if key[0] == name or (not key[1] and key not in keys.values())]
            self._change(before, loaded | kept, broken, old)
        if broken:
            raise BrokenModel("; ".join(map(self._told, broken.values())))

    def unload(self, name: str) -> None:
        """Stop serving every version of a name. Raises ``KeyError`` for a name that is not known."""
        with self._turn(name):
            known = [key for key in self._states if key[0] == name]
            if not known:
                raise KeyError(name)
            self._change(self._of(name), {}, dict.fromkeys(known, "unloaded"), known)

    def close(self) -> None:
        """Give back what every model holds, as soon as the last request is through."""
        with self._lock:
            self._closed = True
            models = [*self._loaded.values()]
        for model in models:
            model.retire()

    def _turn(self, name: str) -> threading.Lock:
        """Return what lets one load or unload of a name happen after the other; other names need not wait."""
        with self._lock:
            return self._turns.setdefault(name, threading.Lock())

    def _of(self, name: str) -> dict[Key, Model]:
        """Return what is loaded of a name."""
        return {key: model for key, model in self._loaded.items() if key[0] == name}

    def _change(
        self,
        gone: Mapping[Key, Model],
        loaded: Mapping[Key, Model],
        broken: Mapping[Key, str],
        old: Collection[Key] = (),
    ) -> None:
        """Publish what was loaded in place of what is gone, and only then retire that; ``old`` states are forgotten."""
        with self._lock:
            self._names.update(dict.fromkeys(name for name, _ in (*loaded, *broken)))
            # Both are replaced, not changed, so that they may be read without the lock.
            self._loaded = {key: model for key, model in self._loaded.items() if key not in gone} | dict(loaded)
            states = {key: state for key, state in self._states.items() if key not in old}
            states |= {key: State(*key, "READY", self._told(broken.get(key, ""))) for key in loaded}
            states |= {key: State(*key, "UNAVAILABLE", self._told(broken[key])) for key in broken if key not in loaded}
            self._states = states
            self._publish()
            unwanted = [*gone.values(), *(loaded.values() if self._closed else ())]
        for model in unwanted:
            model.retire()

    def _told(self, reason: str) -> str:
        """Return a reason as a client may read it: without the folders above those that were named to the server."""
        for source in self._sources:
            for path in (source, source.resolve()):
                reason = reason.replace(f"{path}/", "").replace(str(path), path.name)
        return reason

    def _folders(self) -> list[Path]:
        """Return the model folders, those in folders of folders by name."""
        found: list[Path] = []
        for source in self._sources:
            if (source / FILE_NAME).is_file() or not source.is_dir():
                found.append(source)
            else:
                found += sorted(path.parent for path in source.glob(f"*/{FILE_NAME}"))
                found += sorted(path.parent for path in source.glob(f"*/model/{FILE_NAME}"))
        return found

    def _load(self, folders: Sequence[Path]) -> tuple[dict[Key, Model], dict[Key, str]]:
        """Load folders. Return what could be loaded, and of the rest why it could not."""
        loaded: dict[Key, Model] = {}
        broken: dict[Key, str] = {}
        for folder in folders:
            try:
                model = load_model(folder, self._threads, self._means)
            except BrokenModel as error:
                _log.error("%s", error)
                broken[self._key(folder)] = str(error)
                continue
            key = (model.name, model.version)
            before = loaded.get(key)
            if before is not None and model.signature in before.signatures:
                first = before.signatures[model.signature].folder
                _log.error("%s and %s are both %s/%s; the first is served", first, folder, *key)
                model.retire()
                continue
            if self._batches:
                from .batching import may_merge  # here, because most servers do not need it

                model.batches = may_merge(model)
            loaded[key] = model if before is None else joined(before, model)
        return loaded, {key: why for key, why in broken.items() if key not in loaded}

    def _key(self, folder: Path) -> Key:
        """Return name and version of a folder; of one whose manifest is broken, what was loaded from it before."""
        try:
            manifest = read_manifest(folder)
        except BrokenModel:
            known = (key for key, model in self._loaded.items() if model.folder == folder)
            return next(known, (folder.name, ""))
        return manifest.name, manifest.version

    def _publish(self) -> None:
        endpoints = {}
        faults: set[str] = set()
        for name in self._names:
            versions = {version: model for (own, version), model in self._loaded.items() if own == name}
            if versions:
                default, labels, variants, shadows, amiss = self.traffic.arranged(name, versions)
                endpoints[name] = Endpoint(
                    name, versions, default, labels, variants, shadows, bool(variants or shadows)
                )
                faults |= {*amiss}
        if self._started:
            for fault in sorted(faults - self._faults):
                _log.warning("%s", fault)
        self._faults = faults
        self.snapshot = Snapshot(endpoints, tuple(self._states.values()))

    def _check(self) -> None:
        """Raise ``BrokenModel`` where labels, weights or shadows speak of what is not there."""
        faults = [*self.traffic.strangers(self.snapshot.endpoints), *sorted(self._faults)]
        if faults:
            raise BrokenModel("; ".join(faults))
        self._started = True
