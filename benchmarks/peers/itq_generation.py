"""A generation that is learned without labels: hyperplanes and signature by ITQ, live by a re-index.

The service trains from labels only, so a benchmark that has none publishes such a model itself, as a trainer would:
under the lease, as the target, by a re-index.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream_hash.numerics.learned import itq_signature
from stream_hash.numerics.model import Model
from stream_hash.numerics.rotation import ITQ
from stream_hash.service.connections import Connections
from stream_hash.service.handle import IndexHandle
from stream_hash.service.lease import leading
from stream_hash.service.reindex import reindex
from stream_hash.service.rollback import live_generation, publish
from stream_hash.settings import IndexSettings
from stream_hash.storage.trainer_state import Held


@dataclass(frozen=True)
class Switched:
    """generation : its number. learning_seconds : of its model. reindex_seconds : until it was live and the one before
    was deleted, in one process.
    """

    generation: int
    learning_seconds: float
    reindex_seconds: float


def itq_model(settings: IndexSettings, sample: NDArray[np.float32]) -> Model:
    """Of one table, under cosine. sample : (n, dimension) float32."""
    signature = itq_signature(settings, sample)
    unit = sample / np.linalg.norm(sample.astype(np.float64), axis=1, keepdims=True)
    rotation = ITQ(settings.bits, random_state=settings.seed).fit(unit - signature.mean)
    return Model(
        metric=settings.metric,
        tables=settings.tables,
        bits=settings.bits,
        hyperplanes=np.vstack([rotation.hyperplanes_.astype(np.float32), signature.hyperplanes]),
        offsets=np.concatenate([rotation.offsets_.astype(np.float32), signature.offsets]),
        mean=signature.mean,
        scale=signature.scale,
    )


def switch_to_itq(name: str, url: str, sample: NDArray[np.float32]) -> Switched:
    """Learn from a sample, publish, re-index in this process. Raises RuntimeError when the index has a trainer."""
    handle = IndexHandle(Connections.open(url).client, name)
    start = time.perf_counter()
    model = itq_model(handle.settings, sample)
    learned = time.perf_counter()
    with leading(handle) as lease:
        if isinstance(lease, Held):
            raise RuntimeError(f"index {name!r} has a trainer: {lease}")
        generation = publish(handle, lease.token, model.to_arrays(), kind="itq", parent=live_generation(handle))
        reindex(handle, lease.token, generation)
    return Switched(generation, learned - start, time.perf_counter() - learned)
