"""The sweep: what was left behind is taken up again.

Every worker sweeps from time to time; that several do so at once is harmless, since an overdue batch is
leased to one of them. A batch is overdue when its producer died before it could enqueue the job, when RQ
lost the job, or when the worker died over it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from stream_hash.service.handle import IndexHandle
from stream_hash.service.ingest import LEASE_MILLISECONDS
from stream_hash.service.quality import fold
from stream_hash.storage.server_clock import server_milliseconds

TOMBSTONES_KEPT: Final = 100_000
"""Of an index, for the sake of its dead letters: some 20 MB. More, and those letters lapse that are older than most."""

log = logging.getLogger("stream_hash.sweep")


def sweep(handle: IndexHandle, is_waiting: Callable[[str, str], bool], enqueue: Callable[[str, str], object]) -> int:
    """Enqueue overdue batches again, forget old tombstones, take up figures of quality.

    Returns how many batches were enqueued.

    is_waiting, enqueue : given an index name and a batch id, whether its job waits on the queue, and putting
    it there. A job that waits is not enqueued again, or a long queue would grow without end; one that was
    begun is, since a batch that is still in good hands has a lease that has not run out.
    """
    now = server_milliseconds(handle.client, handle.name)
    overdue = handle.ledger.lease_overdue(now, now + LEASE_MILLISECONDS)
    lost = [batch for batch in overdue if not is_waiting(handle.name, batch)]
    for batch in lost:
        enqueue(handle.name, batch)
    horizon = handle.ledger.horizon()
    _bound_tombstones(handle)
    floor = handle.ledger.floor()
    for partition in range(handle.settings.partitions):
        handle.store.purge(partition, floor)
    fold(handle, horizon)
    return len(lost)


def _bound_tombstones(handle: IndexHandle) -> None:
    """Let dead letters lapse that keep more tombstones than we can afford: nobody may ever look after them."""
    if handle.ledger.holds_letters():
        most = max(1, TOMBSTONES_KEPT // handle.settings.partitions)
        oldest = max(handle.store.oldest_kept(p, most) for p in range(handle.settings.partitions))
        if oldest and (lapsed := handle.ledger.lapse(oldest)):
            log.warning("index %s: %d dead letters can no longer be retried in their place", handle.name, lapsed)
