"""Each index: is it whole, do batches wait, have some died?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from redis import exceptions

from stream_hash.errors import IndexMissingError, IntegrityError
from stream_hash.service.doctor.finding import ERROR, OK, WARNING, Finding, guarded
from stream_hash.service.handle import IndexHandle
from stream_hash.service.verify import letters_fault, verify
from stream_hash.storage.connection import Client
from stream_hash.storage.dropping import dropping
from stream_hash.storage.inspect import Inspector
from stream_hash.storage.ledger import Ledger
from stream_hash.storage.trainer_board import TrainerBoard

WAITING_SECONDS: Final = 60.0
"""How long a batch may wait before that is worth a warning."""

SHOWN: Final = 5
"""Violations that are told."""


def waiting(client: Client, name: str) -> int:
    """How many batches are pending; 0 where nobody may, or can, look: that is said elsewhere."""
    try:
        return Ledger(client, name).balance().pending_batches
    except exceptions.ResponseError:
        return 0


def findings(client: Client, name: str, *, verify_all: bool, now_milliseconds: int) -> Iterator[Finding]:
    """What there is to say of one index."""
    subject = f"index {name}"
    handles: list[IndexHandle] = []

    def look() -> Iterator[Finding]:
        try:
            handles.append(IndexHandle(client, name))
        except IndexMissingError:
            yield _missing(client, name)

    yield from guarded("index", subject, look)
    for handle in handles:
        one = _Index(handle, subject, verify_all=verify_all, now_milliseconds=now_milliseconds)
        for check in ("queue", "dead", "generations", "consistency"):
            yield from guarded(check, subject, getattr(one, f"_{check}"))


def _missing(client: Client, name: str) -> Finding:
    if dropping(client, name) is not None:
        said = "it is half dropped, and cannot be used"
        return Finding(WARNING, "index", f"index {name}", said, f"stream-hash drop {name} --yes")
    said = "it is listed, and not there: it was wiped, or is just being created"
    return Finding(WARNING, "index", f"index {name}", said, f"redis-cli SREM sh:indexes {name}, or create it")


class _Index:
    """One index that is there."""

    def __init__(self, handle: IndexHandle, subject: str, *, verify_all: bool, now_milliseconds: int) -> None:
        self._handle = handle
        self._subject = subject
        self._verify_all = verify_all
        self._now = now_milliseconds

    def _queue(self) -> Iterator[Finding]:
        balance = self._handle.ledger.balance()
        oldest = self._handle.ledger.oldest_arrival()
        seconds = 0.0 if oldest is None else (self._now - oldest) / 1_000
        said = f"{balance.pending} items in {balance.pending_batches} batches wait"
        if seconds >= WAITING_SECONDS and balance.pending_batches:
            said += f", the oldest for {seconds:.0f} s"
            yield Finding(WARNING, "queue", self._subject, said, "start more hash workers: stream-hash worker")
        else:
            yield Finding(OK, "queue", self._subject, said)

    def _dead(self) -> Iterator[Finding]:
        dead, name = self._handle.ledger.balance().dead, self._handle.name
        if dead:
            fix = f"stream-hash dead list {name} --reasons, then stream-hash dead retry {name} or dead drop {name}"
            yield Finding(WARNING, "dead letters", self._subject, f"{dead} item{'s' * (dead > 1)} died", fix)
        else:
            yield Finding(OK, "dead letters", self._subject, "none")

    def _generations(self) -> Iterator[Finding]:
        handle = self._handle
        live = {state.live for state in handle.states} - {0}
        building = {state.building for state in handle.states if state.building}
        used = sorted(live | building)
        damaged = [generation for generation in used if self._is_damaged(generation)]
        for generation in damaged:
            said = f"the model of generation {generation} is missing or damaged: nothing can be hashed with it"
            yield Finding(ERROR, "generations", self._subject, said, self._way_back(used))
        target = handle.trainer.target()
        unfinished = building or len(live) > 1 or (target is not None and live and live != {target})
        if unfinished and TrainerBoard(handle.client, handle.name).leader(self._now) is None:
            said = f"a re-index is not done, and nobody works on it (live {_list(live)}, building {_list(building)})"
            fix = f"stream-hash reindex {handle.name} --resume, or start a trainer: stream-hash trainer"
            yield Finding(WARNING, "generations", self._subject, said, fix)
        elif not damaged:
            said = f"generation {_list(live)}, checksum right" if live else "none yet: the first batch makes it"
            yield Finding(OK, "generations", self._subject, said + (", re-indexing" if unfinished else ""))

    def _is_damaged(self, generation: int) -> bool:
        try:
            self._handle.models.load(generation)
        except IntegrityError:
            return True
        return False

    def _way_back(self, used: list[int]) -> str:
        """The newest kept generation whose model is sound."""
        kept = [record.generation for record in self._handle.models.records() if record.generation not in used]
        for generation in reversed(kept):
            if not self._is_damaged(generation):
                return f"stream-hash rollback {self._handle.name} {generation}"
        return "restore the server from a backup, or ingest everything into a new index"

    def _consistency(self) -> Iterator[Finding]:
        wrong = verify(self._handle).violations if self._verify_all else list(self._quick_faults())
        name = self._handle.name
        for sentence in wrong[:SHOWN]:
            fix = "" if self._verify_all else f"stream-hash verify {name} tells all; "
            fix += f"stream-hash rollback {name} {max(s.live for s in self._handle.states)} builds all buckets anew"
            yield Finding(ERROR, "consistency", self._subject, sentence, fix)
        if len(wrong) > SHOWN:
            said = f"and {len(wrong) - SHOWN} more"
            yield Finding(ERROR, "consistency", self._subject, said, f"stream-hash verify {name}")
        if not wrong:
            said = "every invariant holds" if self._verify_all else "counts agree"
            yield Finding(OK, "consistency", self._subject, said)

    def _quick_faults(self) -> Iterator[str]:
        """What is wrong with the counts that can be compared in one atomic look each."""
        handle = self._handle
        inspector = Inspector(handle.client, handle.name, handle.settings)
        for partition, state in enumerate(handle.states):
            counts = inspector.counts(partition)
            if counts.items != counts.records or counts.items + counts.free != counts.given:
                yield (
                    f"partition {partition}: it counts {counts.items} items, has records of {counts.records}, and of "
                    f"{counts.given} item numbers {counts.free} are free"
                )
            for table in range(handle.settings.tables if state.live else 0):
                counted, held = inspector.members(partition, state.live, table)
                if counted != held and handle.store.states(partition + 1)[-1].live == state.live:
                    yield f"partition {partition}: it counts {counted} members in table {table}, which has {held}"
        balance = handle.ledger.balance()
        if not balance.holds:
            yield (
                f"the ledger has accepted {balance.accepted} items, but applied {balance.applied}, has "
                f"{balance.pending} pending, {balance.dead} dead and has dropped {balance.dropped}"
            )
        fault = letters_fault(handle)
        if fault:
            yield fault


def _list(generations: set[int]) -> str:
    return ", ".join(map(str, sorted(generations))) or "-"
