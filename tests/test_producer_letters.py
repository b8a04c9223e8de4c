"""What a producer knows of the batches it sent: their dead letters, and no more of the finished ones."""

from __future__ import annotations

import fakeredis
import numpy as np
import pytest

from stream_hash import Index, Producer, producer
from stream_hash.service.connections import Connections
from stream_hash.service.ingest import apply_batch
from stream_hash.settings import IndexSettings
from stream_hash.storage.ledger import DeadLetter, Ledger


@pytest.fixture
def connections() -> Connections:
    client = fakeredis.FakeRedis()
    opened = Connections(client, client)
    Index.create("x", IndexSettings(3), opened)
    return opened


def bury_all(connections: Connections, reason: str) -> None:
    """Finish every pending batch with its first item as a dead letter."""
    ledger = Ledger(connections.client, "x")
    for batch in ledger.lease_overdue(2**52, 2**52):
        delivery = ledger.begin(batch, lease_until=0)
        assert delivery is not None
        ledger.finish(batch, [DeadLetter(delivery.first, 1, batch, reason, b"")])


def test_a_producer_finds_its_own_dead_letters_among_those_of_others(connections: Connections) -> None:
    earlier, mine, other = (Producer("x", connections, batch_items=1) for _ in range(3))
    earlier.upsert("e", [1, 2, 3])
    bury_all(connections, "earlier")
    assert mine.dead_letters() == []
    for number in range(150):
        mine.upsert(f"m{number}", [1, 2, 3])
        other.upsert(f"o{number}", [1, 2, 3])
    bury_all(connections, "now")
    letters = mine.dead_letters()
    assert len(letters) == 150
    assert {letter.reason for letter in letters} == {"now"}
    assert {letter.batch for letter in letters}.isdisjoint(letter.batch for letter in other.dead_letters())
    assert len(other.dead_letters()) == 150
    assert [letter.reason for letter in earlier.dead_letters()] == ["earlier"]


def test_finished_batches_are_forgotten_while_the_stream_goes_on(
    connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(producer, "PRUNE_AT", 8)
    stream = Producer("x", connections, batch_items=1)
    ledger = Ledger(connections.client, "x")
    handle = stream._handle
    for number in range(100):
        stream.upsert(str(number), [1, 2, 3])
        for batch in ledger.still_pending(stream._outstanding):
            apply_batch(handle, batch)
        assert len(stream._outstanding) <= 9


def test_faults_tells_what_would_be_refused_and_sends_nothing(connections: Connections) -> None:
    stream = Producer("x", connections)
    vectors = np.array([[1, 2, 3], [0, 0, 0], [1, 2, np.inf]])
    assert set(stream.faults(["a", "b", "c"], vectors)) == {1, 2}
    assert set(stream.faults(["a", ""], np.ones((2, 4)))) == {0, 1}
    stream.flush()
    assert stream.accepted == 0
