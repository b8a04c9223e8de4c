"""The Lua scripts: the only places in which an index is changed. Two of them, `clock` and `identify`, only read.

They use `redis.call` and `cjson` and nothing else, so that they run alike on Redis, Valkey and fakeredis.
`sources()` hands out their text; a test hands in a text with one rule removed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any, Final

from redis.exceptions import NoScriptError, ResponseError

from stream_hash.errors import IndexExistsError, IndexMissingError
from stream_hash.storage.connection import Client

_OF_A_PARTITION: Final = ("write", "purge")
_OF_A_GENERATION: Final = (
    "generation_begin",
    "generation_put",
    "generation_switch",
    "generation_abandon",
    "generation_fence",
    "generation_retire",
)
_OF_THE_TRAINER: Final = (
    "trainer_lead",
    "trainer_renew",
    "trainer_release",
    "trainer_publish",
    "trainer_checkpoint",
    "trainer_forget",
)
_OF_AN_INDEX: Final = (
    "accept",
    "activate",
    "begin",
    "clock",
    "create",
    "dead_drop",
    "dead_retry",
    "drop",
    "finish",
    "floor",
    "horizon",
    "identify",
    "import_advance",
    "import_begin",
    "import_doom",
    "import_finish",
    "lease",
    "plan",
    "publish",
    "quality_add",
    "quality_fold",
    "release",
    "tally",
)


@cache
def sources() -> Mapping[str, str]:
    """Script name → Lua text, with what it shares with others in front of it."""
    folder = resources.files(__package__)

    def text(name: str) -> str:
        return (folder / f"{name}.lua").read_text(encoding="utf-8")

    of_items, of_trainer = text("partition"), text("trainer")
    of_generations = of_items + text("generation")
    return (
        {name: text(name) for name in _OF_AN_INDEX}
        | {name: of_items + text(name) for name in _OF_A_PARTITION}
        | {name: of_generations + text(name) for name in _OF_A_GENERATION}
        | {name: of_trainer + text(name) for name in _OF_THE_TRAINER}
    )


class Scripts:
    """The scripts, bound to a client. Each call is one round trip, two when the server has forgotten the script.

    A call raises IndexMissingError when the index was dropped, and IndexExistsError where it is being dropped still.
    """

    def __init__(self, client: Client, texts: Mapping[str, str] | None = None) -> None:
        self._client = client
        self._texts = sources() if texts is None else texts

    def __call__(self, name: str, keys: list[str], args: list[Any]) -> Any:
        try:
            return self._run(self._texts[name], keys, args)
        except ResponseError as error:
            raise _meant(error, keys[0]) from error

    def _run(self, text: str, keys: list[str], args: list[Any]) -> Any:
        try:
            return self._client.evalsha(_sha1(text), len(keys), *keys, *args)
        except NoScriptError:
            # not loaded first and called then, as redis-py's Script does: it may be flushed again in between
            return self._client.eval(text, len(keys), *keys, *args)


def _meant(error: ResponseError, key: str) -> Exception:
    """What a script meant by its error reply; the error itself when it is the server's."""
    index = key.partition("{")[2].partition("}")[0].partition(":")[0]
    if str(error).startswith("GONE"):
        return IndexMissingError(
            f"there is no index {index!r} (any more)",
            why="it was dropped since it was opened",
            remedy=f"stream-hash create {index} --dim D",
        )
    if str(error).startswith("DROPPING"):
        return IndexExistsError(
            f"an index {index!r} is still being dropped",
            why="whoever began to was stopped, or is not done yet",
            remedy=f"stream-hash drop {index} --yes, then create it",
        )
    return error


@cache
def _sha1(text: str) -> str:
    """The name under which a server knows a script."""
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
