"""An index's trainer: who it is, what it has published, where its learning stands.

Rules (each is held by one script; tests remove it and see the loss)
1. One trainer at a time has the lease. Who takes it over gets a higher token, and with the older one nothing can be
   published or stored any more (FencedError), however long its holder was paused. Who is known to be dead has it no
   longer.
2. A model, its record, its generation's number and the target are published at once.
3. A learner's state, the cursor up to which it has learned (inside that state) and the record of the run are stored
   at once, so that a run that is repeated learns nothing twice.
4. All of it is one index's. Who opened another of this name, wiped since, changes nothing (IndexMissingError).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from numpy.typing import NDArray

from stream_hash.errors import UsageError
from stream_hash.storage.codec import encode_model
from stream_hash.storage.connection import Client
from stream_hash.storage.generations import another, fenced
from stream_hash.storage.keys import IndexKeys
from stream_hash.storage.models import GenerationRecord
from stream_hash.storage.scripts import Scripts

RUNS_KEPT: Final = 100

MODELS_KEPT: Final = 10
"""The newest models, which can be rolled back to."""


@dataclass(frozen=True)
class Lead:
    """The caller is the trainer, and proves it by `token`."""

    token: int


@dataclass(frozen=True)
class Held:
    """Somebody else is the trainer. until : Unix milliseconds."""

    holder: str
    until: int


class TrainerState:
    """What an index's trainers share. All methods are safe to repeat.

    Any that changes something raises IndexMissingError when the index was wiped, be it that it was created anew.
    """

    def __init__(self, client: Client, index: str, nonce: str, *, scripts: Mapping[str, str] | None = None) -> None:
        """nonce : of the index that was opened (store.Identity)."""
        self._client, self._nonce = client, nonce
        self._keys = IndexKeys(index)
        self._scripts = Scripts(client, scripts)

    def lead(self, holder: str, *, now: int, until: int, gone: str | None = None) -> Lead | Held:
        """Take the lease if nobody else has it at `now`. now, until : Unix milliseconds.

        gone : a holder that is known to be dead; its lease has run out.
        """
        reply = self._call("trainer_lead", holder, now, until, *([] if gone is None else [gone]))
        return Lead(int(reply[1])) if reply[0] == b"OK" else Held(reply[1].decode(), int(reply[2]))

    def renew(self, token: int, *, until: int) -> None:
        """Keep the lease until then (Unix milliseconds). Raises FencedError when a newer token was given out."""
        self._call("trainer_renew", token, until)

    def release(self, token: int) -> None:
        """Give the lease back. Raises FencedError when a newer token was given out."""
        self._call("trainer_release", token)

    def publish(
        self,
        token: int,
        arrays: Mapping[str, NDArray[Any]],
        *,
        kind: str,
        created: float,
        parent: int | None = None,
        origin: int | None = None,
        figures: Mapping[str, Any] | None = None,
        run: Mapping[str, Any] | None = None,
    ) -> GenerationRecord:
        """Publish a model as the next generation and make it the target; publishing the target again changes nothing.

        parent : the generation it continues. origin : for a rollback, the generation whose model it is. created :
        Unix seconds. run : JSON values: a record of this, kept among the runs at once with it and completed by the
        generation's number. Raises FencedError when a newer token was given out, UsageError before there is a first
        generation.
        """
        raw, sha256 = encode_model(arrays)
        fresh = GenerationRecord(0, sha256, kind, created, parent, origin, dict(figures or {}))
        others = {name: value for name, value in (run or {}).items() if name != "generation"}
        recorded = [] if run is None else [json.dumps(others), RUNS_KEPT]
        reply = self._call("trainer_publish", token, sha256, fresh.to_json(), raw, *recorded)
        if reply[0] == b"NONE":
            raise UsageError(
                f"index {self._keys.index!r} has no generation that another could follow",
                why="its first is made by its first batch",
                remedy="ingest first",
            )
        return GenerationRecord.from_json(int(reply[1]), reply[2])

    def target(self) -> int | None:
        """The generation that every partition shall have live; None when none was published by a trainer."""
        text = self._client.hget(self._keys.trainer, "target")
        return int(text) if text else None

    def checkpoint(self, token: int, *, learner: bytes | None = None, run: Mapping[str, Any] | None = None) -> bool:
        """Store a learner's state and the record of a run, at once; False when that run is the newest already.

        run : JSON values, with an `id`. Raises FencedError when a newer token was given out.
        """
        record = ["", ""] if run is None else [str(run["id"]), json.dumps({**run, "id": str(run["id"])})]
        state = [] if learner is None else [learner]
        return bool(self._call("trainer_checkpoint", token, *record, RUNS_KEPT, *state)[1])

    def ask(self, why: str, *, now: float) -> None:
        """Ask for training. No token: whoever sees the need may ask, and later wishes replace earlier ones.

        why : a few words. now : Unix seconds. A wish is granted by any run of training that began later.
        """
        self._client.hset(self._keys.trainer, mapping={"asked": repr(float(now)), "asked_why": why})

    def asked(self) -> tuple[float, str] | None:
        """When training was last asked for (Unix seconds), and why."""
        when, why = self._client.hmget(self._keys.trainer, "asked", "asked_why")
        return (float(when), (why or b"").decode()) if when else None

    def learner(self) -> bytes | None:
        """The learner's state that was stored last."""
        stored: bytes | None = self._client.get(self._keys.learner)
        return stored

    def runs(self, limit: int = RUNS_KEPT) -> list[dict[str, Any]]:
        """The records of the last runs, newest first."""
        return [json.loads(text) for text in self._client.lrange(self._keys.runs, 0, limit - 1)]

    def forget(self, token: int, in_use: Iterable[int], *, keep: int = MODELS_KEPT) -> list[int]:
        """Forget the generations beyond the newest `keep`, model and record; returns which.

        in_use : generations that a partition has live, builds or is retiring; they are kept, and so is the target.
        Raises FencedError when a newer token was given out.
        """
        return [int(g) for g in self._call("trainer_forget", token, keep, *sorted(set(in_use)))[1:]]

    def _call(self, script: str, *arguments: Any) -> Any:
        reply = self._scripts(script, [self._keys.trainer], [self._nonce, *arguments])
        if reply[0] == b"ANOTHER":
            raise another(self._keys.index)
        if reply[0] == b"FENCED":
            raise fenced(int(reply[1]))
        return reply
