"""The index of a deployment that is to be killed: small, and with as many models as are kept."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from stream_hash import Index
from stream_hash.clock import now_milliseconds, now_seconds
from stream_hash.numerics.model import lsh_model
from stream_hash.service.connections import Connections
from stream_hash.service.handle import IndexHandle
from stream_hash.service.ingest import apply_batch
from stream_hash.service.lease import leading
from stream_hash.service.reindex import reindex
from stream_hash.settings import IndexSettings
from stream_hash.storage.scripts import sources
from stream_hash.storage.trainer_state import MODELS_KEPT, Held
from tests.faults.killed_traffic import CLASSES, DIMENSION, ITEMS, Record, upsert, vectors_of

PARTITIONS: Final = 2
SAMPLE: Final = 500


def fill(connections: Connections, name: str, record: Record) -> None:
    """An index with ITEMS items. Each further model has an old one forgotten."""
    rng = np.random.default_rng(1)
    settings = IndexSettings(DIMENSION, bits=10, partitions=PARTITIONS)
    sample = vectors_of(rng, np.arange(SAMPLE) % CLASSES)
    Index.create(name, settings, connections, sample=sample)
    for text in sources().values():  # a call that is struck while it runs must not be one that asks for the script
        connections.client.script_load(text)
    handle = IndexHandle(connections.client, name)
    with leading(handle) as lease:
        assert not isinstance(lease, Held)
        for seed in range(2, MODELS_KEPT + 1):
            arrays = lsh_model(replace(settings, seed=seed), sample).to_arrays()
            published = handle.trainer.publish(lease.token, arrays, kind="lsh", created=now_seconds(), parent=1)
        reindex(handle, lease.token, published.generation)
    for start in range(0, ITEMS, 250):
        batch = upsert(rng, [f"item-{n}" for n in range(start, start + 250)])
        handle.ledger.accept(f"fill-{start}", batch, lease_until=now_milliseconds() + 60_000)
        apply_batch(handle, f"fill-{start}")
        record.add(batch)
