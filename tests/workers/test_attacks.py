"""What somebody who can write to Redis may put into a job hash or a queue, and what comes of it: nothing.

Each attack stands in the queue in front of a good job. It must not run, and the worker must stay up and do
the good job behind it. The same hashes are given to RQ's own worker, to show that they bite.
"""

from __future__ import annotations

import json
import pickle
import socket
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import pytest
from rq import Queue, SimpleWorker
from rq.exceptions import NoSuchJobError
from rq.serializers import JSONSerializer
from rq.timeouts import TimerDeathPenalty
from rq.webhook import Webhook

from stream_hash.queue import (
    BUILD_CHUNK,
    HASH_QUEUE,
    TRAIN,
    MalformedJobError,
    SafeJob,
    SafeQueue,
    enqueue_batch,
    waiting_ids,
)
from stream_hash.queue.bounded import decompress
from stream_hash.queue.safe_queue import malformed_key
from tests.workers import sentinel
from tests.workers.hostile_jobs import hostile_jobs
from workers.base import StreamWorker

APPLY = "stream_hash.jobs.apply_batch"
RING = "tests.workers.sentinel.ring"
DATE = "2026-01-02T03:04:05.000006Z"
EVIL = "evil"
FLOOD = 600
"""Job hashes made up at random, before the one good job. `python -m benchmarks.attacks` sends more."""


def call(name: Any = APPLY, instance: Any = None, arguments: Any = ("items", "b1"), keywords: Any = None) -> bytes:
    """The data of a job as RQ's JSON serializer writes it."""
    return zlib.compress(json.dumps([name, instance, arguments, keywords or {}]).encode())


def job_hash(**fields: Any) -> dict[str, Any]:
    """The hash of a good job, but for `fields`; None leaves one out."""
    good = {
        "created_at": DATE,
        "data": call(),
        "origin": HASH_QUEUE,
        "status": "queued",
        "timeout": "120",
        "retries_left": "3",
        "enqueued_at": DATE,
    }
    return {name: value for name, value in {**good, **fields}.items() if value is not None}


def bomb(size: int = 64 * 1024 * 1024) -> bytes:
    return zlib.compress(b"[" + b" " * size + b"]")


ring_pickled = pickle.dumps(sentinel.Pickled())

SET_ASIDE: dict[str, dict[str, Any]] = {
    "os.system": job_hash(data=call("os.system", None, ["touch /nowhere", "b1"])),
    "os.system with one argument": job_hash(data=call("os.system", None, ["true"])),
    "builtins.eval": job_hash(data=call("builtins.eval", None, ["1"])),
    "builtins.exec of two names": job_hash(data=call("builtins.exec", None, ["items", "b1"])),
    "a function of the project that is no job": job_hash(data=call("stream_hash.jobs.FUNCTIONS.get")),
    "a function of the tests": job_hash(data=call(RING)),
    "our function in other letters": job_hash(data=call(APPLY.upper())),
    "our function with blanks": job_hash(data=call(f" {APPLY}")),
    "a method of an instance": job_hash(data=call("format", "{0.__class__}")),
    "a pickled call": job_hash(data=zlib.compress(pickle.dumps((RING, None, (), {})))),
    "a pickled object": job_hash(data=zlib.compress(ring_pickled)),
    "a pickled object, not compressed": job_hash(data=ring_pickled),
    "no arguments": job_hash(data=call(arguments=[])),
    "three arguments": job_hash(data=call(arguments=["items", "b1", "b2"])),
    "arguments that are no list": job_hash(data=call(arguments="ab")),
    **{
        f"a chunk that is {argument!r}": job_hash(data=call(BUILD_CHUNK, arguments=["items", argument]))
        for argument in (
            *("", "0:1", "0:1:2:3", "a:1:0", "-1:1:0", "0:-1:0", " 0:1:0", "0:1:0\n", "00:1:0", "0:01:0", "0:1:+2"),
            *("0:0:0", "1024:1:0", "0:1:16384", "0:1000000000:0", "0:1:99999999999999999999", "٠:١:٠", "0:1:0\0"),
            *("0:1e3:0", "0:0x1:0", "b1"),
        )
    },
    **{
        f"a request to train that is {argument[:60]!r}": job_hash(data=call(TRAIN, arguments=["items", argument]))
        for argument in (
            *("", "r1", "[]", "null", "7", '"r1"', "{}", '{"request": 7}', '{"request": "a b"}', '{"request": null}'),
            *('{"request": "r", "learner": "os.system"}', '{"request": "r", "learner": ["pa"]}'),
            *('{"request": "r", "window": 0}', '{"request": "r", "window": 1e3}', '{"request": "r", "window": true}'),
            *('{"request": "r", "window": 1000001}', '{"request": "r", "window": "20000"}'),
            *(
                '{"request": "r", "margin": NaN}',
                '{"request": "r", "margin": Infinity}',
                '{"request": "r", "margin": -1}',
            ),
            *('{"request": "r", "margin": 1}', '{"request": "r", "margin": true}', '{"request": "r", "force": 1}'),
            *('{"request": "r", "force": null}', '{"request": "r", "dry_run": "yes"}', '{"request": "r", "other": 1}'),
            *('{"request": "r", "__class__": 1}', '{"request": "r", "request": "s"}', '{"request": "r"} ' + "x"),
            *("[" * 2_000, '{"request": "r", "window": ' + "9" * 2_000 + "}", '{"request": "r", "a": {"b": []}}'),
        )
    },
    "a chunk for a function of batches": job_hash(data=call(arguments=["items", "0:1:0"])),
    "a request to train, of a hash worker": job_hash(data=call(TRAIN, arguments=["items", '{"request": "r"}'])),
    "a chunk of an index with a brace": job_hash(data=call(BUILD_CHUNK, arguments=["a}b", "0:1:0"])),
    "arguments that are numbers": job_hash(data=call(arguments=[1, 2])),
    "arguments that are lists": job_hash(data=call(arguments=[["items"], ["b1"]])),
    "an index name with a brace": job_hash(data=call(arguments=["a}b", "b1"])),
    "a batch id with a slash": job_hash(data=call(arguments=["items", "../../etc"])),
    "a name of 65 letters": job_hash(data=call(arguments=["x" * 65, "b1"])),
    "keyword arguments": job_hash(data=call(keywords={"context": 1})),
    "data that is no JSON": job_hash(data=zlib.compress(b"{'a': 1}")),
    "data that is no list": job_hash(data=zlib.compress(b'{"a": 1}')),
    "data that is deeply nested": job_hash(data=zlib.compress(b"[" * 3_000)),
    "data that is not UTF-8": job_hash(data=zlib.compress(b'["\xff", null, [], {}]')),
    "data with a huge number": job_hash(data=zlib.compress(b"[" + b"9" * 4_000 + b"]")),
    "data that is cut short": job_hash(data=call()[:-6]),
    "data that is empty": job_hash(data=b""),
    "a zlib bomb": job_hash(data=bomb()),
    "a small zlib bomb": job_hash(data=bomb(3 * 1024 * 1024)),
    "data of 5,000 bytes": job_hash(data=b"x" * 5_000),
    "an unknown status": job_hash(status="hacked"),
    "a status that is not UTF-8": job_hash(status=b"\xff\xfe"),
    "no status": job_hash(status=None),
    "no data": job_hash(data=None),
    "no origin": job_hash(origin=None),
    "no timeout": job_hash(timeout=None),
    "no creation date": job_hash(created_at=None),
    "only a heartbeat": {"last_heartbeat": DATE},
    "a date that is none": job_hash(created_at="yesterday"),
    "a thirteenth month": job_hash(created_at="2026-13-01T00:00:00.000000Z"),
    "a date that is not UTF-8": job_hash(created_at=b"\xff"),
    "a date of 5,000 letters": job_hash(created_at="9" * 5_000),
    "a timeout of minus one, which is none": job_hash(timeout="-1"),
    "a timeout of zero": job_hash(timeout="0"),
    "a timeout of an age": job_hash(timeout="99999999999999999999"),
    "a timeout with a unit": job_hash(timeout="120s"),
    "a timeout in Arabic digits": job_hash(timeout="١٢٠"),
    "a timeout that is not a number": job_hash(timeout="nan"),
    "retries without end": job_hash(retries_left="1000000000"),
    "negative retries": job_hash(retries_left="-1"),
    "retries that are no number": job_hash(retries_left="many"),
}
"""Hashes that are no jobs of ours: each is renamed, and looked at by nobody but an operator."""

IGNORED: dict[str, dict[str, Any]] = {
    "a success callback": job_hash(success_callback_name=RING),
    "a failure callback": job_hash(failure_callback_name=RING),
    "a stopped callback": job_hash(stopped_callback_name=RING),
    "callbacks that do not exist": job_hash(success_callback_name="no.such", failure_callback_name=b"\xff"),
    "absurd callback timeouts": job_hash(success_callback_timeout="soon", failure_callback_timeout=b"\xff"),
    "a pickled meta": job_hash(meta=ring_pickled),
    "a pickled result": job_hash(result=ring_pickled),
    "a bomb as exc_info": job_hash(exc_info=bomb()),
    "a dependency on a missing job": job_hash(dependency_id="gone", dependency_ids='["gone"]'),
    "dependencies that are no JSON": job_hash(dependency_ids=b"\xff"),
    "a group that does not exist": job_hash(group_id="gone"),
    "repeats": job_hash(repeats_left="5", repeat_intervals="[0, 0, 0, 0, 0]"),
    "a rate limit": job_hash(rate_limit_key="k", rate_limit_concurrency="1"),
    "retry intervals, which RQ loses": job_hash(retry_intervals="[3600]"),
    "an absurd result_ttl": job_hash(result_ttl="-1"),
    "an absurd failure_ttl": job_hash(failure_ttl="for ever"),
    "other dates that are none": job_hash(enqueued_at="x", started_at="x", ended_at="x", last_heartbeat="x"),
    "a worker name that is not UTF-8": job_hash(worker_name=b"\xff"),
    "a description that is not UTF-8": job_hash(description=b"\xff"),
    "a thousand other fields": {**job_hash(), **{f"field-{n}": "x" for n in range(1_000)}},
}
"""Fields that are not read: the job is a good one without them, and is done as such."""


@dataclass
class Done:
    """The batches that a worker under test has applied."""

    batches: list[tuple[str, str]] = field(default_factory=list)

    def apply(self, context: object, index: str, batch: str) -> None:
        assert context == "context"
        self.batches.append((index, batch))


@pytest.fixture
def done() -> Done:
    return Done()


@pytest.fixture(autouse=True)
def untouched() -> Iterator[None]:
    """Whatever a test does, nobody rings the sentinel."""
    sentinel.RUNG.clear()
    yield
    assert sentinel.RUNG == []


@pytest.fixture
def work(broker: Any, done: Done) -> Callable[[], None]:
    """Work the queue until it is empty."""

    def work() -> None:
        functions = {APPLY: done.apply}
        StreamWorker(HASH_QUEUE, broker, functions=functions, context="context", signals=False).work(burst=True)

    return work


def plant(broker: Any, fields: dict[str, Any], job_id: str = EVIL) -> None:
    """Put a hash in place and its id into the queue, as its attacker would."""
    broker.hset(SafeJob.key_for(job_id), mapping=fields)
    broker.rpush(SafeQueue(HASH_QUEUE, broker).key, job_id)


def assert_lists_are_empty(broker: Any) -> None:
    queue = SafeQueue(HASH_QUEUE, broker)
    assert broker.lrange(queue.key, 0, -1) == []
    assert broker.lrange(queue.intermediate_queue_key, 0, -1) == []
    assert broker.zrange(queue.started_job_registry.key, 0, -1) == []


@pytest.mark.parametrize("name", SET_ASIDE)
def test_a_malformed_job_is_set_aside_and_the_next_one_is_done(
    name: str, broker: Any, queue: SafeQueue, done: Done, work: Callable[[], None]
) -> None:
    plant(broker, SET_ASIDE[name])
    enqueue_batch(queue, "items", "good")
    work()
    assert done.batches == [("items", "good")]
    assert_lists_are_empty(broker)
    assert not broker.exists(SafeJob.key_for(EVIL))
    assert set(broker.hkeys(malformed_key(EVIL))) == {field.encode() for field in SET_ASIDE[name]}
    assert 0 < broker.ttl(malformed_key(EVIL)) <= 7 * 24 * 3_600


def test_a_flood_of_malformed_jobs_is_set_aside_and_the_last_one_is_done(
    broker: Any, queue: SafeQueue, done: Done, work: Callable[[], None]
) -> None:
    for number, fields in enumerate(islice(hostile_jobs(seed=1), FLOOD)):
        plant(broker, fields, f"evil-{number}")
    enqueue_batch(queue, "items", "good")
    work()
    assert done.batches == [("items", "good")]
    assert_lists_are_empty(broker)
    assert sum(broker.exists(malformed_key(f"evil-{number}")) for number in range(FLOOD)) == FLOOD


@pytest.mark.parametrize("name", IGNORED)
def test_what_a_job_hash_says_besides_the_call_is_not_read(
    name: str, broker: Any, queue: SafeQueue, done: Done, work: Callable[[], None]
) -> None:
    plant(broker, IGNORED[name])
    enqueue_batch(queue, "items", "good")
    work()
    assert done.batches == [("items", "b1"), ("items", "good")]
    assert_lists_are_empty(broker)
    assert not [key for key in broker.keys("*") if EVIL.encode() in key]


@pytest.mark.parametrize("name", [name for name in IGNORED if "callback" in name])
def test_callbacks_of_a_job_that_fails_are_not_read_either(name: str, broker: Any, done: Done) -> None:
    def fail(_context: object, _index: str, _batch: str) -> None:
        raise ValueError("no")

    plant(broker, {**IGNORED[name], "retries_left": "0"})
    StreamWorker(HASH_QUEUE, broker, functions={APPLY: fail}, context=None, signals=False).work(burst=True)
    assert_lists_are_empty(broker)
    assert broker.hget(SafeJob.key_for(EVIL), "status") == b"failed"


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        yield listening


def webhooks(listener: socket.socket) -> dict[str, Any]:
    """The hash of a good job with webhooks that call `listener`."""
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    hooks = [Webhook(url, "finished", timeout=1), Webhook(url, "failed", timeout=1)]
    return job_hash(webhooks=json.dumps([hook.to_dict() for hook in hooks]))


def test_a_webhook_is_not_called(listener: socket.socket, broker: Any, done: Done, work: Callable[[], None]) -> None:
    plant(broker, webhooks(listener))
    work()
    assert done.batches == [("items", "b1")]
    with pytest.raises(BlockingIOError):
        listener.accept()


ENTRIES = {
    "not UTF-8": b"\xff\xfe\xfd",
    "empty": b"",
    "a colon": b"evil:1",
    "a blank": b"evil id",
    "a newline": b"evil\n",
    "a null byte": b"evil\0",
    "digits of another script": "١٢".encode(),
    "a long one": b"x" * 5_000,
}


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=list(ENTRIES))
def test_an_entry_of_the_queue_that_is_no_id_is_dropped(
    entry: bytes, broker: Any, queue: SafeQueue, done: Done, work: Callable[[], None]
) -> None:
    broker.rpush(queue.key, entry)
    enqueue_batch(queue, "items", "good")
    assert queue.get_job_ids() == ["items-good-5"]
    assert waiting_ids(broker, queue) == {"items-good-5"}
    work()
    assert done.batches == [("items", "good")]
    assert_lists_are_empty(broker)


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=list(ENTRIES))
def test_an_entry_of_the_intermediate_list_that_is_no_id_is_dropped(
    entry: bytes, broker: Any, queue: SafeQueue, done: Done
) -> None:
    broker.rpush(queue.intermediate_queue_key, entry)
    enqueue_batch(queue, "items", "good")
    assert waiting_ids(broker, queue) == {"items-good-5"}
    worker = StreamWorker(
        HASH_QUEUE, broker, functions={APPLY: done.apply}, context="context", signals=False, maintenance_seconds=0
    )
    # Seen once, then seen for too long, put back into the queue, and dropped from there.
    worker.work(burst=True)
    worker.run_maintenance_tasks()
    worker.work(burst=True)
    assert done.batches == [("items", "good")]
    assert_lists_are_empty(broker)


STARTED = {
    "not UTF-8": b"\xff:1",
    "no execution": b"evil",
    "too many parts": b"evil:1:2:3",
    "empty": b"",
    "a job that is gone": b"evil:1",
}


@pytest.mark.parametrize("entry", STARTED.values(), ids=list(STARTED))
@pytest.mark.parametrize("score", [0.0, float("inf"), float("-inf"), 1e300])
def test_a_poisoned_registry_of_started_jobs_is_cleaned(
    entry: bytes, score: float, broker: Any, queue: SafeQueue, done: Done, work: Callable[[], None]
) -> None:
    broker.zadd(queue.started_job_registry.key, {entry: score})
    enqueue_batch(queue, "items", "good")
    work()
    assert done.batches == [("items", "good")]
    assert_lists_are_empty(broker)


WRONG_TYPES: dict[str, Callable[[Any, str], Any]] = {
    "a string": lambda broker, key: broker.set(key, "x"),
    "a list": lambda broker, key: broker.rpush(key, "x"),
    "a set": lambda broker, key: broker.sadd(key, "x"),
    "a sorted set": lambda broker, key: broker.zadd(key, {"x": 1}),
    "a stream": lambda broker, key: broker.xadd(key, {"x": 1}),
}


@pytest.mark.parametrize("kind", WRONG_TYPES)
def test_a_job_key_of_the_wrong_type_is_set_aside(
    kind: str, broker: Any, queue: SafeQueue, done: Done, work: Callable[[], None]
) -> None:
    WRONG_TYPES[kind](broker, SafeJob.key_for(EVIL))
    broker.rpush(queue.key, EVIL)
    enqueue_batch(queue, "items", "good")
    work()
    assert done.batches == [("items", "good")]
    assert_lists_are_empty(broker)
    assert broker.exists(malformed_key(EVIL))
    assert not broker.exists(SafeJob.key_for(EVIL))


@pytest.mark.parametrize("which", ["queue", "intermediate", "started", "failed", "workers"])
def test_a_key_of_the_queue_of_the_wrong_type_is_set_aside(
    which: str, broker: Any, queue: SafeQueue, done: Done, work: Callable[[], None]
) -> None:
    key = {
        "queue": queue.key,
        "intermediate": queue.intermediate_queue_key,
        "started": queue.started_job_registry.key,
        "failed": queue.failed_job_registry.key,
        "workers": f"rq:workers:{HASH_QUEUE}",
    }[which]
    broker.hset(key, "x", "y")
    assert waiting_ids(broker, queue) == set()
    work()
    enqueue_batch(queue, "items", "good")
    work()
    assert done.batches == [("items", "good")]
    assert broker.hgetall(malformed_key(key)) == {b"x": b"y"}


def test_a_good_enqueue_replaces_whatever_stands_in_its_place(
    broker: Any, queue: SafeQueue, done: Done, work: Callable[[], None]
) -> None:
    broker.set(SafeJob.key_for("items-good-5"), "a string")
    enqueue_batch(queue, "items", "good")
    work()
    assert done.batches == [("items", "good")]


def test_a_job_of_another_application_is_left_alone(
    broker: Any, queue: SafeQueue, done: Done, work: Callable[[], None]
) -> None:
    theirs = {"origin": "default", "status": "queued", "data": zlib.compress(ring_pickled), "created_at": DATE}
    plant(broker, theirs, "theirs")
    plant(broker, job_hash(origin="stream-hash-train"), "trainers")
    enqueue_batch(queue, "items", "good")
    work()
    assert done.batches == [("items", "good")]
    assert_lists_are_empty(broker)
    assert broker.hget(SafeJob.key_for("theirs"), "status") == b"queued"
    assert broker.exists(SafeJob.key_for("trainers"))


def test_a_bomb_takes_no_memory(server: Any) -> None:
    bombs = {"long": bomb(300 * 1024 * 1024), "short": bomb(3 * 1024 * 1024), "field": b"x" * 32 * 1024 * 1024}
    for name, data in bombs.items():
        server.hset(SafeJob.key_for(name), mapping=job_hash(data=data, exc_info=bombs["long"]))
    del data
    small = bombs["short"]
    bombs.clear()
    tracemalloc.start()
    try:
        for name in ("long", "short", "field"):
            with pytest.raises(MalformedJobError):
                SafeJob.fetch(name, server)
        with pytest.raises(ValueError, match="more than 4096 bytes"):
            decompress(small, 4_096)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


@pytest.mark.parametrize("job_id", ["", "a:b", "a b", "ü", "x" * 161, "a\n", None, 7, b"a"])
def test_fetching_an_illegal_id_finds_no_job(job_id: Any, broker: Any) -> None:
    with pytest.raises(NoSuchJobError):
        SafeJob.fetch(job_id, broker)
    if isinstance(job_id, str):
        assert SafeJob.fetch_many([job_id], broker) == [None]


def test_reading_a_malformed_job_changes_nothing(broker: Any) -> None:
    plant(broker, SET_ASIDE["an unknown status"])
    with pytest.raises(MalformedJobError, match="status"):
        SafeJob.fetch(EVIL, broker)
    assert broker.exists(SafeJob.key_for(EVIL))


def test_a_job_runs_nothing_by_itself(broker: Any, queue: SafeQueue) -> None:
    plant(broker, job_hash(data=call(RING)))
    job = SafeJob.fetch(EVIL, broker)
    for run in (lambda: job.func, job.perform, job._execute):
        with pytest.raises(RuntimeError, match="StreamWorker"):
            run()
    assert job.get_meta() == {}
    assert job.results() == []
    assert job.latest_result() is None


BITES = {
    "a function by its dotted path": job_hash(data=call(RING, None, ["true"])),
    "a pickled object": job_hash(data=zlib.compress(ring_pickled)),
    "a success callback": job_hash(data=call("builtins.len", None, ["x"]), success_callback_name=RING),
    "a failure callback": job_hash(data=call("builtins.len", None, [1]), failure_callback_name=RING),
    "a pickled meta": job_hash(meta=ring_pickled),
}


def work_as_rq_does(server: Any, serializer: Any) -> None:
    class ThreadWorker(SimpleWorker):
        death_penalty_class = TimerDeathPenalty

        def _install_signal_handlers(self) -> None:
            pass

    queue = Queue(HASH_QUEUE, connection=server, serializer=serializer)
    ThreadWorker([queue], connection=server, serializer=serializer).work(burst=True)


@pytest.mark.parametrize("name", BITES)
def test_the_same_attacks_reach_the_sentinel_through_rq_itself(name: str, server: Any) -> None:
    plant(server, BITES[name])
    work_as_rq_does(server, None if "pickled" in name else JSONSerializer)
    assert sentinel.RUNG
    sentinel.RUNG.clear()


def test_the_same_webhook_is_called_by_rq_itself(listener: socket.socket, server: Any) -> None:
    plant(server, webhooks(listener) | {"data": call("builtins.len", None, ["x"])})
    work_as_rq_does(server, JSONSerializer)
    listener.accept()[0].close()


@pytest.mark.parametrize("name", ["an unknown status", "a date that is none"])
def test_the_same_malformed_hash_ends_a_worker_of_rq_before_the_next_job(name: str, server: Any) -> None:
    plant(server, SET_ASIDE[name])
    queue = Queue(HASH_QUEUE, connection=server, serializer=JSONSerializer)
    queue.enqueue("builtins.len", "x")
    work_as_rq_does(server, JSONSerializer)
    assert queue.count == 1
