"""Scenarios of an index being dropped: the rules of storage/dropping.py, held against all who have it in hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from protocol import LIVE, PARTITION_OF_A, SETTINGS, Bench, place

from stream_hash.errors import IndexExistsError, IndexMissingError
from stream_hash.storage.codec import Batch
from stream_hash.storage.dropping import REMEMBERED_SECONDS, drop, dropping
from stream_hash.storage.generations import Generations
from stream_hash.storage.keys import INDEXES
from stream_hash.storage.ledger import DeadLetter
from stream_hash.storage.live_quality import LiveQuality
from stream_hash.storage.places import code_bytes
from stream_hash.storage.store import Identity, State, Store
from stream_hash.storage.trainer_state import TrainerState

DELETES = Batch("delete", ["a"])


def opened(bench: Bench) -> Identity:
    """The bench's index under its own nonce, with items, a batch that waits and a dead letter."""
    identity = bench.store.settings()
    bench.store = Store(bench.client, "bench", nonce=identity.nonce, scripts=bench.scripts)
    for number, item_id in enumerate("abcdef"):
        bench.upsert(item_id, number + 1, number)
    bench.models.publish(identity.nonce, 1, {"W": np.ones(3)}, kind="lsh", created=0.0)
    bench.ledger.accept("dead", DELETES, lease_until=0)
    bench.ledger.finish("dead", [DeadLetter(1, 1, "dead", "why", b"")])
    bench.ledger.accept("waits", DELETES, lease_until=0)
    return identity


def dropped(bench: Bench, identity: Identity) -> int | None:
    return drop(bench.client, "bench", identity.nonce, scripts=bench.scripts)


def left(bench: Bench) -> set[str]:
    """The keys that are left, but for those that tell who was dropped, and expire."""
    keys = {key.decode() for key in bench.client.scan_iter(match="sh:*")}
    telling = {key for key in keys if ":dropped:" in key}
    assert all(0 < bench.client.ttl(key) <= REMEMBERED_SECONDS for key in telling)
    return keys - telling


def dropping_leaves_nothing(bench: Bench) -> None:
    identity = opened(bench)
    other = Store(bench.client, "bench2", scripts=bench.scripts)
    other.create(SETTINGS)
    kept = {key for key in left(bench) if "bench2" in key} | {INDEXES}
    steps: list[int] = []
    count = drop(bench.client, "bench", identity.nonce, on_deleted=steps.append, scripts=bench.scripts)
    assert count == steps[-1] > 20
    assert left(bench) == kept
    assert bench.client.smembers(INDEXES) == {b"bench2"}
    assert dropped(bench, identity) is None


def only_the_index_that_is_meant_is_dropped(bench: Bench) -> None:
    identity = opened(bench)
    before = bench.dump()
    assert drop(bench.client, "bench", "another", scripts=bench.scripts) is None
    assert bench.dump() == before
    assert identity.nonce


class _KilledError(Exception):
    pass


def whoever_drops_again_goes_on(bench: Bench) -> None:
    """Killed at any of its commands, and gone on with by whoever knows only the name."""
    for steps in range(1, 40):
        client = bench.client
        Store(client, "bench", scripts=bench.scripts).create(SETTINGS)
        nonce = bench.store.settings().nonce
        client.hset(bench.store.partition(0).state, "items", 1)
        try:
            drop(_Killed(client, steps), "bench", nonce, scripts=bench.scripts)
        except _KilledError:
            pass
        else:
            assert left(bench) == set()
            return
        if dropping(client, "bench") is None:
            # nothing had been done yet, or all of it
            assert left(bench) == set() or bench.store.settings().nonce == nonce
        else:
            with pytest.raises(IndexMissingError, match="is being dropped"):
                bench.store.settings()
            with pytest.raises(IndexExistsError, match="still being dropped"):
                bench.store.create(SETTINGS)
        drop(client, "bench", nonce if dropping(client, "bench") is None else "whatever", scripts=bench.scripts)
        assert left(bench) == set(), f"killed before command {steps}"
    pytest.fail("it takes more commands than that")


class _Killed:
    """A client whose owner dies before its nth command, or the first of a name."""

    def __init__(self, client: Any, commands: int = 0, *, before: str = "") -> None:
        self._client, self._left, self._before = client, commands, before

    def __getattr__(self, name: str) -> Callable[..., Any]:
        self._left -= 1
        if not self._left or name == self._before:
            raise _KilledError
        return getattr(self._client, name)  # type: ignore[no-any-return]


def _activate_as_on_a_cluster(bench: Bench, identity: Identity) -> None:
    """There the script cannot look at the settings, and knows by the partition alone."""
    arguments = [1, identity.nonce, SETTINGS.tables, code_bytes(SETTINGS), ""]
    bench.store._scripts("activate", [bench.store.partition(PARTITION_OF_A).state], arguments)


def _late_writes(bench: Bench, identity: Identity) -> list[Callable[[], object]]:
    """All that somebody may still do who was paused with the index in hand."""
    trainer = TrainerState(bench.client, "bench", identity.nonce, scripts=bench.scripts)
    generations = Generations(bench.client, "bench", identity, scripts=bench.scripts)
    numbers = np.array([0])
    return [
        lambda: bench.upsert("a", 99, 5),
        lambda: bench.delete("a", 99),
        lambda: bench.store.delete(PARTITION_OF_A, State(0), ["z"], [99]),
        lambda: bench.store.label(PARTITION_OF_A, State(0), ["z"], [99], ["1"]),
        lambda: bench.store.purge(PARTITION_OF_A, 50),
        lambda: bench.store.activate(SETTINGS, 1, identity.nonce),
        lambda: _activate_as_on_a_cluster(bench, identity),
        lambda: bench.models.publish(identity.nonce, 2, {"W": np.ones(3)}, kind="lsh", created=0.0),
        lambda: bench.ledger.accept("late", DELETES, lease_until=0),
        lambda: trainer.lead("me", now=1, until=2),
        lambda: trainer.publish(99, {"W": np.ones(3)}, kind="grh", created=0.0),
        lambda: trainer.checkpoint(99, learner=b"learned", run={"id": 1}),
        lambda: trainer.renew(99, until=5),
        lambda: generations.begin(PARTITION_OF_A, 2, 99),
        lambda: generations.put(PARTITION_OF_A, 2, 0, numbers, numbers, place(5)),
        lambda: generations.switch(PARTITION_OF_A, 2, 99),
        lambda: generations.abandon(PARTITION_OF_A, 2, 99),
        lambda: list(generations.retire(PARTITION_OF_A, 1)),
        lambda: bench.ledger.retry(1, "again", now=1, lease_until=2, anew=True),
    ]


def what_is_written_late_is_refused_and_leaves_no_key(bench: Bench) -> None:
    identity = opened(bench)
    dropped(bench, identity)
    quality = LiveQuality(bench.client, "bench", identity.nonce, scripts=bench.scripts)
    for late in _late_writes(bench, identity):
        with pytest.raises(IndexMissingError):
            late()
        assert left(bench) == set()
    assert not quality.fold(0, 5, "summary", ask=(1.0, "why"))
    assert bench.ledger.begin("waits", lease_until=0) is None
    assert not bench.ledger.finish("waits")
    bench.ledger.release("waits", now=0, failure="why", blame_server=True)
    assert bench.ledger.lease_overdue(2**52, 2**52) == []
    assert bench.ledger.drop(1) == 0
    assert left(bench) == set()


def what_is_written_late_does_not_reach_the_next_index_of_the_name(bench: Bench) -> None:
    identity = opened(bench)
    dropped(bench, identity)
    fresh = Store(bench.client, "bench", scripts=bench.scripts)
    fresh.create(SETTINGS)
    again = fresh.settings()
    assert again.nonce != identity.nonce
    fresh.activate(SETTINGS, 1, again.nonce)
    before = bench.dump()
    for late in (
        lambda: bench.upsert("a", 99, 5),
        lambda: bench.delete("a", 99),
        lambda: bench.store.purge(PARTITION_OF_A, 50),
        lambda: bench.store.activate(SETTINGS, 1, identity.nonce),
    ):
        with pytest.raises(IndexMissingError):
            late()
        assert bench.dump() == before
    bench.store = Store(bench.client, "bench", nonce=again.nonce, scripts=bench.scripts)
    assert bench.upsert("a", 1, 5) == 1
    assert bench.client.smembers(INDEXES) == {b"bench"}


def while_it_is_being_dropped_nothing_is_accepted_or_begun(bench: Bench) -> None:
    """Only the first command of the drop has been done."""
    identity = opened(bench)
    with pytest.raises(_KilledError):
        drop(_Killed(bench.client, before="set"), "bench", identity.nonce, scripts=bench.scripts)
    assert dropping(bench.client, "bench") == identity
    for refused in (
        lambda: bench.ledger.accept("late", DELETES, lease_until=0),
        lambda: bench.ledger.begin("waits", lease_until=0),
        lambda: bench.models.publish(identity.nonce, 2, {"W": np.ones(3)}, kind="lsh", created=0.0),
        lambda: bench.ledger.retry(1, "again", now=1, lease_until=2, anew=False),
    ):
        with pytest.raises(IndexMissingError):
            refused()
    assert bench.store.label(PARTITION_OF_A, LIVE, ["a"], [99], ["1"]) == [1], (
        "until a partition is told, it is written"
    )


SCENARIOS = (
    dropping_leaves_nothing,
    only_the_index_that_is_meant_is_dropped,
    whoever_drops_again_goes_on,
    what_is_written_late_is_refused_and_leaves_no_key,
    what_is_written_late_does_not_reach_the_next_index_of_the_name,
    while_it_is_being_dropped_nothing_is_accepted_or_begun,
)
