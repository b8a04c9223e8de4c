"""Dropping an index by its name: the one that stands there, or the one that somebody began to drop.

The rules are those of storage/dropping.py.
"""

from __future__ import annotations

from collections.abc import Callable

from stream_hash.errors import IndexMissingError
from stream_hash.service.handle import IndexHandle
from stream_hash.settings import check_name
from stream_hash.storage.connection import Client
from stream_hash.storage.dropping import drop, dropping
from stream_hash.storage.store import Store


def droppable(client: Client, name: str) -> int | None:
    """How many items an index holds that can be dropped; None when it is being dropped already.

    Raises IndexMissingError when there is none.
    """
    if dropping(client, check_name(name)) is not None:
        return None
    return sum(items for items, _ in IndexHandle(client, name).reader.sizes())


def drop_index(client: Client, name: str, *, on_deleted: Callable[[int], None] = lambda _: None) -> int:
    """Delete every key of an index, or go on with that. Returns how many went. May be repeated until it returns.

    on_deleted : told how many are gone so far. Raises IndexMissingError when there is no such index.
    """
    going = dropping(client, check_name(name))
    nonce = going.nonce if going is not None else Store(client, name).settings().nonce
    deleted = drop(client, name, nonce, on_deleted=on_deleted)
    if deleted is None:
        raise IndexMissingError(
            f"there is no index {name!r} any more", why="somebody else has dropped it", remedy="nothing is left to do"
        )
    return deleted
