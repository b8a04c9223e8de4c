"""Metrics in Prometheus's text format: the table of what is told, and a server that tells it.

METRICS is the whole list; docs/metrics.md repeats it for people, and a test compares the two. Each scrape looks at the
server once (service/monitoring.py). Series are bounded: a few for each index, of 200 indexes at most, and never one for
an item, a label, a bucket or a batch.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import numpy as np

from stream_hash.errors import StreamHashError, UsageError
from stream_hash.service.connections import Connections
from stream_hash.service.monitoring import DECISIONS, QUEUES, IndexView, ServerView, look
from stream_hash.storage.tallies import BURIALS, FAILURES, LATENCY_BOUNDS, OUTCOMES, bound_name

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric as Family

log = logging.getLogger("stream_hash.metrics")


class Metric(NamedTuple):
    """One metric. name : without `stream_hash_`, and of a counter without `_total`. labels : names, in order."""

    name: str
    kind: Literal["gauge", "counter", "histogram"]
    labels: tuple[str, ...]
    help: str

    @property
    def exported(self) -> str:
        """The name in queries; of a histogram that of its buckets begins so."""
        return f"stream_hash_{self.name}" + ("_total" if self.kind == "counter" else "")


_INDEX = ("index",)

METRICS: Final = (
    Metric("up", "gauge", (), "Whether the server answered this scrape; when it is 0 nothing else is told."),
    Metric("scrape_duration_seconds", "gauge", (), "How long this scrape took."),
    Metric("build_info", "gauge", ("version",), "1; the version of the exporter."),
    Metric("indexes", "gauge", (), "Indexes on the server; the first 200 by name are told of one by one."),
    Metric("server_memory_used_bytes", "gauge", ("node",), "Memory that a primary uses."),
    Metric("server_memory_max_bytes", "gauge", ("node",), "Limit (maxmemory) of a primary's memory, 0 for none."),
    Metric("workers", "gauge", ("queue", "state"), "Worker processes that gave a sign of life in the last 30 s."),
    Metric("queue_jobs", "gauge", ("queue",), "Jobs that wait for a worker: batches, chunks of a re-index; requests."),
    Metric("items", "gauge", _INDEX, "Items held."),
    Metric("labelled_items", "gauge", _INDEX, "Items held that have a label."),
    Metric("items_accepted", "counter", _INDEX, "Writes, deletes and labels accepted from producers."),
    Metric("items_applied", "counter", _INDEX, "Of these, those that workers have applied."),
    Metric("item_outcomes", "counter", ("index", "outcome"), "What became of those applied; ignored: it was older."),
    Metric("items_buried", "counter", ("index", "reason"), "Items that became dead letters, by reason."),
    Metric("batches_accepted", "counter", _INDEX, "Batches accepted from producers."),
    Metric("deliveries", "counter", _INDEX, "Attempts at batches."),
    Metric("delivery_retries", "counter", _INDEX, "Of these, those that were not the first at their batch."),
    Metric(
        "delivery_failures", "counter", ("index", "reason"), "Attempts that failed, by reason; not those that died."
    ),
    Metric("pending_batches", "gauge", _INDEX, "Batches accepted and not yet finished."),
    Metric("pending_items", "gauge", _INDEX, "Items in these."),
    Metric("queue_lag_seconds", "gauge", _INDEX, "Age of the oldest pending batch, 0 for none."),
    Metric("dead_letters", "gauge", _INDEX, "Dead letters kept."),
    Metric("generation_live", "gauge", _INDEX, "Number of the live generation, 0 before the first."),
    Metric("generation_building", "gauge", _INDEX, "Number of the generation being built, 0 for none."),
    Metric("reindex_progress_ratio", "gauge", _INDEX, "Share of the items that are in it; 1 when none is being built."),
    Metric("trainer_active", "gauge", _INDEX, "Whether a trainer is at work on the index."),
    Metric("last_training_timestamp_seconds", "gauge", _INDEX, "When the last training began; absent before one."),
    Metric("last_training_duration_seconds", "gauge", _INDEX, "How long it took."),
    Metric("last_training_decision", "gauge", ("index", "decision"), "1 for what was decided, 0 for the others."),
    Metric(
        "last_training_churn_ratio",
        "gauge",
        _INDEX,
        "Share of the bits that it would change, or did; absent if not measured.",
    ),
    Metric("live_precision_ratio", "gauge", _INDEX, "precision@10 of arriving labelled items; absent before a mean."),
    Metric("buckets", "gauge", _INDEX, "Buckets that are not empty, in all tables."),
    Metric("bucket_mean_items", "gauge", _INDEX, "Mean size of a bucket."),
    Metric("bucket_largest_items", "gauge", _INDEX, "Size of the largest bucket that 256 sampled items are in."),
    Metric("bucket_skew_ratio", "gauge", _INDEX, "Mean bucket of these items over the mean bucket; 1: all are alike."),
    Metric("queries", "counter", _INDEX, "Queries answered, a few seconds late; not those of read-only accounts."),
    Metric("query_candidates", "counter", _INDEX, "Candidates that these looked at."),
    Metric("query_duration_seconds", "histogram", _INDEX, "Their time; of queries answered together each one's share."),
)
"""Everything that is told, in the order in which it is."""

Values = dict[tuple[str, ...], Any]
"""Label values → value: a number, of a histogram (its buckets, the sum)."""

_BOUNDS: Final = [(str(bound), bound_name(bound)) for bound in LATENCY_BOUNDS] + [("+Inf", bound_name(None))]


def values(view: ServerView) -> Iterator[tuple[str, Values]]:
    """What a look at the server says of each metric but the first three, by name."""
    yield "indexes", {(): view.indexes}
    yield "server_memory_used_bytes", {(node,): used for node, (used, _) in view.memory.items()}
    yield "server_memory_max_bytes", {(node,): most for node, (_, most) in view.memory.items()}
    yield "workers", {(queue, state): view.workers[queue, state] for queue in QUEUES for state in ("idle", "busy")}
    yield "queue_jobs", {(queue,): jobs for queue, jobs in view.jobs.items()}
    by_metric: dict[str, Values] = {}
    for index in view.views:
        for name, labels, value in _of_index(index):
            by_metric.setdefault(name, {})[index.name, *labels] = value
    yield from by_metric.items()


def _of_index(index: IndexView) -> Iterator[tuple[str, tuple[str, ...], Any]]:
    plain: dict[str, Any] = {
        "items": index.items,
        "labelled_items": index.labelled,
        "items_accepted": index.counters["accepted"],
        "items_applied": index.counters["applied"],
        "batches_accepted": index.tallies.get("batches", 0),
        "deliveries": index.tallies.get("deliveries", 0),
        "delivery_retries": index.tallies.get("retries", 0),
        "pending_batches": index.pending_batches,
        "pending_items": index.pending_items,
        "queue_lag_seconds": index.lag_seconds,
        "dead_letters": index.dead_letters,
        "generation_live": index.live,
        "generation_building": index.building,
        "reindex_progress_ratio": index.reindexed,
        "trainer_active": int(index.is_trained),
        "last_training_timestamp_seconds": index.run.get("started"),
        "last_training_duration_seconds": index.run.get("seconds"),
        "last_training_churn_ratio": (index.run.get("figures") or {}).get("churn"),
        "live_precision_ratio": index.precision,
        "buckets": index.buckets,
        "bucket_mean_items": index.mean_bucket,
        "bucket_largest_items": index.largest_bucket,
        "bucket_skew_ratio": index.bucket_skew,
        "queries": index.tallies.get("queries", 0),
        "query_candidates": index.tallies.get("candidates", 0),
        "query_duration_seconds": _latency(index.tallies),
    }
    yield from ((name, (), value) for name, value in plain.items() if value is not None)
    yield from (("item_outcomes", (outcome,), index.tallies.get(outcome, 0)) for outcome in OUTCOMES)
    yield from (("items_buried", (kind,), index.tallies.get(f"buried:{kind}", 0)) for kind in BURIALS)
    yield from (("delivery_failures", (kind,), index.tallies.get(f"failed:{kind}", 0)) for kind in FAILURES)
    if index.run:
        decided = index.run.get("decision")
        yield from (("last_training_decision", (one,), int(one == decided)) for one in DECISIONS)


def _latency(tallies: dict[str, int]) -> tuple[list[tuple[str, float]], float]:
    """(bound, how many took up to it) and the sum of seconds."""
    counts = np.cumsum([tallies.get(name, 0) for _, name in _BOUNDS]).tolist()
    pairs = zip((bound for bound, _ in _BOUNDS), counts, strict=True)
    return [(bound, float(count)) for bound, count in pairs], tallies.get("microseconds", 0) / 1e6


class Exporter:
    """Looks at a server at each scrape; a collector of prometheus_client."""

    def __init__(self, opened: Callable[[], Connections], version: str, *, seed: int | None = None) -> None:
        """opened : opens connections. They are opened anew after an error: a primary may be another one by then."""
        self._opened = opened
        self._version = version
        self._connections: Connections | None = None
        self._rng = np.random.default_rng(seed)
        self._one_at_a_time = threading.Lock()
        self.error: StreamHashError | None = None
        """Why the server did not answer the last scrape."""

    def look(self) -> ServerView:
        """Look at the server. Raises StreamHashError when it does not answer."""
        if self._connections is None:
            self._connections = self._opened()
        try:
            return look(self._connections, self._rng)
        except StreamHashError:
            self._connections = None
            raise

    def describe(self) -> Iterable[Family]:
        """Nothing: or prometheus_client would scrape once to learn the names."""
        return ()

    def collect(self) -> Iterator[Family]:
        """The families of one scrape. A server that does not answer is told by `up`, and by the log."""
        found: dict[str, Values] = {}
        with self._one_at_a_time:
            start = time.perf_counter()
            try:
                found = dict(values(self.look()))
                self.error = None
            except StreamHashError as error:
                log.warning("the server cannot be asked: %s (%s)", error, error.why)
                self.error = error
            seconds = time.perf_counter() - start
        found |= {
            "up": {(): int(self.error is None)},
            "scrape_duration_seconds": {(): seconds},
            "build_info": {(self._version,): 1},
        }
        for metric in METRICS:
            if found.get(metric.name):
                yield _family(metric, found[metric.name])


def _family(metric: Metric, values: Values) -> Family:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

    name = f"stream_hash_{metric.name}"
    if metric.kind == "histogram":
        histogram = HistogramMetricFamily(name, metric.help, labels=metric.labels)
        for labels, (buckets, total) in values.items():
            histogram.add_metric(labels, buckets, total)
        return histogram
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = kind(name, metric.help, labels=metric.labels)
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family


def _registry(exporter: Exporter) -> CollectorRegistry:
    """Of this exporter alone, without what prometheus_client tells of the process."""
    from prometheus_client import CollectorRegistry

    registry = CollectorRegistry(auto_describe=False)
    registry.register(exporter)
    return registry


def text(exporter: Exporter) -> str:
    """One scrape, in Prometheus's text format. Raises StreamHashError when the server does not answer."""
    from prometheus_client import generate_latest

    told = generate_latest(_registry(exporter)).decode()
    if exporter.error is not None:
        raise exporter.error
    return told


class MetricsServer:
    """Answers scrapes over HTTP, in threads of its own, until it is closed."""

    def __init__(self, exporter: Exporter, host: str, port: int) -> None:
        """port : 0 for any that is free. Raises UsageError when nothing can be served there."""
        from prometheus_client import start_http_server

        try:
            self._server, self._thread = start_http_server(port, host, _registry(exporter))
        except OSError as error:
            raise UsageError(
                f"nothing can be served at {host}:{port}", why=str(error), remedy="give another address: --listen"
            ) from error
        self.port = int(self._server.server_address[1])

    def close(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def address(text: str) -> tuple[str, int]:
    """HOST and PORT of HOST:PORT; of an IPv6 address in brackets. Raises UsageError."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise UsageError(
            f"the address to listen at is {text!r}", why="it is HOST:PORT", remedy="for example 127.0.0.1:9464"
        )
    return host, int(port)
