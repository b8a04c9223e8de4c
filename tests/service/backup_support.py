"""An index that has seen everything, its export, and what came of it: for tests of export and import."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any, cast

import numpy as np

from stream_hash.client import Index
from stream_hash.numerics.model import lsh_model
from stream_hash.service.connections import Connections
from stream_hash.service.export import export_index
from stream_hash.service.handle import IndexHandle
from stream_hash.service.ingest import apply_batch
from stream_hash.service.items import delete_items, label_items
from stream_hash.service.reindex import reindex
from stream_hash.service.restore import Imported, import_index
from stream_hash.service.training_runs import TrainingRun
from stream_hash.settings import IndexSettings
from stream_hash.storage.codec import Batch
from stream_hash.storage.connection import Client
from stream_hash.storage.trainer_state import Lead

SETTINGS = IndexSettings(12, bits=6, tables=2, partitions=2)
COUNT = 400
RUN = TrainingRun("r", 5.0, 1.0, "pa", 1, 2, 60, 20, 3, "live", "it is better", {"seen": 7}, "asked for", 7)


def ids(count: int = COUNT) -> list[str]:
    return [f"i{row:05}" for row in range(count)]


def vectors(count: int = COUNT, seed: int = 0) -> np.ndarray:
    """Some are exact duplicates, so that answers have ties."""
    x = np.random.default_rng(seed).normal(0.3, 1, (count, 12)).astype(np.float32)
    x[count // 2 : count // 2 + 40] = x[0]
    return x


def send(handle: IndexHandle, batch: Batch) -> None:
    name = f"b{handle.ledger.last_sequence()}"
    handle.ledger.accept(name, batch, lease_until=0)
    apply_batch(handle, name)


def filled(client: Client, settings: IndexSettings = SETTINGS, count: int = COUNT) -> IndexHandle:
    """An index that has seen all there is: deletes, labels that came later or were taken away, two generations."""
    Index.create("x", settings, Connections(client, None))
    handle = IndexHandle(client, "x")
    labels = [f'"c{row % 5}"' if row % 3 else "" for row in range(count)]
    metadata = [f'{{"ö":{row}}}' if row % 2 else "" for row in range(count)]
    send(handle, Batch("upsert", ids(count), vectors(count), labels, metadata))
    delete_items(handle, ids(count)[5:30])
    send(handle, Batch("upsert", ids(count)[8:12], vectors(count, seed=3)[8:12], None, None))
    label_items(handle, ids(count)[:4], ["late", 7, ["a", "b"], None])
    label_items(handle, ["never stored"], ["x"])
    lead = handle.trainer.lead("t", now=0, until=0)
    assert isinstance(lead, Lead)
    other = lsh_model(replace(settings, seed=5), vectors(count))
    record = handle.trainer.publish(lead.token, other.to_arrays(), kind="grh-pa", created=3.0, parent=1)
    handle.trainer.checkpoint(lead.token, run=RUN.to_dict())
    reindex(handle, lead.token, record.generation)
    return handle


def exported(handle: IndexHandle) -> bytes:
    file = io.BytesIO()
    export_index(handle, file, writer="0.1")
    return file.getvalue()


def imported(client: Client, data: bytes, name: str = "y", **options: Any) -> Imported:
    return import_index(client, io.BytesIO(data), "the file", name, **options)


class Pipe(io.RawIOBase):
    """Bytes that cannot be read twice."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self._file = io.BytesIO(data)

    def read(self, size: int = -1, /) -> bytes:
        return self._file.read(size)


def piped(client: Client, data: bytes, name: str = "y", **options: Any) -> Imported:
    return import_index(client, cast("Any", Pipe(data)), "the pipe", name, **options)


def index_of(client: Client, name: str = "y") -> Index:
    return Index(name, Connections(client, None))


def contents(client: Client, name: str) -> dict[str, Any]:
    """All that is known of every item, by id."""
    found = index_of(client, name).get(ids())
    return {item.id: {**vars(item), "vector": item.vector.tobytes()} for item in found if item is not None}


def snapshot(client: Client) -> dict[bytes, Any]:
    return {key: client.dump(key) for key in client.scan_iter()}


class KilledError(Exception):
    """The process ends here."""
