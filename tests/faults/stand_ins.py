"""What stands in a simulation's place of the clock, random names, threads, the queue, and learning.

1. Everything that follows from chance or time follows from the seed. A second is as many steps as it takes on average.
2. A thread of the product becomes one more actor of its process, so that its commands take turns like all others.
3. Of training only the learning itself is replaced, which takes seconds: what would be learned, and how it was judged,
   is drawn. What is read for it, published and stored is the product's affair.
"""

from __future__ import annotations

import itertools
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from types import SimpleNamespace
from typing import Any, ClassVar
from unittest import mock

import numpy as np
import redis
from numpy.typing import NDArray
from simulation import STEP_MILLISECONDS, Actor, Scheduler

from stream_hash import clock
from stream_hash.numerics import gate
from stream_hash.numerics.model import Model
from stream_hash.service import (
    ingest,
    lease,
    one_run,
    reindex,
    schedule,
    scoring,
    spread,
    sweep,
    trainer,
    training,
    verify,
)
from stream_hash.service.candidates import Candidate
from stream_hash.storage import (
    codec,
    generations,
    inspect,
    ledger,
    live_quality,
    models,
    places,
    reads,
    store,
    trainer_state,
)

DIMENSION = 3
CHUNK, BLOCK = 4, 4
FIGURES_KEPT, RUNS_KEPT = 4, 2


@dataclass(frozen=True)
class Limits:
    """Bounds that differ from one deployment to the next."""

    batch_lease_milliseconds: int = 300
    trainer_lease_milliseconds: int = 250
    models_kept: int = 2


SMALL: tuple[tuple[Any, str, Any], ...] = (
    *((module, "CHUNK", CHUNK) for module in (generations, inspect, reindex, verify)),
    *((module, "BLOCK", BLOCK) for module in (places, inspect, reads)),
    (generations, "PUT_PLACES", 2),
    (generations, "RETIRE_KEYS", 1),
    (reindex, "READ_BYTES", 2 * 4 * DIMENSION),
    (ingest, "WRITE_ITEMS", 3),
    (ingest, "MEAN_SAMPLE", 2),
    (store, "PURGE_AT_ONCE", 2),
    (lease, "RENEW_SECONDS", 0.1),
    (live_quality, "FIGURES_KEPT", FIGURES_KEPT),
    (trainer_state, "RUNS_KEPT", RUNS_KEPT),
    (spread, "POLL_SECONDS", 0.06),
    (spread, "YIELD_SECONDS", 0.1),
    (spread, "LOOK_SECONDS", 0.1),
    (spread, "STALL_SECONDS", 0.4),
    (spread, "RESEND_SECONDS", 0.4),
    (schedule, "SHORTEST_WAIT_SECONDS", 0.05),
    (scoring, "QUERIES", 2),
    (scoring, "PAUSE_SECONDS", 0.1),
    # time enough to score every batch
    (scoring, "SHARE", 1e9),
    (scoring, "SAVED_SECONDS", 1e9),
)
"""Bounds as small as the indexes are here, so that what takes several calls in earnest does so too. Old generations
are forgotten soon, so that who wakes up with one finds its model gone."""

_BLOCK_OF_SCRIPTS = "local SIGNATURE_BYTES, BLOCK = 5, 512"
_OPENED_OF_SCRIPTS = "local OPENED = 1024"

OPENED = 4
"""Codes in a list of opened buckets before it is begun anew."""


def small_scripts(texts: Mapping[str, str]) -> dict[str, str]:
    """The scripts with blocks of as many places as BLOCK says, and lists of opened buckets as short as OPENED."""
    small = dict(texts)
    for bound, number in ((_BLOCK_OF_SCRIPTS, BLOCK), (_OPENED_OF_SCRIPTS, OPENED)):
        assert bound in texts["write"], f"the scripts no longer say {bound!r}"
        put = f"{bound.rpartition(' ')[0]} {number}"
        small = {name: text.replace(bound, put) for name, text in small.items()}
    return small


class Event:
    """In place of threading.Event; one thread waits for it."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler, self._is_set = scheduler, False
        self._waiting: Actor | None = None

    def set(self) -> None:
        self._is_set = True
        if self._waiting is not None:
            self._scheduler.wake(self._waiting)

    def wait(self, seconds: float) -> bool:
        if not self._is_set:
            self._waiting = self._scheduler.running
            self._scheduler.sleep(_steps(seconds))
            self._waiting = None
        return self._is_set


class Thread:
    """In place of threading.Thread."""

    def __init__(
        self, scheduler: Scheduler, *, target: Callable[..., None], args: Sequence[Any], name: str, daemon: bool
    ) -> None:
        assert daemon, "a thread that is none would outlive its process"
        self._scheduler, self._name = scheduler, name
        self._body = lambda _actor: target(*args)
        self._actor: Actor | None = None

    def start(self) -> None:
        self._actor = self._scheduler.begin_thread(self._name, self._body)

    def join(self) -> None:
        assert self._actor is not None, "it was not started"
        self._scheduler.join(self._actor)


def _steps(seconds: float) -> int:
    return 1 + int(seconds * 1_000 / STEP_MILLISECONDS)


@dataclass(frozen=True)
class Learned:
    """In place of a learner (GRH): it knows only in how many runs it has learned."""

    runs: int
    learner: ClassVar[str] = "pa"
    classes_: ClassVar[tuple[str, ...]] = ()

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        return {"runs": np.array(self.runs)}


class Learning:
    """In place of what learns, and of the gate: which model comes of it is drawn."""

    def __init__(self, rng: random.Random, known: Sequence[Model]) -> None:
        self._rng, self._known = rng, known
        self._judge = gate.judge

    def continued(self, _handle: Any, state: Any, new: Any, *_: Any, **__: Any) -> Candidate:
        return Candidate("continued", Learned(int(state.arrays["runs"]) + 1), self._rng.choice(self._known), len(new))  # type: ignore[arg-type]

    def fresh(self, _handle: Any, _learner: str, window: Any, *_: Any, **__: Any) -> Candidate:
        return Candidate("fresh", Learned(1), self._rng.choice(self._known), len(window))  # type: ignore[arg-type]

    def judge(self, *about: Any, **options: Any) -> gate.Verdict:
        """The gate's own answer is that the items are too few to decide on."""
        accepted = self._rng.random() < 0.7
        undecided = self._judge(*about, **options)
        return replace(undecided, accepted=accepted, reason="as drawn", difference=self._rng.uniform(-0.1, 0.1))


class Loud:
    """In place of a log of what went wrong: here nothing does, but for a connection that was lost."""

    def info(self, *_: Any, **__: Any) -> None:
        """That is nothing wrong."""

    def exception(self, *_: Any, **__: Any) -> None:
        if not isinstance(sys.exc_info()[1], redis.ConnectionError):
            raise  # noqa: PLE0704 - what is being handled

    warning = exception


@lru_cache(maxsize=256)
def _decoded(raw: bytes, sha256: str) -> dict[str, Any]:
    """Unpacking the npz of a model anew for each life of each actor would take most of the time."""
    return codec.decode_model(raw, sha256)


@contextmanager
def in_place(scheduler: Scheduler, known: Sequence[Model], waiting: list[Any], limits: Limits) -> Iterator[None]:
    """All of it, for as long as the block runs. waiting : jobs of the hash workers."""
    rng = scheduler.rng
    now = SimpleNamespace(
        time=lambda: scheduler.milliseconds / 1_000,
        monotonic=lambda: scheduler.milliseconds / 1_000,
        perf_counter=lambda: scheduler.milliseconds / 1_000,
        sleep=lambda seconds: scheduler.sleep(_steps(seconds)),
    )
    names = SimpleNamespace(token_hex=lambda size: rng.randbytes(size).hex())
    ids = SimpleNamespace(uuid4=lambda: SimpleNamespace(hex=rng.randbytes(16).hex()))
    attempts = itertools.count()
    learning = Learning(rng, known)
    replaced: tuple[tuple[Any, str, Any], ...] = (
        *SMALL,
        *((module, "LEASE_MILLISECONDS", limits.batch_lease_milliseconds) for module in (ingest, sweep)),
        (lease, "LEASE_MILLISECONDS", limits.trainer_lease_milliseconds),
        *((module, "server_milliseconds", lambda *_: clock.now_milliseconds()) for module in (ingest, lease, sweep)),
        *((module, "time", now) for module in (clock, one_run, reindex, schedule, spread, trainer)),
        *((module, "secrets", names) for module in (store, lease)),
        # counted, not drawn: which name an attempt has changes nothing
        (ledger, "secrets", SimpleNamespace(token_hex=lambda _size: str(next(attempts)))),
        (one_run, "uuid", ids),
        (lease, "threading", SimpleNamespace(Event=partial(Event, scheduler), Thread=partial(Thread, scheduler))),
        (models, "decode_model", _decoded),
        (spread, "SafeQueue", lambda _name, connection: connection),
        (spread, "enqueue_chunk", lambda _queue, _index, chunk: _send(rng, waiting, chunk)),
        (spread, "live_workers", lambda *_: [None] * rng.choice([0, 1, 3, 3])),
        (training, "TrainingPlan", partial(training.TrainingPlan, least=1)),
        (training, "continued", learning.continued),
        (training, "fresh", learning.fresh),
        (training, "signature_for", lambda *_: None),
        (training, "bit_figures", lambda *_: {}),
        (gate, "judge", learning.judge),
        *((module, "log", Loud()) for module in (lease, schedule, scoring)),
    )
    forget = mock.patch.dict(trainer_state.TrainerState.forget.__kwdefaults__, keep=limits.models_kept)
    with ExitStack() as stack:
        for module, name, value in replaced:
            stack.enter_context(mock.patch.object(module, name, value))
        stack.enter_context(forget)
        yield


def broker(waiting: list[Any]) -> Any:
    """The queue of the hash workers, as far as who spreads chunks looks at it."""
    return SimpleNamespace(connection=SimpleNamespace(llen=lambda _key: len(waiting)), key="")


def _send(rng: random.Random, waiting: list[Any], chunk: Any) -> None:
    """A job for a chunk; it may get lost, and may be doubled."""
    waiting += [reindex.Chunk(*chunk)] * rng.choice([0, 1, 1, 1, 2])
