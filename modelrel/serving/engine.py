"""Who computes a request, when and together with what: the way from a route to an answer, on the event loop.

Every transport comes through here: HTTP and gRPC, each in its own words, with the same models, limits and records.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from . import platforms
from .answers import Answer, Refused, signed
from .calls import Call
from .exchange import CURRENT, Exchange
from .model import INLINE_BYTES
from .records import Records
from .routing import Router, failed
from .tensors import Array
from .traffic import alike, same_inputs

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping
    from concurrent.futures import Executor

    from .batching import Batches
    from .caching import Cache
    from .calls import Route
    from .model import Model
    from .models import Endpoint, Models
    from .options import Settings
    from .shadows import Shadows
    from .variants import Chooser

_log: Final = logging.getLogger("modelrel.serving")

Observer = Callable[[Call, Sequence[Array], float, str], None]
"""What is told of each call that was computed: the call (its ``model`` is the one that did it), an array for each of
``call.outputs``, the milliseconds that it took, and "answer" or "shadow". It is called on the thread that computed,
often the event loop: it must be quick. What it raises is logged and harms nobody. It must not write to the arrays."""


class Stats:
    """What happened since the start, for the metrics: counts, and ``waiting``, the calls in line for a batch now."""

    def __init__(self) -> None:
        self.cache_hits = 0
        self.cache_misses = 0
        self.shadow_computed = 0
        self.shadow_failed = 0
        self.shadow_dropped = 0
        self.batches = 0
        self.batched_calls = 0
        self.batched_rows = 0
        self.waiting = 0


class Engine:
    """The models of one process at work. Made before the event loop runs; ``close`` ends its threads."""

    def __init__(self, models: Models, settings: Settings, chance: random.Random | None = None) -> None:
        """Take what the settings switch on; ``chance`` decides between variants where nothing else does.

        Raises ``Unusable`` where the settings ask for what cannot be had.
        """
        self.models = models
        self.settings = settings
        self.router = Router(models, platforms.provider(settings), settings=settings)
        self.observers: list[Observer] = []
        self.stats = Stats()
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._threads = ThreadPoolExecutor(max_workers=cores, thread_name_prefix="answer")
        # Loading a model takes seconds: were it done on the same threads, requests would wait for it.
        self._loaders = ThreadPoolExecutor(max_workers=4, thread_name_prefix="load")
        self._chooser: Chooser | None = None
        self._shadows: Shadows | None = None
        self._cache: Cache | None = None
        self._batches: Batches | None = None
        self._plain = not settings.cache and settings.max_batch == 1
        self._switch_on(settings, chance, cores)

    def _switch_on(self, settings: Settings, chance: random.Random | None, cores: int) -> None:
        """Make what the settings ask for; what they do not is not even imported."""
        if self.models.traffic.shares:
            from .variants import Chooser

            self._chooser = Chooser(self.models.traffic.sticky, chance)
        if self.models.traffic.shadows:
            from .shadows import Shadows

            self._shadows = Shadows(self.stats, self._recorded)
        if settings.cache:
            from .caching import Cache

            self._cache = Cache(settings.cache, self.stats)
        if settings.max_batch > 1:
            from .batching import Batches

            wait_s = settings.max_wait_ms / 1e3
            self._batches = Batches(self._threads, self.stats, settings.max_batch, wait_s, cores)
        self.records = Records(self)

    def at_once(self, exchange: Exchange, body: bytes) -> Answer | None:
        """Answer a request that has to wait for nothing; None where it might, and then nothing has happened yet.

        It does what ``answer`` does with what most requests of most servers are: there must be nothing in their way.
        """
        call = None
        try:
            route = self.router.route(exchange.method, exchange.path)
            model, endpoint = route.model, route.endpoint
            if len(body) > route.inline_bytes:
                return None
            if model is None:
                exchange.enters(route)
                found = route.handler(exchange.headers, body)
                return found if isinstance(found, Answer) else None
            if not self._plain or (endpoint is not None and endpoint.divided) or not model.enter():
                return None
            try:
                exchange.enters(route)
                found = route.handler(exchange.headers, body)
                if isinstance(found, Answer):
                    return found
                call = found
                call.headers = exchange.headers
                exchange.asks(call)
                return signed(call.render(call, self._run(call)), call.model.headers)
            finally:
                model.leave()
        except Exception as error:  # noqa: BLE001 (the last line of defence)
            return _failed(exchange.method, exchange.path, error, call)

    async def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Answer one HTTP request; as ``routing.answer`` it never raises."""
        call = None
        try:
            exchange = CURRENT.get()
            route = self.router.route(method, path)
            if exchange is not None:
                exchange.enters(route)
            if route.model is not None and not route.model.enter():
                route = self.router.entered(method, path)
            try:
                if len(body) <= route.inline_bytes:
                    found = route.handler(headers, body)
                else:
                    found = await self._handled(route, headers, body)
                if isinstance(found, Answer):
                    return found
                call = found
                call.headers = headers
                if exchange is not None:
                    exchange.asks(call)
                return await self.compute(call, route, len(body))
            finally:
                if route.model is not None:
                    route.model.leave()
        except Exception as error:  # noqa: BLE001 (the last line of defence)
            return _failed(method, path, error, call)

    async def _handled(self, route: Route, headers: Mapping[str, str], body: bytes) -> Answer | Call:
        """Read a request on a thread, or here where it would have gone to a thread for the computing alone."""
        model = route.model
        if self._batches is not None and model is not None and model.batches and len(body) <= INLINE_BYTES:
            return route.handler(headers, body)
        pool = self._loaders if model is None else self._pool(model)
        return await asyncio.get_running_loop().run_in_executor(pool, route.handler, headers, body)

    async def compute(self, call: Call, route: Route, size: int) -> Answer:
        """Compute a call of a route and say its results; ``size`` is that of the request's body, in bytes.

        The route's model has to be entered; ``call.model`` is, when this is through, the variant that computed it.
        Raises ``Refused`` and ``InferenceFailed``.
        """
        endpoint = route.endpoint
        if endpoint is not None and endpoint.divided:
            return await self._shared(call, endpoint, route, size)
        return await self._computed(call, size, route.inline_bytes)

    async def _shared(self, call: Call, endpoint: Endpoint, route: Route, size: int) -> Answer:
        """Compute a call by one of the variants, and let the shadows have a copy."""
        chosen = None if self._chooser is None else self._chosen(self._chooser, call, endpoint)
        inline_bytes = route.inline_bytes
        if chosen is not None:
            call.model = chosen
            inline_bytes = min(inline_bytes, chosen.inline_bytes)
        try:
            return await self._computed(call, size, inline_bytes)
        finally:
            if chosen is not None:
                chosen.leave()
            if self._shadows is not None:
                for model in endpoint.shadows:
                    same = _same_signature(model, call)
                    if same is not None:
                        self._shadows.put(same, call)

    def _chosen(self, chooser: Chooser, call: Call, endpoint: Endpoint | None) -> Model | None:
        """Return the variant for a call, entered; None where there are none any more, and the route's model is it."""
        while endpoint is not None and endpoint.variants:
            model = _same_signature(chooser.choose(endpoint.variants, call), call)
            if model is None or model.enter():
                return model
            # It was unloaded a moment ago, so another endpoint has taken the place of this one.
            fresh = self.models.snapshot.endpoints.get(endpoint.name)
            fits = fresh is not None and fresh is not endpoint and same_inputs(fresh.default, call.model)
            endpoint = fresh if fits else None
        return None

    async def _computed(self, call: Call, size: int, inline_bytes: int) -> Answer:
        if self._batches is not None and call.model.batches:
            results = await self._together(self._batches, call)
            if size <= INLINE_BYTES:
                return self._said(call, results)
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._said, call, results)
        if size <= inline_bytes:
            return signed(call.render(call, self._run(call)), call.model.headers)
        return await asyncio.get_running_loop().run_in_executor(self._pool(call.model), self._on_thread, call)

    def _pool(self, model: Model) -> Executor:
        """Return the threads to wait for a model on: its own where it has some, so that no other waits for it."""
        return model.pool or self._threads

    def _said(self, call: Call, results: list[Array]) -> Answer:
        return signed(call.render(call, results), call.model.headers)

    def _on_thread(self, call: Call) -> Answer:
        # Whoever asked may leave before this is through, and would take the last hold on the model away.
        if not call.model.enter():
            raise Refused(503, f"{call.model.name}/{call.model.version} was unloaded")
        try:
            return self._said(call, self._run(call))
        finally:
            call.model.leave()

    def _run(self, call: Call) -> list[Array]:
        began = time.perf_counter()
        key, results = (None, None) if self._cache is None else self._cache.look(call)
        if results is None:
            results = call.model.run(call.outputs, call.feeds, call.params)
            if self._cache is not None:
                self._cache.keep(key, results)
        self.observe(call, results, (time.perf_counter() - began) * 1e3, "answer")
        return results

    async def _together(self, batches: Batches, call: Call) -> list[Array]:
        """Do what ``_run`` does, with other calls."""
        began = time.perf_counter()
        key, results = (None, None) if self._cache is None else self._cache.look(call)
        if results is None:
            results = await batches.results(call)
            if self._cache is not None:
                self._cache.keep(key, results)
        self.observe(call, results, (time.perf_counter() - began) * 1e3, "answer")
        return results

    def observe(self, call: Call, results: Sequence[Array], ms: float, role: str) -> None:
        """Count a call that was computed, and tell all observers of it."""
        self.records.computed(call, ms, role)
        for observer in self.observers:
            try:
                observer(call, results, ms, role)
            except Exception:  # noqa: BLE001 (a record must not cost the answer)
                _log.exception("a record of %s/%s failed", call.model.name, call.model.version)

    def _recorded(self, call: Call, results: Sequence[Array], ms: float) -> None:
        self.observe(call, results, ms, "shadow")

    def close(self) -> None:
        """End the threads and give back what the models hold."""
        if self._shadows is not None:
            self._shadows.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._loaders.shutdown(wait=False, cancel_futures=True)
        self.records.close()
        self.models.close()


def _failed(method: str, path: str, error: Exception, call: Call | None) -> Answer:
    """Turn what was raised into an answer, with the name on it of the model that was asked where it came so far."""
    answer = failed(method, path, error)
    return answer if call is None else signed(answer, call.model.headers)


def _same_signature(model: Model, call: Call) -> Model | None:
    """Return what computes a call in another version: the same signature of it; None where it has none alike."""
    asked = call.model
    if asked.default is asked:
        return model
    found = model.signatures.get(asked.signature)
    return found if found is not None and alike(found, asked) else None
