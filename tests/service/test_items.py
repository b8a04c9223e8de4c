from __future__ import annotations

import numpy as np
import pytest
from test_search import filled, ids, vectors

from stream_hash.client import Index
from stream_hash.errors import IndexExistsError, InvalidItemError
from stream_hash.service.connections import Connections
from stream_hash.settings import IndexSettings
from stream_hash.storage.connection import Client

SETTINGS = IndexSettings(12, partitions=6)


def test_an_item_comes_back_as_it_was_stored(client: Client) -> None:
    index = filled(client, SETTINGS, 50)
    first, missing, last = index.get([ids(50)[0], "nobody", ids(50)[49]])
    assert missing is None
    assert first is not None
    assert last is not None
    assert (first.id, first.label, first.metadata, first.sequence) == ("i00000", 0, None, 1)
    assert last.vector.tobytes() == vectors(50, 12)[49].tobytes()


def test_a_deleted_item_is_gone_at_once_and_the_unknown_ones_are_named(client: Client) -> None:
    index = filled(client, SETTINGS, 50)
    assert index.delete(["i00003", "nobody"]) == ["nobody"]
    assert index.get(["i00003"]) == [None]
    found = index.query(vectors(50, 12)[3], k=49)[0].results
    assert len(found) == 49
    assert "i00003" not in {result.id for result in found}
    assert index.verify().clean


def test_labels_are_set_taken_away_and_refused_when_they_are_none(client: Client) -> None:
    index = filled(client, SETTINGS, 10)
    assert index.label(["i00001", "i00002", "later"], ["cat", None, 3]) == ["later"]
    assert [item and item.label for item in index.get(["i00001", "i00002", "later"])] == ["cat", None, None]
    for wrong in (1.5, [], [[1]], True, {"a": 1}, "x" * 2_000):
        with pytest.raises(InvalidItemError):
            index.label(["i00001"], [wrong])  # type: ignore[list-item]  # what a caller may get wrong


def test_creating_an_index_again_is_harmless_with_equal_settings_only(client: Client) -> None:
    filled(client, SETTINGS, 5)
    Index.create("x", SETTINGS, Connections(client, None))
    with pytest.raises(IndexExistsError) as caught:
        Index.create("x", IndexSettings(12, bits=8, tables=2), Connections(client, None))
    assert caught.value.why == "bits 16, not 8, tables 1, not 2, partitions 6, not 1"
    assert Index.names(Connections(client, None)) == ["x"]


def test_status_counts_what_is_there(client: Client) -> None:
    index = filled(client, SETTINGS, 50)
    index.delete(["i00003"])
    status = index.status()
    assert (status["items"], status["accepted"], status["applied"], status["pending"]) == (49, 51, 51, 0)
    assert status["generation"] == 1
    assert status["buckets"] == len([*client.scan_iter(match="sh:{x:*bucket:*")])
    assert status["last_sequence"] == 51


def test_a_sample_for_generation_1_is_checked(client: Client) -> None:
    from stream_hash.errors import UsageError

    for sample in (np.ones((3, 5), np.float32), np.zeros((3, 12), np.float32)):
        with pytest.raises(UsageError, match="sample"):
            Index.create("y", IndexSettings(12), Connections(client, None), sample=sample)
