"""Replacing a partition's generation: begin, put chunk by chunk, switch, retire.

Rules (each is held by one script; tests remove it and see the loss)
1. One generation is built at a time. From `begin` on the writers write it as well, because the fence makes them: only
   items that were there before are left to be put.
2. An item is put only if it is still the one that was read, and is not there yet: any chunk may be repeated.
3. Only a complete generation goes live; the one before is then read and written by nobody, and can be deleted in
   pieces, found through its own directories.
4. A caller whose token is older than one seen before changes nothing at all (FencedError), and neither does one that
   opened another index of this name (IndexMissingError).
5. Before a trainer forgets models it has each partition take note of its token (`fence`). Another that was paused with
   an older target in its hands, whose model may be gone by now, then finds its token refused: what is begun has one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from stream_hash.errors import FencedError, IndexMissingError
from stream_hash.storage.connection import Client
from stream_hash.storage.keys import IndexKeys
from stream_hash.storage.scripts import Scripts
from stream_hash.storage.store import Identity, Stale, State, state_of

CHUNK: Final = 1_024
"""Item numbers that are put together, and whose being done is one bit: 2 MB of values at 512 dimensions."""

PUT_PLACES: Final = 256
"""Buckets that the items of one call are put into: 2 to 3 ms of server time."""

RETIRE_KEYS: Final = 256
"""Keys deleted in one call: about 1 ms of server time."""

_ITEM_HEAD: Final = 11
"""Bytes before an item's place: its number and its sequence number."""


@dataclass(frozen=True)
class Begun:
    """A generation is being built. given : item numbers given out so far; the writers see to all later ones."""

    given: int


@dataclass(frozen=True)
class AlreadyLive:
    """The generation is live."""


@dataclass(frozen=True)
class Busy:
    """Another generation is being built."""

    building: int


@dataclass(frozen=True)
class Refused:
    """The generation can not be built: it was live or abandoned before, or (live is 0) there is none to replace."""

    live: int


@dataclass(frozen=True)
class Incomplete:
    """A generation may not go live: it has not as many members in each table as there are items."""

    items: int
    members: list[int]


class Generations:
    """The generations of one index's partitions. All methods are safe to repeat.

    Any that changes something raises IndexMissingError when the index was wiped and created anew.
    """

    def __init__(
        self, client: Client, index: str, identity: Identity, *, scripts: Mapping[str, str] | None = None
    ) -> None:
        self._client = client
        self._keys = IndexKeys(index)
        self._identity = identity
        self._settings = identity.settings
        self._scripts = Scripts(client, scripts)

    def begin(self, partition: int, generation: int, token: int) -> Begun | AlreadyLive | Busy | Refused:
        """Let the writers write `generation` too. Going on with one that is being built answers Begun again.

        Raises FencedError when a newer token has been here.
        """
        reply = self._call("generation_begin", partition, generation, token)
        if reply[0] == b"OK":
            return Begun(int(reply[1]))
        if reply[0] == b"LIVE":
            return AlreadyLive()
        return Busy(int(reply[1])) if reply[0] == b"BUSY" else Refused(int(reply[1]) if len(reply) > 1 else 0)

    def put(
        self,
        partition: int,
        generation: int,
        chunk: int,
        numbers: NDArray[np.int64],
        sequences: NDArray[np.int64],
        places: NDArray[np.uint8],
        *,
        last: bool = True,
    ) -> Stale | None:
        """Put items of a chunk, in calls of bounded server time. last : they are the last of it, and it is built.

        numbers : (n,) item numbers. sequences : (n,) of the values that were hashed. places : (n, place_bytes).
        The values must have been read after `begin`. Returns Stale when the generation is not being built (any more).
        """
        items = np.empty((len(numbers), _ITEM_HEAD + places.shape[1]), dtype=np.uint8)
        items[:, :3] = _bytes_of(numbers, ">u4")[:, 1:]
        items[:, 3:_ITEM_HEAD] = _bytes_of(sequences, "<u8")  # as a value begins (codec.py)
        items[:, _ITEM_HEAD:] = places
        step = max(1, PUT_PLACES // self._settings.tables)
        for start in range(0, max(1, len(items)), step):
            some, at_end = items[start : start + step].tobytes(), last and start + step >= len(items)
            reply = self._call("generation_put", partition, generation, chunk, int(at_end), some)
            if reply[0] == b"STALE":
                return Stale(state_of(reply[1], reply[2]))
        return None

    def switch(self, partition: int, generation: int, token: int) -> Incomplete | Stale | None:
        """Let `generation` go live if it is complete; None when it is live.

        Returns Stale when it is not being built. Raises FencedError when a newer token has been here.
        """
        reply = self._call("generation_switch", partition, generation, token)
        if reply[0] == b"INCOMPLETE":
            return Incomplete(int(reply[1]), [int(members) for members in reply[2:]])
        return Stale(state_of(reply[1], reply[2])) if reply[0] == b"STALE" else None

    def abandon(self, partition: int, generation: int, token: int) -> bool:
        """Build `generation` no longer; whether it was being built.

        Raises FencedError when a newer token has been here.
        """
        return bool(self._call("generation_abandon", partition, generation, token)[1])

    def fence(self, partition: int, token: int) -> set[int] | None:
        """Have nobody with an older token begin anything from now on. Returns what is in use: live, built, retiring.

        None, and the token is not remembered, when the partition has no generation yet. Raises FencedError when a
        newer token has been here.
        """
        reply = self._call("generation_fence", partition, 0, token)
        if reply[0] == b"NONE":
            return None
        return {int(generation) for text in reply[1:] for generation in text.split(b",") if generation}

    def retire(self, partition: int, generation: int) -> Iterator[State | None]:
        """Delete all keys of a generation that is not in use, a piece a step; any step may be the last.

        Yields None after each piece. Stops at once, yielding the state, when the generation is in use.
        """
        phase, position = b"buckets", b"0"
        while phase != b"done":
            reply = self._call("generation_retire", partition, generation, phase, position, RETIRE_KEYS)
            if reply[0] == b"IN USE":
                yield state_of(reply[1], reply[2])
                return
            phase, position = reply
            yield None

    def retiring(self) -> list[list[int]]:
        """For each partition the generations that are not in use and still have keys, oldest first."""
        pipeline = self._client.pipeline(transaction=False)
        for p in range(self._settings.partitions):
            pipeline.hget(self._keys.partition(p).state, "retiring")
        return [[int(g) for g in text.split(b",")] if text else [] for text in pipeline.execute()]

    def is_built(self, partition: int, generation: int, chunk: int) -> tuple[State, bool]:
        """The generations that the partition writes, and whether a chunk is in `generation` already."""
        keys = self._keys.partition(partition)
        pipeline = self._client.pipeline(transaction=True)
        pipeline.hmget(keys.state, "live", "building")
        pipeline.getbit(keys.built(generation), chunk)
        (live, building), bit = pipeline.execute()
        return state_of(live, building), bool(bit)

    def built(self, partition: int, generation: int, chunks: int) -> NDArray[np.bool_]:
        """Which of a partition's first `chunks` chunks are in the generation that is being built. (chunks,) bool."""
        raw = self._client.get(self._keys.partition(partition).built(generation)) or b""
        bits = np.unpackbits(np.frombuffer(raw, dtype=np.uint8)).astype(np.bool_)[:chunks]
        return np.concatenate([bits, np.zeros(chunks - len(bits), dtype=np.bool_)])

    def count_built(self, partition: int, generation: int) -> int:
        """How many chunks are in the generation that is being built."""
        return int(self._client.bitcount(self._keys.partition(partition).built(generation)))

    def _call(self, script: str, partition: int, generation: int, *arguments: Any) -> Any:
        arguments = (generation, self._identity.nonce, *arguments)
        reply = self._scripts(script, [self._keys.partition(partition).state], list(arguments))
        if reply[0] == b"ANOTHER":
            raise another(self._keys.index)
        if reply[0] == b"FENCED":
            raise fenced(int(reply[1]))
        return reply


def fenced(newest: int) -> FencedError:
    """The error of a caller whose token is not the newest."""
    return FencedError(
        "another trainer has taken over",
        why=f"the newest token is {newest}",
        remedy="leave the work to it, or start again",
    )


def another(index: str) -> IndexMissingError:
    """The error of a caller whose index is not there any more."""
    return IndexMissingError(
        f"index {index!r} is not the one that was opened",
        why="it was wiped, and another may have been created under its name",
        remedy="start again",
    )


def chunks_of(given: int) -> int:
    """How many chunks hold `given` item numbers."""
    return -(-given // CHUNK)


def _bytes_of(numbers: NDArray[np.int64], dtype: str) -> NDArray[np.uint8]:
    whole = np.ascontiguousarray(numbers.astype(dtype))
    return whole.view(np.uint8).reshape(len(numbers), whole.itemsize)
