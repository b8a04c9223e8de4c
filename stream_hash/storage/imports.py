"""An index that is being imported: begun, carried on, finished, or given up.

Rules (each is held by one script; tests remove it and see the harm)
1. Until an import is finished its index has no settings, so nobody can open it; nor can anybody create another one
   under its name. Finishing is one step: settings, counters, the target, the plan and the runs appear at once.
2. An import has the digest of its archive, and a nonce that the index will have. Whoever comes with the same archive
   goes on with it, from the block after the last one that is done; whoever comes with another one is refused.
3. Writes are those of any batch (store.py), under the sequence numbers that the archive gives: what is repeated changes
   nothing, so two may even import the same archive at once.
4. What is given up loses its nonce and each partition its generation first: an import that is still running is then
   refused by the fence of the write script. Only after that its keys are deleted.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from stream_hash.errors import IndexExistsError, IntegrityError, StreamHashError
from stream_hash.settings import IndexSettings
from stream_hash.storage.connection import Client
from stream_hash.storage.discard import discard
from stream_hash.storage.keys import IMPORTS, INDEXES, IndexKeys
from stream_hash.storage.scripts import Scripts

AGAIN: Final = "import it from the same file again, which goes on where it stopped; or stream-hash import --abandon "


@dataclass(frozen=True)
class Begun:
    """nonce : of the index to be. done : how many blocks are. items : of these."""

    nonce: str
    done: int
    items: int


class Imports:
    """The import of one index. All methods are safe to repeat."""

    def __init__(self, client: Client, index: str, *, scripts: Mapping[str, str] | None = None) -> None:
        self._client = client
        self._index = index
        self._keys = IndexKeys(index)
        self._scripts = Scripts(client, scripts)

    def begin(self, archive: str, settings: IndexSettings, *, sequence: int, now: float) -> Begun | None:
        """Begin an import, or go on with it; None when the index stands and came of this archive.

        archive : digest. sequence : the last number of the archive, so far as is known. now : Unix seconds.
        Raises IndexExistsError when another index stands, or is being imported, under this name.
        """
        self._client.sadd(IMPORTS, self._index)  # listed first: what was begun and not listed would never be seen
        arguments = [archive, settings.to_json(), secrets.token_hex(8), sequence, repr(now)]
        reply = self._call("import_begin", *arguments)
        if reply[0] == b"OK":
            return Begun(reply[1].decode(), int(reply[2]), int(reply[3]))
        if reply[0] in (b"DONE", b"EXISTS"):
            self._client.srem(IMPORTS, self._index)
        if reply[0] == b"DONE":
            self._client.sadd(INDEXES, self._index)  # a second dropper of an earlier one may have taken it off
            return None
        if reply[0] == b"EXISTS":
            raise IndexExistsError(
                f"index {self._index!r} exists",
                why="an import makes an index anew, and never writes into another",
                remedy="choose another name",
            )
        why = "from another file, or into other partitions" if reply[0] == b"OTHER" else "and is being given up"
        raise IndexExistsError(f"index {self._index!r} is being imported already", why=why, remedy=AGAIN + self._index)

    def advance(self, nonce: str, done: int, items: int) -> None:
        """Remember that the first `done` blocks, which have `items` items, are in. Raises StreamHashError when the
        import was given up.
        """
        if not self._call("import_advance", nonce, done, items):
            raise given_up(self._index)

    def finish(
        self,
        nonce: str,
        archive: str,
        settings: IndexSettings,
        *,
        sequence: int,
        items: int,
        target: int | None,
        plan: Mapping[str, Any] | None,
        runs: Sequence[Mapping[str, Any]],
    ) -> None:
        """Let the index be seen. Raises StreamHashError when the import was given up."""
        own = json.dumps(json.loads(settings.to_json()) | {"nonce": nonce, "imported": archive}, sort_keys=True)
        kept = "" if plan is None else json.dumps({**plan, "nonce": nonce}, sort_keys=True)
        # listed first: an index that stands and is not listed would never be swept. But not what is known to be gone.
        under_way = self._client.hget(self._keys.importing, "nonce")
        if under_way != nonce.encode() and not self._client.exists(self._keys.settings):
            raise given_up(self._index)
        self._client.sadd(INDEXES, self._index)
        texts = [json.dumps(run) for run in runs]
        if not self._call("import_finish", nonce, own, sequence, items, target or "", kept, *texts):
            raise given_up(self._index)
        self._client.srem(IMPORTS, self._index)

    def abandon(self) -> bool:
        """Give up an import that is under way, and delete all that it wrote; False when none is."""
        text = self._call("import_doom")
        if text is None:
            self._client.srem(IMPORTS, self._index)
            return False
        settings = IndexSettings.from_json(text)
        for partition in range(settings.partitions):  # rule 4
            self._client.hset(self._keys.partition(partition).state, "live", "")
        discard(self._client, self._index, settings)
        self._client.unlink(self._keys.importing)
        self._client.srem(IMPORTS, self._index)
        return True

    def _call(self, script: str, *arguments: Any) -> Any:
        return self._scripts(script, [self._keys.settings], list(arguments))


def given_up(index: str) -> StreamHashError:
    """The error of an import that somebody else has ended."""
    return IntegrityError(
        f"the import of index {index!r} was given up meanwhile",
        why="somebody ran stream-hash import --abandon, or deleted its keys",
        remedy="import it again",
    )


def imports_under_way(client: Client) -> list[str]:
    """The names of the indexes that are being imported, or whose import was interrupted; sorted."""
    return sorted(name.decode() for name in client.smembers(IMPORTS))
