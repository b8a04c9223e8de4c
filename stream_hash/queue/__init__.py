"""The queue: what this project uses of RQ, made safe for producers and workers alike.

Read broker (where the queue lives), arguments and safe_job (what a job may hold), safe_queue and sending (how jobs get
in and out), fleet (who is working). The workers themselves are in `workers/`.

What RQ 3.0 does that these modules undo
1. Loss: it falls back to BLPOP when a worker has two queues, or when the server's INFO is denied. Here a
   worker has one queue, and a job is always *moved* to the intermediate list (LMOVE), never popped.
2. Wedge: an unknown status, an illegal id or a key of the wrong type ends each worker that meets it. Here
   whatever is malformed is taken out of the way, and the worker goes on with the next job.
3. Attack: it unpickles by default, resolves any dotted path as a function or a callback, posts to any
   webhook, and decompresses without a bound. Here a job holds a function name, an index's name and what that
   function may be given (arguments.py), in bounded JSON; the name is looked up in an exact table, by the worker
   alone; the other fields are never read.
4. Double delivery: redis-py sends again after a lost reply, so a job id may stand in the queue twice. That
   is left as it is: a batch may be applied twice, and a job that finished leaves no key to find.
"""

from __future__ import annotations

from stream_hash.queue.arguments import (
    APPLY_BATCH,
    BUILD_CHUNK,
    TRAIN,
    ChunkArgument,
    TrainArgument,
    chunk_of,
    training_of,
)
from stream_hash.queue.broker import HASH_QUEUE, TRAIN_QUEUE, broker_for
from stream_hash.queue.fleet import WorkerInfo, live_workers
from stream_hash.queue.safe_job import JobFunction, MalformedJobError, SafeJob
from stream_hash.queue.safe_queue import SafeQueue, waiting_ids
from stream_hash.queue.sending import (
    batch_waits,
    chunk_job_id,
    enqueue_batch,
    enqueue_chunk,
    enqueue_training,
    job_id_of,
    training_is_pending,
)

__all__ = [
    "APPLY_BATCH",
    "BUILD_CHUNK",
    "HASH_QUEUE",
    "TRAIN",
    "TRAIN_QUEUE",
    "ChunkArgument",
    "JobFunction",
    "MalformedJobError",
    "SafeJob",
    "SafeQueue",
    "TrainArgument",
    "WorkerInfo",
    "batch_waits",
    "broker_for",
    "chunk_job_id",
    "chunk_of",
    "enqueue_batch",
    "enqueue_chunk",
    "enqueue_training",
    "job_id_of",
    "live_workers",
    "training_is_pending",
    "training_of",
    "waiting_ids",
]
