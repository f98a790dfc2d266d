"""What is counted of requests, and the page that tells it to Prometheus."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from logging import Logger
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from aeros.caching.server import Cache
from aeros.compression.workshop import Workshop
from aeros.durations import Durations
from aeros.errors import MissingExtraError
from aeros.serving.limits import Admission
from aeros.serving.log import WritingHandler
from aeros.serving.snapshots import Family, Snapshots, merged

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

_WRITE_SECONDS: Final = 0.5
_METHODS: Final = frozenset(
    {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"}
)
_MOST_SERIES: Final = 2_000
_OTHER: Final = "other"
_NO_RULE: Final = "none"
_ABORTED: Final = "aborted"


class EarlyTally(Protocol):
    """Who counts the requests that door 1 has answered."""

    @property
    def tally(self) -> Mapping[tuple[str, str, int], int] | None:
        """How many there were, by method, rule and status."""
        ...


class Counted(Protocol):
    """What the metrics need of an application."""

    @property
    def admission(self) -> Admission:
        """Who is handled, and who waits."""
        ...

    @property
    def workshop(self) -> Workshop:
        """Where bodies are compressed."""
        ...

    @property
    def early_answers(self) -> EarlyTally:
        """Who answers without calling the application."""
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


class Series(NamedTuple):
    """What requests are told apart by.

    Attributes:
        method: The method; ``"other"`` for those that no RFC knows.
        rule: The rule of the route, e.g. ``"/books/<int:number>"``; ``"none"`` where there is none.
        status: The class of the status, e.g. ``"2xx"``; ``"aborted"`` where no response was begun.
    """

    method: str
    rule: str
    status: str


class Tallies:
    """What is counted of one application in this process, or in all workers.

    Args:
        app: The application.

    Attributes:
        in_progress: How many requests are in progress.
    """

    def __init__(self, app: Counted) -> None:
        self.app = app
        self.in_progress: int = 0
        self._requests: dict[Series, Durations] = {}
        self._registry: CollectorRegistry | None = None
        self._dropped: list[Callable[[], int]] = []
        self._snapshots: Snapshots | None = None
        self._reader: ThreadPoolExecutor | None = None
        # Making the registry, and telling the other workers: never an older state after a newer one.
        self._lock = threading.RLock()

    def note(self, method: str, rule: str | None, status: int | None, seconds: float) -> None:
        """Counts a request that has ended."""
        durations = self._durations(_series(method, rule, status))
        durations.add(seconds)

    def requests(self) -> dict[Series, Durations]:
        """Returns what was counted of requests; those that door 1 has answered took no time."""
        counted: dict[Series, Durations] = {}
        for series, durations in self._requests.copy().items():
            counted[series] = Durations()
            counted[series].join(durations)
        for (method, rule, status), times in Counter(self.app.early_answers.tally or {}).items():
            counted.setdefault(_series(method, rule, status), Durations()).add(0.0, times)
        return counted

    def dropped_lines(self) -> int:
        """Returns how many log lines were lost."""
        handlers: list[logging.Handler] = getattr(self.app.current_logger(), "handlers", [])
        lost = sum(handler.dropped for handler in handlers if isinstance(handler, WritingHandler))
        return lost + sum(dropped() for dropped in self._dropped)

    @contextmanager
    def counting_dropped_lines(self, dropped: Callable[[], int]) -> Generator[None]:
        """Counts the lines that a log has lost while the context lasts, which is that of serving."""
        _ = self.registry  # what it imports takes a while, for which nobody is to wait later
        self._dropped.append(dropped)
        try:
            yield
        finally:
            self._dropped.remove(dropped)

    @property
    def registry(self) -> CollectorRegistry:
        """What the page of metrics shows of this process.

        Raises:
            MissingExtraError: prometheus-client is not installed.
        """
        with self._lock:
            if self._registry is None:
                try:
                    from aeros.operations.prometheus import build_registry
                except ImportError as error:
                    raise MissingExtraError(
                        "metrics", package="prometheus-client", extra="metrics"
                    ) from error
                self._registry = build_registry(self)
            return self._registry

    async def page(self, accept: str) -> tuple[str, bytes]:
        """Returns the content type and the text of the page of metrics.

        Args:
            accept: What the client can read, as in ``Accept``.
        """
        if self._snapshots is None and self._registry is not None:
            return self._page(accept)
        # It reads files, or imports what makes the page.
        return await asyncio.get_running_loop().run_in_executor(self._reader, self._page, accept)

    @contextmanager
    def sharing(self, folder: str) -> Generator[None]:
        """Tells the workers whose snapshots are in a folder what is counted, and shows their sum."""
        self._snapshots = Snapshots(folder)
        # Of its own: where views fill the loop's, their numbers would come last.
        self._reader = reader = ThreadPoolExecutor(1, thread_name_prefix="aeros-metrics")
        ended = threading.Event()

        def tell() -> None:
            while not ended.wait(_WRITE_SECONDS):
                self._try_to_tell()

        teller = threading.Thread(target=tell, name="aeros-metrics", daemon=True)
        teller.start()
        try:
            yield
        finally:
            ended.set()
            teller.join()
            self._try_to_tell()
            self._snapshots = None
            self._reader = None
            reader.shutdown()

    def _page(self, accept: str) -> tuple[str, bytes]:
        from aeros.operations.prometheus import render

        families = self._tell()
        if self._snapshots is not None:
            families = merged([families, *self._snapshots.read(without=os.getpid())])
        return render(families, accept)

    def _try_to_tell(self) -> None:
        try:
            self._tell()
        except Exception as error:  # noqa: BLE001 - collectors may be the user's own
            self.app.current_logger().debug("Metrics were not told to other workers: %r", error)

    def _tell(self) -> list[Family]:
        """Returns what was counted in this process, once the others can read it."""
        from aeros.operations.prometheus import families_of

        with self._lock:
            families = families_of(self.registry)
            if self._snapshots is not None:
                try:
                    self._snapshots.write(os.getpid(), families)
                except OSError as error:
                    # What can not be told now is told later, or with the next question.
                    self.app.current_logger().debug("Metrics were not told to other workers: %r", error)
            return families

    def _durations(self, series: Series) -> Durations:
        found = self._requests.get(series)
        if found is None:
            if len(self._requests) >= _MOST_SERIES:  # rules that are made while serving
                series = series._replace(rule=_OTHER)
            found = self._requests.setdefault(series, Durations())
        return found


def _series(method: str, rule: str | None, status: int | None) -> Series:
    return Series(
        method if method in _METHODS else _OTHER,
        rule or _NO_RULE,
        _ABORTED if status is None else f"{status // 100}xx",
    )
