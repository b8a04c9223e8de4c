"""The jobs a hash worker knows, by exact dotted name. Nothing else is ever run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Final

from redis import exceptions

from stream_hash.clock import now_milliseconds
from stream_hash.service.context import Context
from stream_hash.service.ingest import apply_batch as apply_to

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
    """Apply a pending batch; an error gives it back to the ledger with its reason, and is raised again."""
    handle = context.index(index)
    try:
        apply_to(handle, batch)
    except Exception as error:
        blame_server = isinstance(error, _SERVER_FAULTS)
        try:
            reason = f"{type(error).__name__}: {error}"
            handle.ledger.release(batch, now=now_milliseconds(), failure=reason, blame_server=blame_server)
        except exceptions.RedisError:
            # the lease runs out by itself, and the sweep takes the batch up again
            log.warning("batch %s of index %s could not be given back", batch, index, exc_info=True)
        raise


FUNCTIONS: Final[Mapping[str, Callable[[Context, str, str], None]]] = {"stream_hash.jobs.apply_batch": apply_batch}
