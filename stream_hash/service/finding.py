"""Find: the first half of a search, hash and plan and gather, for queries that are answered together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from stream_hash.errors import GenerationGoneError
from stream_hash.numerics.model import EncodedQueries
from stream_hash.service.answer import Answer, ChangedError, Stages
from stream_hash.service.gathering import Candidates, Gatherer
from stream_hash.service.handle import IndexHandle
from stream_hash.service.plan import Plan
from stream_hash.service.probing import Prober


@dataclass(frozen=True)
class Found:
    """partitions : (partition, its generation). encoded : the queries, under each generation.

    candidates, answers : of each query; the answers tell what it cost so far.
    """

    partitions: list[tuple[int, int]]
    encoded: dict[int, EncodedQueries]
    prober: Prober
    candidates: list[Candidates]
    answers: list[Answer]

    def encoded_of(self, rows: Sequence[int]) -> dict[int, EncodedQueries]:
        """Some of the queries, as `encoded`."""
        return {
            generation: EncodedQueries(*(getattr(own, field.name)[list(rows)] for field in fields(own)))
            for generation, own in self.encoded.items()
        }


def find(
    handle: IndexHandle, queries: NDArray[np.float32], k: int, plan: Plan, stages: Stages, *, widen: bool
) -> Found:
    """The candidates of each query. widen : have at least k. Raises ChangedError when the index changed."""
    answers = [Answer() for _ in queries]
    partitions = _live(handle)
    with stages.timed("plan"):
        encoded = _encoded(handle, queries, {generation for _, generation in partitions})
        prober = Prober(handle.settings, handle.directories, partitions, encoded, plan, k)
    newest = max(encoded, default=0)
    for query, answer in enumerate(answers):
        answer.generation = newest
        answer.codes = prober.codes(newest, query) if newest else []
    candidates = Gatherer(handle, prober, answers, stages).gather(k, widen=widen)
    return Found(partitions, encoded, prober, candidates, answers)


def _live(handle: IndexHandle) -> list[tuple[int, int]]:
    """(partition, its live generation) of the partitions that have one."""
    live = [(p, state.live) for p, state in enumerate(handle.states) if state.live]
    if len(live) < handle.settings.partitions:
        handle.reload_states()  # no generation there when it was opened; perhaps there is now
        live = [(p, state.live) for p, state in enumerate(handle.states) if state.live]
    return live


def _encoded(handle: IndexHandle, queries: NDArray[np.float32], generations: set[int]) -> dict[int, EncodedQueries]:
    try:
        return {generation: handle.model(generation).encode_queries(queries) for generation in generations}
    except GenerationGoneError:
        raise ChangedError from None
