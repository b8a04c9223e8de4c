"""Putting back what dead workers held, and taking out what would stop the living ones.

Rules
1. A worker renews the lease of the job it runs. A started job whose lease ran out is taken up by the one
   worker that removes its entry: removal and requeueing are one script, so any number of workers may look at
   once. (RQ's own clean-up, run twice at once, turned 200 jobs into 400.)
2. An id in the intermediate list belongs to a worker that is about to start it, for milliseconds. One that the
   same worker sees there for `patience` seconds is put back, again by one script.
3. Leases are compared across the clocks of the workers' hosts. A clock that is wrong by more than a lease
   costs a second delivery, never a loss. A lease beyond an hour is no lease of ours and has run out.
4. A key of the queue with the wrong type is renamed out of the way: every worker would end at it.
5. Nothing here is needed to keep a batch, only to deliver it sooner: the ledger's sweep finds the rest.
"""

from __future__ import annotations

import logging
from typing import Any, Final

from rq.exceptions import NoSuchJobError
from rq.job import JobStatus
from rq.job_lifecycle import record_job_failure
from rq.worker_registration import REDIS_WORKER_KEYS, WORKERS_BY_QUEUE_KEY

from stream_hash.logs import told
from stream_hash.queue import MalformedJobError, SafeJob, SafeQueue
from stream_hash.queue.safe_job import ID
from stream_hash.queue.safe_queue import MALFORMED_SECONDS, malformed_key

LONGEST_LEASE_SECONDS: Final = 3_600
MOST_ENTRIES: Final = 1_000
"""How many entries one call looks at, so that a flood of them does not keep a worker from its jobs."""

REQUEUE_STARTED: Final = """
if redis.call('ZREM', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('HINCRBY', KEYS[3], 'retries_left', -1)
redis.call('HSET', KEYS[3], 'status', 'queued')
return redis.call('RPUSH', KEYS[2], ARGV[2])
"""

REQUEUE_STRANDED: Final = """
if redis.call('LREM', KEYS[1], 1, ARGV[1]) == 0 then return 0 end
return redis.call('RPUSH', KEYS[2], ARGV[1])
"""

logger = logging.getLogger(__name__)


def move_wrong_types(queue: SafeQueue) -> None:
    """Rename the queue's own keys that have the wrong type, so that the right ones can be made."""
    types = {
        queue.key: b"list",
        queue.intermediate_queue_key: b"list",
        queue.started_job_registry.key: b"zset",
        queue.failed_job_registry.key: b"zset",
        WORKERS_BY_QUEUE_KEY % queue.name: b"set",
    }
    with queue.connection.pipeline(transaction=False) as pipeline:
        for key in types:
            pipeline.type(key)
        found = pipeline.execute()
    for (key, right), actual in zip(types.items(), found, strict=True):
        if actual not in (right, b"none"):
            kept = malformed_key(key)
            logger.warning("key %s is a %s, not a %s: renamed to %s", key, actual.decode(), right.decode(), kept)
            with queue.connection.pipeline() as pipeline:
                pipeline.rename(key, kept)
                pipeline.expire(kept, MALFORMED_SECONDS)
                pipeline.execute()


def requeue_abandoned(queue: SafeQueue, now: float) -> None:
    """Queue again the started jobs whose lease ran out before `now` (Unix seconds), while they may be retried."""
    key = queue.started_job_registry.key
    with queue.connection.pipeline(transaction=False) as pipeline:
        pipeline.zrangebyscore(key, "-inf", now, start=0, num=MOST_ENTRIES)
        pipeline.zrangebyscore(key, now + LONGEST_LEASE_SECONDS, "+inf", start=0, num=MOST_ENTRIES)
        expired, absurd = pipeline.execute()
    for entry in (*expired, *absurd):
        _requeue(queue, key, entry)


def _requeue(queue: SafeQueue, key: str, entry: bytes) -> None:
    job_id = entry.partition(b":")[0].decode("ascii", "replace")
    if not ID.fullmatch(job_id):
        logger.warning("queue %s: dropped the started entry %r: it is no job id", queue.name, entry[:80])
        queue.connection.zrem(key, entry)
        return
    try:
        job = SafeJob.fetch(job_id, queue.connection)
    except MalformedJobError as error:
        if queue.connection.zrem(key, entry) and error.origin in ("", queue.name):
            queue.set_aside(job_id, error.reason)
        return
    except NoSuchJobError:
        queue.connection.zrem(key, entry)
        return
    if job.origin != queue.name or job.get_status(refresh=False) != JobStatus.STARTED:
        # Queued again or failed by somebody else in the meantime.
        queue.connection.zrem(key, entry)
    elif job.retries_left:
        keys = [key, queue.key, job.key]
        if queue.connection.eval(REQUEUE_STARTED, len(keys), *keys, entry, job_id):
            logger.warning(
                "queue %s: job %s is queued again: its worker is gone",
                *(queue.name, job_id),
                extra=told("job.requeued", queue=queue.name, job=job_id),
            )
    elif queue.connection.zrem(key, entry):
        logger.error(
            "queue %s: job %s has failed: its workers are gone, every time",
            *(queue.name, job_id),
            extra=told("job.abandoned", queue=queue.name, job=job_id),
        )
        with queue.connection.pipeline() as pipeline:
            record_job_failure(job, "its worker went away, and it had no retries left", pipeline)
            pipeline.execute()


def requeue_stranded(queue: SafeQueue, first_seen: dict[bytes, float], now: float, *, patience_seconds: float) -> None:
    """Queue again what this worker has seen in the intermediate list for `patience_seconds`.

    first_seen : the worker's memory between calls: when it first saw each entry, on the clock of `now`.
    """
    present: set[Any] = set(queue.connection.lrange(queue.intermediate_queue_key, 0, MOST_ENTRIES - 1))
    for gone in first_seen.keys() - present:
        del first_seen[gone]
    for entry in present:
        if now - first_seen.setdefault(entry, now) >= patience_seconds:
            del first_seen[entry]
            keys = [queue.intermediate_queue_key, queue.key]
            if queue.connection.eval(REQUEUE_STRANDED, len(keys), *keys, entry):
                logger.warning(
                    "queue %s: %r is queued again: nobody started it",
                    *(queue.name, entry[:80]),
                    extra=told("job.requeued", queue=queue.name, job=entry[:80].decode(errors="replace")),
                )


def forget_dead(queue: SafeQueue, now: float) -> None:
    """Drop the workers that are gone from the directories of workers, and the failed jobs that expired."""
    by_queue = WORKERS_BY_QUEUE_KEY % queue.name
    keys: list[Any] = list(queue.connection.smembers(by_queue))
    with queue.connection.pipeline(transaction=False) as pipeline:
        pipeline.zremrangebyscore(queue.failed_job_registry.key, "-inf", now)
        for key in keys:
            pipeline.exists(key)
        _, *alive = pipeline.execute()
    dead = [key for key, lives in zip(keys, alive, strict=True) if not lives]
    if dead:
        with queue.connection.pipeline(transaction=False) as pipeline:
            pipeline.srem(by_queue, *dead)
            pipeline.srem(REDIS_WORKER_KEYS, *dead)
            pipeline.execute()
