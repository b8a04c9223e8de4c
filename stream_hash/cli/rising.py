"""How answers get better while labels stream in: the course of the demo, and its chart."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from stream_hash.cli.digits import Digits, K
from stream_hash.cli.output import table
from stream_hash.client import Index
from stream_hash.numerics.codes import hamming_distances
from stream_hash.numerics.evaluation import precision_at_k
from stream_hash.numerics.model import Model
from stream_hash.producer import Producer
from stream_hash.service import asking
from stream_hash.service.connections import Connections
from stream_hash.service.handle import FIRST_GENERATION
from stream_hash.settings import IndexSettings
from stream_hash.storage.models import Models

PORTIONS: Final = 8
"""Of 200 items each."""

TRAIN_AFTER: Final = (4, 6, 8)
"""Portions. Before the fourth, a trainer has too few held-out items to decide by."""

RADIUS: Final = 1

BATCH_ITEMS: Final = 64
"""Small batches, so that both workers have something to do."""

TRAINING_SECONDS: Final = 120.0
BAR: Final = 24


@dataclass(frozen=True)
class Point:
    """items : in the index. precision : at RADIUS, under the live generation. untrained : under the first one, which
    learned nothing. exact : of the exact search. run : the record of the training that was just done, if one was.
    """

    items: int
    generation: int
    precision: float
    untrained: float
    exact: float
    run: dict[str, Any] | None = None


class Course:
    """A new index, and the digits that stream into it. seconds : spent so far on having them searchable."""

    def __init__(self, name: str, digits: Digits, connections: Connections) -> None:
        self._name, self._digits, self._connections = name, digits, connections
        settings = IndexSettings(dimension=digits.vectors.shape[1])
        self.index = Index.create(name, settings, connections, sample=digits.vectors)
        self.seconds = 0.0

    def points(self) -> Iterator[Point]:
        """A point after each portion, and another after each training."""
        producer = Producer(self._name, self._connections, batch_items=BATCH_ITEMS)
        first = Model.from_arrays(Models(self._connections.client, self._name).load(FIRST_GENERATION))
        edges = np.linspace(0, len(self._digits.ids), PORTIONS + 1).astype(int).tolist()
        for number, (start, end) in enumerate(itertools.pairwise(edges), 1):
            moment = time.perf_counter()
            piece = slice(start, end)
            digits = self._digits
            producer.upsert_many(digits.ids[piece], digits.vectors[piece], digits.labels[piece])
            producer.wait(timeout_seconds=60.0)
            self.seconds += time.perf_counter() - moment
            point = self._point(end, first)
            yield point
            if number in TRAIN_AFTER:
                run = self._trained()
                yield self._point(end, first, run) if run["generation"] else replace(point, run=run)

    def _trained(self) -> dict[str, Any]:
        """What `stream-hash train` does."""

        def ignore(_: object) -> None:
            """Nobody is shown how far it is."""

        connections, name = self._connections, self._name
        if not asking.trainers(connections):
            return asking.train_here(connections, name, {}, timeout_seconds=TRAINING_SECONDS, on_doing=ignore)
        request = asking.request_training(connections, name, {})
        return asking.wait_for(connections, name, request, timeout_seconds=TRAINING_SECONDS, on_doing=ignore)

    def _point(self, items: int, first: Model, run: dict[str, Any] | None = None) -> Point:
        digits = self._digits
        live = self.index.query(digits.queries, K, radius=RADIUS, widen=False)
        exact = self.index.query(digits.queries, K, exact=True)

        def precision(answers: list[Any]) -> float:
            shown = [[result.label for result in answer.results] for answer in answers]
            return statistics.fmean(map(precision_at_k, shown, digits.wanted, [K] * len(shown)))

        return Point(items, live[0].generation, precision(live), self._untrained(items, first), precision(exact), run)

    def _untrained(self, items: int, first: Model) -> float:
        """What a search of RADIUS would find among the first `items`, had nothing been learned."""
        digits = self._digits
        codes = first.encode(digits.vectors[:items]).codes[:, 0]
        asked = first.encode_queries(digits.queries).codes[:, 0].tolist()
        near = np.stack([hamming_distances(codes, code) for code in asked]) <= RADIUS
        unit = digits.vectors[:items] / np.linalg.norm(digits.vectors[:items], axis=1, keepdims=True)
        scores = np.where(near, digits.queries @ unit.T, -np.inf)
        best = np.argsort(-scores, axis=1, kind="stable")[:, :K]
        found = np.take_along_axis(near, best, axis=1)
        right = np.array(digits.labels)[best] == np.array(digits.wanted)[:, None]
        return float((right & found).sum(axis=1).mean() / K)


def chart(points: list[Point]) -> None:
    """Print the course as a chart of bars. A mark in a bar is where it would end had nothing been learned."""
    columns = ["items", "generation", f"precision@{K}", "", "untrained", "exact", "training"]
    rows = [
        [
            point.items,
            point.generation,
            f"{point.precision:.3f}",
            _bar(point),
            f"{point.untrained:.3f}",
            f"{point.exact:.3f}",
            event(point),
        ]
        for point in points
    ]
    table(columns, rows, title=f"{K} nearest by radius {RADIUS}, while labels stream in:")


def event(point: Point) -> str:
    """What training came to, in a few words."""
    run = point.run
    if run is None:
        return ""
    if run["generation"] is None:
        return f"{run['decision']}: {run['reason'].partition(':')[0]}"
    return f"◀ generation {run['generation']} goes live, learned from {run['trained']} items"


def _bar(point: Point) -> str:
    cells = ["█" if at < round(BAR * point.precision) else "░" for at in range(BAR)]
    cells[min(BAR - 1, round(BAR * point.untrained))] = "│"
    return "".join(cells)
