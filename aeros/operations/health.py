"""Is it alive, is it ready: what a load balancer, systemd or Kubernetes asks."""

from __future__ import annotations

import asyncio
import json
from logging import Logger
from typing import Final, Protocol

from aeros.caching.server import Cache
from aeros.caching.stores.guarded import GuardedStore
from aeros.per_loop import PerLoop
from aeros.serving.shutdown import Event

DEADLINE_SECONDS: Final = 0.8
"""How long all checks may take together: Kubernetes waits for a second, unless it is told otherwise."""

_OK: Final = "ok"


class Checked(Protocol):
    """What the checks need of an application."""

    @property
    def shutdown_event(self) -> Event:
        """What comes when the server begins to stop."""
        ...

    @property
    def caches(self) -> bool:
        """Whether anything is cached."""
        ...

    def current_cache(self) -> Cache:
        """Returns the cache to use now."""
        ...

    def current_logger(self) -> Logger:
        """Returns the logger to use now."""
        ...

    async def check_resources(self, deadline_seconds: float) -> dict[str, str | None]:
        """Returns what is wrong with each resource, by name."""
        ...


class Health:
    """The checks of one application.

    Args:
        app: The application.
    """

    def __init__(self, app: Checked) -> None:
        self._app = app
        self._was_ready = True
        self._checking: PerLoop[_Checking] = PerLoop(_Checking)

    def alive(self) -> tuple[int, bytes]:
        """Returns the status and the body, which is JSON: 200 for whoever gets an answer at all."""
        return 200, _rendered({})

    async def ready(self) -> tuple[int, bytes]:
        """Returns the status and the body, which is JSON with each check: 200 if none has failed, else 503.

        All who ask at the same time are answered by the same checks: nobody can wear out a pool of
        connections by asking. What is wrong with a resource is told to the log only, once for each outage:
        it may name hosts and users.
        """
        checking = self._checking.get()
        if checking.task is None or checking.task.done():
            checking.task = asyncio.ensure_future(self._check())
        return await asyncio.shield(checking.task)

    async def _check(self) -> tuple[int, bytes]:
        app = self._app
        checks = {"server": "stopping" if app.shutdown_event.is_set() else _OK}
        resources, store = await asyncio.gather(self._resources(), self._store())
        for name, problem in resources.items():
            checks[f"resource {name}"] = _OK if problem is None else "failed"
        if store is not None:
            checks["store"] = _OK if store else "failed"
        is_ready = all(outcome == _OK for outcome in checks.values())
        if checks["server"] == _OK and is_ready != self._was_ready:
            self._was_ready = is_ready
            wrong = [f"{name}: {problem}" for name, problem in resources.items() if problem is not None]
            wrong += [] if store in (None, True) else ["the cache's store does not answer"]
            what = "Ready to serve again" if is_ready else f"Not ready to serve: {'; '.join(wrong)}"
            app.current_logger().warning("%s", what)
        return (200 if is_ready else 503), _rendered(checks)

    async def _resources(self) -> dict[str, str | None]:
        try:
            return await self._app.check_resources(DEADLINE_SECONDS)
        except Exception as error:  # noqa: BLE001 - providers are the user's own
            return {"container": repr(error)}

    async def _store(self) -> bool | None:
        """Tells whether the shared store answers; None: there is none."""
        try:
            store = self._app.current_cache().shared_store if self._app.caches else None
            if not isinstance(store, GuardedStore):
                return None
            async with asyncio.timeout(DEADLINE_SECONDS):
                return await store.answers()
        except Exception:  # noqa: BLE001 - as above, and no answer in time
            return False


class _Checking:
    """The checks that go on."""

    task: asyncio.Task[tuple[int, bytes]] | None = None


def _rendered(checks: dict[str, str]) -> bytes:
    is_ready = all(outcome == _OK for outcome in checks.values())
    told: dict[str, object] = {"status": _OK if is_ready else "unavailable"}
    if checks:
        told["checks"] = checks
    return json.dumps(told).encode("ascii") + b"\n"
