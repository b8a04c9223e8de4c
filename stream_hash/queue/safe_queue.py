"""A queue that neither loses jobs nor stops at a malformed one.

Rules
1. Enqueueing is one transaction in one round trip: the hash is replaced and the id appended together, so no
   job is ever half there. A repeat after a lost reply appends the id twice; the second finds no hash, or
   applies the batch again, which is harmless.
2. A job id is moved from the queue to the intermediate list (LMOVE), and removed from there in the
   transaction that starts the job, or when it is dropped here. A worker that dies in between leaves it in the
   intermediate list, and workers/recovery.py puts it back.
3. A malformed hash of this queue is renamed to `sh:malformed-job:ID`, where it stays for seven days for
   someone to look at. A hash that says it is another queue's belongs to another application, and is left
   alone. In both cases the id is dropped, and the next job has its turn.
4. The ids in the lists are bytes that anybody may have written: they are matched before they are decoded.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, Final

from redis import Redis, ResponseError
from rq.defaults import RQ_KEY_PREFIX
from rq.exceptions import DequeueTimeout, NoSuchJobError
from rq.job import Job
from rq.queue import Queue
from rq.serializers import JSONSerializer

from stream_hash.errors import StreamHashError
from stream_hash.queue.broker import tag_of
from stream_hash.queue.safe_job import ID, MalformedJobError, SafeJob
from stream_hash.settings import check_name

MALFORMED_SECONDS: Final = 7 * 24 * 3_600

logger = logging.getLogger(__name__)


class SafeQueue(Queue):
    """RQ's Queue for SafeJob, with one list to take from."""

    job_class = SafeJob

    def __init__(self, name: str, connection: Redis, **_: object) -> None:
        """RQ passes a job class and a serializer of its own when it builds a queue; ours are fixed."""
        super().__init__(check_name(name, "queue name"), connection, job_class=SafeJob, serializer=JSONSerializer)

    def get_redis_server_version(self) -> tuple[int, int, int]:
        """The oldest server supported: RQ asks INFO, which costs a round trip and may be denied."""
        return (7, 0, 0)

    @classmethod
    def dequeue_any(
        cls,
        queues: Iterable[Queue],
        timeout: int | None,
        connection: Redis,
        job_class: object = None,  # noqa: ARG003 - RQ's signature; ours are fixed
        serializer: object = None,  # noqa: ARG003 - the same
        death_penalty_class: object = None,  # noqa: ARG003 - the same
    ) -> tuple[Job, Queue] | None:
        """The next job and its queue; None when there is none and `timeout` is None.

        Raises DequeueTimeout when none came in `timeout` seconds, and also after each dropped entry, so that
        a flood of malformed jobs does not keep a worker from hearing that it should stop.
        """
        names = [queue.name for queue in queues]
        if len(names) != 1:
            raise StreamHashError(
                f"a worker was given the queues {', '.join(names) or '(none)'}",
                why="RQ pops from several queues without an intermediate list, and loses what a dead worker held",
                remedy="start one process for each queue",
            )
        queue = cls(names[0], connection)
        while True:
            moved = cls.lmove(connection, queue.key, timeout)
            if moved is None:
                return None
            job = queue.claim(moved[1])
            if job is not None:
                return job, queue
            if timeout is not None:
                raise DequeueTimeout(timeout, queue.key)

    def claim(self, entry: bytes) -> SafeJob | None:
        """The job whose id is `entry` of the intermediate list; None when it was dropped."""
        if not ID.fullmatch(text := entry.decode("ascii", "replace")):
            logger.warning("queue %s: dropped the entry %r: it is no job id", self.name, entry[:80])
            self.connection.lrem(self.intermediate_queue_key, 1, entry)  # type: ignore[arg-type] # bytes are sent as they are
            return None
        try:
            job = SafeJob.fetch(text, self.connection)
        except MalformedJobError as error:
            if error.origin in ("", self.name):
                self.set_aside(text, error.reason)
                return None
            logger.warning("queue %s: dropped job %s of queue %r", self.name, text, error.origin[:80])
        except NoSuchJobError:
            logger.debug("queue %s: job %s is gone, so another delivery has finished it", self.name, text)
        else:
            if job.origin == self.name:
                return job
            logger.warning("queue %s: dropped job %s of queue %r", self.name, text, job.origin[:80])
        self.connection.lrem(self.intermediate_queue_key, 1, text)
        return None

    def set_aside(self, job_id: str, reason: str) -> None:
        """Rename the hash of a malformed job, and drop its id from the intermediate list."""
        kept = malformed_key(job_id)
        logger.warning("queue %s: job %s is set aside as %s: %s", self.name, job_id, kept, reason)
        with self.connection.pipeline() as pipeline:
            pipeline.lrem(self.intermediate_queue_key, 1, job_id)
            pipeline.rename(SafeJob.key_for(job_id), kept)
            pipeline.expire(kept, MALFORMED_SECONDS)
            replies = pipeline.execute(raise_on_error=False)
        # The hash may have expired meanwhile: then there is nothing to keep.
        for reply in replies:
            if isinstance(reply, ResponseError) and "no such key" not in str(reply):
                raise reply

    def get_job_ids(self, offset: int = 0, length: int = -1) -> list[str]:
        """A slice of the ids waiting, without the entries that are no ids."""
        if length == 0:
            return []
        end = offset + length - 1 if length > 0 else length
        return _ids(self.connection.lrange(self.key, offset, end))

    def setup_dependencies(self, job: Job, pipeline: Any = None) -> Job:  # noqa: ARG002 - RQ's signature
        """Nothing: our jobs depend on none, and what a hash claims is not read."""
        return job

    def move_dependents_to_ready(self, *_: object, **__: object) -> dict[str, list[str]]:
        """Nothing, for the same reason."""
        return {}


def malformed_key(name: str) -> str:
    """Where a malformed key is kept, in the hash slot of RQ's own keys: RENAME does not cross slots."""
    tag = tag_of(RQ_KEY_PREFIX)
    return f"sh:malformed-job:{tag}:{name}" if tag else f"sh:malformed-job:{name}"


def waiting_ids(broker: Redis, queue: SafeQueue) -> set[str]:
    """The ids of the jobs that wait, or are on their way to a worker, but have not begun: one round trip.

    Entries that are no ids are left out, and so is a list whose key has the wrong type.
    """
    with broker.pipeline(transaction=False) as pipeline:
        pipeline.lrange(queue.key, 0, -1)
        pipeline.lrange(queue.intermediate_queue_key, 0, -1)
        replies = pipeline.execute(raise_on_error=False)
    return {job_id for reply in replies if not isinstance(reply, ResponseError) for job_id in _ids(reply)}


def _ids(entries: Iterable[Any]) -> list[str]:
    texts = (entry.decode("ascii", "replace") for entry in entries)
    return [text for text in texts if ID.fullmatch(text)]
