"""Re-indexing: every item under a new generation's model, while items arrive and queries are answered.

For each partition: begin (from now on the writers write both generations), hash its values chunk by chunk, let the new
generation go live if it is complete, delete the old one. Small partitions are built a group at a time. The state of all
this is on the server: whoever comes with a newer token goes on where another stopped, and any step may be repeated
(storage/generations.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np

from stream_hash.errors import GenerationGoneError, IntegrityError, UsageError
from stream_hash.service.handle import FIRST_GENERATION, IndexHandle
from stream_hash.storage.generations import (
    CHUNK,
    AlreadyLive,
    Begun,
    Busy,
    Incomplete,
    chunks_of,
)
from stream_hash.storage.places import encode_places
from stream_hash.storage.store import Stale

GROUP_CHUNKS: Final = 16
"""Chunks of small partitions that are built together, about: enough for many workers to have something to do, and few
enough that of an index of many partitions little is stored twice at a time."""

READ_BYTES: Final = 512 * 1024
"""Values read at once, about: a quarter of a chunk at 512 dimensions. It bounds the read's time on the server, and the
buffer that the server keeps of its reply."""

ATTEMPTS: Final = 3
"""How often the caller's runner is given the chunks that are missing, before they are built here."""


@dataclass(frozen=True)
class Chunk:
    """A piece of work: chunk `number` of a partition, into `generation`."""

    partition: int
    generation: int
    number: int


@dataclass(frozen=True)
class Progress:
    """items : of the index. done : of these, under the new generation. rate : items a second, of this run."""

    done: int
    items: int
    rate: float


Run: TypeAlias = Callable[[Sequence[Chunk]], Iterable[object]]
"""Builds chunks, here or by sending them to others; progress is looked at whenever it yields. It may leave some out."""


def build_chunk(handle: IndexHandle, partition: int, generation: int, chunk: int, *, again: bool = False) -> bool:
    """Put the items of a chunk into the generation that is being built; False when it is not being built (any more).

    Raises IndexMissingError when the index was wiped and created anew: open it again.

    A chunk that is there already costs one round trip, unless it is to be built `again`.
    """
    state, built = handle.generations.is_built(partition, generation, chunk)
    if state.building != generation:
        return False
    if built and not again:
        return True
    try:
        model = handle.model(generation)
    except GenerationGoneError:
        return False  # it was given up since, and forgotten
    numbers = np.arange(chunk * CHUNK, (chunk + 1) * CHUNK, dtype=np.int64)
    step = max(1, min(CHUNK, READ_BYTES // (4 * handle.settings.dimension)))
    for start in range(0, CHUNK, step):
        # read only now: a write that came after it was begun put its item there itself
        values = handle.reader.values([(partition, numbers[start : start + step])])[0]
        hashed = model.encode(values.vectors)
        places = encode_places(hashed.codes, hashed.signatures, handle.settings)
        last = start + step >= CHUNK
        if handle.generations.put(partition, generation, chunk, values.numbers, values.sequences, places, last=last):
            return False
    return True


def in_process(handle: IndexHandle, *, throttle: float = 1.0, again: bool = False) -> Run:
    """Builds chunks one after the other, here.

    throttle : share of the time that is spent building, above 0 and up to 1; the rest is left to others. Raises
    UsageError when it is neither.
    """
    if not 0 < throttle <= 1:
        raise UsageError(
            f"throttle is {throttle}", why="it is a share of the time", remedy="give one above 0 and up to 1"
        )

    def run(chunks: Sequence[Chunk]) -> Iterator[None]:
        for chunk in chunks:
            start = time.perf_counter()
            build_chunk(handle, chunk.partition, chunk.generation, chunk.number, again=again)
            spent = time.perf_counter() - start
            if throttle < 1:
                time.sleep(spent / throttle - spent)
            yield

    return run


def reindex(
    handle: IndexHandle,
    token: int,
    generation: int,
    *,
    run: Run | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    throttle: float = 1.0,
) -> None:
    """Let `generation`, whose model is published, go live in every partition, and delete what it replaces.

    run : who builds the chunks (by default this process, for the share `throttle` of its time). on_progress is
    called between chunks; it is the place to renew a lease, and an error it raises ends the run, which can be resumed.

    Raises FencedError when a newer token has been here, UsageError when this generation cannot be built (any more),
    IntegrityError when it cannot be completed.
    """
    _activate_all(handle)
    work = _Reindex(handle, token, generation, run or in_process(handle, throttle=throttle), on_progress)
    for group in _groups([given for _, given in handle.reader.sizes()]):
        work.build(group)
    work.finish()
    handle.reload_states()


def retire_all(handle: IndexHandle) -> None:
    """Delete, in small steps, all generations that went out of use."""
    for partition in range(handle.settings.partitions):
        retire(handle, partition)


def retire(handle: IndexHandle, partition: int) -> None:
    """Delete, in small steps, a partition's generations that went out of use."""
    for generation in handle.generations.retiring()[partition]:
        for _ in handle.generations.retire(partition, generation):
            pass


def _activate_all(handle: IndexHandle) -> None:
    """See to it that each partition has a generation to replace: whoever made the first may have died midway."""
    handle.reload_states()
    if all(state.live for state in handle.states):
        return
    if not any(record.generation == FIRST_GENERATION for record in handle.models.records()):
        handle.reload_states()
        if all(state.live for state in handle.states):  # another trainer was here between the two reads
            return
        raise UsageError(
            f"index {handle.name!r} has no generation yet",
            why="its first is made by its first batch",
            remedy="ingest first",
        )
    handle.store.activate(handle.settings, FIRST_GENERATION, handle.identity.nonce)


def _groups(given: Sequence[int]) -> Iterator[list[int]]:
    """The partitions in order, as many together as come to GROUP_CHUNKS, and one at least.

    given : of each partition, how many item numbers it has given out.
    """
    group: list[int] = []
    size = 0
    for partition, numbers in enumerate(given):
        chunks = chunks_of(numbers)
        if group and size + chunks > GROUP_CHUNKS:
            yield group
            group, size = [], 0
        group.append(partition)
        size += chunks
    yield group


class _Reindex:
    """One run over the partitions."""

    def __init__(
        self,
        handle: IndexHandle,
        token: int,
        generation: int,
        run: Run,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self._handle, self._token, self._generation = handle, token, generation
        self._run, self._on_progress = run, on_progress
        self._start = time.perf_counter()
        self._first_done: int | None = None
        self._live: set[int] = set()
        self._building: list[int] = []

    def build(self, partitions: Sequence[int]) -> None:
        """Build some partitions together, let each go live, and delete what it replaces."""
        chunks = {partition: self._begun(partition) for partition in partitions}
        self._building = [partition for partition in partitions if partition not in self._live]
        for attempt in range(ATTEMPTS + 1):
            missing = [chunk for partition in self._building for chunk in self._missing(partition, chunks[partition])]
            if not missing:
                break
            self._work(missing, self._run if attempt < ATTEMPTS else in_process(self._handle))
        for partition in self._building:
            self._finish(partition, chunks[partition])
        self._live.update(self._building)
        self._building = []
        for partition in partitions:
            retire(self._handle, partition)

    def _begun(self, partition: int) -> list[Chunk]:
        """Begin a partition; its chunks. none when the generation is live there already."""
        given = self._begin(partition)
        if given is None:
            self._live.add(partition)
        return [Chunk(partition, self._generation, number) for number in range(chunks_of(given or 0))]

    def _finish(self, partition: int, chunks: Sequence[Chunk]) -> None:
        """Let the generation go live. Raises IntegrityError."""
        if self._switched(partition):
            return
        # Every chunk is said to be there and something is not: that is no order of events that we know of. What was
        # lost without a trace (a server restored from an older copy, say) is put there again.
        self._work(chunks, in_process(self._handle, again=True))
        if not self._switched(partition):
            raise IntegrityError(
                f"generation {self._generation} of partition {partition} of index {self._handle.name!r} is incomplete",
                why="its members do not come to the number of items",
                remedy=f"stream-hash verify {self._handle.name}",
            )

    def _begin(self, partition: int) -> int | None:
        """Item numbers to be scanned; None when the generation is live there already."""
        generations = self._handle.generations
        while True:
            begun = generations.begin(partition, self._generation, self._token)
            if isinstance(begun, Begun):
                return begun.given
            if isinstance(begun, AlreadyLive):
                return None
            if isinstance(begun, Busy):  # somebody's earlier target, which nobody wants any more
                generations.abandon(partition, begun.building, self._token)
                retire(self._handle, partition)
                continue
            raise UsageError(
                f"generation {self._generation} of index {self._handle.name!r} cannot be built",
                why=f"it was live or given up before; live now is {begun.live}",
                remedy="publish its model again: it then gets a new number",
            )

    def _missing(self, partition: int, chunks: Sequence[Chunk]) -> list[Chunk]:
        built = self._handle.generations.built(partition, self._generation, len(chunks))
        return [chunk for chunk, done in zip(chunks, built.tolist(), strict=True) if not done]

    def _work(self, chunks: Sequence[Chunk], run: Run) -> None:
        self._report()
        for _ in run(chunks):
            self._report()

    def _switched(self, partition: int) -> bool:
        """Whether the generation is live now. Raises IntegrityError when somebody took it out of building."""
        outcome = self._handle.generations.switch(partition, self._generation, self._token)
        if isinstance(outcome, Stale):
            raise IntegrityError(
                f"generation {self._generation} of partition {partition} is not being built any more",
                why=f"live is {outcome.state.live}, building {outcome.state.building}",
                remedy="start again",
            )
        return not isinstance(outcome, Incomplete)

    def finish(self) -> None:
        """Report that all is done."""
        self._report()

    def _report(self) -> None:
        """Report what is live, and of the partitions that are being built what is there."""
        if self._on_progress is None:
            return
        sizes = [items for items, _ in self._handle.reader.sizes()]
        done = sum(sizes[partition] for partition in self._live)
        for partition in self._building:
            built = self._handle.generations.count_built(partition, self._generation)
            done += min(built * CHUNK, sizes[partition])
        if self._first_done is None:
            self._first_done = done
        seconds = time.perf_counter() - self._start
        rate = (done - self._first_done) / seconds if seconds > 0 else 0.0
        self._on_progress(Progress(done, sum(sizes), max(0.0, rate)))
