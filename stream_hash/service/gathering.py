"""Gather: the candidates of some queries, complete for every item that was there before they were asked.

Rules
1. Fences: what is read together with the buckets says that the index is still the one that was opened, and that the
   generation is still live for which the buckets were chosen. Else all begins again (ChangedError).
2. Buckets chosen by a kept directory are gathered a second time, if the first reply tells of new buckets that would
   have been chosen. The whole probe is repeated, not the new buckets alone, so that no item is found in two places.
   An item that was there all the time is in a bucket that the second gather knew of: so a third is not needed.
3. Fewer than k candidates are not enough while the index holds more items: the radius grows over the directories,
   read anew, until there are as many. What is found so takes the place of what was, so in place of a budget it is a
   radius that holds the budget.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stream_hash.service.answer import Answer, ChangedError, Stages
from stream_hash.service.handle import IndexHandle
from stream_hash.service.probing import Prober
from stream_hash.storage.buckets import Gathered, Probes


@dataclass
class Candidates:
    """What one query has found. members : by partition (n,) int64, each once. items : of the whole index, then."""

    members: list[NDArray[np.int64]]
    items: int

    @property
    def count(self) -> int:
        return sum(map(len, self.members))


class Gatherer:
    """Gathers for the queries of one batch."""

    def __init__(self, handle: IndexHandle, prober: Prober, answers: Sequence[Answer], stages: Stages) -> None:
        self._handle, self._prober, self._answers, self._stages = handle, prober, answers, stages
        self._found: dict[int, Candidates] = {}

    def gather(self, k: int, *, widen: bool) -> list[Candidates]:
        """The candidates of each query. Raises ChangedError when the index changed meanwhile."""
        queries = list(range(len(self._answers)))
        with self._stages.timed("plan"):
            probes = self._prober.probes(queries)
        found = self._read(queries, probes)
        if self._prober.walks:
            with self._stages.timed("plan"):
                queries, probes = self._incomplete(queries, probes, found)
            if queries:
                for probe, one in zip(probes, self._read(queries, probes), strict=True):
                    self._handle.directories.learn(probe.partition, one)
        for answer in self._answers:
            answer.radius = self._prober.radius
        if widen:
            self._widen(k)
        return [self._found[query] for query in range(len(self._answers))]

    def _read(self, queries: Sequence[int], probes: list[Probes]) -> list[Gathered]:
        """Gather, check the fences, and note what was found for each of the queries."""
        with self._stages.timed("gather"):
            gathered = self._handle.buckets.gather(probes) if probes else []
        if any(found.nonce != self._handle.identity.nonce for found in gathered):
            self._handle.reopen()
            raise ChangedError
        if any(found.live != probe.generation for probe, found in zip(probes, gathered, strict=True)):
            raise ChangedError
        items = sum(found.items for found in gathered)
        buckets = sum(found.buckets for found in gathered)
        for row, query in enumerate(queries):
            self._found[query] = Candidates([found.members[row] for found in gathered], items)
            self._answers[query].probes = sum(len(codes) for probe in probes for codes in probe.queries[row])
            self._answers[query].buckets = buckets
        return gathered

    def _incomplete(
        self, queries: list[int], probes: Sequence[Probes], gathered: Sequence[Gathered]
    ) -> tuple[list[int], list[Probes]]:
        """The queries that have to be gathered again, and what they probe now."""
        directories = self._handle.directories
        learned = [directories.learn(probe.partition, one) for probe, one in zip(probes, gathered, strict=True)]
        if self._prober.radius is None:
            for position, (probe, one) in enumerate(zip(probes, gathered, strict=True)):
                if learned[position] is not None and self._stopped_short(probe, one):
                    directories.forget(probe.partition)
                    learned[position] = None
        if all(new is not None and not any(map(len, new)) for new in learned):
            return [], []
        now = self._prober.probes(queries)
        again = [
            row
            for row in range(len(queries))
            if any(_adds(new, probe.queries[row]) for new, probe in zip(learned, now, strict=True))
        ]
        some = [replace(probe, queries=[probe.queries[row] for row in again]) for probe in now]
        return [queries[row] for row in again], some

    def _stopped_short(self, probe: Probes, found: Gathered) -> bool:
        """Whether buckets were left out although the budget is enough for every member: their counts were too high."""
        if found.items * len(probe.queries[0]) > self._prober.share:
            return False
        (kept,) = self._handle.directories.read([(probe.partition, probe.generation)])
        return any(sum(map(len, codes)) < kept.buckets for codes in probe.queries)

    def _widen(self, k: int) -> None:
        """Grow radii until each query has k candidates, or all items, whichever is fewer."""
        radii = {query: self._answers[query].radius or 0 for query in self._short(self._found, k)}
        if radii:
            self._handle.directories.forget()
        while radii:
            if any(radius >= self._prober.bits for radius in radii.values()):
                raise ChangedError  # items were added after the directory was read
            with self._stages.timed("plan"):
                radii = {
                    query: max(old + 1, self._prober.radius_of(query, self._prober.enough))
                    for query, old in radii.items()
                }
                probes = self._prober.within(radii)
            for probe, found in zip(probes, self._read(list(radii), probes), strict=True):
                self._handle.directories.learn(probe.partition, found)
            for query, radius in radii.items():
                self._answers[query].radius, self._answers[query].widened = radius, True
            short = self._short({query: self._found[query] for query in radii}, k)
            radii = {query: radii[query] for query in short}

    def _short(self, found: Mapping[int, Candidates], k: int) -> list[int]:
        return [query for query, own in found.items() if own.count < min(k, own.items)]


def _adds(new: Sequence[NDArray[np.uint64]] | None, codes: Sequence[NDArray[np.uint64]]) -> bool:
    """Whether codes that were not known, by table, are among those probed now; None stands for any."""
    return new is None or any(bool(np.isin(one, own).any()) for one, own in zip(new, codes, strict=True))
