"""The gate: what goes live of challengers that learned random labels, true ones, or are a little worse than the live.

Each trial is an index on a server of its own, filled and trained by the service's own code, in one process:

- random: every item's label is drawn anew. Trained once against the first generation, which learned nothing; then
  drawn and trained again, so that a learner is continued as well and both candidates are judged.
- random class: as true labels, and then a tenth of the items come again under a class of their own, which the live
  model has never seen: the way that newcomers have of passing.
- true: labels as they are.
- worse: the model that true labels made live, blurred until it is .02 worse, stands in a run of training in the place
  of what would have been learned. How much worse it is, is the mean of the gate's own figure over many sets of items
  that the index does not hold, each as large as what is held out: on one such set alone that is uncertain by as much.

Ends with exit code 1 if any random or worse challenger went live.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.dataset import load_dataset
from benchmarks.report import machine, progress, publish, table
from benchmarks.services import running_server
from stream_hash.client import Index
from stream_hash.numerics.gate import judge
from stream_hash.numerics.grh import GRH
from stream_hash.numerics.model import Model
from stream_hash.service import training
from stream_hash.service.candidates import Candidate, stored_state
from stream_hash.service.connections import Connections
from stream_hash.service.handle import IndexHandle
from stream_hash.service.ingest import apply_batch
from stream_hash.service.rollback import live_generation
from stream_hash.service.trainer import Cycle
from stream_hash.service.training import TrainingPlan, TrainingRun, gate_budget
from stream_hash.service.window import is_held_out
from stream_hash.settings import IndexSettings
from stream_hash.storage.codec import Batch

BATCH_ITEMS = 500
WORSE = 0.02
WORSE_ITEMS = 4_000
NEW_SHARE = 0.1
NEW_CLASS = 1_000
LEARNED = ("random", "random, continued", "random class", "true")


@dataclass(frozen=True)
class Decided:
    """One decision of the gate. lost : of a blurred model, on items that the gate does not see."""

    kind: str
    seed: int
    live: bool
    difference: float
    lower_bound: float
    candidate: str
    lost: float = 0.0


class Trained:
    """An index that labelled items are put into, and trained."""

    def __init__(self, connections: Connections, name: str, dimension: int, seed: int) -> None:
        Index.create(name, IndexSettings(dimension, seed=seed), connections)
        self.handle = IndexHandle(connections.client, name)
        self._broker = connections.broker

    def put(self, vectors: NDArray[np.float32], labels: NDArray[np.int64], ids: Sequence[str]) -> None:
        """Items, in batches, without a queue."""
        for start in range(0, len(ids), BATCH_ITEMS):
            part = slice(start, start + BATCH_ITEMS)
            texts = [json.dumps(label) for label in labels[part].tolist()]
            batch = f"b{self.handle.ledger.last_sequence()}"
            self.handle.ledger.accept(batch, Batch("upsert", list(ids[part]), vectors[part], texts), lease_until=0)
            apply_batch(self.handle, batch)

    def train(self, plan: TrainingPlan | None = None) -> TrainingRun:
        """A run of training, and the re-index that follows if a generation came of it."""
        outcome = Cycle(self.handle, self._broker).train(plan or TrainingPlan(), lambda: "benchmark")
        if outcome.run is None:
            raise RuntimeError("nothing was trained")
        return outcome.run

    def model(self) -> Model:
        """The one that is live."""
        return self.handle.model(live_generation(self.handle))


def decided(kind: str, seed: int, run: TrainingRun) -> Decided:
    """A run of training as a row. Of two ways to pass, the bound nearer to passing."""
    bounds = [run.figures["lower_bound"], run.figures["newcomers_bound"]]
    bound = max((one for one in bounds if one is not None), default=float("nan"))
    difference = run.figures["difference"]
    return Decided(kind, seed, run.decision == "live", difference, bound, run.figures["candidate"])


def trial(url: str, vectors: NDArray[np.float32], labels: NDArray[np.int64], seed: int, items: int) -> list[Decided]:
    """All kinds of challengers, under one seed: which items, which random labels, which index."""
    rng = np.random.default_rng(seed)
    connections = Connections.open(url)
    rows = rng.permutation(len(vectors))
    x, y = vectors[rows[:items]], labels[rows[:items]]
    classes = np.unique(labels)
    ids = [f"{row:08}" for row in range(items)]
    found = []
    index = Trained(connections, f"random-{seed}", x.shape[1], seed)
    for kind in LEARNED[:2]:
        index.put(x, rng.choice(classes, items), ids)
        found.append(decided(kind, seed, index.train()))
    index = Trained(connections, f"true-{seed}", x.shape[1], seed)
    index.put(x, y, ids)
    found.append(decided("true", seed, index.train()))
    size = sum(map(is_held_out, ids))
    others = rows[items : items + WORSE_ITEMS]
    found.append(worse(index, np.split(others, range(size, len(others), size)), vectors, labels, seed))
    again = rng.permutation(items)[: round(NEW_SHARE * items)]
    index.put(x[again], np.full(len(again), NEW_CLASS), [ids[row] for row in again.tolist()])
    found.append(decided("random class", seed, index.train()))
    return found


def worse(
    index: Trained, sets: list[NDArray[np.intp]], vectors: NDArray[np.float32], labels: NDArray[np.int64], seed: int
) -> Decided:
    """The decision on the live model blurred. sets : rows of items to choose the blur by; the last is left out."""
    live = index.model()
    sets = sets[:-1] or sets

    def lost_by(challenger: Model) -> float:
        budget = gate_budget(len(sets[0]))
        gains = [
            judge(live, challenger, vectors[one], labels[one], budget, rng=np.random.default_rng(seed)).difference
            for one in sets
        ]
        return -float(np.mean(gains))

    challenger, lost, noise = live, 0.0, 0.005
    while lost < WORSE:
        noise *= 1.25
        challenger = blurred(live, noise, np.random.default_rng(seed))
        lost = lost_by(challenger)
    state, _ = stored_state(index.handle, TrainingPlan().learner)
    if state is None:
        raise RuntimeError("true labels left no learner")
    candidate = Candidate("fresh", GRH.from_arrays(state.arrays), challenger, 0)
    with patch.object(training._Training, "_candidates", lambda *_: ([candidate], "")):
        run = index.train(TrainingPlan(dry_run=True))
    bound, difference = run.figures["lower_bound"], run.figures["difference"]
    return Decided("worse", seed, run.reason.startswith("would go live"), difference, bound, "blurred", lost)


def blurred(model: Model, noise: float, rng: np.random.Generator) -> Model:
    """The model with normal noise added to its first layer's weights, `noise` times their standard deviation.

    These tell classes apart; the last layer's are random directions as it is, and lose next to nothing by noise.
    """
    if model.network is None:
        return replace(model, hyperplanes=_noisy(model.hyperplanes, noise, rng))
    first, *others = model.network.layers
    first = replace(first, weights=_noisy(first.weights, noise, rng))
    return replace(model, network=replace(model.network, layers=(first, *others)))


def _noisy(weights: NDArray[np.float32], noise: float, rng: np.random.Generator) -> NDArray[np.float32]:
    return np.asarray(weights + noise * weights.std() * rng.standard_normal(weights.shape), dtype=np.float32)


def shown(rows: Sequence[Decided]) -> str:
    """A line for each kind of challenger."""
    cells = [("challenger", "trials", "went live", "gain: mean (least to greatest)", "bound: least to greatest")]
    for kind in (*LEARNED, "worse"):
        own = [row for row in rows if row.kind == kind]
        gains, bounds = [row.difference for row in own], [row.lower_bound for row in own]
        gain = f"{np.mean(gains):+.3f} ({min(gains):+.3f} to {max(gains):+.3f})"
        live = sum(row.live for row in own)
        cells.append((kind, str(len(own)), str(live), gain, f"{min(bounds):+.3f} to {max(bounds):+.3f}"))
    lost = [row.lost for row in rows if row.kind == "worse"]
    chosen = f"{np.mean(lost):.3f} ({min(lost):.3f} to {max(lost):.3f})"
    return f"{table(cells)}\n\nWhat the blur of the worse ones costs on other items: {chosen}."


@click.command()
@click.option("--data", type=click.Path(exists=True, dir_okay=False, path_type=Path), envvar="STREAM_HASH_BENCH_DATA")
@click.option("--trials", type=click.IntRange(min=1), default=20, show_default=True)
@click.option("--first-seed", type=int, default=100, show_default=True)
@click.option("--items", type=click.IntRange(min=600), default=1_200, show_default=True, help="Labelled, of an index.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path))
def main(data: Path | None, trials: int, first_seed: int, items: int, json_file: Path | None) -> None:
    """Random labels, true labels and a model worse by .02 before the gate of the training service."""
    content = load_dataset(data, items + WORSE_ITEMS if data is None else None)
    rows: list[Decided] = []
    for seed in range(first_seed, first_seed + trials):
        with running_server() as url:
            rows += trial(url, content.items, content.labels, seed, items)
        progress(f"seed {seed}: {', '.join(f'{row.kind} {row.difference:+.3f}' for row in rows[-5:])}")
    result: dict[str, Any] = {"machine": machine(), "data": content.source, "items": items}
    result["decisions"] = [vars(row) for row in rows]
    publish(result, (shown(rows),), json_file)
    sys.exit(any(row.live for row in rows if row.kind != "true"))


if __name__ == "__main__":
    main()
