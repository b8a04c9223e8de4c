"""Dropping an index, also while workers, trainers and producers have it in hand.

Rules
1. First its settings are put away, by one script: from then on nobody can open it, no batch is accepted or begun, no
   trainer publishes, and no other index of the name is created.
2. Then each partition is told the nonce of the index that is gone, for a day: whatever is still written with that nonce
   is refused (partition.lua). From here on no key of the index comes into being any more.
3. Only then are the keys deleted, found by SCAN and the schema's prefix, until a pass finds none: UNLINK frees memory
   in the background, and no call holds the server up. Nothing has to be intact for that.
4. At the end the name leaves the list of indexes, and last of all goes what tells that it is being dropped. Who is
   killed before is followed by anybody who drops the name again: each step may be repeated.

SCAN looks at every key of the server, not only at the index's: a few seconds where there are ten million.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from stream_hash.storage.connection import Client
from stream_hash.storage.keys import INDEXES, IndexKeys
from stream_hash.storage.scripts import Scripts
from stream_hash.storage.store import Identity

REMEMBERED_SECONDS: Final = 24 * 3_600
"""How long a dropped index's nonce is refused: longer than any worker is paused with a batch in hand."""

AT_ONCE: Final = 1_000
"""Keys that the server looks at, and that are deleted, in one call: about a millisecond."""


def dropping(client: Client, index: str) -> Identity | None:
    """The index that is being dropped under a name, if there is one."""
    text = client.get(IndexKeys(index).dropping)
    return None if text is None else Identity.of(text)


def drop(
    client: Client,
    index: str,
    nonce: str,
    *,
    on_deleted: Callable[[int], None] = lambda _: None,
    scripts: Mapping[str, str] | None = None,
) -> int | None:
    """Delete every key of the index that has this nonce, or go on with one of the name that is being dropped already.

    on_deleted : told how many keys are gone so far. Returns how many went; None when there is no such index.
    """
    keys = IndexKeys(index)
    client.scan(count=1)  # whoever may not, is refused while the index is whole
    text = Scripts(client, scripts)("drop", [keys.settings, keys.dropping], [nonce])
    if text is None:
        return None
    identity = Identity.of(text)
    for partition in range(identity.settings.partitions):
        marker = keys.partition(partition).dropped(identity.nonce)
        client.set(marker, b"", ex=REMEMBERED_SECONDS)  # rule 2: before anything of the partition goes
    deleted = 0
    while True:
        before = deleted
        for some in _keys_of(client, keys):
            deleted += int(client.unlink(*some))
            on_deleted(deleted)
        if deleted == before:
            break
    client.srem(INDEXES, index)
    client.unlink(keys.dropping)  # rule 4: last
    return deleted


def _keys_of(client: Client, keys: IndexKeys) -> Iterator[list[bytes]]:
    """The keys of an index, of all partitions, some at a time; not those that tell of its being dropped."""
    some: list[bytes] = []
    # `{N}:` and `{N:p}:`; a name has no character that a pattern would take for something else
    for key in client.scan_iter(match=f"sh:{{{keys.index}[}}:]*", count=AT_ONCE):
        if key != keys.dropping.encode() and not key.partition(b"}")[2].startswith(b":dropped:"):
            some.append(key)
        if len(some) == AT_ONCE:
            yield some
            some = []
    if some:
        yield some
