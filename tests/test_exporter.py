"""The exporter: Prometheus's format, over HTTP; its table, its document and its dashboard say the same."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import fakeredis
import numpy as np
import pytest
import redis
from prometheus_client.parser import text_string_to_metric_families
from redis.cluster import RedisCluster

from stream_hash.errors import ServerUnreachableError, UsageError
from stream_hash.exporter import METRICS, Exporter, MetricsServer, address, text
from stream_hash.service.connections import Connections
from stream_hash.service.handle import IndexHandle
from stream_hash.service.ingest import apply_batch
from stream_hash.service.monitoring import INDEXES
from stream_hash.settings import IndexSettings
from stream_hash.storage.codec import Batch
from stream_hash.storage.store import Store
from stream_hash.storage.tallies import Tallies

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture
def exporter(real_client: redis.Redis) -> Exporter:
    """Of a server with two indexes, one of which has been asked and trained."""
    for name in ("a-b", "x"):
        Store(real_client, name).create(IndexSettings(3))
        handle = IndexHandle(real_client, name)
        x = np.random.default_rng(0).normal(size=(300, 3)).astype(np.float32)
        handle.ledger.accept(
            "b", Batch("upsert", [f"i{n}" for n in range(300)], x, [""] * 300, [""] * 300), lease_until=0
        )
        apply_batch(handle, "b")
    run = {"decision": "dry run", "started": 5.5, "seconds": 2.0, "figures": {"churn": 0.25}}
    real_client.lpush(handle.store.keys.runs, json.dumps(run))
    counts = {"queries": 5, "candidates": 70, "microseconds": 1_500_000, "within:0.001": 3, "within:+Inf": 2}
    Tallies(real_client, "x").add(handle.identity.nonce, counts)
    handle.quality.fold(0, 1, _summary())
    return Exporter(lambda: Connections(real_client, real_client), "1.2.3")


def _summary() -> str:
    from stream_hash.service.quality import Summary
    from stream_hash.storage.live_quality import Figure

    summary = Summary()
    for position in range(500):
        summary.add(Figure(position, 1, 0.5))
    return summary.to_json()


def families(told: str) -> dict[str, Any]:
    return {family.name: family for family in text_string_to_metric_families(told)}


def series(told: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families(told).values()
        for sample in family.samples
    }


def test_everything_in_the_table_is_told_with_its_type_and_labels_and_nothing_else(exporter: Exporter) -> None:
    found = families(text(exporter))
    expected = {f"stream_hash_{metric.name}": metric for metric in METRICS}
    assert list(found) == list(expected)
    for name, metric in expected.items():
        family = found[name]
        assert (family.type, family.documentation) == (metric.kind, metric.help)
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(metric.labels)


def test_names_follow_the_conventions() -> None:
    for metric in METRICS:
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", metric.name), metric
        assert not metric.name.endswith("_total")
        assert metric.help.endswith(".")


def test_values_stand_under_their_names_and_the_buckets_of_a_histogram_add_up(exporter: Exporter) -> None:
    found = series(text(exporter))
    x = ("index", "x")
    assert found["stream_hash_up", ()] == 1
    assert found["stream_hash_build_info", (("version", "1.2.3"),)] == 1
    assert found["stream_hash_items_accepted_total", (("index", "a-b"),)] == 300
    assert found["stream_hash_live_precision_ratio", (x,)] == 0.5
    assert found["stream_hash_last_training_decision", (("decision", "dry run"), x)] == 1
    assert found["stream_hash_query_duration_seconds_sum", (x,)] == 1.5
    assert found["stream_hash_query_duration_seconds_count", (x,)] == 5
    assert found["stream_hash_query_duration_seconds_bucket", (x, ("le", "0.0005"))] == 0
    assert found["stream_hash_query_duration_seconds_bucket", (x, ("le", "2.5"))] == 3
    assert found["stream_hash_query_duration_seconds_bucket", (x, ("le", "+Inf"))] == 5


def test_series_are_bounded(real_client: redis.Redis) -> None:
    for number in range(INDEXES + 3):
        Store(real_client, f"x{number:04}").create(IndexSettings(3))
    found = series(text(Exporter(lambda: Connections(real_client, real_client), "1")))
    assert found["stream_hash_indexes", ()] == INDEXES + 3
    assert sum(name == "stream_hash_items" for name, _ in found) == INDEXES
    assert len(found) < 60 * INDEXES


def test_it_tells_of_a_cluster_and_of_each_primary(cluster_url: str) -> None:
    # RQ's keys need a prefix of their own on a cluster (test_queue_on_cluster.py)
    with RedisCluster.from_url(cluster_url) as client, fakeredis.FakeRedis() as broker:
        client.flushall()
        for name in ("x", "y"):
            Store(client, name).create(IndexSettings(3, partitions=5))
            handle = IndexHandle(client, name)
            handle.ledger.accept("b", Batch("upsert", ["a"], np.ones((1, 3), np.float32), [""], [""]), lease_until=0)
            apply_batch(handle, "b")
        found = series(text(Exporter(lambda: Connections(client, broker), "1")))
    assert sum(name == "stream_hash_server_memory_used_bytes" for name, _ in found) == 3
    assert [found["stream_hash_items", (("index", name),)] for name in ("x", "y")] == [1, 1]


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=20) as response:  # noqa: S310 - of the server started here
        assert response.headers["Content-Type"].startswith("text/plain; version=")
        return str(response.read().decode())


def test_it_is_served_until_it_is_closed_and_a_port_in_use_is_told(exporter: Exporter) -> None:
    server = MetricsServer(exporter, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.port}/metrics"
    assert families(get(url)).keys() == {f"stream_hash_{metric.name}" for metric in METRICS}
    with pytest.raises(UsageError, match=f"nothing can be served at 127.0.0.1:{server.port}"):
        MetricsServer(exporter, "127.0.0.1", server.port)
    server.close()
    with pytest.raises(urllib.error.URLError):
        get(url)


def test_a_server_that_is_away_is_told_and_asked_again_with_new_connections(real_client: redis.Redis) -> None:
    away = redis.Redis(port=1, retry=None)
    opened = iter([Connections(away, away), Connections(real_client, real_client)])
    exporter = Exporter(lambda: next(opened), "1")
    server = MetricsServer(exporter, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.port}/metrics"
    told = [families(get(url)), families(get(url))]
    server.close()
    assert [found["stream_hash_up"].samples[0].value for found in told] == [0, 1]
    assert set(told[0]) == {f"stream_hash_{name}" for name in ("up", "scrape_duration_seconds", "build_info")}
    with pytest.raises(ServerUnreachableError):
        text(Exporter(lambda: Connections(away, away), "1"))


@pytest.mark.parametrize(
    ("given", "meant"),
    [("127.0.0.1:9464", ("127.0.0.1", 9464)), ("[::1]:0", ("::1", 0)), ("all.example:80", ("all.example", 80))],
)
def test_addresses(given: str, meant: tuple[str, int]) -> None:
    assert address(given) == meant


@pytest.mark.parametrize("given", ["", "9464", ":9464", "host:", "host:port", "host:65536", "host:-1"])
def test_what_is_no_address_is_refused(given: str) -> None:
    with pytest.raises(UsageError, match="the address to listen at"):
        address(given)


def test_the_document_lists_every_metric_as_it_is() -> None:
    rows = re.findall(
        r"^\| `(stream_hash_\w+)` *\| (\w+) *\| ([^|]*?) *\| ([^|]*?) *\|$", (DOCS / "metrics.md").read_text(), re.M
    )
    assert rows == [(m.exported, m.kind, ", ".join(m.labels) or "-", m.help) for m in METRICS]


def expressions() -> list[str]:
    dashboard = json.loads((DOCS / "grafana" / "stream_hash.json").read_text())
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    variables = [one["query"] for one in dashboard["templating"]["list"] if one["type"] == "query"]
    return variables + [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]


def test_the_dashboard_shows_every_metric_and_no_other() -> None:
    exported = {metric.exported for metric in METRICS if metric.kind != "histogram"}
    parts = {f"{m.exported}_{part}" for m in METRICS if m.kind == "histogram" for part in ("bucket", "sum", "count")}
    named = {name for expression in expressions() for name in re.findall(r"stream_hash_\w+", expression)}
    assert named == exported | parts


def test_the_dashboard_asks_in_promql() -> None:
    labels = {metric.exported: {*metric.labels, "le"} for metric in METRICS}
    for expression in expressions():
        for pair in ("()", "[]", "{}"):
            assert expression.count(pair[0]) == expression.count(pair[1]), expression
        # counters are only looked at as rates, and rates only of counters
        for name in re.findall(r"stream_hash_\w+", expression):
            is_rate = re.search(rf"(rate|increase)\({name}\b", expression) is not None
            assert is_rate == name.endswith(("_total", "_bucket", "_sum", "_count")), expression
        for name, selector in re.findall(r"(stream_hash_\w+)\{([^}]*)\}", expression):
            metric = re.sub(r"_(bucket|sum|count)$", "", name)
            assert set(re.findall(r"(\w+)\s*(?:=~|=|!=)", selector)) <= labels[metric], expression


def test_the_alarms_of_the_document_name_metrics_and_events_that_are() -> None:
    known = {metric.exported for metric in METRICS}
    text = (DOCS / "metrics.md").read_text()
    assert set(re.findall(r"\bstream_hash_\w+", text)) <= known
    source = "".join(p.read_text() for d in ("stream_hash", "workers") for p in (DOCS.parent / d).rglob("*.py"))
    events = re.findall(r"^\| `(\w+\.\w+)` ", text, re.M)
    assert events
    assert sorted(set(re.findall(r'told\(\s*"([\w.]+)"', source))) == sorted(events)
