"""The processes of a simulated deployment: producers, hash workers, trainers, searchers, and chaos.

Each is a loop over the product's own code, as its process would run it. What a process forgets when it dies is local
to its loop; what it must not forget is on the server; the World is what stands outside: the queue, and the plan.
"""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import invariants
import numpy as np
import redis
from figures import Figures
from history import History, Watched
from numpy.typing import NDArray
from simulation import Actor, Scheduler, SimulatedClient

from stream_hash.clock import now_milliseconds, now_seconds
from stream_hash.errors import FencedError, ModelMissingError
from stream_hash.numerics.model import Model
from stream_hash.service import ingest, reindex, sweep, verify
from stream_hash.service.handle import IndexHandle
from stream_hash.service.plan import Plan
from stream_hash.service.scoring import Scorer
from stream_hash.service.search import Searcher
from stream_hash.settings import IndexSettings
from stream_hash.storage.codec import Batch
from stream_hash.storage.trainer_state import Held

TRAINER_LEASE = 500
"""Simulated milliseconds: some ninety steps. A paused trainer is often overtaken."""

MODELS_KEPT = 2
"""Old generations are forgotten soon, so that who wakes up with one finds its model gone."""


@dataclass
class World:
    """What stands outside the processes."""

    client: SimulatedClient
    scheduler: Scheduler
    rng: random.Random
    settings: IndexSettings
    history: History
    models: Sequence[Model]
    chunk: int
    trainings: int
    jobs: list[tuple[str, str] | reindex.Chunk] = field(default_factory=list)
    accepted: dict[str, int] = field(default_factory=dict)
    published: dict[int, str] = field(default_factory=dict)
    busy: int = 0
    events: Counter[str] = field(default_factory=Counter)
    figures: Figures = field(init=False)

    def __post_init__(self) -> None:
        self.figures = Figures(self.history)

    def open(self) -> IndexHandle:
        return IndexHandle(self.client, "x")

    def takes_part(self, body: Callable[[World, Actor], None]) -> Callable[[Actor], None]:
        """An actor for whose end the workers wait."""
        self.busy += 1

        def run(actor: Actor) -> None:
            body(self, actor)
            self.busy -= 1

        return run


def producer(batches: Sequence[tuple[str, Batch]]) -> Callable[[World, Actor], None]:
    """Hands over batches in order; one whose reply it has not seen it hands over again."""

    def run(world: World, _: Actor) -> None:
        handle = world.open()
        for name, batch in batches:
            if name in world.accepted:
                continue
            lease = now_milliseconds() + ingest.LEASE_MILLISECONDS
            first = handle.ledger.accept(name, batch, lease_until=lease).first
            world.accepted[name] = first
            # the job may get lost, and may be doubled
            world.jobs += [("batch", name)] * world.rng.choice([0, 1, 1, 1, 1, 2])
            if world.rng.random() < 0.5:
                world.scheduler.sleep(world.rng.randrange(80))

    return run


def worker(world: World, _: Actor) -> None:
    """Takes jobs in any order, some of them without taking them from the queue; sweeps between them."""
    handle = world.open()
    scorer = Scorer(lambda: now_milliseconds() / 1_000)
    while world.busy or world.jobs:
        if world.rng.random() < 0.1:
            _sweep(world, handle)
        if not world.jobs:
            world.scheduler.sleep(1 + world.rng.randrange(40))
            continue
        job = world.jobs[world.rng.randrange(len(world.jobs))]
        if world.scheduler.calm or world.rng.random() < 0.9:
            world.jobs.remove(job)
        if isinstance(job, reindex.Chunk):
            reindex.build_chunk(handle, job.partition, job.generation, job.number)
        else:
            _apply(handle, job[1], scorer)


def _apply(handle: IndexHandle, batch: str, scorer: Scorer) -> None:
    """As the job does."""
    try:
        ingest.apply_batch(handle, batch, scorer=scorer)
    except redis.ConnectionError as error:
        handle.ledger.release(batch, now=now_milliseconds(), failure=str(error), blame_server=True)


def _sweep(world: World, handle: IndexHandle) -> None:
    """What every worker does between jobs; and what is out of use goes, by whoever comes."""
    sweep.sweep(
        handle,
        lambda _index, batch: ("batch", batch) in world.jobs,
        lambda _index, batch: world.jobs.append(("batch", batch)),
    )
    if world.rng.random() < 0.3:
        reindex.retire_all(handle)


class LeftError(Exception):
    """A trainer gives up half-way."""


def trainer(world: World, actor: Actor) -> None:
    """Leads, publishes, re-indexes, records, forgets; any of it may be overtaken by the other trainer."""
    handle = world.open()
    while world.trainings > 0:
        now = now_milliseconds()
        lead = handle.trainer.lead(str(actor), now=now, until=now + TRAINER_LEASE)
        if isinstance(lead, Held) or not handle.models.records():
            world.scheduler.sleep(5 + world.rng.randrange(40))
            continue
        world.trainings -= 1
        try:
            _Training(world, handle, lead.token, f"{actor} {world.trainings}").run()
            if world.rng.random() < 0.7:
                handle.trainer.release(lead.token)
        except FencedError:
            world.events["trainers fenced"] += 1
            _protest(world, handle, lead.token)
        except LeftError:
            world.events["re-indexes left half-way"] += 1
        world.scheduler.sleep(world.rng.randrange(60))


def _protest(world: World, handle: IndexHandle, token: int) -> None:
    """What a trainer that was overtaken had sent before it knew, arriving late."""
    with contextlib.suppress(FencedError):
        _meddle(world, handle, token)
    with contextlib.suppress(FencedError):
        handle.trainer.publish(token, world.models[0].to_arrays(), kind="lsh", created=now_seconds())
    with contextlib.suppress(FencedError):
        handle.trainer.release(token)


def _meddle(world: World, handle: IndexHandle, token: int) -> None:
    """Somebody tries to go on with, to let go live or to give up whatever generation there was, at the wrong moment."""
    generation = world.rng.choice(handle.models.records()).generation
    partition = world.rng.randrange(world.settings.partitions)
    # who gives up the target itself makes it unreachable, and has to publish it again
    what = world.rng.choice(["begin", "switch"] if generation == handle.trainer.target() else ["begin", "abandon"])
    getattr(handle.generations, what)(partition, generation, token)
    world.events["commands out of turn"] += 1


class _Training:
    """One run of a trainer."""

    def __init__(self, world: World, handle: IndexHandle, token: int, run: str) -> None:
        self._world, self._handle, self._token, self._run = world, handle, token, run
        self._rng = world.rng
        self._target = 0
        self._patience = world.rng.randrange(1, 6) if world.rng.random() < 0.25 else 10**9

    def run(self) -> None:
        handle, trainer = self._handle, self._handle.trainer
        learner = int(trainer.learner() or 0)
        if self._rng.random() < 0.2:
            _meddle(self._world, handle, self._token)
        target = trainer.target()
        if target is None or self._rng.random() < 0.85:
            target = self._publish(target)
            if self._rng.random() < 0.1:
                raise LeftError
        self._target = target
        reindex.reindex(handle, self._token, target, run=self._send_out, on_progress=self._renew)
        self._world.events["re-indexes"] += 1
        trainer.checkpoint(self._token, learner=str(learner + 1).encode(), run={"id": self._run})
        in_use = {g for state in handle.store.states(handle.settings.partitions) for g in state.writable}
        in_use.update(g for retiring in handle.generations.retiring() for g in retiring)
        trainer.forget(self._token, in_use, keep=MODELS_KEPT)

    def _publish(self, target: int | None) -> int:
        """A new model, or a kept one under a new number."""
        arrays, origin = self._rng.choice(self._world.models).to_arrays(), None
        if target is not None and self._rng.random() < 0.3:
            origin = self._rng.choice(self._handle.models.records()).generation
            try:
                arrays = self._handle.models.load(origin)
            except ModelMissingError:
                raise LeftError from None  # the next trainer has forgotten it already
            self._world.events["rollbacks"] += 1
        record = self._handle.trainer.publish(
            self._token, arrays, kind="lsh", created=now_seconds(), parent=target, origin=origin
        )
        standing = self._world.published.setdefault(record.generation, record.sha256)
        assert standing == record.sha256, f"generation {record.generation} was published with two models"
        return record.generation

    def _send_out(self, chunks: Sequence[reindex.Chunk]) -> Iterator[None]:
        """Chunks go to the workers, or are built here, or both, or get lost."""
        for chunk in chunks:
            fate = self._rng.random()
            if fate < 0.5:
                self._world.jobs.append(chunk)
            if fate > 0.4:
                reindex.build_chunk(self._handle, chunk.partition, chunk.generation, chunk.number)
            yield
        self._world.scheduler.sleep(self._rng.randrange(30))
        yield

    def _renew(self, _: object) -> None:
        self._patience -= 1
        if not self._patience:
            raise LeftError
        if self._rng.random() < 0.05:
            partition = self._rng.randrange(self._world.settings.partitions)
            self._handle.generations.switch(partition, self._target, self._token)  # too early, or just in time
        self._handle.trainer.renew(self._token, until=now_milliseconds() + TRAINER_LEASE)


def searcher(queries: NDArray[np.float32]) -> Callable[[World, Actor], None]:
    """Searches by every plan; each answer is checked against what was there during it."""

    def run(world: World, _: Actor) -> None:
        searching = Searcher(world.open())
        plans: list[dict[str, Any]] = [
            {},
            {"radius": 0},
            {"radius": world.settings.bits},
            {"budget": 100},
            {"exact": True},
        ]
        while world.busy:
            query = world.rng.choice(queries)
            k = world.rng.choice([1, 2, 3, 5, 30])
            plan = Plan(**world.rng.choice(plans))
            watched = Watched(world.history)
            (answer,) = searching.search(query[None, :], k, plan)
            watched.check(query, k, plan, answer)
            world.events["searches"] += 1
            world.scheduler.sleep(world.rng.randrange(40))

    return run


def chaos(world: World, _: Actor) -> None:
    """Flushes scripts; looks at all keys at once; and verifies while the others go on."""
    handle = world.open()
    while world.busy:
        world.scheduler.sleep(world.rng.randrange(120))
        what = world.rng.random()
        if what < 0.4:
            world.client.script_flush()
            world.events["script flushes"] += 1
        elif what < 0.8:
            check_now(world)
            world.events["looked at all keys"] += 1
        else:
            violations = verify.verify(handle).violations
            assert not violations, violations
            world.events["verified under way"] += 1


def check_now(world: World) -> list[invariants.Partition]:
    """All invariants at this moment, while nobody else moves."""
    scheduler, world.client.scheduler = world.client.scheduler, None
    try:
        return invariants.check(world.client, "x", world.settings, world.chunk)
    finally:
        world.client.scheduler = scheduler
