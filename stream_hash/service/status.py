"""What an index is and how it is doing."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from stream_hash.service.handle import IndexHandle


def index_status(handle: IndexHandle) -> dict[str, Any]:
    """Settings, generations, counts and the ledger's balance, as plain JSON values."""
    settings = handle.settings
    states = handle.store.states(settings.partitions)
    handle.states = states
    generations = sorted({state.live for state in states if state.live})
    live = [(p, state.live) for p, state in enumerate(states) if state.live]
    directories = handle.reader.directories(live) if live else []
    buckets = sum(len(codes) for tables in directories for codes, _ in tables)
    members = sum(int(counts.sum()) for tables in directories for _, counts in tables)
    largest = max((int(counts.max()) for tables in directories for _, counts in tables if len(counts)), default=0)
    balance = handle.ledger.balance()
    return {
        "index": handle.name,
        **asdict(settings),
        "items": sum(items for items, _ in handle.reader.sizes()),
        "generation": generations[-1] if generations else 0,
        "building": sorted({state.building for state in states if state.building}),
        "generations": [asdict(record) for record in handle.models.records()],
        "buckets": buckets,
        "mean_bucket": round(members / buckets, 2) if buckets else 0.0,
        "largest_bucket": largest,
        "accepted": balance.accepted,
        "applied": balance.applied,
        "pending": balance.pending,
        "pending_batches": balance.pending_batches,
        "dead": balance.dead,
        "last_sequence": handle.ledger.last_sequence(),
    }
