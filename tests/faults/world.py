"""One simulated deployment from one integer: its index, its temper, its items, its processes, and its end."""

from __future__ import annotations

import hashlib
import itertools
import random
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from unittest import mock

import actors
import numpy as np
import oracle
import stand_ins
import trainers
from actors import Habits, World
from simulated_client import SimulatedClient
from simulation import Faults, Scheduler
from stand_ins import DIMENSION, Limits

from stream_hash import clock
from stream_hash.numerics.model import Model, lsh_model
from stream_hash.service import ingest, reindex, rollback, spread, sweep, verify
from stream_hash.service.handle import IndexHandle
from stream_hash.settings import IndexSettings
from stream_hash.storage import scripts, store
from stream_hash.storage.codec import Batch, decode_batch
from stream_hash.storage.trainer_state import Lead

BITS = 4
VECTORS = np.random.default_rng(1).normal(size=(48, DIMENSION)).astype(np.float32)
QUERIES = np.random.default_rng(2).normal(size=(8, DIMENSION)).astype(np.float32)


@lru_cache(maxsize=2_048)
def _sha1(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


@lru_cache(maxsize=8)
def _models(tables: int, metric: Any) -> list[Model]:
    settings = [IndexSettings(DIMENSION, bits=BITS, tables=tables, metric=metric, seed=seed) for seed in range(1, 7)]
    return [lsh_model(one, VECTORS if one.seed % 2 else VECTORS[:0]) for one in settings]


def _batches(rng: random.Random, habits: Habits) -> list[tuple[str, Batch]]:
    """Batches of all operations over few ids, so that they meet often; some items that nobody can store."""
    ids = [f"i{n}" for n in range(rng.randint(4, 20))]
    batches = []
    for number in range(rng.randint(*habits.batches)):
        chosen = [rng.choice(ids) for _ in range(rng.randint(1, 6))]
        operation = rng.choice(habits.operations) if number else "upsert"
        labels = [rng.choice(habits.labels) for _ in chosen]
        if operation == "upsert":
            vectors = VECTORS[[rng.randrange(len(VECTORS)) for _ in chosen]].copy()
            if rng.random() < 0.05:
                vectors[0] = np.nan
            batches.append((f"b{number}", Batch("upsert", chosen, vectors, labels)))
        elif operation == "delete":
            batches.append((f"b{number}", Batch("delete", chosen)))
        else:
            batches.append((f"b{number}", Batch("label", chosen, labels=labels)))
    return batches


TRAITS = ("deleting", "labelling", "searching", "learning", "restless", "contended", "lossy")

PAIRS = tuple(itertools.combinations_with_replacement(TRAITS, 2))
"""What deployments are like, one after the other: each two traits together, and each alone."""


@dataclass(frozen=True)
class Temper:
    """What sets a deployment apart: its faults, what its processes do, its bounds, and whether it has a past.

    Most events that need several rare ones at once never come in a deployment where everything is a little likely. So
    each has the traits of its pair, and of the others each in one of ten cases.
    """

    faults: Faults
    habits: Habits
    limits: Limits
    past: bool


def _temper(rng: random.Random, seed: int) -> Temper:
    traits = {*PAIRS[seed % len(PAIRS)], *(trait for trait in TRAITS if rng.random() < 0.1)}
    faults: dict[str, Any] = {
        "steps": rng.randrange(200, 2_400),
        "pause": rng.choice([0.005, 0.02, 0.05]),
        "lost_reply": rng.choice([0.01, 0.03, 0.1]),
        "late": rng.choice([0.0, 0.02, 0.08]),
        "late_steps": rng.choice([40.0, 300.0]),
        "switch": rng.random(),
    }
    habits: dict[str, Any] = {"trainings": rng.randint(2, 4), "bound": rng.choice([0, 0, 1, 3])}
    limits: dict[str, Any] = {"models_kept": rng.choice([2, 2, 4])}
    past = 0.1
    if "deleting" in traits:  # slowly, so that all else meets deletes; and what is deleted is soon forgotten
        habits |= {"operations": ("upsert", "upsert", "delete", "delete", "label"), "batches": (8, 13)}
        habits |= {"rest_steps": 120, "rests": 0.8, "sweeps": 0.3}
    if "labelling" in traits:  # and leases so short that workers take batches over from each other
        habits |= {"labels": ('"x"', "1"), "sweeps": 0.3}
        limits |= {"batch_lease_milliseconds": 60}
    if "searching" in traits:  # slowly, so that much happens meanwhile; and half find hardly more than was asked for
        habits |= {"search_steps": 40, "results": (1, 2, 3, 5), "plans": rng.choice([(1, 1, 1, 1, 1), (0, 1, 0, 0, 0)])}
        faults["pause"] = 0.05
    if "learning" in traits:  # leases so long that a trainer comes to the end of what it learns
        habits["trainer"] = (5, 50, 45)
        habits["trainings"] += 3
        limits |= {"trainer_lease_milliseconds": 2_000}
    if "restless" in traits:  # a generation is replaced while it is built, and strays come at every stage
        habits |= {"trainings": rng.randint(4, 7), "trainer": (80, 5, 15), "stray_steps": 30}
        faults["kill"] = 0.015
        past = 0.3
    if "contended" in traits:  # leases so short that trainers overtake each other all the time
        limits |= {"trainer_lease_milliseconds": 60}
        habits["trainings"] += 4
        past = 0.5
    if "lossy" in traits:
        faults |= {"lost_reply": 0.15, "late": 0.15, "late_steps": rng.choice([30.0, 100.0, 1_500.0])}
    return Temper(Faults(**faults), Habits(**habits), Limits(**limits), rng.random() < past)


def simulate(client: SimulatedClient, seed: int, texts: Mapping[str, str] | None = None) -> Counter[str]:
    """One deployment, from its beginning to its end. texts : scripts in place of the product's.

    Returns how often what happened. Raises AssertionError where an invariant does not hold, and whatever an actor
    raised that no fault explains.
    """
    rng = random.Random(seed)
    settings = IndexSettings(
        DIMENSION,
        bits=BITS,
        tables=rng.randint(1, 2),
        metric=rng.choice(["l2", "cosine"]),
        partitions=rng.randint(1, 3),
        seed=rng.randrange(3),
    )
    temper = _temper(rng, seed)
    scheduler = Scheduler(rng, temper.faults)
    world = World(client, scheduler, rng, settings, temper.habits)
    batches = _batches(rng, temper.habits)
    with _in_place(client, world, temper.limits, texts):
        client.flushall()
        client.script_flush()  # what the server knows of the run before would show in the first calls
        store.Store(client, "x").create(settings)
        if temper.past:
            _live_through(world)
        producers = 1 + (rng.random() < 0.5)
        for number in range(producers):
            scheduler.add(f"producer{number}", world.takes_part(actors.producer(batches[number::producers])))
        for number in range(3):
            scheduler.add(f"worker{number}", lambda actor: actors.worker(world, actor))
        for number in range(2):
            scheduler.add(f"trainer{number}", world.takes_part(trainers.trainer))
        search = actors.searcher(QUERIES)
        for number in range(2):
            scheduler.add(f"searcher{number}", lambda actor: search(world, actor), fragile=False)
        scheduler.add("stray", lambda actor: trainers.stray(world, actor), fragile=False)
        scheduler.add("chaos", lambda actor: actors.chaos(world, actor), fragile=False)
        client.scheduler = scheduler
        try:
            scheduler.run()
        finally:
            client.scheduler = None
        _end(world, temper.limits, batches)
    world.events["writes"] += len(world.history.changes)
    return world.events + scheduler.happened


def _live_through(world: World) -> None:
    """A past in which nothing went wrong, and after which tokens and generations have two digits soon."""
    handle = IndexHandle(world.client, "x")
    handle.begin_first_generation(VECTORS[:0])
    for number in range(world.rng.randint(7, 8)):
        lead = handle.trainer.lead(f"before{number}", now=0, until=0)
        assert isinstance(lead, Lead)
        known = _models(world.settings.tables, world.settings.metric)[number % 6]
        rollback.publish(handle, lead.token, known.to_arrays(), kind="lsh", parent=number + 1)
    target = handle.trainer.target()
    assert target is not None
    reindex.reindex(handle, world.fences.newest, target)
    world.trainings += world.fences.leads


@contextmanager
def _in_place(client: SimulatedClient, world: World, limits: Limits, texts: Mapping[str, str] | None) -> Iterator[None]:
    """The stand-ins, the scripts, and those who look on."""
    mutated = stand_ins.small_scripts(scripts.sources() if texts is None else texts)
    names = {_sha1(text): name for name, text in mutated.items()}

    def observe(args: Any, reply: Any) -> None:
        if args[0] not in ("EVAL", "EVALSHA"):
            return
        name = names[args[1] if args[0] == "EVALSHA" else _sha1(args[1])]
        key, arguments = args[3], args[3 + int(args[2]) :]
        if name == "write":
            world.history.wrote(arguments[0], arguments[2:], reply)
        if name.startswith("quality"):
            world.figures.called(name, arguments, reply, late=world.scheduler.delivers_late)
        world.partitions.called(name, key, arguments, reply)
        if name.startswith("generation_"):
            world.partitions.stands(key, client.send(("HMGET", key, "live", "building", "retiring"), {}))
        world.deliveries.called(name, arguments, reply)
        world.fences.called(name, arguments, reply)

    known = _models(world.settings.tables, world.settings.metric)
    with ExitStack() as stack:
        stack.enter_context(stand_ins.in_place(world.scheduler, known, world.jobs, limits))
        stack.enter_context(mock.patch.object(reindex, "in_process", _first_time(reindex.in_process)))
        stack.enter_context(mock.patch.object(spread, "in_process", _first_time(reindex.in_process)))
        stack.enter_context(mock.patch.object(scripts, "sources", return_value=mutated))
        stack.enter_context(mock.patch.object(client, "observer", observe))
        yield


def _first_time(in_process: Any) -> Any:
    """The re-indexer builds all again when what it was told is built is not there: no order of events brings that."""

    def building(*args: Any, again: bool = False, **options: Any) -> Any:
        assert not again, "every chunk is said to be built, and the generation is incomplete"
        return in_process(*args, **options)

    return building


def _end(world: World, limits: Limits, batches: list[tuple[str, Batch]]) -> None:
    """When all is calm: what is pending is applied, the target goes live, and everything is what it must be."""
    handle = IndexHandle(world.client, "x")

    def ingest_now(_: str, batch: str) -> None:
        ingest.apply_batch(handle, batch)

    for letter in handle.ledger.letter_numbers():
        if world.rng.random() < 0.5:
            actors.retry(world, handle, letter)
    while handle.ledger.balance().pending:
        world.scheduler.milliseconds += limits.batch_lease_milliseconds + 1
        found = sweep.sweep(handle, lambda *_: False, ingest_now)
        assert found, "a batch is pending, and the sweep does not find it"
    world.scheduler.milliseconds += limits.trainer_lease_milliseconds + 1
    now = clock.now_milliseconds()
    lead = handle.trainer.lead("last", now=now, until=now + 1)
    assert isinstance(lead, Lead), "a lease that ran out is not given away"
    target = handle.trainer.target()
    if target is not None:
        reindex.reindex(handle, lead.token, target)
    reindex.retire_all(handle)
    dead = _dropped(world, handle)
    sweep.sweep(handle, lambda *_: True, lambda *_: None)
    partitions = list(actors.check_now(world))
    for partition in partitions:
        # The first generation is made by the first item, and all items may have been buried. Who makes it may die
        # between two partitions; one that has no item then has none until one comes, or until there is a target.
        expected = {str(target or 1)} if target or partition.records else {"0", "1"}
        assert partition.live in expected, f"generation {partition.live} is live, not {target}"
        assert (partition.building, partition.retiring) == ("", []), "a generation is not done with"
        assert all(r.number is not None for r in partition.records.values()), "a tombstone is kept for ever"
    _check_items(world, handle, batches, dead)
    world.figures.check(handle)
    world.events["figures"] += world.figures.counted
    if world.rng.random() < 0.3:  # it takes as many commands as all the rest
        assert verify.verify(handle).violations == []


def _dropped(world: World, handle: IndexHandle) -> set[int]:
    """Drop the dead letters, which hold tombstones; the sequence numbers that were in them."""
    dead = set()
    for letter in handle.ledger.dead_letters():
        assert len(decode_batch(letter.payload)) == letter.items
        dead.update(range(letter.first, letter.first + letter.items))
    assert handle.ledger.balance().dead == len(dead)
    for number in handle.ledger.letter_numbers():
        handle.ledger.drop(number)
    balance = handle.ledger.balance()
    assert (balance.dead, balance.dropped) == (0, len(dead))
    world.events["dead letters"] += len(dead)
    return dead


def _check_items(world: World, handle: IndexHandle, batches: list[tuple[str, Batch]], dead: set[int]) -> None:
    """The items are those of an orderly replay of what was accepted, without what was buried before it was written."""
    accepted = sum(len(batch) for _, batch in batches)
    assert handle.ledger.balance().accepted == accepted, "a batch was accepted twice, or never"
    world.events["accepted items"] += accepted
    done = []
    for name, batch in batches:
        first = world.accepted[name]
        for position in range(len(batch)):
            # of a batch that killed its workers some items may have been written before it was buried
            if first + position not in dead or first + position in world.history.effective:
                done.append((first + position, batch.select([position])))
    expected = oracle.live_items(oracle.replay(done))
    stored = oracle.stored_items(world.client, "x", world.settings)
    assert stored == expected, f"stored are {stored}, accepted were {expected}"
