"""One stream through the service's own code in one process: scoring, detector, schedule, training, gate, re-index.

Four runs meet the same items in the same order, each on a server of its own. All begin with the model that was
learned from the first classes and let in by the gate. "retrained" then has a trainer that looks at the index
after every LOOK_ITEMS items, as the trainer process does every few seconds; "kept" has none; "reference" serves a
model that was learned from all classes beforehand, and "twin" one learned from as many other labels: as good a model,
by which the measure itself is tried. Every labelled item is scored: a worker's time would do for fewer.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.drift_stream import Aside, Drifting
from benchmarks.report import progress
from benchmarks.services import running_server
from stream_hash.client import Index
from stream_hash.clock import now_seconds
from stream_hash.service.candidates import fresh, signature_for
from stream_hash.service.connections import Connections
from stream_hash.service.handle import IndexHandle
from stream_hash.service.ingest import apply_batch
from stream_hash.service.quality import fold
from stream_hash.service.reindex import reindex
from stream_hash.service.rollback import live_generation, publish
from stream_hash.service.schedule import Schedule, Trainers
from stream_hash.service.scoring import QUERIES, Scorer
from stream_hash.service.trainer import Cycle
from stream_hash.service.training import TrainingPlan, TrainingRun, runs
from stream_hash.service.window import SAMPLE, Examples, sample
from stream_hash.settings import IndexSettings
from stream_hash.storage.codec import Batch
from stream_hash.storage.trainer_state import Lead

INDEX = "drift"
LOOK_ITEMS = 20
FILL_ITEMS = 500
KINDS = ("retrained", "kept", "twin", "reference")


@dataclass(frozen=True)
class Series:
    """figures : (n,) precision@10 of each item of the stream before it was stored, NaN where there is none.
    training : the runs, oldest first. switches : (row, generation) of each model that went live.
    """

    figures: NDArray[np.float64]
    training: list[TrainingRun]
    switches: list[tuple[int, int]]


class Unhurried:
    """A clock by which scoring takes next to no time and any amount of it passes between two batches."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        self.seconds += 1e-6
        return self.seconds


def run(kind: str, stream: Drifting, bits: int = 16) -> Series:
    """The stream under one of KINDS."""
    with running_server() as url:
        connections = Connections.open(url)
        Index.create(INDEX, IndexSettings(stream.vectors.shape[1], bits=bits), connections)
        handle = IndexHandle(connections.client, INDEX)
        for start in range(0, stream.first, FILL_ITEMS):
            _apply(handle, stream, start, min(start + FILL_ITEMS, stream.first), None)
        Cycle(handle, connections.broker).train(TrainingPlan(), lambda: "the first classes")
        if kind in KINDS[2:]:
            _serve(handle, stream.references[kind == "twin"])
        figures = np.full(len(stream.vectors), np.nan)
        switches = [(stream.first, live_generation(handle))]
        trainers = Trainers(connections, Schedule())
        clock = Unhurried()
        scorer = Scorer(clock)
        for start in range(stream.first, len(stream.vectors), QUERIES):
            clock.seconds += 1_000
            _apply(handle, stream, start, min(start + QUERIES, len(stream.vectors)), scorer)
            for figure in handle.quality.read().figures:
                figures[figure.position - 1] = figure.precision
            fold(handle, handle.ledger.horizon())
            if kind == "retrained" and (start - stream.first) % LOOK_ITEMS == 0:
                trainers.look()
                live = live_generation(handle)
                if live != switches[-1][1]:
                    switches.append((start, live))
                    progress(f"{kind}: generation {live} is live after {start - stream.first:,} items")
        return Series(figures, runs(handle)[::-1], switches)


def _apply(handle: IndexHandle, stream: Drifting, start: int, end: int, scorer: Scorer | None) -> None:
    """Items of the stream as one batch, without a queue. An item's sequence number is its row + 1."""
    ids = [f"{row:08}" for row in range(start, end)]
    labels = [json.dumps(label) for label in stream.labels[start:end].tolist()]
    batch = Batch("upsert", ids, stream.vectors[start:end], labels)
    handle.ledger.accept(f"from-{start}", batch, lease_until=0)
    apply_batch(handle, f"from-{start}", scorer=scorer)


def _serve(handle: IndexHandle, aside: Aside) -> None:
    """Learn from what is set aside of all classes, as a trainer would, and have it live without a gate."""
    rng = np.random.default_rng(0)
    drawn = np.concatenate([sample(handle, SAMPLE, rng), aside.vectors])
    live = live_generation(handle)
    labels = [[json.dumps(label)] for label in aside.labels.tolist()]
    examples = Examples(aside.vectors, labels, np.arange(len(labels)))
    model = fresh(handle, "pa", examples, drawn, signature_for(handle, handle.model(live), drawn), rng).model
    lead = handle.trainer.lead("reference", now=now_seconds(), until=now_seconds() + 600)
    if not isinstance(lead, Lead):
        raise TypeError("somebody else trains this index")
    generation = publish(handle, lead.token, model.to_arrays(), kind="reference", parent=live)
    reindex(handle, lead.token, generation)
