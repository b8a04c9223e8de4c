"""What has happened in an index since it was created, counted for people and never for correctness.

| name                            | counts                                  | counted by                        |
|---------------------------------|-----------------------------------------|-----------------------------------|
| batches                         | batches accepted                        | accept.lua                        |
| deliveries, retries             | attempts at batches; those not the first | begin.lua                         |
| failed:KIND                     | attempts that failed                    | release.lua                       |
| upserted, deleted, labelled     | items so written                        | finish.lua, for the attempt that  |
| ignored                         | writes older than what was stored       | finished the batch                |
| buried:KIND                     | items that became dead letters          | the same                          |
| queries, candidates             | queries answered, items they looked at  | tally.lua, for processes that     |
| microseconds, within:BOUND      | time they took; how many took so long   | query (service/query_figures.py)  |

Rules
1. Names are from a closed list: a hash of them stays small, whatever happens.
2. Scripts that run anyway count, with what they change and so as often; an attempt that died is only seen as one that
   was delivered. What queries count comes later, in one call for many, or is lost with its process.
3. A count is for the index it was counted in: one script compares the nonce.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final, Literal, TypeAlias, get_args

from stream_hash.storage.connection import Client
from stream_hash.storage.keys import IndexKeys
from stream_hash.storage.scripts import Scripts

FailureKind: TypeAlias = Literal["server", "timeout", "memory", "error"]
"""Why an attempt failed: the server was away or refused, the job took too long, the process had no memory left, or
anything else, which the log tells.
"""

BurialKind: TypeAlias = Literal["invalid", "full", "damaged", "exhausted"]
"""Why items became dead letters: they can never be stored, their partition had no room, the payload of their batch was
damaged, or it was delivered MAX_DELIVERIES times in vain.
"""

OUTCOMES: Final = ("upserted", "deleted", "labelled", "ignored")
FAILURES: Final[tuple[FailureKind, ...]] = get_args(FailureKind)
BURIALS: Final[tuple[BurialKind, ...]] = get_args(BurialKind)

LATENCY_BOUNDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Seconds: what is slower than the last stands under `within:+Inf`. Each query is counted once, under the least."""


def bound_name(bound: float | None) -> str:
    """The name of the queries that took up to `bound` seconds; None for those that took longer than any."""
    return "within:+Inf" if bound is None else f"within:{bound:g}"


class Tallies:
    """The tallies of one index."""

    def __init__(self, client: Client, index: str, *, scripts: Mapping[str, str] | None = None) -> None:
        self._client = client
        self._keys = IndexKeys(index)
        self._scripts = Scripts(client, scripts)

    def add(self, nonce: str, counts: Mapping[str, int]) -> bool:
        """Add counts; False when the index of that nonce is gone. One round trip, and not safe to repeat: a reply
        that is lost may count twice.
        """
        return bool(self._scripts("tally", [self._keys.settings], [nonce, json.dumps(dict(counts))]))

    def read(self) -> dict[str, int]:
        """All counts."""
        return {name.decode(): int(count) for name, count in self._client.hgetall(self._keys.tallies).items()}
