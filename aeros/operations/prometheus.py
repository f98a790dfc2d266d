"""Metrics in the shapes of prometheus-client; imported only where metrics are on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from aeros.durations import BOUNDS, Durations
from aeros.serving.snapshots import Family, Sample

if TYPE_CHECKING:
    from aeros.operations.tallies import Tallies


def build_registry(tallies: Tallies) -> CollectorRegistry:
    """Returns a new registry that has what is counted of an application."""
    registry = CollectorRegistry()
    registry.register(_Counts(tallies))
    return registry


def families_of(registry: CollectorRegistry) -> list[Family]:
    """Returns what a registry has now."""
    return [
        Family(
            name=metric.name,
            documentation=metric.documentation,
            type=metric.type,
            unit=metric.unit,
            samples=[Sample(sample.name, sample.labels, sample.value) for sample in metric.samples],
        )
        for metric in registry.collect()
    ]


def render(families: Iterable[Family], accept: str) -> tuple[str, bytes]:
    """Returns the content type and the text for a client.

    Args:
        families: The metrics.
        accept: What the client can read, as in ``Accept``: OpenMetrics, or else Prometheus's own text.
    """
    encode, content_type = choose_encoder(accept)
    return content_type, encode(_Given(families))


class _Given(Collector):
    """Metrics that are known already."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        """Yields them."""
        for family in self._families:
            metric = Metric(family["name"], family["documentation"], family["type"], family["unit"])
            for sample in family["samples"]:
                metric.add_sample(*sample)
            yield metric


class _Counts(Collector):
    """What is counted of an application, collected when it is asked for."""

    def __init__(self, tallies: Tallies) -> None:
        self._tallies = tallies

    def collect(self) -> Iterator[Metric]:
        """Yields the metrics as they are now."""
        yield from self._requests()
        yield from self._admission()
        if self._tallies.app.caches:
            yield from self._cache()
        yield from self._compression()
        yield _counter("aeros_log_lines_dropped", "Log lines that were lost.", self._tallies.dropped_lines())
        yield GaugeMetricFamily("aeros_workers", "Processes that serve.", value=1)

    def _requests(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "aeros_http_requests", "Requests that have ended.", labels=["method", "route", "status"]
        )
        durations = HistogramMetricFamily(
            "aeros_http_request_duration_seconds",
            "Seconds from a request to the end of its response; hits before the application count as 0.",
            labels=["method", "route"],
        )
        by_route: dict[tuple[str, str], Durations] = {}
        for series, counted in self._tallies.requests().items():
            requests.add_metric(series, counted.cumulative()[-1])
            by_route.setdefault((series.method, series.rule), Durations()).join(counted)
        for labels, counted in by_route.items():
            _add(durations, labels, counted)
        yield requests
        yield durations
        yield GaugeMetricFamily(
            "aeros_http_requests_in_progress", "Requests in progress.", value=self._tallies.in_progress
        )

    def _admission(self) -> Iterator[Metric]:
        admission = self._tallies.app.admission
        handled, waiting = admission.occupancy()
        yield GaugeMetricFamily("aeros_admission_in_use", "Slots of soft_limit in use.", value=handled)
        yield GaugeMetricFamily("aeros_admission_waiting", "Requests that wait for a slot.", value=waiting)
        yield _counter(
            "aeros_admission_refused", "Requests refused with 503 by hard_limit.", admission.refused
        )

    def _cache(self) -> Iterator[Metric]:
        cache = self._tallies.app.current_cache()
        stats = cache.stats()
        outcomes = CounterMetricFamily(
            "aeros_cache_requests",
            "Requests on cached routes, by what the cache did, and at which door.",
            labels=["outcome", "door"],
        )
        for door, hits in stats.hits_by_door.items():
            outcomes.add_metric(["hit", str(door)], hits)
        outcomes.add_metric(["stale", "3"], stats.stale)
        outcomes.add_metric(["collapsed", "3"], stats.collapsed)
        outcomes.add_metric(["miss", "3"], stats.misses)
        yield outcomes
        bypasses = CounterMetricFamily(
            "aeros_cache_bypasses",
            "Requests that were not looked up, and responses to misses that were not stored, by reason.",
            labels=["reason"],
        )
        for reason, times in stats.bypasses.items():
            bypasses.add_metric([reason], times)
        yield bypasses
        for name, told, value in (
            ("stores", "Responses stored.", stats.stores),
            ("refreshes", "Views that ran to replace a stale response.", stats.refreshes),
            ("refresh_failures", "Those of them that failed.", stats.refresh_failures),
            ("evictions", "Responses that left to make room.", stats.evictions),
            ("evicted", "Responses that were told to leave.", stats.evicted),
            ("damaged", "Stored entries that could not be read.", stats.damaged),
        ):
            yield _counter(f"aeros_cache_{name}", told, value)
        yield GaugeMetricFamily("aeros_cache_entries", "Entries in memory.", value=stats.entries)
        yield GaugeMetricFamily("aeros_cache_bytes", "Bytes that they take, about.", value=stats.bytes)
        store = cache.shared_store
        if store is None:
            return
        yield _counter("aeros_cache_store_errors", "Calls of the shared store that failed.", store.errors)
        calls = HistogramMetricFamily(
            "aeros_cache_store_call_duration_seconds",
            "Seconds that calls of the shared store took, failed ones too.",
            labels=["call"],
        )
        for kind, counted in store.durations.copy().items():
            _add(calls, [kind], counted)
        yield calls
        yield GaugeMetricFamily(
            "aeros_cache_store_away",
            "Processes whose circuit breaker keeps them from asking the shared store.",
            value=int(store.is_away),
        )

    def _compression(self) -> Iterator[Metric]:
        taken = CounterMetricFamily(
            "aeros_compression_input_bytes", "Bytes that were compressed.", labels=["coding"]
        )
        made = CounterMetricFamily(
            "aeros_compression_output_bytes", "What they have become.", labels=["coding"]
        )
        for coding, (before, after) in self._tallies.app.workshop.compressed_bytes.copy().items():
            taken.add_metric([coding], before)
            made.add_metric([coding], after)
        yield taken
        yield made


def _counter(name: str, documentation: str, value: int) -> Metric:
    return CounterMetricFamily(name, documentation, value=value)


def _add(family: HistogramMetricFamily, labels: Iterable[str], counted: Durations) -> None:
    cumulative = counted.cumulative()
    bounds = [*(str(bound) for bound in BOUNDS), "+Inf"]
    family.add_metric(
        list(labels),
        buckets=[(bound, float(count)) for bound, count in zip(bounds, cumulative, strict=True)],
        sum_value=counted.seconds,
    )
