"""Scenarios of an import: the rules of storage/imports.py. The index that is imported is `new`, not the bench's own."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
import pytest
from protocol import LIVE, SETTINGS, Bench, place

from stream_hash.errors import IndexExistsError, IndexMissingError, StreamHashError
from stream_hash.storage import imports as imports_module
from stream_hash.storage.codec import encode_values
from stream_hash.storage.discard import discard
from stream_hash.storage.imports import Begun, Imports, imports_under_way
from stream_hash.storage.keys import INDEXES
from stream_hash.storage.ledger import Ledger
from stream_hash.storage.models import Models
from stream_hash.storage.store import Stale, Store, index_names


def imports_of(bench: Bench) -> tuple[Imports, Store]:
    """The import of an index beside the bench's, and its store."""
    scripts = bench.scripts
    return Imports(bench.client, "new", scripts=scripts), Store(bench.client, "new", scripts=scripts)


def begun(imports: Imports, archive: str = "one", sequence: int = 9) -> Begun:
    found = imports.begin(archive, SETTINGS, sequence=sequence, now=5.0)
    assert found is not None
    return found


def finish(imports: Imports, nonce: str, archive: str = "one", *, sequence: int = 12, items: int = 3) -> None:
    runs = [{"id": "second"}, {"id": "first"}]
    plan = {"budget": 7}
    imports.finish(nonce, archive, SETTINGS, sequence=sequence, items=items, target=4, plan=plan, runs=runs)


def put(store: Store) -> list[int] | Stale:
    """Write an item."""
    values = encode_values(np.array([3]), np.ones((1, 3), dtype=np.float32), ["a"], "float32")
    return store.upsert(0, LIVE, ["a"], [3], values, [""], [""], [place(5)])


def none_is_imported_among_the_keys_of_another_that_are_going(bench: Bench) -> None:
    imports, store = imports_of(bench)
    bench.client.set(store.keys.dropping, SETTINGS.to_json())
    with pytest.raises(IndexExistsError, match="dropped"):
        begun(imports)
    assert not bench.client.exists(store.keys.importing)
    bench.client.delete(store.keys.dropping)
    assert begun(imports).done == 0


def an_index_is_seen_when_its_import_is_finished_and_not_before(bench: Bench) -> None:
    imports, store = imports_of(bench)
    nonce = begun(imports).nonce
    store.activate(SETTINGS, 1, nonce)
    assert put(store) == [1]
    imports.advance(nonce, 2, 1)
    assert imports_under_way(bench.client) == ["new"]
    assert index_names(bench.client) == ["bench"]
    with pytest.raises(IndexMissingError, match="yet") as caught:
        store.settings()
    assert "1 items" in caught.value.why
    finish(imports, nonce)
    assert imports_under_way(bench.client) == []
    assert index_names(bench.client) == ["bench", "new"]
    assert (store.settings().settings, store.settings().nonce) == (SETTINGS, nonce)
    ledger = Ledger(bench.client, "new", scripts=bench.scripts)
    assert (ledger.last_sequence(), ledger.balance().accepted, ledger.balance().applied) == (12, 3, 3)
    assert ledger.balance().holds
    assert bench.client.hget(store.keys.trainer, "target") == b"4"
    assert bench.client.lrange(store.keys.runs, 0, -1) == [b'{"id": "second"}', b'{"id": "first"}']
    assert nonce.encode() in bench.client.get(store.keys.plan)
    assert not bench.client.exists(store.keys.importing)


def an_import_goes_on_with_the_same_archive_alone(bench: Bench) -> None:
    imports, _ = imports_of(bench)
    nonce = begun(imports).nonce
    imports.advance(nonce, 4, 40)
    imports.advance(nonce, 2, 20)  # of a slower one
    assert begun(imports) == Begun(nonce, 4, 40)
    with pytest.raises(IndexExistsError, match="being imported already"):
        begun(imports, "other")
    assert begun(imports) == Begun(nonce, 4, 40)


def finishing_is_done_once_and_by_this_import_alone(bench: Bench) -> None:
    imports, store = imports_of(bench)
    nonce = begun(imports).nonce
    other = f'{{"nonce": "of another", "imported": "one", {SETTINGS.to_json()[1:]}'
    late = ["import_finish", "of another", other, 12, 3, 4, ""]  # its caller has looked before
    assert imports._call(*late) == 0
    with pytest.raises(StreamHashError, match="given up"):
        finish(imports, "of another")
    assert bench.client.get(store.keys.settings) is None
    finish(imports, nonce)
    standing = bench.client.get(store.keys.settings)
    assert imports._call("import_finish", nonce, standing, 12, 3, 4, "") == 1  # the reply was lost
    assert imports._call(*late) == 0
    ledger = Ledger(bench.client, "new", scripts=bench.scripts)
    assert ledger.balance().accepted == 3
    with pytest.raises(StreamHashError, match="given up"):
        finish(imports, "of another")
    assert imports.begin("one", SETTINGS, sequence=0, now=6.0) is None
    assert imports_under_way(bench.client) == []


def no_index_is_imported_over_another_nor_created_over_an_import(bench: Bench) -> None:
    own = Imports(bench.client, "bench", scripts=bench.scripts)
    with pytest.raises(IndexExistsError, match="exists"):
        own.begin("one", SETTINGS, sequence=0, now=5.0)
    imports, store = imports_of(bench)
    nonce = begun(imports).nonce
    with pytest.raises(IndexExistsError, match="is being imported under the name"):
        store.create(SETTINGS)
    # it may have been begun since that was looked at
    assert store._scripts("create", [store.keys.settings], [SETTINGS.to_json()]) is None
    finish(imports, nonce)
    store.create(SETTINGS)
    with pytest.raises(IndexExistsError, match="exists"):
        begun(imports, "other")


def sequence_numbers_only_grow(bench: Bench) -> None:
    imports, store = imports_of(bench)
    bench.client.set(store.keys.sequence, 50)  # by a producer that knew an earlier index of this name
    nonce = begun(imports).nonce
    assert bench.client.get(store.keys.sequence) == b"50"
    finish(imports, nonce)
    assert bench.client.get(store.keys.sequence) == b"50"
    imports.abandon()
    bench.client.delete(store.keys.settings, store.keys.sequence)
    nonce = begun(imports, sequence=9).nonce
    assert bench.client.get(store.keys.sequence) == b"9"
    finish(imports, nonce)
    assert bench.client.get(store.keys.sequence) == b"12"


def what_is_given_up_is_written_no_more_and_leaves_nothing(bench: Bench) -> None:
    imports, store = imports_of(bench)
    before = set(bench.client.scan_iter("sh:*new*"))
    nonce = begun(imports).nonce
    Models(bench.client, "new", scripts=bench.scripts).publish(nonce, 1, {"w": np.ones(3)}, kind="lsh", created=1.0)
    store.activate(SETTINGS, 1, nonce)
    assert put(store) == [1]
    doomed = imports._call("import_doom")  # what abandon begins with; here it is killed after that
    assert doomed is not None
    with pytest.raises(StreamHashError, match="given up"):
        imports.advance(nonce, 1, 1)
    with pytest.raises(StreamHashError, match="given up"):
        finish(imports, nonce)
    with pytest.raises(IndexExistsError, match="already"):
        begun(imports)
    assert imports.abandon()
    assert isinstance(put(store), Stale)
    assert not imports.abandon()
    with pytest.raises(StreamHashError, match="given up"):
        finish(imports, nonce)
    assert imports_under_way(bench.client) == []
    assert index_names(bench.client) == ["bench"]
    assert set(bench.client.scan_iter("sh:*new*")) == before
    assert begun(imports).nonce != nonce


def what_is_given_up_is_written_no_more_before_the_first_of_its_keys_goes(bench: Bench) -> None:
    """Else a value that is written behind the deletion's back would be left for ever."""
    imports, store = imports_of(bench)
    store.activate(SETTINGS, 1, begun(imports).nonce)
    assert put(store) == [1]
    late: list[list[int] | Stale] = []

    def discarded(*arguments: Any) -> None:
        late.append(put(store))
        discard(*arguments)

    with mock.patch.object(imports_module, "discard", discarded):
        assert imports.abandon()
    assert [type(outcome) for outcome in late] == [Stale]


def what_is_imported_already_is_listed_again(bench: Bench) -> None:
    """A second one who drops an earlier index of the name may be slow to take it off the list."""
    imports, _ = imports_of(bench)
    finish(imports, begun(imports).nonce)
    bench.client.srem(INDEXES, "new")
    assert imports.begin("one", SETTINGS, sequence=0, now=6.0) is None
    assert index_names(bench.client) == ["bench", "new"]


SCENARIOS = (
    what_is_given_up_is_written_no_more_before_the_first_of_its_keys_goes,
    what_is_imported_already_is_listed_again,
    none_is_imported_among_the_keys_of_another_that_are_going,
    an_index_is_seen_when_its_import_is_finished_and_not_before,
    an_import_goes_on_with_the_same_archive_alone,
    finishing_is_done_once_and_by_this_import_alone,
    no_index_is_imported_over_another_nor_created_over_an_import,
    sequence_numbers_only_grow,
    what_is_given_up_is_written_no_more_and_leaves_nothing,
)
