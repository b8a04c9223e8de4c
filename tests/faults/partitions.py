"""The generations of each partition as they must be, kept beside the server by the rules of storage/generations.py.

It is told each call of a script on a partition with the reply, in the order in which the server applied them.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from invariants import Partition

FENCED = ("generation_begin", "generation_switch", "generation_abandon", "generation_fence")


@dataclass
class _Generations:
    """Of one partition. chunks : those that were put to the end, of what is being built."""

    live: int = 0
    building: int = 0
    retiring: list[int] = field(default_factory=list)
    token: int = 0
    floor: int = 0
    chunks: set[int] = field(default_factory=set)

    def activated(self, generation: int) -> None:
        self.live = self.live or generation

    def begun(self, generation: int) -> bytes:
        if generation == self.live:
            return b"LIVE"
        if not self.live:
            return b"NONE"
        if generation == self.building:
            return b"OK"
        if generation < self.live or generation in self.retiring:
            return b"PAST"
        if self.building:
            return b"BUSY"
        self.building = generation
        return b"OK"

    def switched(self, generation: int, answer: bytes) -> bytes:
        """Whether it was complete is left to the invariants: they count what is there."""
        if generation == self.live:
            return b"OK"
        if generation != self.building:
            return b"STALE"
        if answer != b"INCOMPLETE":
            self.retiring.append(self.live)
            self.live, self.building, self.chunks = generation, 0, set()
            return b"OK"
        return answer

    def abandoned(self, generation: int) -> bytes:
        if generation == self.building:
            self.retiring.append(generation)
            self.building, self.chunks = 0, set()
        return b"OK"

    def put(self, generation: int, chunk: int, last: bool) -> bytes:
        if generation != self.building:
            return b"STALE"
        if last:
            self.chunks.add(chunk)
        return b"OK"

    def retired(self, generation: int, answer: bytes) -> bytes:
        if generation in (self.live, self.building):
            return b"IN USE"
        if answer == b"done" and generation in self.retiring:
            self.retiring.remove(generation)
        return answer

    def written(self, request: str, answer: bytes) -> bytes:
        known = json.loads(request)
        agrees = (known["live"], known["building"]) == (str(self.live), str(self.building or ""))
        return answer if agrees and answer != b"STALE" else b"STALE"


class Partitions:
    """All partitions of an index."""

    def __init__(self) -> None:
        self._known: dict[str, _Generations] = defaultdict(_Generations)

    def called(self, script: str, key: str, arguments: Sequence[Any], reply: Any) -> None:
        """Assert that a script answered as it must. Others than those on a partition's generations are passed over."""
        partition = self._known[key]
        if script == "purge":
            partition.floor = max(partition.floor, int(arguments[0]))
        elif script == "activate":
            partition.activated(int(arguments[0]))
            assert int(reply) == partition.live, f"{key}: live is {reply}, not {partition.live}"
        elif script == "write" or script.startswith("generation_"):
            expected = self._expected(script, partition, arguments, reply[0])
            assert reply[0] == expected, f"{script} of {arguments[0]} answered {reply}, not {expected}: {partition}"

    def _expected(self, script: str, partition: _Generations, arguments: Sequence[Any], answer: bytes) -> bytes:
        if script == "write":
            return partition.written(arguments[0], answer)
        generation = int(arguments[0])
        if script in FENCED:
            token = int(arguments[2])
            if token < partition.token:
                return b"FENCED"
            if partition.live:  # before that it is of no index yet
                partition.token = token
        answers: dict[str, Callable[[], bytes]] = {
            "generation_begin": lambda: partition.begun(generation),
            "generation_switch": lambda: partition.switched(generation, answer),
            "generation_abandon": lambda: partition.abandoned(generation),
            "generation_fence": lambda: b"OK" if partition.live else b"NONE",
            "generation_put": lambda: partition.put(generation, int(arguments[2]), int(arguments[3]) == 1),
            "generation_retire": lambda: partition.retired(generation, answer),
        }
        return answers[script]()

    def stands(self, key: str, stored: Sequence[bytes | None]) -> None:
        """Assert that after a script the state of the partition is what its answer said."""
        live, building, retiring = ((text or b"").decode() for text in stored)
        known = self._known[key]
        found = (
            int(live or 0),
            int(building or 0),
            [int(generation) for generation in retiring.split(",") if generation],
        )
        assert found == (known.live, known.building, known.retiring), f"{key}: {found} stands, and should {known}"

    def check(self, stored: Iterable[Partition]) -> None:
        """Assert that what is stored is what the answers said."""
        for one in stored:
            known = self._known[one.key]
            assert int(one.live) == known.live, f"live is {one.live}, not {known}"
            assert int(one.building or 0) == known.building, f"{one.building} is being built, not {known}"
            assert [int(g) for g in one.retiring] == known.retiring, f"retiring are {one.retiring}, not {known}"
            assert one.floor == known.floor, f"the floor is {one.floor}, not {known}"
            assert one.built() == known.chunks, f"chunks {one.built()} are said to be built, not {known}"
