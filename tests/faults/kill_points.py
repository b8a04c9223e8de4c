"""The sixty points at which processes are killed: twenty of a trainer, twenty of a hash worker, twenty of the server.

Each is a moment in a real process: one call of the product, before it, after it, or while its reply is on the way.
A trainer builds generation after generation, the hash workers build its chunks and apply a stream of batches, and the
server serves both; so a point of the server is one of whoever was speaking with it. A client sends again for half a
second what was not answered: a server that is back at once is asked everything twice, and one that is away for longer
leaves everybody with an error.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from tests.faults.killing import Point, When

AWAY_SECONDS: Final = 1.5

_BOARD = "stream_hash.storage.trainer_board:TrainerBoard"
_BUILT = "stream_hash.storage.generations:Generations.built"
_CHUNK_LOOKED_AT = "stream_hash.storage.generations:Generations.is_built"
_CHUNK_SENT = "stream_hash.service.spread:enqueue_chunk"
_JOB_STARTED = "workers.base:StreamWorker._start"
_JOB_ENDED = "workers.base:StreamWorker._finish"
_LABELS = "stream_hash.storage.reads:Reader.labelled"


def _phase(name: str) -> Callable[..., bool]:
    """A trainer shows that it begins with this."""
    return lambda _, shown: bool(shown["phase"] == name)


def _job(kind: str) -> Callable[..., bool]:
    """A job of this kind: what its function is called."""
    return lambda _, job, *__: str(job.func_name).endswith(kind)


def _last_of_chunk(_: Any, __: str, ___: list[str], arguments: list[Any]) -> bool:
    return bool(arguments[3] == 1)


def _not_last_of_chunk(_: Any, __: str, ___: list[str], arguments: list[Any]) -> bool:
    return bool(arguments[3] == 0)


def _to_two_generations(_: Any, __: str, ___: list[str], arguments: list[Any]) -> bool:
    return bool(json.loads(arguments[0])["building"])


def _trainer(name: str, when: When, call: str, nth: int = 1, asked: str = "rollback", **which: Any) -> Point:
    return Point("trainer", name, "trainer", when, call, nth, asked=asked, **which)


def _hasher(name: str, when: When, call: str, nth: int = 1, **which: Any) -> Point:
    return Point("hasher", name, "hasher", when, call, nth, **which)


def _server(name: str, by: str, when: When, call: str, nth: int = 1, away: float = AWAY_SECONDS, **which: Any) -> Point:
    return Point("server", name, by, when, call, nth, away=away, **which)


_OF_THE_TRAINER: Final = [
    _trainer("before the lease is taken", "before", "trainer_lead", asked="training"),
    _trainer("while the lease is renewed", "during", "trainer_renew", asked="training"),
    _trainer("while the labels are read", "before", _LABELS, 2, asked="training"),
    _trainer("as learning begins", "after", f"{_BOARD}.show", given=_phase("learning"), asked="training"),
    _trainer("as judging begins", "after", f"{_BOARD}.show", given=_phase("judging"), asked="training"),
    _trainer("while the model is published", "during", "trainer_publish", asked="training"),
    _trainer("while old models are forgotten", "during", "trainer_forget", 2, asked="training"),
    _trainer("after the model was published, before the checkpoint", "before", "trainer_checkpoint", asked="training"),
    _trainer("after the checkpoint, before the request is answered", "after", "trainer_checkpoint", asked="training"),
    _trainer("after the request was answered as trained", "after", f"{_BOARD}.answer", asked="training"),
    _trainer("before the request is answered as done", "before", f"{_BOARD}.answer", 2, asked="training"),
    _trainer("after an abandoned generation was given up", "after", "generation_abandon", asked="another target"),
    _trainer("after partition 0 was begun, before partition 1", "after", "generation_begin"),
    _trainer("after both were begun, before the first chunk is sent", "before", _CHUNK_SENT),
    _trainer("after the first chunk was sent", "after", _CHUNK_SENT),
    _trainer("while it waits for the chunks", "after", _BUILT, 3),
    _trainer("after the switch of partition 0, before partition 1", "after", "generation_switch"),
    _trainer("after both switches, before the first is retired", "before", "generation_retire"),
    _trainer("in the middle of retiring", "during", "generation_retire", 2),
    Point("trainer", "in a rollback, before its chunks are sent", "rollback", "before", _CHUNK_SENT, asked="by hand"),
]

_OF_A_HASHER: Final = [
    _hasher("between taking a chunk's job and starting it", "before", _JOB_STARTED, given=_job("build_chunk")),
    _hasher("after a chunk's job was started", "after", _JOB_STARTED, given=_job("build_chunk")),
    _hasher("after it looked whether a chunk is built", "after", _CHUNK_LOOKED_AT),
    _hasher("after the new model was loaded", "after", "stream_hash.storage.models:Models.load", 2),
    _hasher("after a chunk's items were hashed, before they are put", "before", "generation_put"),
    _hasher("while the first items of a chunk are put", "during", "generation_put"),
    _hasher("between the first and the second put of a chunk", "after", "generation_put", given=_not_last_of_chunk),
    _hasher("before the last put of a chunk", "before", "generation_put", given=_last_of_chunk),
    _hasher("after SETBIT of a chunk, before its job is finished", "after", "generation_put", given=_last_of_chunk),
    _hasher("while a chunk's job is finished", "during", _JOB_ENDED, given=_job("build_chunk")),
    _hasher("between taking a batch's job and starting it", "before", _JOB_STARTED, given=_job("apply_batch")),
    _hasher("after a batch was begun, before it is hashed", "after", "begin"),
    _hasher("after it was told that a write is stale", "after", "write", answered=lambda reply: reply[0] == b"STALE"),
    _hasher("while a write to two generations is made", "during", "write", given=_to_two_generations),
    _hasher("between the two partitions of a batch", "after", "write", given=_to_two_generations),
    _hasher("after the writes of a batch, before it is finished", "before", "finish"),
    _hasher("while a batch is finished", "during", "finish"),
    _hasher("after a batch was finished, before its job is", "before", _JOB_ENDED, given=_job("apply_batch")),
    _hasher("in the sweep, after overdue batches were looked for", "after", "lease"),
    _hasher("in the sweep, after partition 0 was purged", "after", "purge"),
]

_OF_THE_SERVER: Final = [
    _server("while a batch is accepted, and sent again", "client", "during", "accept", 3, away=0),
    _server("after a batch was accepted, before its job is queued", "client", "after", "accept", 3),
    _server("while a query gathers", "client", "during", "stream_hash.storage.buckets:BucketReader.gather", 3),
    _server(
        "after it began to rewrite its append-only file",
        "client",
        "after",
        "redis.client:Redis.bgrewriteaof",
        asked="rewriting",
    ),
    _server(
        "as it starts again after a kill",
        "client",
        "after",
        "stream_hash.storage.server:EmbeddedServer._launch",
        asked="a fallen server",
    ),
    _server("while a batch is begun", "hasher", "during", "begin"),
    _server(
        "while a write to two generations is made, and again",
        "hasher",
        "during",
        "write",
        given=_to_two_generations,
        away=0,
    ),
    _server("while a batch is finished, and again", "hasher", "during", "finish", away=0),
    _server("while the first items of a chunk are put, and again", "hasher", "during", "generation_put", away=0),
    _server("after SETBIT of a chunk", "hasher", "after", "generation_put", given=_last_of_chunk),
    _server("while a chunk's job is finished", "hasher", "during", _JOB_ENDED, given=_job("build_chunk")),
    _server("while the lease of a trainer is taken", "trainer", "during", "trainer_lead", asked="training"),
    _server("while the lease of a trainer is renewed", "trainer", "during", "trainer_renew", asked="training"),
    _server("while the labels are read", "trainer", "before", _LABELS, 2, asked="training"),
    _server("while a model is published, and again", "trainer", "during", "trainer_publish", asked="training", away=0),
    _server("while the checkpoint of a learner is stored", "trainer", "during", "trainer_checkpoint", asked="training"),
    _server("while partition 1 is begun", "trainer", "during", "generation_begin", 2),
    _server("after a chunk was sent", "trainer", "after", _CHUNK_SENT),
    _server("while partition 0 is switched, and again", "trainer", "during", "generation_switch", away=0),
    _server("in the middle of retiring", "trainer", "during", "generation_retire", 2),
]

POINTS: Final = [*_OF_THE_TRAINER, *_OF_A_HASHER, *_OF_THE_SERVER]
