"""What callers get wrong ends in a sentence, never in a traceback, and never in something that was not meant."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import fakeredis
import numpy as np
import pytest

from stream_hash import Index, Producer
from stream_hash.errors import InvalidItemError, StreamHashError, UsageError
from stream_hash.service.connections import Connections
from stream_hash.settings import IndexSettings, label_text
from stream_hash.storage.ledger import DeadLetter, Ledger


@pytest.fixture
def connections() -> Iterator[Connections]:
    with fakeredis.FakeRedis() as client:
        yield Connections(client, client)


@pytest.fixture
def index(connections: Connections) -> Any:
    """An index of three coordinates; Any, since what follows is what its types forbid."""
    return Index.create("x", IndexSettings(3), connections)


@pytest.fixture
def producer(index: Any, connections: Connections) -> Any:
    return Producer("x", connections)


@pytest.mark.parametrize("wrong", [7, None, b"a", "\udcff", "", "é" * 65, ["a"], np.arange(3)])
def test_what_can_be_no_id_is_refused_wherever_ids_are_taken(index: Any, producer: Any, wrong: object) -> None:
    for call in (
        lambda: index.get(["a", wrong]),
        lambda: index.delete(["a", wrong]),
        lambda: index.label(["a", wrong], ["b", "c"]),
        lambda: producer.delete(["a", wrong]),
        lambda: producer.upsert(wrong, [1, 2, 3]),
    ):
        with pytest.raises(InvalidItemError) as caught:
            call()
        assert caught.value.why
        assert caught.value.remedy


@pytest.mark.parametrize("text", ["abc", b"abc", "a"])
def test_one_text_is_no_list_of_ids(index: Any, producer: Any, text: Any) -> None:
    rows = np.ones((len(text), 3))
    for call in (
        lambda: index.get(text),
        lambda: index.delete(text),
        lambda: index.label(text, ["x"] * len(text)),
        lambda: index.label(["a"] * len(text), text),
        lambda: producer.delete(text),
        lambda: producer.upsert_many(text, rows),
        lambda: producer.faults(text, rows),
        lambda: producer.upsert_many(["a"] * len(text), rows, text),
    ):
        with pytest.raises(UsageError, match="are the one text") as caught:
            call()
        assert caught.value.why == "it would be taken apart into letters"


@pytest.mark.parametrize("ids", [None, 7, {"a", "b"}, {"a": 1, "b": 2}])
def test_what_is_no_list_is_refused(index: Any, producer: Any, ids: Any) -> None:
    for call in (lambda: index.get(ids), lambda: producer.upsert_many(ids, np.ones((2, 3)))):
        with pytest.raises(UsageError, match="the ids are"):
            call()


def test_lists_of_unequal_length_are_refused(index: Any, producer: Any) -> None:
    with pytest.raises(UsageError, match="2 ids and 1 labels"):
        index.label(["7", "8"], ["x"])
    with pytest.raises(UsageError, match="1 ids and 0 labels"):
        index.label(["7"], None)
    with pytest.raises(UsageError, match="2 ids and 1 metadata"):
        producer.upsert_many(["7", "8"], np.ones((2, 3)), None, [None])


def test_any_iterable_of_ids_and_array_of_labels_is_taken(index: Any, producer: Any) -> None:
    assert producer.upsert_many((i for i in "ab"), np.ones((2, 3), np.int8), np.array([1, 2])) == {}
    assert producer.upsert_many(np.array(["c", "d"]), [[1, 2, 3], [4, 5, 6]], np.array(["x", "y"])) == {}
    assert producer.upsert_many([], np.ones((0, 3)), np.array([])) == {}
    assert index.get(np.array(["a", "b"])) == [None, None]
    assert index.label((i for i in "ab"), np.array([1, 2])) == ["a", "b"]


@pytest.mark.parametrize(
    "vectors",
    [
        [[1, 2, 3], [1, 2]],
        "abc",
        ["a", "b", "c"],
        np.ones(3, complex),
        [True, False, True],
        None,
        5.0,
        [],
        np.ones((2, 2, 3)),
        [1, 2, 3, 4],
        [1, 2, np.inf],
        [1, 2, 1e39],
        [10**400, 1, 1],
    ],
)
def test_what_is_no_query_is_refused_and_never_truncated(index: Any, vectors: object) -> None:
    with pytest.raises(UsageError):
        index.query(vectors)


@pytest.mark.parametrize(
    "plan", [{"k": 3.0}, {"k": "3"}, {"k": True}, {"k": None}, {"radius": 2.5}, {"radius": "2"}, {"budget": 1e3}]
)
def test_counts_of_a_query_are_whole_numbers(index: Any, plan: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"{next(iter(plan))} is ") as caught:
        index.query([1, 2, 3], **plan)
    assert caught.value.why == "it is a whole number"
    numpy_s = {name: np.int64(3) for name in plan}
    assert index.query([1, 2, 3], **numpy_s)[0].results == []


@pytest.mark.parametrize("name", [None, 7, b"x", "", "a:b", ["x"]])
def test_what_is_no_name_is_refused(connections: Connections, name: Any) -> None:
    for call in (lambda: Index.create(name, IndexSettings(3), connections), lambda: Index(name, connections)):
        with pytest.raises(UsageError, match="the index name is"):
            call()


def test_settings_and_connections_of_another_type_are_refused(connections: Connections) -> None:
    for wrong in (None, 64, {"dimension": 64}):
        with pytest.raises(UsageError, match="the settings are"):
            Index.create("x", wrong, connections)  # type: ignore[arg-type]  # what a caller may get wrong
    with pytest.raises(UsageError, match="the connections are"):
        Index("x", connections.client)


@pytest.mark.parametrize("sample", [[1, 2, 3], [[1, 2], [1]], [["a", "b", "c"]], [[1j, 1, 1]], [[1, 2, np.nan]], "abc"])
def test_a_sample_that_is_none_is_refused_and_no_index_made(connections: Connections, sample: Any) -> None:
    with pytest.raises(UsageError, match="sample"):
        Index.create("x", IndexSettings(3), connections, sample=sample)
    assert Index.names(connections) == []


def test_a_sample_may_be_lists(connections: Connections) -> None:
    assert Index.create("x", IndexSettings(3), connections, sample=[[1, 2, 3]]).status()["generation"] == 1


@pytest.mark.parametrize("vector", [[1, [2]], "abc", None, [1j, 2, 3], [[1, 2, 3]], 5, [1, 2]])
def test_what_is_no_vector_is_refused(producer: Any, vector: object) -> None:
    with pytest.raises(InvalidItemError):
        producer.upsert("a", vector)


@pytest.mark.parametrize("options", [{"batch_items": 2.5}, {"batch_items": "9"}, {"max_pending": 1.0}])
def test_bounds_of_a_producer_are_whole_numbers(index: Any, connections: Connections, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        Producer("x", connections, **options)


def test_the_integers_of_numpy_are_integers_in_settings_and_labels() -> None:
    settings = IndexSettings(np.int64(64), bits=np.uint8(8), seed=np.int32(7))  # type: ignore[arg-type]
    assert settings == IndexSettings(64, bits=8, seed=7)
    assert settings.to_json() == IndexSettings(64, bits=8, seed=7).to_json()
    assert (label_text(np.int64(7)), label_text([np.uint8(1), "a"]), label_text(7)) == ("7", '[1,"a"]', "7")
    for wrong in (True, np.True_, 2.0, np.float32(2), "2", np.arange(3)):
        with pytest.raises(StreamHashError):
            IndexSettings(wrong)  # type: ignore[arg-type]  # what a caller may get wrong
    for wrong in (True, np.True_, 2.5, np.float32(2), np.arange(3)):
        with pytest.raises(InvalidItemError):
            label_text(wrong)
    for wrong in (None, np.array(["l2"]), ["l2"]):
        with pytest.raises(UsageError, match="metric is"):
            IndexSettings(3, metric=wrong)  # type: ignore[arg-type]  # what a caller may get wrong


def test_dead_letters_tell_which_items_and_why(index: Any, producer: Any, connections: Connections) -> None:
    assert index.dead_letters() == []
    producer.upsert_many(["a", "b"], np.ones((2, 3)))
    producer.flush()
    producer.upsert_many(["c"], np.ones((1, 3)))
    producer.flush()
    ledger = Ledger(connections.client, "x")
    first, second = ledger.lease_overdue(2**52, 2**52)
    for batch, payload in ((first, None), (second, b"damaged")):
        delivery = ledger.begin(batch, lease_until=0)
        assert delivery is not None
        letter = DeadLetter(delivery.first, delivery.items, batch, "odd", payload or delivery.payload)
        ledger.finish(batch, [letter])
    letters = index.dead_letters()
    assert [(one.ids, one.reason, one.batch, one.first, one.items) for one in letters] == [
        (["a", "b"], "odd", first, 1, 2),
        ([], "odd", second, 3, 1),
    ]
    assert len(index.dead_letters(1)) == 1
    for wrong in (0, -1, 1.5):
        with pytest.raises(UsageError, match="limit"):
            index.dead_letters(wrong)
