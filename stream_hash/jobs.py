"""The jobs that workers know, by exact dotted name: hash workers some, trainers others. Nothing else is ever run."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Final

from redis import exceptions
from rq.timeouts import JobTimeoutException

from stream_hash.errors import GenerationGoneError, IndexMissingError, StreamHashError
from stream_hash.logs import milliseconds_since, told
from stream_hash.priority import at_low_priority
from stream_hash.queue import APPLY_BATCH, BUILD_CHUNK, TRAIN, chunk_of
from stream_hash.service.context import Context
from stream_hash.service.handle import IndexHandle
from stream_hash.service.ingest import LEASE_MILLISECONDS, Applied
from stream_hash.service.ingest import apply_batch as apply_to
from stream_hash.service.reindex import build_chunk as build
from stream_hash.service.schedule import Trainers
from stream_hash.storage.server_clock import server_milliseconds
from stream_hash.storage.store import index_names
from stream_hash.storage.tallies import FailureKind

AT_ONCE: Final = 100
"""Batches of an index that are applied without the queue, before the worker looks again whether it can use it."""

log = logging.getLogger("stream_hash.jobs")

_SERVER_FAULTS: Final = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.OutOfMemoryError,
    exceptions.ReadOnlyError,
    exceptions.ClusterDownError,
)
"""Errors that say nothing about a batch: the attempt does not count, if the server can still be told so."""

_SERVER_REFUSALS: Final = ("MISCONF", "NOREPLICAS", "MASTERDOWN")
"""What the same is told by, for which redis-py has no class: a full disk, too few replicas, a replica on its own."""


def apply_batch(context: Context, index: str, batch: str) -> None:
    """Apply a pending batch; an error gives it back to the ledger with its reason, and is raised again.

    Of an index that is gone nothing is pending, and nothing is to be done.
    """
    start = time.perf_counter()
    try:
        handle = context.index(index)
    except IndexMissingError:
        return _gone(context, index, batch)
    try:
        _tell(handle, batch, apply_to(handle, batch, scorer=context.scorer), start)
    except IndexMissingError:
        return _gone(context, index, batch)
    except Exception as error:
        blame_server = _is_of_the_server(error)
        try:
            reason = f"{type(error).__name__}: {error}"
            now = server_milliseconds(handle.client, index)
            handle.ledger.release(batch, now=now, failure=reason, blame_server=blame_server, kind=_kind_of(error))
        except exceptions.RedisError:
            # the lease runs out by itself, and the sweep takes the batch up again
            log.warning("batch %s of index %s could not be given back", batch, index, exc_info=True)
        raise


def _tell(handle: IndexHandle, batch: str, applied: Applied | None, start: float) -> None:
    if applied is None:
        return  # somebody else has finished it, and told
    rejected = len(applied.rejected)
    items = len(applied.outcomes) + rejected
    ms = milliseconds_since(start)
    log.log(
        logging.WARNING if rejected else logging.DEBUG,
        "batch %s of index %s: %d items in %.1f ms, %d rejected",
        *(batch, handle.name, items, ms, rejected),
        extra=told(
            "batch.rejected" if rejected else "batch.applied",
            generation=max((state.live for state in handle.states), default=0),
            items=items,
            rejected=rejected,
            ms=ms,
        ),
    )


def _kind_of(error: Exception) -> FailureKind:
    if _is_of_the_server(error):
        return "server"
    if isinstance(error, JobTimeoutException):
        return "timeout"
    return "memory" if isinstance(error, MemoryError) else "error"


def _gone(context: Context, index: str, batch: str) -> None:
    """The next job opens the index anew: one of its name may be created."""
    context.forget(index)
    log.warning("batch %s is not applied: there is no index %s (any more)", batch, index)


def apply_overdue(context: Context) -> int:
    """Apply, without the queue, some of what is due; how many batches.

    A server that is out of memory gives no job away, since RQ's lists would grow. What was accepted can be applied all
    the same, and has to be: deletes among it are what gives memory back.
    """
    applied = 0
    for name in index_names(context.client):
        try:
            ledger = context.index(name).ledger
        except (IndexMissingError, exceptions.NoPermissionError):
            continue  # being created or dropped, or another account's
        now = server_milliseconds(context.client, name)
        for batch in ledger.lease_overdue(now, now + LEASE_MILLISECONDS, AT_ONCE):
            try:
                apply_batch(context, name, batch)
                applied += 1
            except (exceptions.ResponseError, StreamHashError):
                log.exception("batch %s of index %s could not be applied", batch, name)
    return applied


def _is_of_the_server(error: Exception) -> bool:
    if isinstance(error, exceptions.ResponseError) and str(error).startswith(_SERVER_REFUSALS):
        return True
    return isinstance(error, _SERVER_FAULTS)


def build_chunk(context: Context, index: str, argument: str) -> None:
    """Put a chunk of items into the generation that is being built; when it is not (any more), nothing is done."""
    chunk = chunk_of(argument)
    try:
        handle = context.index(index)
        if context.batches_wait():
            build(handle, *chunk)  # in their way as briefly as can be
        else:
            at_low_priority(lambda: build(handle, *chunk))
    except (IndexMissingError, GenerationGoneError) as error:
        # Whoever asked is gone, or is somewhere else by now. The next job opens the index anew.
        context.forget(index)
        log.info("chunk %s of index %s is not built: %s", argument, index, error)


def train(trainers: Trainers, index: str, argument: str) -> None:
    """Train an index as a request says, and re-index it if a generation comes of it."""
    trainers.asked(index, argument)


FUNCTIONS: Final[Mapping[str, Callable[[Context, str, str], None]]] = {
    APPLY_BATCH: apply_batch,
    BUILD_CHUNK: build_chunk,
}
"""What a hash worker may be asked for."""

TRAINER_FUNCTIONS: Final[Mapping[str, Callable[[Trainers, str, str], None]]] = {TRAIN: train}
"""What a trainer may be asked for."""
