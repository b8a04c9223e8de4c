"""One simulated deployment from one integer: its index, its items, its processes, its faults, and its end."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from types import SimpleNamespace
from typing import Any
from unittest import mock

import actors
import numpy as np
import oracle
from actors import World
from fences import Fences
from history import History
from simulation import Faults, Scheduler, SimulatedClient

from stream_hash import clock
from stream_hash.numerics.model import Model, lsh_model
from stream_hash.service import ingest, reindex, scoring, sweep, verify
from stream_hash.service.handle import IndexHandle
from stream_hash.settings import IndexSettings
from stream_hash.storage import generations, inspect, models, scripts, store
from stream_hash.storage.codec import Batch, decode_batch, decode_model
from stream_hash.storage.trainer_state import Lead

DIMENSION, BITS = 3, 4
CHUNK = 4
LEASE_MILLISECONDS = 300
VECTORS = np.random.default_rng(1).normal(size=(48, DIMENSION)).astype(np.float32)
QUERIES = np.random.default_rng(2).normal(size=(8, DIMENSION)).astype(np.float32)

SMALL: tuple[tuple[Any, str, int], ...] = (
    *((module, "CHUNK", CHUNK) for module in (generations, inspect, reindex, verify)),
    (generations, "PUT_PLACES", 2),
    (generations, "RETIRE_KEYS", 1),
    (reindex, "READ_BYTES", 2 * 4 * DIMENSION),
    (ingest, "WRITE_ITEMS", 2),
    (ingest, "MEAN_SAMPLE", 2),
    (store, "PURGE_AT_ONCE", 2),
    (ingest, "LEASE_MILLISECONDS", LEASE_MILLISECONDS),
    (sweep, "LEASE_MILLISECONDS", LEASE_MILLISECONDS),
    (scoring, "QUERIES", 2),
    (scoring, "PAUSE_SECONDS", 0.1),
    # time enough to score every batch
    (scoring, "SHARE", 1e9),
    (scoring, "SAVED_SECONDS", 1e9),
)
"""Bounds as small as the indexes are here, so that what takes several calls in earnest does so too."""


@lru_cache(maxsize=1_024)
def _sha1(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


@lru_cache(maxsize=256)
def _decoded(raw: bytes, sha256: str) -> dict[str, Any]:
    """Unpacking the npz of a model anew for each life of each actor would take most of the time."""
    return decode_model(raw, sha256)


@lru_cache(maxsize=8)
def _models(tables: int, metric: Any) -> list[Model]:
    settings = [IndexSettings(DIMENSION, bits=BITS, tables=tables, metric=metric, seed=seed) for seed in range(1, 7)]
    return [lsh_model(one, VECTORS if one.seed % 2 else VECTORS[:0]) for one in settings]


def _batches(rng: random.Random, ids: list[str], count: int) -> list[tuple[str, Batch]]:
    """Batches of all operations over few ids, so that they meet often; some items that nobody can store."""
    batches = []
    for number in range(count):
        chosen = [rng.choice(ids) for _ in range(rng.randint(1, 6))]
        operation = rng.choice(["upsert", "upsert", "upsert", "delete", "delete", "label"]) if number else "upsert"
        labels = [rng.choice(['"x"', "1", ""]) for _ in chosen]
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
    faults = Faults(steps=rng.randrange(100, 700), pause=rng.choice([0.005, 0.02, 0.05]), switch=rng.random())
    scheduler = Scheduler(rng, faults)
    known = _models(settings.tables, settings.metric)
    world = World(client, scheduler, rng, settings, History(settings), known, CHUNK, trainings=rng.randint(2, 5))
    ids = [f"i{n}" for n in range(rng.randint(4, 20))]
    batches = _batches(rng, ids, rng.randint(5, 14))
    with _in_place(client, world, texts):
        client.flushall()
        client.script_flush()  # what the server knows of the run before would show in the first calls
        store.Store(client, "x").create(settings)
        producers = 1 + (rng.random() < 0.5)
        for number in range(producers):
            scheduler.add(f"producer{number}", world.takes_part(actors.producer(batches[number::producers])))
        for number in range(3):
            scheduler.add(f"worker{number}", lambda actor: actors.worker(world, actor))
        for number in range(2):
            scheduler.add(f"trainer{number}", world.takes_part(actors.trainer))
        search = actors.searcher(QUERIES)
        for number in range(2):
            scheduler.add(f"searcher{number}", lambda actor: search(world, actor), fragile=False)
        scheduler.add("chaos", lambda actor: actors.chaos(world, actor), fragile=False)
        client.scheduler = scheduler
        try:
            scheduler.run()
        finally:
            client.scheduler = None
        _end(world, batches)
    world.events["writes"] += len(world.history.changes)
    return world.events + scheduler.happened


@contextmanager
def _in_place(client: SimulatedClient, world: World, texts: Mapping[str, str] | None) -> Iterator[None]:
    """The simulated clock, the small bounds, the scripts, and the history that looks on."""
    of_size = scripts.sources() if texts is None else texts
    mutated = {name: text.replace("local OPENED = 1024", "local OPENED = 4") for name, text in of_size.items()}
    names = {_sha1(text): name for name, text in mutated.items()}
    fences = Fences()

    def observe(args: Any, reply: Any) -> None:
        if args[0] not in ("EVAL", "EVALSHA"):
            return
        name = names[args[1] if args[0] == "EVALSHA" else _sha1(args[1])]
        if name == "write":
            world.history.wrote(args[4], args[6:], reply)
        elif name.startswith("quality"):
            world.figures.called(name, args[4:], reply)
        else:
            fences.called(name, args[3], args[4:], reply)

    with ExitStack() as stack:
        for module, name, value in SMALL:
            stack.enter_context(mock.patch.object(module, name, value))
        simulated = SimpleNamespace(time=lambda: world.scheduler.milliseconds / 1000)
        stack.enter_context(mock.patch.object(clock, "time", simulated))
        nonces = SimpleNamespace(token_hex=lambda size: world.rng.randbytes(size).hex())
        stack.enter_context(mock.patch.object(store, "secrets", nonces))
        stack.enter_context(mock.patch.object(models, "decode_model", _decoded))
        stack.enter_context(mock.patch.object(reindex, "in_process", _first_time(reindex.in_process)))
        stack.enter_context(mock.patch.object(scripts, "sources", return_value=mutated))
        stack.enter_context(mock.patch.object(client, "observer", observe))
        yield


def _first_time(in_process: Any) -> Any:
    """The re-indexer builds all again when what it was told is built is not there: no order of events brings that."""

    def building(*args: Any, again: bool = False, **options: Any) -> Any:
        assert not again, "every chunk is said to be built, and the generation is incomplete"
        return in_process(*args, **options)

    return building


def _end(world: World, batches: list[tuple[str, Batch]]) -> None:
    """When all is calm: what is pending is applied, the target goes live, and everything is what it must be."""
    handle = IndexHandle(world.client, "x")

    def ingest_now(_: str, batch: str) -> None:
        ingest.apply_batch(handle, batch)

    while handle.ledger.balance().pending:
        world.scheduler.milliseconds += LEASE_MILLISECONDS + 1
        found = sweep.sweep(handle, lambda *_: False, ingest_now)
        assert found, "a batch is pending, and the sweep does not find it"
    world.scheduler.milliseconds += actors.TRAINER_LEASE + 1
    now = clock.now_milliseconds()
    lead = handle.trainer.lead("last", now=now, until=now + actors.TRAINER_LEASE)
    assert isinstance(lead, Lead), "a lease that ran out is not given away"
    target = handle.trainer.target()
    if target is not None:
        reindex.reindex(handle, lead.token, target)
    reindex.retire_all(handle)
    sweep.sweep(handle, lambda *_: True, lambda *_: None)
    for partition in actors.check_now(world):
        assert partition.live == str(target or 1), f"generation {partition.live} is live, not {target}"
        assert (partition.building, partition.retiring) == ("", []), "a generation is not done with"
        assert all(r.number is not None for r in partition.records.values()), "a tombstone is kept for ever"
    _check_items(world, handle, batches)
    world.figures.check(handle)
    world.events["figures"] += len(world.figures.positions)
    assert verify.verify(handle).violations == []


def _check_items(world: World, handle: IndexHandle, batches: list[tuple[str, Batch]]) -> None:
    """The items are those of an orderly replay of what was accepted, without what was buried before it was written."""
    accepted = sum(len(batch) for _, batch in batches)
    assert handle.ledger.balance().accepted == accepted, "a batch was accepted twice, or never"
    dead = set()
    for letter in handle.ledger.dead_letters():
        assert len(decode_batch(letter.payload)) == letter.items
        dead.update(range(letter.first, letter.first + letter.items))
    assert handle.ledger.balance().dead == len(dead)
    world.events["dead letters"] += len(dead)
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
