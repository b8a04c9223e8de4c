"""An index's settings and the writes to its partitions.

Rules (the scripts hold them; tests remove each and see it missed)
1. A write is one script on one partition: atomic on a server and on a cluster.
2. A writer says which generations it hashed for. If the partition's differ, nothing is written and the
   answer is `Stale`; the caller loads the models of those generations and calls again.
3. Sequence numbers order the writes of an id; a call repeated, late or out of order changes nothing.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from stream_hash.errors import IndexExistsError, IndexMissingError, PartitionFullError
from stream_hash.settings import NUMBER_BITS, IndexSettings
from stream_hash.storage.connection import Client, is_cluster
from stream_hash.storage.keys import INDEXES, IndexKeys, PartitionKeys
from stream_hash.storage.places import code_bytes
from stream_hash.storage.scripts import Scripts

WRITE_ITEMS: Final = 128
"""Items a call of the write script: 2 to 3 ms of server time at 512 dimensions and one table."""

PURGE_AT_ONCE: Final = 1_000
"""Tombstones forgotten in one call."""


@dataclass(frozen=True)
class State:
    """The generations of a partition that writes must be hashed for; 0 is none yet."""

    live: int
    building: int | None = None

    @property
    def writable(self) -> list[int]:
        """live, then building, as far as there are any."""
        return [g for g in (self.live, self.building) if g]


@dataclass(frozen=True)
class Stale:
    """Nothing was written: the partition's generations are these."""

    state: State


WRITTEN, IGNORED, HELD = 1, 0, 2
"""Outcomes of a write: done; older than what is stored; remembered for an id that has no item now."""


@dataclass(frozen=True)
class Identity:
    """What tells an index from another that had its name before it was wiped: settings, and a nonce."""

    settings: IndexSettings
    nonce: str

    @classmethod
    def of(cls, text: bytes) -> Identity:
        """The identity that create.lua stored."""
        return cls(IndexSettings.from_json(text), str(json.loads(text).get("nonce", "")))


class Store:
    """One index on one server or cluster. All methods are safe to repeat."""

    def __init__(
        self, client: Client, index: str, *, nonce: str = "", scripts: Mapping[str, str] | None = None
    ) -> None:
        """nonce : of the index that was opened; when that has been dropped, writes raise IndexMissingError."""
        self.client = client
        self.index = index
        self.nonce = nonce
        self.keys = IndexKeys(index)
        self._scripts = Scripts(client, scripts)

    def create(self, settings: IndexSettings) -> None:
        """Create the index; creating it again with equal settings changes nothing.

        Raises IndexExistsError when it stands with other settings, or is still being dropped.
        """
        if self.client.exists(self.keys.importing):
            raise self._importing()
        # listed first: an index that was created but not listed would never be swept
        self.client.sadd(INDEXES, self.index)
        fresh = json.dumps(json.loads(settings.to_json()) | {"nonce": secrets.token_hex(8)}, sort_keys=True)
        text = self._scripts("create", [self.keys.settings], [fresh])
        if text is None:  # that was begun in between
            raise self._importing()
        standing = IndexSettings.from_json(text)
        self.client.sadd(INDEXES, self.index)  # again: one of the name may have been dropped in between
        if standing != settings:
            raise IndexExistsError(
                f"index {self.index!r} exists with other settings",
                why=standing.differences(settings),
                remedy="choose another name, or leave the settings out to use it as it is",
            )

    def _importing(self) -> IndexExistsError:
        return IndexExistsError(
            f"an index is being imported under the name {self.index!r}",
            why="until that is finished, or given up, no other can have the name",
            remedy=f"wait, choose another name, or give it up: stream-hash import --abandon {self.index}",
        )

    def settings(self) -> Identity:
        """The settings of the index and its nonce. Raises IndexMissingError when there is no such index."""
        text = self.client.get(self.keys.settings)
        if text is None and self.client.exists(self.keys.dropping):
            raise IndexMissingError(
                f"index {self.index!r} is being dropped",
                why="whoever began to was stopped, or is not done yet",
                remedy=f"stream-hash drop {self.index} --yes",
            )
        if text is None:
            items = self.client.hget(self.keys.importing, "items")
            if items is not None:
                raise IndexMissingError(
                    f"there is no index {self.index!r} yet",
                    why=f"it is being imported, or that was interrupted: {int(items)} items so far",
                    remedy="wait, or import it from the same file again, which goes on where it stopped",
                )
            names = ", ".join(index_names(self.client)[:10])
            raise IndexMissingError(
                f"there is no index {self.index!r}",
                why=f"this server has: {names}" if names else "this server has none",
                remedy=f"stream-hash create {self.index} --dim D",
            )
        return Identity.of(text)

    def partition(self, number: int) -> PartitionKeys:
        return self.keys.partition(number)

    def states(self, partitions: int) -> list[State]:
        """The generations of each partition, in one round trip."""
        pipeline = self.client.pipeline(transaction=False)
        for p in range(partitions):
            pipeline.hmget(self.partition(p).state, "live", "building")
        return [state_of(live, building) for live, building in pipeline.execute()]

    def activate(self, settings: IndexSettings, generation: int, nonce: str) -> None:
        """Let `generation` go live in each partition that has none; the others keep theirs.

        Raises IndexMissingError when the index of that nonce was dropped; on a single server also when it was wiped.
        """
        known_by = "" if is_cluster(self.client) else self.keys.settings
        for p in range(settings.partitions):
            arguments = [generation, nonce, settings.tables, code_bytes(settings), known_by]
            self._scripts("activate", [self.partition(p).state], arguments)

    def upsert(
        self,
        partition: int,
        state: State,
        ids: Sequence[str],
        sequences: Sequence[int],
        values: Sequence[bytes],
        labels: Sequence[str],
        metadata: Sequence[str],
        places: Sequence[NDArray[np.uint8]],
    ) -> list[int] | Stale:
        """Write items: `places` holds one array of them for each of `state.writable`, in that order.

        Returns an outcome an item, or Stale. Raises PartitionFullError when the item numbers run out.
        """
        rows = zip(ids, sequences, labels, metadata, strict=True)
        writes = [["upsert", i, int(s), label, more] for i, s, label, more in rows]
        return self._write(partition, state, writes, np.concatenate(places, axis=1).tobytes(), values)

    def delete(self, partition: int, state: State, ids: Sequence[str], sequences: Sequence[int]) -> list[int] | Stale:
        """Delete items; an id that is not there is remembered as deleted all the same."""
        return self._write(partition, state, [["delete", i, int(s)] for i, s in zip(ids, sequences, strict=True)])

    def label(
        self,
        partition: int,
        state: State,
        ids: Sequence[str],
        sequences: Sequence[int],
        labels: Sequence[str],
    ) -> list[int] | Stale:
        """Set labels; empty text takes a label away."""
        rows = zip(ids, sequences, labels, strict=True)
        return self._write(partition, state, [["label", i, int(s), text] for i, s, text in rows])

    def oldest_kept(self, partition: int, tombstones: int) -> int:
        """The sequence number of a partition's newest tombstone but `tombstones`; 0 when it has not as many."""
        found = self.client.zrange(self.partition(partition).tombstones, tombstones, tombstones, True, True)
        return int(found[0][1]) if found else 0

    def purge(self, partition: int, floor: int) -> int:
        """Raise the floor to `floor` and forget all tombstones below it. Returns how many were forgotten."""
        forgotten = 0
        while True:  # in steps, so that no call holds the server up
            step = int(self._scripts("purge", [self.partition(partition).state], [floor, PURGE_AT_ONCE, self.nonce]))
            forgotten += step
            if step < PURGE_AT_ONCE:
                return forgotten

    def _write(
        self, partition: int, state: State, writes: list[Any], places: bytes = b"", values: Sequence[bytes] = ()
    ) -> list[int] | Stale:
        generations = {"live": str(state.live), "building": str(state.building or "")}
        request = {"nonce": self.nonce, **generations, "writes": writes}
        text = json.dumps(request, ensure_ascii=False, separators=(",", ":"))
        reply = self._scripts("write", [self.partition(partition).state], [text, places, *values])
        if reply[0] == b"OK":
            return [int(outcome) for outcome in reply[1:]]
        if reply[0] == b"STALE":
            return Stale(state_of(reply[1], reply[2]))
        raise PartitionFullError(
            f"partition {partition} of index {self.index!r} is full",
            why=f"it holds {int(reply[1])} of {1 << NUMBER_BITS} items",
            remedy="create an index with more partitions and ingest into that",
        )


def state_of(live: bytes | None, building: bytes | None) -> State:
    """The generations that a partition's state names."""
    return State(int(live or 0), int(building) if building else None)


def index_names(client: Client) -> list[str]:
    """The names of the indexes on this server, sorted."""
    return sorted(name.decode() for name in client.smembers(INDEXES))
