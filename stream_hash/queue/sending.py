"""Asking for work: a job of each kind is put on its queue in one transaction, and may be asked for again.

A job's id says what it asks for, so that asking twice replaces the first. The ids of two kinds never meet: each ends
with the length of the index's name, and with a letter of its own.
"""

from __future__ import annotations

from typing import Final

from redis import Redis
from rq.exceptions import NoSuchJobError
from rq.job import JobStatus, Retry

from stream_hash.queue.arguments import (
    APPLY_BATCH,
    BUILD_CHUNK,
    TRAIN,
    ChunkArgument,
    TrainArgument,
    check_argument,
)
from stream_hash.queue.safe_job import FAILURE_SECONDS, JOB_TIMEOUT_SECONDS, MAX_TIMEOUT_SECONDS, SafeJob
from stream_hash.queue.safe_queue import SafeQueue
from stream_hash.settings import check_name

RETRIES: Final = 3


def job_id_of(index: str, batch_id: str) -> str:
    """The id of the job that applies a batch. Two batches never share one: the index's length ends it.

    Raises UsageError when either is not a name.
    """
    return f"{check_name(index)}-{check_name(batch_id, 'batch id')}-{len(index)}"


def chunk_job_id(index: str, chunk: ChunkArgument) -> str:
    """The id of the job that builds a chunk."""
    return f"{check_name(index)}-{chunk.partition}-{chunk.generation}-{chunk.chunk}-{len(index)}c"


def batch_waits(queue: SafeQueue) -> bool:
    """Whether a batch waits on the queue, before which chunks are put: one round trip."""
    last = queue.connection.lindex(queue.key, -1)
    return isinstance(last, bytes) and not last.endswith(b"c")


def enqueue_batch(queue: SafeQueue, index: str, batch_id: str) -> str:
    """Ask for a batch to be applied: one round trip. Returns the job's id. May be repeated.

    Raises UsageError when either name is not one. Errors of redis-py pass through.
    """
    return _enqueue(queue, APPLY_BATCH, index, batch_id, job_id=job_id_of(index, batch_id))


def enqueue_chunk(queue: SafeQueue, index: str, chunk: ChunkArgument) -> str:
    """Ask for a chunk to be built, before any batch that waits. Returns the job's id.

    Whoever asks keeps few of them waiting, and asks again for what is lost: a failed one is not tried again.
    """
    return _enqueue(queue, BUILD_CHUNK, index, str(chunk), job_id=chunk_job_id(index, chunk), retries=0, at_front=True)


def enqueue_training(queue: SafeQueue, index: str, training: TrainArgument) -> str:
    """Ask a trainer for a run of training. Returns the job's id. Raises UsageError for a plan that is none."""
    job_id = training_job_id(index, training.request)
    return _enqueue(queue, TRAIN, index, str(training), job_id=job_id, timeout=MAX_TIMEOUT_SECONDS)


def training_job_id(index: str, request: str) -> str:
    """The id of the job that does what a request asks for. Raises UsageError when either is not a name."""
    return f"{check_name(index)}-{check_name(request, 'request')}-{len(index)}t"


def training_is_pending(broker: Redis, index: str, request: str) -> bool:
    """Whether a request is still to be done, or tried again: one round trip."""
    try:
        job = SafeJob.fetch(training_job_id(index, request), broker)
    except NoSuchJobError:
        return False
    return job.get_status(refresh=False) != JobStatus.FAILED


def _enqueue(
    queue: SafeQueue,
    function: str,
    index: str,
    argument: str,
    *,
    job_id: str,
    timeout: int = JOB_TIMEOUT_SECONDS,
    retries: int = RETRIES,
    at_front: bool = False,
) -> str:
    job = SafeJob.create(
        function,
        (index, check_argument(function, argument)),
        id=job_id,
        connection=queue.connection,
        origin=queue.name,
        description=function.rpartition(".")[2].replace("_", " "),
        timeout=timeout,
        result_ttl=0,
        failure_ttl=FAILURE_SECONDS,
        # Without an interval: RQ loses a job that waits for its interval when a worker is killed.
        retry=Retry(max=retries) if retries else None,
    )
    with queue.connection.pipeline() as pipeline:
        # Whatever stands there, of whatever type, would be merged with ours.
        pipeline.delete(job.key)
        queue.enqueue_job(job, pipeline=pipeline, at_front=at_front)
        pipeline.execute()
    return job_id
