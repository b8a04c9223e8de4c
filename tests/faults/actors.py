"""The processes of a simulated deployment: producers, hash workers, searchers, and chaos (trainers.py has trainers).

Each is a loop over the product's own code, as its process would run it. What a process forgets when it dies is local
to its loop; what it must not forget is on the server; the World is what stands outside: the queue, and the plan.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import invariants
import numpy as np
import redis
import stand_ins
from deliveries import Deliveries
from fences import Fences
from figures import Figures
from history import History, Watched
from numpy.typing import NDArray
from partitions import Partitions
from simulated_client import SimulatedClient
from simulation import Actor, Scheduler

from stream_hash.clock import now_milliseconds
from stream_hash.errors import BackPressureError
from stream_hash.service import ingest, reindex, sweep, verify
from stream_hash.service.handle import IndexHandle
from stream_hash.service.plan import Plan
from stream_hash.service.scoring import Scorer
from stream_hash.service.search import Searcher
from stream_hash.settings import IndexSettings
from stream_hash.storage.codec import Batch
from stream_hash.storage.ledger import Lapsed


@dataclass(frozen=True)
class Habits:
    """What the processes of a deployment do, and how often.

    batches : at least and at most. operations, labels : of a batch and of an item, drawn from these. rest_steps : at
    most, of a producer between two batches, which is idle in the share `rests` of the cases. bound : on pending
    batches, 0 for none. sweeps : between two jobs; retires : of these, that delete what is out of use. search_steps :
    at most, between two searches. results : how many a search may ask for. plans : weights of none, of radius 0, of a
    radius of all bits, of a budget for all items, and of an exact scan. trainings : how many leases the trainers take.
    trainer : weights of rolling back, a request, and a look. stray_steps : at most, between two strays.
    """

    batches: tuple[int, int] = (5, 14)
    operations: tuple[str, ...] = (*("upsert",) * 3, *("delete",) * 2, "label")
    labels: tuple[str, ...] = ('"x"', "1", "")
    rest_steps: int = 80
    rests: float = 0.5
    bound: int = 0
    sweeps: float = 0.07
    retires: float = 0.3
    search_steps: int = 200
    results: tuple[int, ...] = (1, 2, 3, 5, 30)
    plans: tuple[int, int, int, int, int] = (1, 1, 1, 1, 1)
    trainings: int = 4
    trainer: tuple[int, int, int] = (30, 20, 50)
    stray_steps: int = 300


@dataclass
class World:
    """What stands outside the processes. trainings : how many leases the trainers are to take."""

    client: SimulatedClient
    scheduler: Scheduler
    rng: random.Random
    settings: IndexSettings
    habits: Habits
    trainings: int = field(init=False)
    jobs: list[tuple[str, str] | reindex.Chunk] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    accepted: dict[str, int] = field(default_factory=dict)
    busy: int = 0
    events: Counter[str] = field(default_factory=Counter)
    fences: Fences = field(default_factory=Fences)
    deliveries: Deliveries = field(default_factory=Deliveries)
    partitions: Partitions = field(default_factory=Partitions)
    history: History = field(init=False)
    figures: Figures = field(init=False)

    def __post_init__(self) -> None:
        self.trainings = self.habits.trainings
        self.history = History(self.settings)
        self.figures = Figures(self.history, stand_ins.FIGURES_KEPT)

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
            world.accepted[name] = _accepted(world, handle, name, batch)
            # the job may get lost, and may be doubled
            world.jobs += [("batch", name)] * world.rng.choice([0, 1, 1, 1, 1, 2])
            if world.rng.random() < world.habits.rests:
                world.scheduler.sleep(world.rng.randrange(world.habits.rest_steps))

    return run


def _accepted(world: World, handle: IndexHandle, name: str, batch: Batch) -> int:
    while True:
        lease = now_milliseconds() + ingest.LEASE_MILLISECONDS
        try:
            return handle.ledger.accept(name, batch, lease_until=lease, max_pending=world.habits.bound).first
        except BackPressureError:
            world.events["held back"] += 1
            world.scheduler.sleep(10 + world.rng.randrange(40))


def worker(world: World, _: Actor) -> None:
    """Takes jobs in any order, some of them without taking them from the queue; sweeps between them."""
    handle = world.open()
    scorer = Scorer(lambda: now_milliseconds() / 1_000)
    while world.busy or world.jobs:
        if world.rng.random() < world.habits.sweeps:
            _sweep(world, handle)
        if not world.jobs:
            world.scheduler.sleep(1 + world.rng.randrange(60))
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


RETRIES = 3
"""Of dead letters, while the faults go on: a batch may die each time."""


def _sweep(world: World, handle: IndexHandle) -> None:
    """What every worker does between jobs; and what is out of use goes, by whoever comes."""
    sweep.sweep(
        handle,
        lambda _index, batch: ("batch", batch) in world.jobs,
        lambda _index, batch: world.jobs.append(("batch", batch)),
    )
    if world.rng.random() < world.habits.retires:
        reindex.retire_all(handle)
    letters = handle.ledger.letter_numbers() if world.events["letters retried"] < RETRIES else []
    if letters and world.rng.random() < 0.5:
        retry(world, handle, world.rng.choice(letters))


def retry(world: World, handle: IndexHandle, letter: int) -> None:
    """As an operator does; the job may get lost."""
    world.events["letters retried"] += 1
    name, now = f"retry-{letter}-{world.events['letters retried']}", now_milliseconds()
    lease = now + ingest.LEASE_MILLISECONDS
    outcome = handle.ledger.retry(letter, name, now=now, lease_until=lease, anew=False)
    assert not isinstance(outcome, Lapsed), f"letter {letter} has lost its place"
    world.jobs += [("batch", name)] * world.rng.choice([0, 1, 1, 2])


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
            k = world.rng.choice(world.habits.results)
            plan = Plan(**world.rng.choices(plans, world.habits.plans)[0])
            watched = Watched(world.history)
            (answer,) = searching.search(query[None, :], k, plan)
            watched.check(query, k, plan, answer)
            world.events["searches"] += 1
            world.scheduler.sleep(world.rng.randrange(world.habits.search_steps))

    return run


def chaos(world: World, _: Actor) -> None:
    """Flushes scripts; looks at all keys at once; and verifies while the others go on."""
    handle = world.open()
    while world.busy:
        world.scheduler.sleep(world.rng.randrange(260))
        what = world.rng.random()
        if what < 0.45:
            world.client.script_flush()
            world.events["script flushes"] += 1
        elif what < 0.99:
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
        whole, partitions = invariants.check(world.client, "x", world.settings)
    finally:
        world.client.scheduler = scheduler
    world.partitions.check(partitions)
    world.figures.check_waiting(whole.get("figures", {}).get("", []))
    return partitions
