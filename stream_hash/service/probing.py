"""Plan: which buckets each of some queries probes.

By budget: the likeliest ones, by directories that are kept. By radius: the codes of the ball are enumerated, or the
non-empty ones among them picked from the directory, whichever is cheaper: a probe costs the server a microsecond or
two, a code of a directory that is not kept half of one, and of one that is, a few nanoseconds here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stream_hash.numerics.cheapest import cheapest
from stream_hash.numerics.model import EncodedQueries
from stream_hash.numerics.probing import ball, ball_size, members_within, within
from stream_hash.service.directories import Directories
from stream_hash.service.plan import Plan
from stream_hash.settings import IndexSettings
from stream_hash.storage.buckets import Probes

SMALL_BALL: Final = 32
"""Balls up to this size are enumerated even when the directory is kept."""

ENUMERATE_AT_LEAST: Final = 1_024
"""Balls up to this size are enumerated when it is not: reading it costs as much, most often more."""


class Prober:
    """Chooses buckets for the queries of one batch.

    radius : the one that is probed, None for a budget. share : of the budget, a partition's. enough : candidates that a
    radius must hold that is probed in place of what fell short of k. walks : whether it goes by the directories.
    """

    def __init__(
        self,
        settings: IndexSettings,
        directories: Directories,
        partitions: Sequence[tuple[int, int]],
        encoded: Mapping[int, EncodedQueries],
        plan: Plan,
        k: int,
    ) -> None:
        """partitions : (partition, its live generation). encoded : the queries, under each of these generations."""
        self._settings, self._directories = settings, directories
        self._partitions, self._encoded = partitions, encoded
        self.bits = settings.bits
        self.radius = None if plan.radius is None else min(plan.radius, settings.bits)
        self.share = -(-plan.budget_for(k) // max(1, len(partitions)))
        self.enough = k if plan.radius is not None else max(k, plan.budget_for(k))
        self.walks = self.radius is None or not self._enumerates(self.radius)

    def _enumerates(self, radius: int) -> bool:
        size = ball_size(self._settings.bits, radius)
        if size <= SMALL_BALL:
            return True
        kept = all(self._directories.kept(*one) is not None for one in self._partitions)
        return not kept and size <= ENUMERATE_AT_LEAST

    def codes(self, generation: int, query: int) -> list[int]:
        """A query's code in each table."""
        return [int(code) for code in self._encoded[generation].codes[query]]

    def probes(self, queries: Sequence[int]) -> list[Probes]:
        """What to look up in each partition for these queries."""
        if self.radius is not None and not self.walks:
            return [Probes(p, g, [self._ball(g, query, self.radius) for query in queries]) for p, g in self._partitions]
        if self.radius is not None:
            return self.within(dict.fromkeys(queries, self.radius))
        shape = (-1, self._settings.tables, self._settings.bits)
        probes = []
        for (p, g), kept in zip(self._partitions, self._directories.read(self._partitions), strict=True):
            margins = self._encoded[g].margins[list(queries)].reshape(shape)
            probes.append(Probes(p, g, cheapest(kept.tables, margins, self.share), kept.positions))
        return probes

    def within(self, radii: Mapping[int, int]) -> list[Probes]:
        """The non-empty buckets within a radius, one for each query."""
        return [
            Probes(
                p,
                g,
                [
                    [within(t.codes, code, radius) for t, code in zip(kept.tables, self.codes(g, query), strict=True)]
                    for query, radius in radii.items()
                ],
                kept.positions,
            )
            for (p, g), kept in zip(self._partitions, self._directories.read(self._partitions), strict=True)
        ]

    def radius_of(self, query: int, members: int) -> int:
        """The radius within which a query finds `members` different items, as the directories count them."""
        bits = self._settings.bits
        reached = sum(
            members_within([(t.codes, t.counts) for t in kept.tables], self.codes(g, query), bits)
            for (_, g), kept in zip(self._partitions, self._directories.read(self._partitions), strict=True)
        )
        enough = np.flatnonzero(np.asarray(reached) >= members)
        return int(enough[0]) if len(enough) else bits

    def _ball(self, generation: int, query: int, radius: int) -> list[NDArray[np.uint64]]:
        return [ball(code, self._settings.bits, radius) for code in self.codes(generation, query)]
