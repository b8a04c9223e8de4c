"""The jobs that workers know, by exact dotted name: hash workers some, trainers others. Nothing else is ever run."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Final

from redis import exceptions
from rq.timeouts import JobTimeoutException

from stream_hash.clock import now_milliseconds
from stream_hash.errors import GenerationGoneError, IndexMissingError
from stream_hash.logs import milliseconds_since, told
from stream_hash.priority import at_low_priority
from stream_hash.queue import APPLY_BATCH, BUILD_CHUNK, TRAIN, chunk_of
from stream_hash.service.context import Context
from stream_hash.service.handle import IndexHandle
from stream_hash.service.ingest import Applied
from stream_hash.service.ingest import apply_batch as apply_to
from stream_hash.service.reindex import build_chunk as build
from stream_hash.service.schedule import Trainers
from stream_hash.storage.tallies import FailureKind

log = logging.getLogger("stream_hash.jobs")

_SERVER_FAULTS: Final = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.OutOfMemoryError,
    exceptions.ReadOnlyError,
    exceptions.ClusterDownError,
)
"""Errors that say nothing about a batch: the attempt does not count, if the server can still be told so."""


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
        blame_server = isinstance(error, _SERVER_FAULTS)
        try:
            reason = f"{type(error).__name__}: {error}"
            handle.ledger.release(
                batch, now=now_milliseconds(), failure=reason, blame_server=blame_server, kind=_kind_of(error)
            )
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
    if isinstance(error, _SERVER_FAULTS):
        return "server"
    if isinstance(error, JobTimeoutException):
        return "timeout"
    return "memory" if isinstance(error, MemoryError) else "error"


def _gone(context: Context, index: str, batch: str) -> None:
    """The next job opens the index anew: one of its name may be created."""
    context.forget(index)
    log.warning("batch %s is not applied: there is no index %s (any more)", batch, index)


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
