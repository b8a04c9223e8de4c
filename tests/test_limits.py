"""Limits: each holds at its border, and the page that lists them says what they are."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fakeredis
import numpy as np
import pytest

from stream_hash import Index, Producer, settings
from stream_hash.environment import MOST_SECRET_BYTES
from stream_hash.errors import StreamHashError
from stream_hash.formats import npy_header, records
from stream_hash.queue import arguments, safe_job
from stream_hash.queue.bounded import decompress, read_fields
from stream_hash.service import filters
from stream_hash.service.connections import Connections
from stream_hash.service.filters import Filter
from stream_hash.service.plan import Plan
from stream_hash.service.roles import LEAST_PASSWORD
from stream_hash.settings import IndexSettings, check_id, check_name, label_text, metadata_text
from stream_hash.storage import codec, ledger
from stream_hash.storage.codec import Batch, decode_batch, encode_batch
from stream_hash.storage.ledger import Ledger
from stream_hash.storage.store import Store

PAGE = (Path(__file__).parents[1] / "docs" / "security.md").read_text()


def index() -> tuple[Index, Connections]:
    connections = Connections(fakeredis.FakeRedis(), fakeredis.FakeRedis())
    return Index.create("x", IndexSettings(4), connections), connections


def producer(dimension: int = 4, **options: Any) -> Producer:
    connections = Connections(fakeredis.FakeRedis(), fakeredis.FakeRedis())
    Index.create("x", IndexSettings(dimension), connections)
    return Producer("x", connections, **options)


def deletes(count: int) -> Batch:
    return Batch("delete", [str(number) for number in range(count)])


def nested(levels: int) -> dict[str, Any]:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value  # type: ignore[no-any-return]  # a dict from the first level on


def fill(pending: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stream_hash.producer.enqueue_batch", lambda *_: None)
        one = producer(max_pending=3, when_full="raise")
        for _ in range(pending):
            one.submit(deletes(1))


def vectors_at_once() -> int:
    """How many of the longest vectors a batch has room for."""
    return settings.MAX_BATCH_BYTES // (4 * settings.MAX_DIMENSION)


def field_of(size: int) -> None:
    server = fakeredis.FakeRedis()
    server.hset("job", "data", b"a" * size)
    reply = read_fields(server, "job", ["data"], safe_job.MAX_FIELD_BYTES)
    if not isinstance(reply, list):
        raise ValueError(reply)


def plan_of(field: str) -> Callable[[int], object]:
    return lambda value: Plan(**{field: value})


LIMITS: dict[str, tuple[int, Callable[[int], object]]] = {
    "coordinates of a vector": (settings.MAX_DIMENSION, IndexSettings),
    "bits": (settings.MAX_BITS, lambda n: IndexSettings(4, bits=n)),
    "tables": (settings.MAX_TABLES, lambda n: IndexSettings(4, tables=n)),
    "partitions": (settings.MAX_PARTITIONS, lambda n: IndexSettings(4, partitions=n)),
    "letters of a name": (64, lambda n: check_name("a" * n)),
    "bytes of an id": (settings.MAX_ID_BYTES, lambda n: check_id("é" * (n // 2) + "a" * (n % 2))),
    "bytes of a label": (settings.MAX_LABEL_BYTES, lambda n: label_text("a" * (n - 2))),
    "bytes of metadata": (settings.MAX_METADATA_BYTES, lambda n: metadata_text({"a": "b" * (n - 8)})),
    "levels of metadata": (settings.MAX_METADATA_DEPTH, lambda n: metadata_text(nested(n))),
    "items of a batch": (settings.MAX_BATCH_ITEMS, lambda n: producer().submit(deletes(n))),
    "items of a batch, read": (settings.MAX_BATCH_ITEMS, lambda n: decode_batch(encode_batch(deletes(n)))),
    "items of a batch, by choice": (settings.MAX_BATCH_ITEMS, lambda n: producer(batch_items=n)),
    "vectors of a batch, by choice": (vectors_at_once(), lambda n: producer(settings.MAX_DIMENSION, batch_items=n)),
    "pending batches": (3, fill),
    "results": (settings.MAX_RESULTS, lambda n: index()[0].query(np.ones(4), k=n)),
    "budget": (settings.MAX_CANDIDATES, plan_of("budget")),
    "fetch": (settings.MAX_CANDIDATES, plan_of("fetch")),
    "conditions of a filter": (filters.MAX_CONDITIONS, lambda n: Filter.of({f"key{i}": 1 for i in range(n)})),
    "bytes of a filter's key": (filters.MAX_KEY_BYTES, lambda n: Filter.of({"a" * n: 1})),
    "items of a training window": (
        arguments.MAX_ITEMS,
        lambda n: arguments.training_of(json.dumps({"request": "r", "window": n})),
    ),
    "partition of a chunk": (settings.MAX_PARTITIONS - 1, lambda n: arguments.chunk_of(f"{n}:1:0")),
    "chunk of a partition": (arguments.MAX_CHUNKS - 1, lambda n: arguments.chunk_of(f"0:1:{n}")),
    "bytes of a job's data": (
        safe_job.MAX_DATA_BYTES,
        lambda n: decompress(zlib.compress(b"a" * n), safe_job.MAX_DATA_BYTES),
    ),
    "bytes of a job's field": (safe_job.MAX_FIELD_BYTES, field_of),
}
"""What, how much of it, and who is given as much."""


@pytest.mark.parametrize("what", LIMITS)
def test_as_much_as_the_limit_is_taken_and_one_more_is_refused(what: str) -> None:
    limit, give = LIMITS[what]
    give(limit)
    with pytest.raises((StreamHashError, ValueError)) as caught:
        give(limit + 1)
    if isinstance(caught.value, StreamHashError) and what != "items of a training window":  # only a forger meets that
        assert str(limit) in f"{caught.value} {caught.value.why}", "the message does not name the limit"


def test_a_batch_that_is_too_many_bytes_is_neither_accepted_nor_read(monkeypatch: pytest.MonkeyPatch) -> None:
    one, limit = deletes(1), len(encode_batch(deletes(1)))
    for module in (codec, ledger):
        monkeypatch.setattr(module, "MAX_PAYLOAD_BYTES", limit)
    client = fakeredis.FakeRedis()
    Store(client, "x").create(IndexSettings(2))
    accepting = Ledger(client, "x")
    accepting.accept("b", one, lease_until=0)
    decode_batch(encode_batch(one))
    for call in (
        lambda: accepting.accept("c", deletes(5), lease_until=0),
        lambda: decode_batch(encode_batch(deletes(5))),
    ):
        with pytest.raises(StreamHashError, match="bytes") as caught:
            call()
        assert str(limit) in caught.value.why


def test_what_a_batch_may_hold_fits_into_what_is_accepted() -> None:
    texts = settings.MAX_ID_BYTES + settings.MAX_LABEL_BYTES + settings.MAX_METADATA_BYTES + 32
    assert settings.MAX_BATCH_BYTES + settings.MAX_BATCH_ITEMS * texts <= settings.MAX_PAYLOAD_BYTES


def test_a_radius_beyond_the_bits_is_all_there_is() -> None:
    opened, _ = index()
    assert opened.query(np.ones(4), k=1, radius=10**30)[0].results == []


def test_the_page_of_limits_says_what_they_are() -> None:
    said = {cell.strip() for line in PAGE.splitlines() if line.startswith("| ") for cell in line.split("|")}
    numbers = [limit for limit, _ in LIMITS.values() if limit not in (3, vectors_at_once(), 1_023, 16_383)]
    sizes = [settings.MAX_BATCH_BYTES, settings.MAX_PAYLOAD_BYTES, records.MAX_LINE_BYTES]
    numbers += [safe_job.MAX_TIMEOUT_SECONDS, npy_header.MAX_HEADER_BYTES, LEAST_PASSWORD, MOST_SECRET_BYTES]
    wanted = {f"{number:,}" for number in numbers} | {f"{size // 2**20} MiB" for size in sizes}
    assert wanted | {f"{records.MAX_EXPANDED_BYTES // 2**30} GiB"} <= said
